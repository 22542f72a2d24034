#!/bin/sh
# Runs in a node before k3s, by busybox's ash, and becomes k3s: process 1 is k3s then, reaps what is
# left to it and, on cgroup v2, leaves the root cgroup by itself.
#
# Written by k3nest at every start, plain assignments, each of them optional:
#   K3NEST_MEMORY  limit in bytes       K3NEST_CPUS  limit in whole processors
#   K3NEST_PEERS   addresses of the servers of which this one joins any
#   K3NEST_DATA    `kept`: this server never begins without its etcd data
#   K3NEST_EPOCH   a word for the last recovery of the cluster from one server's data. A server that
#                  has not taken part in it does so first, once; its data is then that server's
#   K3NEST_RESET   `1`: this is that server. Its data is kept, and never missing
# Only names that begin so are set outside of subshells: any other may be one of k3s's environment.
set -u
K3NEST_CONF=/etc/k3nest/node.conf
K3NEST_RUN=/run/k3nest
# What k3nest has in the data volume: `token`, and `epoch`, the last that this volume has seen.
K3NEST_OWN=/var/lib/rancher/k3s/k3nest
K3NEST_ETCD=/var/lib/rancher/k3s/server/db/etcd
K3NEST_FLAG=/var/lib/rancher/k3s/server/db/reset-flag
K3NEST_WAIT=300

say() { echo "k3nest: $*" >&2; }
fail() { say "$@"; exit 1; }

# --- resources that Kubernetes is told of --------------------------------------------------------
#
# Docker limits a container without hiding the rest of the machine from it. The kubelet (cadvisor,
# in Kubernetes 1.35 to 1.37) believes:
#   memory      MemTotal and SwapTotal of /proc/meminfo; MemTotal of each .../system/node/node*/meminfo
#   processors  those below .../system/node/node* that .../system/cpu/online has; on kernels without
#               NUMA every .../system/cpu/cpu*[0-9], online or not; cores and sockets in /proc/cpuinfo
#   huge pages  nr_hugepages, which it takes off the allocatable memory
# So these are covered by files of our own. `possible` and `present` stay: who sizes per-cpu BPF maps
# by them needs the kernel's truth. /proc/swaps stays, too: without swap accounting the limit does
# not keep memory from being swapped, and the kubelet guards Secrets by what it says there.

# Kernel list ("0-3,8") to one number a line.
expand_list() {
  awk -F, '{ for (i = 1; i <= NF; i++) { n = split($i, r, "-"); for (id = r[1] + 0; id <= r[n] + 0; id++) print id } }'
}

# A meminfo of $1 kB: no swap, no huge pages, and nothing larger than that. Keeps the columns.
limit_meminfo() {
  awk -v limit="$1" '
    / kB$/ {
      name = $(NF - 2); value = $(NF - 1)
      if (name == "MemTotal:") value = limit
      else if (name ~ /^(Swap(Total|Free|Cached)|Hugetlb):$/) value = 0
      else if (value + 0 > limit + 0) value = limit
      match($0, / *[0-9]+ kB$/)
      printf "%s%" (RLENGTH - 3) "s kB\n", substr($0, 1, RSTART - 1), value
      next
    }
    /HugePages_/ {
      match($0, / *[0-9]+$/)
      printf "%s%" RLENGTH "s\n", substr($0, 1, RSTART - 1), 0
      next
    }
    { print }'
}

# A cpuinfo of the processors $1, a list with spaces. What belongs to no processor stays.
limit_cpuinfo() {
  awk -v keep="$1" '
    BEGIN { n = split(keep, ids, " "); for (i = 1; i <= n; i++) kept[ids[i]] = 1 }
    /^processor[ \t]*:/ { drop = !($NF in kept) }
    !drop { print }
    /^[ \t]*$/ { drop = 0 }'
}

# MemTotal in kB of the meminfo $1.
mem_total() { awk '$(NF - 2) == "MemTotal:" { print $(NF - 1); exit }' "$1"; }

