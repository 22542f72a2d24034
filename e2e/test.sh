#!/usr/bin/env bash
# Runs every test there is, one stage after the other.
#
#   e2e/test.sh [STAGE...]     all stages, or those named (what they need must be there then)
#
# A stage that fails does not keep the others from running, except those that need what it makes:
# they are failures too, for nothing is skipped in silence. Every script in this directory is a
# stage, so a new one runs from the day it is there; it finds the binary in K3NEST and prints
# `N passed, M failed` as its last line if it counts. Ends with the sum of all, in the same words.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

export K3NEST_CACHE=${K3NEST_CACHE:-$HOME/.cache/k3nest}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$K3NEST_CACHE/target}
export K3NEST=$PWD/bin/k3nest
export K3NEST_BIN=$K3NEST
# No engine of somebody else's: tests create and remove.
unset DOCKER_CONTEXT

readonly LOGS=$K3NEST_CACHE/test
readonly TAIL=60
wanted=" $* "
declare -A result=()
order=()
passed=0
failed=0
began=$SECONDS

# Runs a stage. Bounds are generous: they catch what hangs, not what is slow. Cold caches compile
# Kubernetes in `setup` and Helm in `chart`.
stage() { # name $1, minutes $2, needed stages $3, command...
  local name=$1 minutes=$2 needs=$3 log=$LOGS/$1.log start=$SECONDS status=0 need
  shift 3
  [ "$wanted" = "  " ] || [[ $wanted == *" $name "* ]] || return 0
  order+=("$name")
  for need in $needs; do
    if [ "${result[$need]:-ok}" != ok ]; then
      result[$name]="not run, because $need failed"
      echo "== $name: ${result[$name]}"
      failed=$((failed + 1))
      return
    fi
  done
  echo "== $name: $*"
  timeout --kill-after=30 "${minutes}m" "$@" >"$log" 2>&1 </dev/null || status=$?
  count "$log" "$status"
  result[$name]=ok
  if [ "$status" != 0 ]; then
    result[$name]="failed with exit code $status"
    [ "$status" != 124 ] || result[$name]="not done after $minutes minutes"
    echo "-- the end of $log:"
    tail -n "$TAIL" "$log" | sed 's/^/   /'
  fi
  echo "== $name: ${result[$name]} ($((SECONDS - start)) s)"
}

# Adds up what the stage counted itself, in cargo's words or ours; a stage that counts nothing is
# one test, and so is a failure that nothing counted.
count() { # log $1, exit status $2
  local p f
  read -r p f < <(awk '
    /^test result:/ { gsub(";", ""); p += $4; f += $6 }
    /^[0-9]+ passed, [0-9]+ failed$/ { lp = $1; lf = $3 }
    END { print p + lp, f + lf }' "$1")
  if [ "$p" = 0 ] && [ "$f" = 0 ] && [ "$2" = 0 ]; then p=1; fi
  if [ "$f" = 0 ] && [ "$2" != 0 ]; then f=1; fi
  passed=$((passed + p))
  failed=$((failed + f))
}

# The image and the OCI runtime that `up` decided on.
contract() {
  local image runtime=()
  image=$(e2e/node-image/build.sh --print-image)
  if docker info --format '{{json .Runtimes}}' | grep -q '"k3nest"'; then runtime=(--runtime k3nest); fi
  e2e/node-image/contract/run.sh "$image" "${runtime[@]}"
}

crds() {
  bin/k3nest crds | diff -u crds/k3sclusters.yaml - || { echo "not current: run make generate"; return 1; }
}

fixtures() {
  # The second version is where upgrades come from.
  e2e/node-image/build.sh && e2e/node-image/build.sh --version v1.35.4+k3s1 &&
    e2e/nginx-image/build.sh && e2e/tools-image/build.sh
}
export -f contract crds fixtures

mkdir -p "$LOGS"
stage format 5 "" cargo fmt --check
# The end-to-end targets are not among "all": plain `cargo test` leaves them out.
stage clippy 30 "" cargo clippy --all-targets --test e2e --test e2e_operator --test e2e_faults --locked -- -D warnings
stage build 60 "" make build
stage setup 90 build bin/k3nest up --only docker,images
# What the tests run on: offline images, also where a registry answers and `up` has pulled others.
stage fixtures 90 setup bash -c fixtures
stage generated 5 build bash -c crds
# From here to the end of all stages, what is not k3nest's stays as it is.
stage bystanders 5 fixtures e2e/lib/bystanders make "$LOGS/bystanders"
stage cargo-test 60 fixtures cargo test --locked
# Another seed each time; it is in the log.
stage walks 60 "" make soak N=20000
stage contract 30 fixtures bash -c contract
stage e2e-cli 30 fixtures cargo test --locked --test e2e
stage e2e-operator 30 fixtures cargo test --locked --test e2e_operator
# Two scenarios at once, of up to seven clusters each: bounds are doubled, which a scenario may need
# twice. Times are in the log.
K3NEST_E2E_TIME_FACTOR=2 stage e2e-faults 75 fixtures cargo test --locked --test e2e_faults
for script in e2e/*.sh; do
  name=$(basename "$script" .sh)
  case $name in
    test) ;;
    chart) stage "$name" 30 "" "$script" ;;
    *) stage "$name" 30 fixtures "$script" ;;
  esac
done

stage untouched 5 bystanders e2e/lib/bystanders check "$LOGS/bystanders"

echo
echo "stages ($((SECONDS - began)) s, logs in $LOGS):"
for name in "${order[@]}"; do printf '  %-14s %s\n' "$name" "${result[$name]}"; done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "${#order[@]}" -gt 0 ]
