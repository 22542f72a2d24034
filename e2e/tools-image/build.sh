#!/usr/bin/env bash
# Builds the workload image of the end-to-end tests.
#
#   build.sh                 build it unless it is there already
#   build.sh --force         build it even so
#   build.sh --print-image   print the reference and do nothing else
set -euo pipefail

IMAGE=k3nest-offline/tools:1
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${K3NEST_CACHE:-$HOME/.cache/k3nest}/tools-image

die() { echo "tools-image: $*" >&2; exit 1; }

# Everything that decides what the image holds, so that an unchanged checkout
# is recognised by one look at a label, without the Go tool and without apt.
inputs_digest() {
  (cd "$HERE" && sha256sum build.sh Dockerfile go.mod *.go | sha256sum | cut -c1-16)
}

image_label() {
  docker image inspect --format "{{index .Config.Labels \"$1\"}}" "$IMAGE" 2>/dev/null || true
}

make_rootfs() { # work directory $1
  local applet root=$1/image/rootfs
  mkdir -p "$1/debs" "$1/unpacked" "$root"/{bin,etc,tmp}
  (cd "$HERE" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$root/bin/tools" .)
  "$HERE/../lib/download-packages" "$1/debs" busybox-static ||
    die "cannot download busybox-static: is this Debian, and is its package mirror reached?"
  dpkg-deb -x "$1"/debs/busybox-static_*.deb "$1/unpacked"
  cp "$1/unpacked/bin/busybox" "$root/bin/busybox"
  for applet in $("$root/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
  done
  echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
  echo 'root:x:0:' >"$root/etc/group"
  chmod 1777 "$root/tmp"
}

force=
case ${1:-} in
  --print-image) echo "$IMAGE"; exit 0 ;;
  --force) force=yes ;;
  '') ;;
  *) die "unknown argument $1; there are --print-image and --force" ;;
esac

digest=$(inputs_digest)
if [ -z "$force" ] && [ "$(image_label k3nest.dev/inputs)" = "$digest" ]; then
  echo "$IMAGE is up to date"
  exit 0
fi

mkdir -p "$CACHE"
work=$(mktemp -d "$CACHE/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
make_rootfs "$work"
# The classic builder, because buildx is a plugin that may not be there.
DOCKER_BUILDKIT=0 docker build --quiet --tag "$IMAGE" --file "$HERE/Dockerfile" \
  --build-arg "INPUTS=$digest" "$work/image" >/dev/null
echo "$IMAGE built"
