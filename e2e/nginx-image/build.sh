#!/usr/bin/env bash
# Builds the offline load balancer image from Debian's packages.
#
#   build.sh                 build it unless it is there already
#   build.sh --force         build it even so
#   build.sh --print-image   print the reference and do nothing else
#
# For machines that reach Debian's archive but no image registry. The image
# keeps the habits of the official nginx image that k3nest relies on; README.md
# lists them.
set -euo pipefail

IMAGE=k3nest-offline/nginx:1
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${K3NEST_CACHE:-$HOME/.cache/k3nest}/nginx-image

# The libraries are named and not resolved from the host: what is installed
# here may be another Debian's, and the image must not depend on it.
PACKAGES=(nginx nginx-common libnginx-mod-stream busybox-static
  libc6 libcrypt1 libpcre2-8-0 libssl3 zlib1g)

die() { echo "nginx-image: $*" >&2; exit 1; }

# Everything that decides what the image holds, so that an unchanged checkout
# is recognised by one look at a label and without asking apt.
inputs_digest() {
  (cd "$HERE" && find build.sh Dockerfile rootfs -type f -print0 | LC_ALL=C sort -z |
    xargs -0 sha256sum | sha256sum | cut -c1-16)
}

image_label() {
  docker image inspect --format "{{index .Config.Labels \"$1\"}}" "$IMAGE" 2>/dev/null || true
}

download() { # into $1
  "$HERE/../lib/download-packages" "$1" "${PACKAGES[@]}" ||
    die "cannot download ${PACKAGES[*]}: is this Debian, and is its package mirror reached?"
}

# Keeps the shared objects that the programs load and drops the rest of their
# packages (locales, gconv, documentation).
copy_libraries() { # unpacked packages $1, root file system $2
  local from=$1 to=$2 loader libdirs listed lib
  loader=$(find "$from" -name 'ld-linux*.so.*' | head -n 1)
  [ -n "$loader" ] || die "libc6 holds no dynamic loader"
  libdirs=$(find "$from" -name '*.so.*' -exec dirname {} + | sort -u | paste -sd:)
  listed=$(for object in "$from"/usr/sbin/nginx "$from"/usr/lib/nginx/modules/*.so; do
    "$loader" --library-path "$libdirs" --list "$object"
  done | awk '$2 == "=>" { print $3 }' | sort -u)
  for lib in $listed; do
    case $lib in
      "$from"/*) install -D -m 755 "$lib" "$to/usr/lib/$(basename "$(dirname "$lib")")/$(basename "$lib")" ;;
      *) die "$lib is not in the downloaded packages: add its package to PACKAGES" ;;
    esac
  done
  # The loader's path is compiled into every program, hence the second copy.
  install -D -m 755 "$loader" "$to/$(readelf -l "$from/usr/sbin/nginx" |
    sed -n 's/.*interpreter: \(.*\)]/\1/p')"
}

make_rootfs() { # unpacked packages $1, root file system $2
  local from=$1 to=$2 applet
  mkdir -p "$to"/{bin,usr/sbin,usr/lib/nginx,usr/share/nginx,etc/nginx,run,tmp,dev,proc,sys} \
    "$to"/var/{cache/nginx,lib/nginx,log/nginx,lock}
  ln -s ../run "$to/var/run"
  cp "$from/usr/sbin/nginx" "$to/usr/sbin/nginx"
  cp -R "$from/usr/lib/nginx/modules" "$to/usr/lib/nginx/modules"
  cp -R "$from/usr/share/nginx/html" "$to/usr/share/nginx/html"
  ln -s ../../lib/nginx/modules "$to/usr/share/nginx/modules"
  ln -s /usr/lib/nginx/modules "$to/etc/nginx/modules"
  cp "$from/etc/nginx/mime.types" "$to/etc/nginx/mime.types"
  cp "$from/bin/busybox" "$to/bin/busybox"
  for applet in $("$from/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$to/bin/$applet"
  done
  ln -s /dev/stdout "$to/var/log/nginx/access.log"
  ln -s /dev/stderr "$to/var/log/nginx/error.log"
  copy_libraries "$from" "$to"
  cp -R "$HERE/rootfs/." "$to/"
  chmod 1777 "$to/tmp"
}

# The classic builder, because buildx is a plugin that may not be there.
build_image() { # build context $1, nginx version $2, inputs digest $3
  DOCKER_BUILDKIT=0 docker build --quiet --tag "$IMAGE" --file "$HERE/Dockerfile" \
    --build-arg "NGINX_VERSION=$2" --build-arg "INPUTS=$3" "$1" >/dev/null
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
mkdir -p "$work/debs" "$work/unpacked" "$work/image/rootfs"
download "$work/debs"
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/unpacked"; done
version=$(dpkg-deb -f "$work"/debs/nginx_*.deb Version)

make_rootfs "$work/unpacked" "$work/image/rootfs"
build_image "$work/image" "${version%%-*}" "$digest"
# Debian's versions hold characters that a tag may not.
tag=${IMAGE%:*}:$(tr -c 'A-Za-z0-9_.\n-' - <<<"$version")
docker tag "$IMAGE" "$tag"
docker run --rm --network none "$IMAGE" nginx -t
echo "$IMAGE and $tag: nginx $version from Debian"
