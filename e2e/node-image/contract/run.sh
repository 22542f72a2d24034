#!/usr/bin/env bash
# Runs the contract of a k3s node image against one image.
#
#   run.sh IMAGE [--runtime NAME] [--group NAME]
#
# IMAGE is an offline node image or a real rancher/k3s:<tag>. The runtime is an
# OCI runtime that Docker knows, for machines where --privileged needs one.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${K3NEST_CACHE:-$HOME/.cache/k3nest}/contract

# The Pods of the contract run our own workload image, imported into the node,
# so that neither image needs a registry for them.
"$HERE/../../tools-image/build.sh" >/dev/null

mkdir -p "$CACHE"
(cd "$HERE" && go build -o "$CACHE/contract" .)
exec "$CACHE/contract" --groups "$HERE/groups" \
  --tools "$("$HERE/../../tools-image/build.sh" --print-image)" "$@"
