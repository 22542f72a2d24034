#!/usr/bin/env bash
# Builds k3nest's offline node image from Go modules and Debian packages.
#
#   build.sh                builds what is missing and tags the image
#   build.sh --draft        the same under k3nest-offline/node-draft, to be tried
#                           before it takes the place of the one others start from
#   build.sh --print-image  prints the image's reference and builds nothing
#   build.sh --version V    before any of these: the same sources under another
#                           version, v1.35.4+k3s1, for tests of upgrades
#
# Everything is built in a cache outside the checkout, under a name that holds a
# hash of its inputs; with the image present a run ends at once. A stage works in
# a draft directory and is renamed when it is whole, so an interrupted run leaves
# nothing that a later one would trust.
set -euo pipefail

VERSION=v1.36.1+k3s1
# Another version is the same programs linked with another version string, and
# so these are the only two: what it does is what the first does.
readonly VERSIONS=("$VERSION" v1.35.4+k3s1)
readonly COREDNS=k3nest-offline/coredns:1.14.3
readonly PAUSE=k3nest-offline/pause:1
readonly DEBIAN=bookworm
readonly DEBIAN_PACKAGES=base-files,ca-certificates,runc,iptables,conntrack,containernetworking-plugins,busybox-static,iproute2,mount,util-linux,kmod,ethtool,socat
readonly PROGRAMS=( # besides k3s itself
  ./cmd/coredns ./cmd/pause ./cmd/runc-narrowed
  github.com/containerd/containerd/v2/cmd/containerd
  github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
  github.com/containerd/containerd/v2/cmd/ctr
  sigs.k8s.io/cri-tools/cmd/crictl
)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${K3NEST_CACHE:-$HOME/.cache/k3nest}/node-image

main() {
  if [[ ${1:-} == --version ]]; then
    [[ -n ${2:-} && " ${VERSIONS[*]} " == *" $2 "* ]] || die "--version takes one of: ${VERSIONS[*]}"
    VERSION=$2
    shift 2
  fi
  local image=k3nest-offline/node:${VERSION/+/-}
  case "${1:-}" in
    --print-image) echo "$image"; return ;;
    --draft) image=${image/:/-draft:} ;;
    '') ;;
    *) die "unknown argument $1; usage: build.sh [--version VERSION] [--print-image | --draft]" ;;
  esac
  require docker go
  local inputs; inputs=$(hash_of_inputs)
  if [[ $(docker image inspect --format '{{index .Config.Labels "k3nest.dev/inputs"}}' "$image" 2>/dev/null) == "$inputs" ]]; then
    echo "node image: $image is there"
    return
  fi
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9 # two builds at once would do the same work twice on the same cores
  install_tools
  stage debian "$(hash_text "$DEBIAN $DEBIAN_PACKAGES $(declare -f build_debian)")" build_debian
  stage programs "$(hash_text "$inputs $(declare -f build_programs)")" build_programs
  local version
  for version in "${VERSIONS[@]}"; do # stages of the others are not stale
    kept[k3s-$version]=$cache/k3s-$version-$(hash_text "$inputs $(declare -f build_k3s)")
  done
  stage "k3s-$VERSION" "$(hash_text "$inputs $(declare -f build_k3s)")" build_k3s
  stage images "$(hash_text "$inputs $(declare -f build_images)")" build_images
  timed image import_image "$image" "$inputs"
  remove_stale
}

# --- the stages -----------------------------------------------------------