# Makes what covers the memory of the tree $1 with a limit of $2 kB, in the directory $3, and names
# each cover and what it belongs on, a line each.
memory_covers() (
  total=$(mem_total "$1/proc/meminfo") && [ -n "$total" ] || return 1
  [ "$2" -lt "$total" ] || return 0
  mkdir -p "$3" && limit_meminfo "$2" <"$1/proc/meminfo" >"$3/meminfo" && echo 0 >"$3/zero" || return 1
  echo "$3/meminfo $1/proc/meminfo"

  # Shares among NUMA nodes add up to the limit: the first are filled first, as with processors.
  left=$2
  for file in "$1"/sys/devices/system/node/node[0-9]*/meminfo; do
    [ -e "$file" ] || continue
    share=$(mem_total "$file")
    [ "${share:-0}" -lt "$left" ] || share=$left
    left=$((left - share))
    node=${file%/meminfo}
    node=${node##*/}
    limit_meminfo "$share" <"$file" >"$3/$node.meminfo" || return 1
    echo "$3/$node.meminfo $file"
  done

  # Huge pages lie outside the limit, so those of the host would be taken off memory that has none.
  for file in "$1"/sys/kernel/mm/hugepages/hugepages-*/nr_hugepages \
    "$1"/sys/devices/system/node/node[0-9]*/hugepages/hugepages-*/nr_hugepages; do
    [ -e "$file" ] || continue
    read -r pages <"$file" || pages=
    [ "$pages" = 0 ] || echo "$3/zero $file"
  done
)

# The same for processors. /sys/devices/system/cpu is covered by a directory that links to what is
# below it, which its `.host` is for: relative links hold wherever a Pod mounts /sys, too.
cpu_covers() (
  cpu=$1/sys/devices/system/cpu
  ids=$(expand_list <"$cpu/online") && [ -n "$ids" ] || return 1
  # shellcheck disable=SC2086  # one word each
  [ "$2" -lt "$(printf '%s\n' $ids | wc -l)" ] || return 0
  # shellcheck disable=SC2086
  ids=$(printf '%s\n' $ids | head -n "$2" | tr '\n' ' ')
  mkdir -p "$3/cpu/.host" || return 1
  limit_cpuinfo "$ids" <"$1/proc/cpuinfo" >"$3/cpuinfo" || return 1
  echo "${ids% }" | tr ' ' ',' >"$3/cpu/online" || return 1
  echo "$3/cpuinfo $1/proc/cpuinfo"
  echo "$3/cpu $cpu"

  target=$3/cpu
  set --
  for path in "$cpu"/*; do
    name=${path##*/}
    case $name in
      online) continue ;;
      cpu[0-9]*) case " $ids" in *" ${name#cpu} "*) ;; *) continue ;; esac ;;
    esac
    set -- "$@" ".host/$name"
  done
  ln -sfn "$@" "$target/"
)

# Covers what this node is not to count. A subshell: no variable of it gets into k3s's environment.
#
# A node that cannot be covered does not start. With the capacity of the whole machine it would be
# sent Pods that its limits kill later, one by one and far from the cause; a node that is missing is
# noticed at once, with the reason in its log.
show_limits() (
  why="the node would claim more than its limits give it, so it does not start. Is the container privileged, with a tmpfs on /run? Without limits on memory and cpu it starts"
  for limit; do
    case $limit in 0 | *[!0-9]*) fail "$K3NEST_CONF: a limit is a number above 0, not '$limit'" ;; esac
  done
  {
    [ -z "$1" ] || memory_covers "" "$(($1 / 1024))" "$K3NEST_RUN/shown" || fail "cannot tell how much memory there is: $why"
    [ -z "$2" ] || cpu_covers "" "$2" "$K3NEST_RUN/shown" || fail "cannot tell which processors there are: $why"
  } >"$K3NEST_RUN/covers" || return 1
  [ -s "$K3NEST_RUN/covers" ] || return 0

  # The kernel lets a user namespace (a Pod with hostUsers: false) mount /proc and /sys only where
  # an uncovered one can be seen. The links of the processors lead into this one, too: it is nobody's
  # peer, so the cover does not propagate onto what it links to.
  mkdir -p "$K3NEST_RUN/proc" "$K3NEST_RUN/sys"
  mount -t proc proc "$K3NEST_RUN/proc" || fail "cannot mount proc: $why"
  mount -t sysfs sysfs "$K3NEST_RUN/sys" || fail "cannot mount sysfs: $why"
  [ ! -d "$K3NEST_RUN/shown/cpu" ] || mount --bind "$K3NEST_RUN/sys/devices/system/cpu" "$K3NEST_RUN/shown/cpu/.host" ||
    fail "cannot mount the processors: $why"
  while read -r cover target; do
    mount --rbind "$cover" "$target" || fail "cannot cover $target: $why"
  done <"$K3NEST_RUN/covers"
)

# --- the data that k3s begins with ---------------------------------------------------------------
#
# Without data k3s begins anew: an agent as a machine of the same name, which is turned away, and a
# server that has none to join as a cluster of its own, which looks like the one that was lost and is
# empty. So it is not begun where data was taken away. Docker tries again, and k3nest sees it.

