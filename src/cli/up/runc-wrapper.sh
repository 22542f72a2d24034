#!/bin/sh
# OCI runtime "k3nest": runc, for machines whose kernel capabilities are clipped.
#
# `docker run --privileged` asks for every capability there is. Where the
# machine's bounding set lacks one (a VM or a container that took it away), no
# process can ever have it, and runc fails with "unable to apply caps". This
# takes out of the request exactly what the bounding set lacks and hands over to
# the real runc, so it never gives a container more than it would have had.
#
# Installed by `k3nest up`, only where --privileged fails without it. Edit
# src/cli/up/runc-wrapper.sh of k3nest instead of this copy: `up` writes it anew.
set -u

# In the kernel's order (linux/capability.h): the place is the bit.
CAPABILITIES='CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID
SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK
IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT
SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
CHECKPOINT_RESTORE'

die() { echo "k3nest runtime: $*" >&2; exit 1; }

# The real runc: the first in PATH that is not this file, then where packages put it.
find_runc() {
  old_ifs=$IFS
  IFS=:
  # shellcheck disable=SC2086  # PATH is split on purpose
  set -- ${PATH:-} /usr/sbin /usr/bin /usr/local/sbin /usr/local/bin
  IFS=$old_ifs
  for directory in "$@"; do
    candidate=${directory:-.}/runc
    if [ -f "$candidate" ] && [ -x "$candidate" ] && ! [ "$candidate" -ef "$0" ]; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# Names of the capabilities that the bounding set lacks, each as CAP_….
missing_capabilities() {
  bounding=
  while read -r key value; do
    if [ "$key" = CapBnd: ]; then bounding=$((0x$value)); fi
  done </proc/self/status
  [ -n "$bounding" ] || return 0
  bit=0
  for name in $CAPABILITIES; do
    if [ $((bounding >> bit & 1)) -eq 0 ]; then printf 'CAP_%s ' "$name"; fi
    bit=$((bit + 1))
  done
}

# Takes the capabilities $2 out of every "capabilities" object of the OCI document $1. A raw
# newline is only white space in JSON, hence one line; quotes inside JSON strings are escaped, so
# the pattern cannot match in an argument or a variable. Written in place: owner and mode stay.
without_capabilities() {
  changed=$(tr '\n' ' ' <"$1" | awk -v missing="$2" '
    BEGIN { count = split(missing, names, " ") }
    {
      rest = $0
      done = ""
      while (match(rest, /"capabilities"[ \t\r]*:[ \t\r]*[{][^}]*[}]/)) {
        object = substr(rest, RSTART, RLENGTH)
        for (i = 1; i <= count; i++)
          gsub("\"" names[i] "\"[ \t\r]*,?", "", object)
        gsub(/,[ \t\r]*]/, "]", object)
        done = done substr(rest, 1, RSTART - 1) object
        rest = substr(rest, RSTART + RLENGTH)
      }
      print done rest
    }') || die "cannot read $1"
  [ -n "$changed" ] || die "cannot change $1: awk returned nothing"
  printf '%s\n' "$changed" >"$1" || die "cannot write $1"
}

runc=$(find_runc) || die "there is no runc in PATH ($PATH) nor in /usr/sbin, /usr/bin, /usr/local: install it (apt-get install runc)"

missing=$(missing_capabilities)
if [ -n "$missing" ]; then
  # create, run and restore name a bundle, exec a process file; shims always pass both by flag.
  previous=
  for argument in "$@"; do
    document=
    case $argument in
      --bundle=* | -b=*) document=${argument#*=}/config.json ;;
      --process=* | -p=*) document=${argument#*=} ;;
    esac
    case $previous in
      --bundle | -b) document=$argument/config.json ;;
      --process | -p) document=$argument ;;
    esac
    if [ -n "$document" ] && [ -f "$document" ]; then without_capabilities "$document" "$missing"; fi
    previous=$argument
  done
fi

exec "$runc" "$@"
