#!/usr/bin/env bash
# `k3nest up` from Docker and images to the sample, again without a change, and `k3nest down` back to
# what was there before. With a host cluster of a name of its own, so that one that is in use stays
# out of it. Prints `N passed, M failed` last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
k3nest=${K3NEST:-$PWD/bin/k3nest}
name=up-$(tr -dc a-z0-9 </dev/urandom | head -c 6 || true)
work=$(mktemp -d)
host=$work/host.yaml
passed=0
failed=0

cat >"$host" <<YAML
apiVersion: k3nest.dev/v1alpha1
kind: K3sCluster
metadata:
  name: $name
spec:
  version: v1.36.1+k3s1
  servers:
    volumes:
      - {target: /var/run/docker.sock, hostPath: /var/run/docker.sock}
  k3s:
    disable: [traefik, servicelb, local-storage, metrics-server]
YAML

finish() {
  "$k3nest" down --yes --host-file "$host" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

# Says whether a check held, and with what it did not.
check() { # name $1, status $2, evidence $3
  if [ "$2" = 0 ]; then
    passed=$((passed + 1))
    echo "ok   $1"
  else
    failed=$((failed + 1))
    echo "FAIL $1"
    sed 's/^/     /' "$3"
  fi
}

# Everything of k3nest in Docker, by identity, but for what other runs make at the same time.
objects() {
  {
    docker ps -aq --no-trunc --filter label=k3nest.dev/name="$name"
    docker volume ls -q --filter label=k3nest.dev/name="$name"
    docker network ls -q --no-trunc --filter label=k3nest.dev/name="$name"
    docker ps -aq --no-trunc --filter label=k3nest.dev/name=sample
    docker volume ls -q --filter label=k3nest.dev/name=sample
    docker network ls -q --no-trunc --filter label=k3nest.dev/name=sample
  } | sort
}

objects >"$work/before"

status=0
"$k3nest" up --host-file "$host" >"$work/first" 2>&1 || status=$?
cat "$work/first"
check "up ends well" "$status" "$work/first"
status=0
grep -q '^  sample-server-0   Ready   v1.36.1+k3s1$' "$work/first" || status=1
check "the sample's node is Ready, by the kubeconfig of its Secret" "$status" "$work/first"

objects >"$work/running"
status=0
"$k3nest" up --host-file "$host" >"$work/second" 2>&1 || status=$?
cat "$work/second"
check "up again ends well" "$status" "$work/second"
status=0
[ "$(grep -c unchanged "$work/second")" = 3 ] || status=1
check "up again finds host cluster, operator and sample unchanged" "$status" "$work/second"
objects >"$work/still"
status=0
diff "$work/running" "$work/still" >"$work/difference" || status=1
check "up again leaves every object as it was" "$status" "$work/difference"

status=0
"$k3nest" down --host-file "$host" >"$work/down" 2>&1 </dev/null || status=$?
cat "$work/down"
check "down ends well" "$status" "$work/down"
objects >"$work/after"
status=0
diff "$work/before" "$work/after" >"$work/difference" || status=1
check "down leaves containers, volumes and networks as before" "$status" "$work/difference"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