# Whether etcd's data is here and a member's. A `tombstone` is left in it by k3s when the member was
# removed; at its next start k3s puts such data away and begins anew (pkg/etcd/etcd.go). The file
# `name` does not tell: it is written before there is data, and again where it is missing.
has_member() {
  [ ! -e "$K3NEST_ETCD/tombstone" ] && [ -s "$K3NEST_ETCD/member/snap/db" ] &&
    find "$K3NEST_ETCD/member/wal" -name '*.wal' 2>/dev/null | grep -q .
}

need_member() {
  has_member && return
  [ ! -e "$K3NEST_ETCD/tombstone" ] ||
    fail "etcd has removed this server from its members ($K3NEST_ETCD/tombstone), and $1: not starting k3s, which would found an empty cluster instead. Recover the cluster from a server that is a member"
  fail "this server has no etcd data in $K3NEST_ETCD, and $1: not starting k3s, which would found an empty cluster instead. Put the volume's content back, or recover the cluster from a server that has its data"
}

# Makes this server etcd's only member, with the data that it has: `k3s server --cluster-reset` with
# the arguments given. k3s leaves the flag before it begins the reset and refuses one while it is
# there, so of a flag that a reset left which did not end well, or was cut off, nothing is known. A
# second reset of the same data changes nothing.
reset_membership() {
  rm -f "$K3NEST_FLAG" || fail "cannot remove $K3NEST_FLAG, which keeps k3s from resetting etcd"
  trap 'kill ${!-} 2>/dev/null; wait ${!-}; exit 143' TERM
  /bin/k3s server --cluster-reset "$@" &
  wait $!
  code=$?
  trap - TERM
  [ "$code" = 0 ] || fail "k3s server --cluster-reset ended with exit code $code; why is said above. It is tried again when Docker starts this container again"
  [ -e "$K3NEST_FLAG" ] || fail "k3s server --cluster-reset ended without $K3NEST_FLAG, so etcd's members were not reset; why is said above. It is tried again when Docker starts this container again"
}

# Puts aside the etcd data of a membership that is lost. Snapshots, in the same directory, stay. Only where
# there is a cluster to join: data that somebody has put back from a copy may be all that is left.
discard_member() {
  # Who is to discard data is started once there is such a cluster.
  # shellcheck disable=SC2086  # one word each
  ! has_member || K3NEST_WAIT=60 find_peer ${K3NEST_PEERS:-} ||
    fail "the etcd data of this server is of before the recovery $K3NEST_EPOCH, in which another server's was kept, and there is no server to join instead: keeping it. If it was put back on purpose, recover the cluster from this server"
  [ -e "$K3NEST_ETCD" ] || return 0
  rm -rf "$K3NEST_ETCD.lost" || fail "cannot remove $K3NEST_ETCD.lost"
  say "the etcd data of this server is of before the recovery $K3NEST_EPOCH, in which another server's was kept; putting it aside as $K3NEST_ETCD.lost, to join as a new member"
  # Whoever can be joined may know less than it seems, so it stays until this server is a member.
  { rm -f "$K3NEST_FLAG" && mv "$K3NEST_ETCD" "$K3NEST_ETCD.lost"; } || fail "cannot put $K3NEST_ETCD aside"
}

# Takes part in the recovery once. The epoch comes last: what a kill interrupts is done again.
take_part() {
  seen=
  [ ! -e "$K3NEST_OWN/epoch" ] || read -r seen <"$K3NEST_OWN/epoch"
  if [ "$seen" = "$K3NEST_EPOCH" ]; then
    ! has_member || rm -rf "$K3NEST_ETCD.lost" || fail "cannot remove $K3NEST_ETCD.lost"
    return 0
  fi
  if [ "${K3NEST_RESET:-}" = 1 ]; then
    say "the recovery $K3NEST_EPOCH: making this server the only member of etcd, with its data"
    reset_membership "$@"
    say "the recovery $K3NEST_EPOCH: this server is the only member of etcd; starting k3s"
  else
    [ "${K3NEST_DATA:-}" != kept ] || fail "$K3NEST_CONF: K3NEST_DATA=kept without K3NEST_RESET=1 and a recovery that this server has not seen (K3NEST_EPOCH): its data can only be kept or discarded. Nothing was changed"
    discard_member
  fi
  # To the disk before it gets its name: a power cut would leave an empty file, and a second reset
  # would cut off the servers that have joined since.
  printf '%s\n' "$K3NEST_EPOCH" | dd of="$K3NEST_OWN/epoch.new" conv=fsync 2>/dev/null ||
    fail "cannot write $K3NEST_OWN/epoch.new"
  mv "$K3NEST_OWN/epoch.new" "$K3NEST_OWN/epoch" || fail "cannot write $K3NEST_OWN/epoch"
}