# The few packages and what they depend on, unpacked and not configured: no
# package manager, no shell but busybox, a quarter of a bootstrapped Debian.
build_debian() {
  local root=$1/root
  mmdebstrap --quiet --variant=extract --include="$DEBIAN_PACKAGES" "$DEBIAN" "$root"
  (
    cd "$root"
    rm -rf usr/share/{doc,man,info,locale,lintian,bash-completion} var/lib/{apt,dpkg} var/cache/* boot home media mnt opt srv
    find usr/lib/cni -type f ! -name ptp ! -name bridge ! -name host-local ! -name loopback ! -name portmap -delete
    # What the packages' scripts would have done.
    local link
    for link in iptables ip6tables iptables-save iptables-restore ip6tables-save ip6tables-restore; do
      ln -sf xtables-nft-multi "usr/sbin/$link"
    done
    find usr/share/ca-certificates -name '*.crt' -exec cat {} + > etc/ssl/certs/ca-certificates.crt
    # Scripts that others inject are written for k3s's shell, which is busybox's.
    local busybox=bin/busybox applet
    mkdir -p bin/aux
    ln -sf busybox bin/sh
    for applet in $("./$busybox" --list); do
      [[ -e bin/$applet || -e sbin/$applet || -e usr/bin/$applet || -e usr/sbin/$applet ]] || ln -s ../busybox "bin/aux/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > etc/passwd
    printf 'root:x:0:\nnogroup:x:65534:\n' > etc/group
    printf 'hosts: files dns\n' > etc/nsswitch.conf
    mkdir -p tmp root run var/run var/log var/lib/{cni,kubelet,rancher/k3s} etc/rancher/{k3s,node}
    chmod 1777 tmp
  )
}

build_programs() {
  go_build -s -w -o "$1/" "${PROGRAMS[@]}"
}

# Another version compiles nothing: it is linked anew.
build_k3s() {
  local component=k8s.io/component-base/version client=k8s.io/client-go/pkg/version flags=() package minor
  minor=${VERSION#v1.} minor=${minor%%.*}
  for package in "$component" "$client"; do
    flags+=(-X "$package.gitVersion=$VERSION" -X "$package.gitMajor=1" -X "$package.gitMinor=$minor" -X "$package.gitTreeState=clean")
  done
  go_build -s -w -X "main.version=$VERSION" "${flags[@]}" -o "$1/" ./cmd/k3s
}

# go_build LINKER-FLAG... -o DIR PACKAGE...
go_build() {
  local flags=()
  while [[ $1 != -o ]]; do flags+=("$1"); shift; done
  cd "$here"
  CGO_ENABLED=0 GOTOOLCHAIN=local nice go build -trimpath -ldflags "${flags[*]}" "$@"
}

# The images that every node brings along, as archives that containerd imports.
build_images() {
  local programs; programs=$(stage_dir programs)
  image_of "$COREDNS" "$programs/coredns" "$1/coredns_${COREDNS#*:}.tar"
  image_of "$PAUSE" "$programs/pause" "$1/pause_${PAUSE#*:}.tar"
}

image_of() {
  local reference=$1 program=$2 archive=$3 name; name=$(basename "$program")
  tar -C "$(dirname "$program")" --owner=0 --group=0 --mtime=@0 -c "$name" |
    docker import --change "ENTRYPOINT [\"/$name\"]" --change 'LABEL k3nest.dev/offline-image=true' - "$reference" >/dev/null
  docker save -o "$archive" "$reference"
  docker rmi "$reference" >/dev/null
}

import_image() {
  local image=$1 inputs=$2 programs draft
  programs=$(stage_dir programs)
  draft=$(mktemp -d "$cache/draft-image-XXXXXX")
  cp -a "$(stage_dir debian)/root/." "$draft/"
  cp "$(stage_dir "k3s-$VERSION")/k3s" "$programs"/{containerd,containerd-shim-runc-v2} "$draft/bin/"
  cp "$programs"/{ctr,crictl} "$draft/bin/aux/"
  install -D "$programs/runc-narrowed" "$draft/usr/libexec/k3nest-node/runc-narrowed"
  install -D -m 644 -t "$draft/usr/share/k3nest-node/images" "$(stage_dir images)"/*.tar
  local link
  for link in kubectl ctr crictl; do ln -sf k3s "$draft/bin/$link"; done
  tar -C "$draft" -c . | docker import \
    --change 'ENTRYPOINT ["/bin/k3s"]' --change 'CMD ["agent"]' \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/bin/aux' \
    --change 'ENV CRI_CONFIG_FILE=/var/lib/rancher/k3s/agent/etc/crictl.yaml' \
    --change 'VOLUME /var/lib/kubelet' --change 'VOLUME /var/lib/rancher/k3s' \
    --change 'VOLUME /var/lib/cni' --change 'VOLUME /var/log' \
    --change 'LABEL k3nest.dev/offline-image=true' --change "LABEL k3nest.dev/inputs=$inputs" \
    --change "LABEL k3nest.dev/node-version=$VERSION" \
    - "$image" >/dev/null
  rm -rf "$draft"
  # The image that had the tag before; one that a container still uses stays.
  docker image prune --force --filter label=k3nest.dev/node-version >/dev/null
}

# --- how stages are kept --------------------------------------------------

# stage NAME KEY FUNCTION: FUNCTION fills a directory, once for each KEY.
stage() {
  local name=$1 key=$2 function=$3
  kept[$name]=$cache/$name-$key
  if [[ -d ${kept[$name]} ]]; then
    echo "node image: $name: kept"
    return
  fi
  timed "$name" fill "${kept[$name]}" "$function"
}
declare -A kept

stage_dir() { echo "${kept[$1]}"; }

fill() {
  local target=$1 function=$2 draft
  draft=$(mktemp -d "$cache/draft-XXXXXX")
  chmod 755 "$draft"
  "$function" "$draft"
  mv -T "$draft" "$target"
}

timed() {
  local name=$1 began=$SECONDS log; shift
  log=$cache/$name.log
  # Not `if ! ...`: bash would ignore `set -e` in everything below it.
  set +e
  (set -e; "$@") >"$log" 2>&1
  local status=$?
  set -e
  if ((status != 0)); then
    tail -n 30 "$log" >&2
    die "$name failed; the whole output is $log"
  fi
  echo "node image: $name: $((SECONDS - began)) s"
}

# remove_stale deletes drafts that were interrupted and stages of other inputs.
remove_stale() {
  local found
  for found in "$cache"/*/; do
    found=${found%/}
    [[ " ${kept[*]} " == *" $found "* ]] || rm -rf "$found"
  done
}

hash_of_inputs() {
  (
    cd "$here"
    go version
    find build.sh go.mod go.sum cmd internal -type f ! -name '*_test.go' -print0 | sort -z | xargs -0 sha256sum
  ) | sha256sum | cut -c1-16
}

hash_text() { sha256sum <<<"$1" | cut -c1-16; }

# --- what the machine must have -------------------------------------------

install_tools() {
  command -v mmdebstrap >/dev/null && return
  command -v apt-get >/dev/null || die "mmdebstrap is needed to unpack Debian packages; install it and run build.sh again"
  timed tools install_mmdebstrap
}

install_mmdebstrap() {
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mmdebstrap
}

require() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || die "$tool is not on the PATH; install it and run build.sh again"
  done
  docker version >/dev/null 2>&1 || die "the Docker daemon does not answer; start it and run build.sh again"
}

die() {
  echo "node image: $*" >&2
  exit 1
}

main "$@"
