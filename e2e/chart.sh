#!/bin/sh
# Compares what the chart renders with config/. Brings Helm, built from source at a pinned version,
# where it is not there yet: a few minutes the first time.
set -eu
cd "$(dirname "$0")/.."

helm_version=v3.18.4
bin="${K3NEST_CACHE:-$HOME/.cache/k3nest}/bin"
if [ ! -x "$bin/helm" ]; then
    command -v go >/dev/null || { echo "chart.sh: needs go to build Helm $helm_version (apt-get install golang-go)" >&2; exit 1; }
    echo "chart.sh: building Helm $helm_version into $bin"
    mkdir -p "$bin"
    GOBIN="$bin" GOFLAGS=-mod=mod go install "helm.sh/helm/v3/cmd/helm@$helm_version"
fi
"$bin/helm" lint --strict charts/k3nest --namespace k3nest-system --kube-version 1.36.1
HELM="$bin/helm" exec cargo test --test chart -- --ignored "$@"