# Ends with 0 if k3s may be started with the arguments given. Runs in the background, and so in a
# subshell already; with one of its own inside, TERM would end the wrong one.
settle_data() {
  [ -s "$K3NEST_OWN/token" ] ||
    fail "there is no token in $K3NEST_OWN/token, where k3nest puts it before every start of its own: the data volume was emptied, and Docker started this container again. Not starting k3s; k3nest starts the node by itself, as what it then is, once it sees this"
  [ "${1:-}" = server ] || return 0
  shift
  [ "${K3NEST_DATA:-}" != kept ] || need_member "its data must be there (K3NEST_DATA=kept)"
  [ -n "${K3NEST_EPOCH:-}" ] || return 0
  [ "${K3NEST_RESET:-}" != 1 ] || need_member "its data is what the recovery $K3NEST_EPOCH keeps (K3NEST_RESET=1)"
  take_part "$@"
}

# --- the way into a cluster ----------------------------------------------------------------------
#
# k3s ends when the server that it is to join does not answer yet, and each restart by Docker comes
# later than the one before. A server that joins needs the peer's supervisor and its etcd.

# busybox's telnet, of all that connects: it is in every k3s image (nc is not), ends when its input
# does, and its exit code tells (wget's does not, and its -T crashes in Debian's busybox). Nothing
# bounds it but the kernel (3 s for an address that nobody has), so peers are asked side by side.
connects() { telnet "$1" "$2" </dev/null >/dev/null 2>&1 & wait $!; }

# Whether one of the servers at the addresses given can be joined, after a while.
find_peer() (
  [ -n "$*" ] || return 1
  command -v telnet >/dev/null || { say "there is no telnet to wait for a server with"; return 1; }
  rm -f "$K3NEST_RUN/joinable"
  mkfifo "$K3NEST_RUN/joinable" && exec 3<>"$K3NEST_RUN/joinable" || return 1
  found=
  say "waiting until one of $* can be joined (etcd on 2379 and k3s on 6443)"
  began=$(date +%s)
  asking=
  for peer; do
    {
      trap 'kill ${!-} 2>/dev/null; exit' TERM
      until connects "$peer" 2379 && connects "$peer" 6443; do sleep 0.1 & wait $!; done
      echo "$peer" >&3
    } &
    asking="$asking $!"
  done
  # shellcheck disable=SC3045  # busybox has it
  if read -r -t "$K3NEST_WAIT" found <&3; then
    say "$found can be joined after $(($(date +%s) - began)) s"
  else
    say "none of $* could be joined within $K3NEST_WAIT s"
  fi
  # shellcheck disable=SC2086  # one word each
  kill $asking 2>/dev/null
  wait
  [ -n "$found" ]
)

wait_for_peer() {
  [ -n "$*" ] && ! has_member || return 0
  find_peer "$@" || say "starting k3s all the same, which will say why it cannot join"
}

main() {
  # Process 1 is sent no signal that it has no trap for. What it waits for gets TERM in any case: a
  # shell has what is in the background ignore INT.
  trap 'kill ${!-} 2>/dev/null; wait ${!-}; exit 143' TERM
  trap 'kill ${!-} 2>/dev/null; wait ${!-}; exit 130' INT
  # INVOCATION_ID would make k3s take the systemd cgroup driver (k3s issues 5462 and 5851).
  unset INVOCATION_ID K3NEST_MEMORY K3NEST_CPUS K3NEST_PEERS K3NEST_DATA K3NEST_EPOCH K3NEST_RESET
  # shellcheck source=/dev/null
  [ ! -e "$K3NEST_CONF" ] || . "$K3NEST_CONF" || fail "$K3NEST_CONF cannot be read"

  mkdir -p "$K3NEST_RUN" || fail "cannot make $K3NEST_RUN"
  show_limits "${K3NEST_MEMORY:-}" "${K3NEST_CPUS:-}" || exit 1
  # Volumes with mount propagation need a shared root. After the covers, which it must not copy.
  mount --make-rshared / || say "the root mount cannot be shared; volumes with mount propagation will not work"
  # In the background, because a shell takes a signal only after what runs in front of it.
  settle_data "$@" &
  wait $! || exit 1
  # shellcheck disable=SC2086  # one word each
  wait_for_peer ${K3NEST_PEERS:-} &
  wait $!

  unset K3NEST_MEMORY K3NEST_CPUS K3NEST_PEERS K3NEST_DATA K3NEST_EPOCH K3NEST_RESET
  unset K3NEST_CONF K3NEST_RUN K3NEST_OWN K3NEST_ETCD K3NEST_FLAG K3NEST_WAIT
  exec /bin/k3s "$@"
}

main "$@"
