#!/usr/bin/env bash
# Proves that `k3nest up` brings Docker up from every state it may find.
#
#   K3NEST=bin/k3nest e2e/docker-setup.sh
#
# Everything happens in network, process and mount namespaces of its own, on a
# copy-on-write view of this machine's root file system in memory, so paths are the
# real ones, packages are really installed, and nothing of it stays. The Docker of
# this machine is only asked to save the image. Needs root and a package mirror.
set -euo pipefail

readonly PACKAGES=(docker.io containerd runc iptables)
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# A small image with a shell stands in for both images that `up` looks for.
readonly HERE SMALL=k3nest-offline/tools:1 LOAD_BALANCER=k3nest-offline/nginx:1

die() { echo "docker-setup: $*" >&2; exit 1; }

# --- outside: what needs the network or this machine's Docker -----------------

outside() { # binary $1
  local node
  [ "$(id -u)" = 0 ] || die "needs root, for namespaces and packages"
  [ -x "$1" ] || die "K3NEST=$1 is not a program: make build"
  node=$("$HERE/node-image/build.sh" --print-image)
  "$HERE/tools-image/build.sh"
  work=$(mktemp -d)
  trap 'umount -l "$work" 2>/dev/null; rmdir "$work"' EXIT
  mount -t tmpfs -o mode=755 k3nest-docker-setup "$work"
  mkdir -p "$work/debs"
  cp "$1" "$work/k3nest"
  docker save "$SMALL" >"$work/image.tar" || die "cannot save image $SMALL"
  "$HERE/lib/download-packages" "$work/debs" "${PACKAGES[@]}" ||
    die "cannot download ${PACKAGES[*]}: is this Debian, and is its package mirror reached?"
  unshare --net --mount --pid --fork --propagation private "$0" --inside "$work" "$node"
}

# --- inside: a machine of its own ---------------------------------------------

passed=0
failed=0
begin() { case_name=$1; started=$SECONDS; echo "--- $1"; }

# The case holds if `up` succeeds, its words match $1 and do not match $2, and Docker answers.
up_says() { # pattern $1, forbidden pattern $2, part $3
  local words status=0
  words=$(/k3nest/k3nest up --only "${3:-docker}" 2>&1) || status=$?
  sed 's/^/    /' <<<"$words"
  if [ "$status" = 0 ] && grep -q "$1" <<<"$words" && ! grep -q "$2" <<<"$words" &&
    docker version >/dev/null 2>&1; then
    verdict ok
  else
    tail -n 15 /var/log/k3nest-dockerd.log /var/log/k3nest-install.log 2>/dev/null || true
    verdict "failed (exit $status, wanted: $1, unwanted: $2)"
  fi
}

verdict() {
  echo "$case_name: $1 ($((SECONDS - started)) s)"
  if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

gone() { # name $1; waits for all processes of that name to end
  local i names
  for ((i = 0; i < 100; i++)); do
    # cat fails for those that end meanwhile, which is no answer.
    names=$(cat /proc/[0-9]*/comm 2>/dev/null) || true
    grep -qx "$1" <<<"$names" || return 0
    sleep 0.1
  done
  die "$1 does not end"
}

session() { awk '{ print $6 }' "/proc/$1/stat"; }

inside() { # work directory $1, reference of the node image $2
  source "$HERE/lib/own-root"
  own_root "$1" "$1"
  ln -s "$1" /k3nest
  rm -rf /usr/local/lib/k3nest /var/log/k3nest-*

  begin "not installed"
  local owners
  owners=$(for p in dockerd containerd runc; do dpkg -S "$(command -v $p)"; done 2>/dev/null | cut -d: -f1 | sort -u)
  # shellcheck disable=SC2086  # one word each
  dpkg --purge --force-depends $owners >/k3nest/purge.log 2>&1 || die "$(tail -n 5 /k3nest/purge.log)"
  # There is no network in here: the package lists stay as they are, the packages come from the
  # cache, which container images of Debian are set to empty after each update.
  rm -f /etc/apt/apt.conf.d/docker-clean
  cp /k3nest/debs/*.deb /var/cache/apt/archives/
  up_says "installing Docker" "attempt"
  [ "$failed" = 0 ] || { summary; return 1; }

  begin "running already"
  up_says "" "starting\|installing"

  begin "outlives the terminal"
  if [ "$(session "$(cat /run/docker.pid)")" != "$(session $$)" ]; then verdict ok; else verdict "failed: same session"; fi

  begin "stopped"
  kill "$(cat /run/docker.pid)" && gone dockerd
  up_says "starting" "attempt\|stale\|installing"

  begin "killed, with its pid file left"
  kill -KILL "$(cat /run/docker.pid)" && gone dockerd
  up_says "stale /var/run/docker.pid: process [0-9]* is gone" installing

  begin "pid file of something else"
  kill "$(cat /run/docker.pid)" && gone dockerd
  echo $$ >/run/docker.pid
  up_says "is bash, not dockerd\|is docker-setup.sh, not dockerd" "attempt\|installing"

  begin "able to run privileged containers"
  docker load -q -i /k3nest/image.tar
  docker tag "$SMALL" "$2" && docker tag "$SMALL" "$LOAD_BALANCER"
  up_says "" "pulling\|building" images
  begin "and having them found so"
  local runtime=()
  [ ! -e /usr/local/lib/k3nest/runc ] || runtime=(--runtime k3nest)
  up_says "" "pulling\|building\|installing\|reading" images
  docker run --rm --privileged "${runtime[@]}" --entrypoint /bin/sh "$2" -c true || verdict "failed to run one"

  begin "killed while a container runs"
  docker run -d --name sleeper --restart unless-stopped --entrypoint /bin/sh "$2" -c 'sleep 600'
  kill -KILL "$(cat /run/docker.pid)" && gone dockerd
  up_says "starting" installing

  begin "killed, with a containerd left that hangs"
  docker rm -f sleeper >/dev/null
  kill -KILL "$(cat /run/docker.pid)" && gone dockerd && gone containerd
  rm -f /run/docker/containerd/*.ttrpc
  containerd --config /var/run/docker/containerd/containerd.toml &>/k3nest/containerd.log &
  printf %s $! >/run/docker/containerd/containerd.pid
  local i; for ((i = 0; i < 100; i++)); do [ -S /run/docker/containerd/containerd.sock.ttrpc ] && break; sleep 0.1; done
  kill -STOP $!
  up_says "ending process $!: the containerd" installing

  summary
}

summary() {
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
}

case ${1:-} in
  --inside) inside "$2" "$3" ;;
  '') outside "${K3NEST:-$HERE/../bin/k3nest}" ;;
  *) die "unknown argument $1; the binary comes in K3NEST" ;;
esac
