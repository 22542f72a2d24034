#!/usr/bin/env bash
# What a node's entrypoint does before k3s: on trees of other machines, around a stand-in for k3s,
# and in real nodes, where Kubernetes says what it makes of it. Prints `N passed, M failed` last.
#
# Everything it makes in Docker has a random name and a label of this run, and goes at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly SCRIPT=$PWD/src/k3s/entrypoint.sh TOOLS=k3nest-offline/tools:1
readonly GIB=1073741824
run=$(tr -dc a-z0-9 </dev/urandom | head -c 6 || true)
work=$(mktemp -d)
image=$(e2e/node-image/build.sh --print-image)
privileged=(--privileged --userns host)
if docker info --format '{{json .Runtimes}}' | grep -q '"k3nest"'; then privileged+=(--runtime k3nest); fi
passed=0
failed=0

finish() {
  docker ps -aq --filter label=k3nest.dev/entrypoint-test="$run" | xargs -r docker rm -fv >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

# A row: holds if $2 is $3. Otherwise the end of the log of container $4 is shown, if there is one.
is() { # name $1, what is $2, what should be $3, container $4
  if [ "$2" = "$3" ]; then
    passed=$((passed + 1))
    echo "ok   $1"
  else
    failed=$((failed + 1))
    echo "FAIL $1"
    printf 'is:\n%s\nshould be:\n%s\n' "$2" "$3" | sed 's/^/     /'
    [ -z "${4:-}" ] || docker logs --tail 20 "$4" 2>&1 | sed 's/^/     | /'
  fi
}

# A row: holds if $2 has a match of $3.
has() { # name $1, text $2, pattern $3, container $4
  if grep -q -- "$3" <<<"$2"; then is "$1" yes yes; else is "$1" "$2" "(something with) $3" "${4:-}"; fi
}

# Repeats a command until it succeeds.
within() { # seconds $1, command...
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}

# Makes a node that runs the script as k3nest has it run, with the node.conf given.
create() { # name $1, node.conf $2, k3s $3 (a file, or empty for the image's), options of docker... -- arguments of k3s...
  local name=k3nest-entry-$run-$1 conf=$2 k3s=$3 options=()
  shift 3
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  docker create --name "$name" --hostname "$name" --label k3nest.dev/entrypoint-test="$run" \
    --tmpfs /run --tmpfs /var/run "${options[@]}" --entrypoint /bin/sh "$image" /etc/k3nest/entrypoint.sh "$@" >/dev/null
  rm -rf "${work:?}/etc"
  mkdir -p "$work/etc"
  cp "$SCRIPT" "$work/etc/entrypoint.sh"
  [ -z "$conf" ] || printf '%s\n' "$conf" >"$work/etc/node.conf"
  docker cp "$work/etc" "$name:/etc/k3nest" >/dev/null 2>&1
  [ -z "$k3s" ] || docker cp "$k3s" "$name:/bin/k3s" >/dev/null 2>&1
  docker cp "$work/data/." "$name:/var/lib/rancher/k3s" >/dev/null 2>&1
  echo "$name"
}

# What k3nest itself puts into the data volume.
mkdir -p "$work/data/k3nest"
echo "t$run" >"$work/data/k3nest/token"

# Runs shell code in the data volume of a node, whether that runs or not.
in_data() { # container $1, code $2
  docker run --rm --volumes-from "$1" -w /var/lib/rancher/k3s --entrypoint /bin/sh "$image" -c "$2" 2>&1
}

# Etcd data as k3s has it, as far as it is looked at.
readonly MEMBER='mkdir -p server/db/etcd/member/wal server/db/etcd/member/snap server/db/snapshots
echo n-1 >server/db/etcd/name; echo 1 >server/db/etcd/member/snap/db; echo 1 >server/db/etcd/member/wal/0-0.wal
echo 1 >server/db/snapshots/one'

# --- the script itself ---------------------------------------------------------------------------

# shellcheck disable=SC2016  # as it stands there
is "its last line starts it, so that what is above can be tried on its own" "$(tail -n 1 "$SCRIPT")" 'main "$@"'
if command -v shellcheck >/dev/null; then
  is "shellcheck finds nothing" "$(shellcheck -s busybox "$SCRIPT" 2>&1)" ""
else
  is "ash can parse it" "$(docker run --rm -i --entrypoint /bin/sh "$image" -n <"$SCRIPT" 2>&1)" ""
fi

# --- trees of other machines ---------------------------------------------------------------------

# Processors $2... of an x86 machine, in a tree; those that are not online have no block in cpuinfo.
x86_cpus() { # tree $1, present $2, online as a kernel list $3, online one by one $4
  local cpu=$work/trees/$1/sys/devices/system/cpu id
  mkdir -p "$cpu/cpufreq" "$cpu/cpuidle" "$work/trees/$1/proc"
  echo "$3" >"$cpu/online"
  echo "0-$(($2 - 1))" | tee "$cpu/possible" >"$cpu/present"
  for ((id = 0; id < $2; id++)); do mkdir -p "$cpu/cpu$id/topology"; done
  for id in $4; do
    printf 'processor\t: %d\nvendor_id\t: GenuineIntel\nphysical id\t: 0\ncore id\t\t: %d\nflags\t\t: fpu vme\npower management:\n\n' \
      "$id" "$id"
  done >"$work/trees/$1/proc/cpuinfo"
}

meminfo() { # prefix $1, total $2, free $3, swap $4, huge pages $5
  local p=$1
  printf '%sMemTotal:       %8s kB\n%sMemFree:        %8s kB\n' "$p" "$2" "$p" "$3"
  [ -n "$p" ] || printf 'MemAvailable:   %8s kB\nSwapCached:     %8s kB\n' "$3" 12
  printf '%sActive(anon):     524288 kB\n' "$p"
  [ -n "$p" ] || printf 'SwapTotal:      %8s kB\nSwapFree:       %8s kB\nVmallocTotal:   34359738367 kB\n' "$4" "$4"
  printf '%sHugePages_Total: %6s\n' "$p" "$5"
  [ -n "$p" ] || printf 'Hugepagesize:       2048 kB\nHugetlb:        %8s kB\n' $(($5 * 2048))
}

# Two sockets of 16 GiB with processors off in both, swap, and huge pages.
x86_cpus two-nodes 12 0-3,8,10-11 "0 1 2 3 8 10 11"
tree=$work/trees/two-nodes
meminfo '' 33554432 4194304 8388608 512 >"$tree/proc/meminfo"
mkdir -p "$tree"/sys/kernel/mm/hugepages/hugepages-{2048kB,1048576kB}
echo 512 >"$tree/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
echo 0 >"$tree/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"
for node in 0 1; do
  dir=$tree/sys/devices/system/node/node$node
  mkdir -p "$dir/hugepages/hugepages-2048kB"
  meminfo "Node $node " 16777216 2097152 0 256 >"$dir/meminfo"
  echo 256 >"$dir/hugepages/hugepages-2048kB/nr_hugepages"
done
x86_cpus twelve 12 0-11 "0 1 2 3 4 5 6 7 8 9 10 11"
x86_cpus no-threads 16 0,4,8,12 "0 4 8 12"
meminfo '' 4294967296 4294967000 0 0 >"$work/trees/twelve/proc/meminfo"
# A small board: no NUMA, and a cpuinfo that ends in what belongs to no processor.
board=$work/trees/board
mkdir -p "$board/proc" "$board"/sys/devices/system/cpu/cpu{0,1,2,3}/topology
echo 0-3 >"$board/sys/devices/system/cpu/online"
for id in 0 1 2 3; do printf 'processor\t: %d\nBogoMIPS\t: 108.00\nCPU part\t: 0xd08\n\n' $id; done >"$board/proc/cpuinfo"
printf 'Hardware\t: BCM2835\nRevision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n' >>"$board/proc/cpuinfo"
meminfo '' 3884396 3000000 102396 0 >"$board/proc/meminfo"

sed '$d' "$SCRIPT" >"$work/trees/functions"
trees=$(docker create --name "k3nest-entry-$run-trees" --label k3nest.dev/entrypoint-test="$run" \
  --entrypoint /bin/sh "$image" -c 'sleep 600')
docker cp "$work/trees" "$trees:/trees" >/dev/null 2>&1
docker start "$trees" >/dev/null

# Runs shell code after the script's functions, in the directory of the trees, by the image's ash.
on_trees() { docker exec -w /trees "$trees" /bin/sh -c ". ./functions; $1" 2>&1 || echo "exit code $?"; }

is "a kernel list is expanded" "$(on_trees 'echo 0-2,5,8-9 | expand_list | tr "\n" " "')" "0 1 2 5 8 9 "

is "memory: what is covered on a machine with two NUMA nodes" "$(on_trees 'memory_covers two-nodes 20971520 out/a')" \
  "out/a/meminfo two-nodes/proc/meminfo
out/a/node0.meminfo two-nodes/sys/devices/system/node/node0/meminfo
out/a/node1.meminfo two-nodes/sys/devices/system/node/node1/meminfo
out/a/zero two-nodes/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
out/a/zero two-nodes/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages
out/a/zero two-nodes/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"
is "memory: exact total, no swap, no huge pages, nothing above the total, columns kept" "$(on_trees 'cat out/a/meminfo')" \
  "MemTotal:       20971520 kB
MemFree:         4194304 kB
MemAvailable:    4194304 kB
SwapCached:            0 kB
Active(anon):     524288 kB
SwapTotal:             0 kB
SwapFree:              0 kB
VmallocTotal:      20971520 kB
HugePages_Total:      0
Hugepagesize:       2048 kB
Hugetlb:               0 kB"
is "memory: free is never more than there is" \
  "$(on_trees 'memory_covers two-nodes 1048576 out/b >/dev/null; grep -E "Mem(Free|Available)" out/b/meminfo')" \
  "MemFree:         1048576 kB
MemAvailable:    1048576 kB"
is "memory: the shares of NUMA nodes add up to the limit" "$(on_trees 'grep -h MemTotal out/a/node*.meminfo out/b/node*.meminfo')" \
  "Node 0 MemTotal:       16777216 kB
Node 1 MemTotal:        4194304 kB
Node 0 MemTotal:        1048576 kB
Node 1 MemTotal:              0 kB"
is "memory: numbers beyond 32 bits are exact" \
  "$(on_trees 'memory_covers twelve 3221225477 out/c; grep MemTotal out/c/meminfo')" \
  "out/c/meminfo twelve/proc/meminfo
MemTotal:       3221225477 kB"
is "memory: a limit above what the host has covers nothing" "$(on_trees 'memory_covers board 3884396 out/d; ls out/d')" \
  "ls: out/d: No such file or directory
exit code 1"
has "memory: a host that does not say is an error" "$(on_trees 'memory_covers no-threads 1024 out/d')" "exit code 1"

# shellcheck disable=SC2016  # for the shell in there
links='find $1/cpu -type l | sed "s,.*/,," | sort | tr "\n" " "; cat $1/cpu/online; sed -n "s/^processor.*: //p" $1/cpuinfo | tr "\n" " "'
is "processors: the first that are online, with gaps between them" \
  "$(on_trees "cpu_covers two-nodes 5 out/e; set -- out/e; $links")" \
  "out/e/cpuinfo two-nodes/proc/cpuinfo
out/e/cpu two-nodes/sys/devices/system/cpu
cpu0 cpu1 cpu2 cpu3 cpu8 cpufreq cpuidle possible present 0,1,2,3,8
0 1 2 3 8 "
is "processors: cpu1 is not cpu10" "$(on_trees "cpu_covers twelve 2 out/f >/dev/null; set -- out/f; $links")" \
  "cpu0 cpu1 cpufreq cpuidle possible present 0,1
0 1 "
is "processors: eleven of twelve" "$(on_trees "cpu_covers twelve 11 out/g >/dev/null; set -- out/g; $links")" \
  "cpu0 cpu1 cpu10 cpu2 cpu3 cpu4 cpu5 cpu6 cpu7 cpu8 cpu9 cpufreq cpuidle possible present 0,1,2,3,4,5,6,7,8,9,10
0 1 2 3 4 5 6 7 8 9 10 "
is "processors: every fourth, where threads are off" "$(on_trees "cpu_covers no-threads 3 out/h >/dev/null; set -- out/h; $links")" \
  "cpu0 cpu4 cpu8 cpufreq cpuidle possible present 0,4,8
0 4 8 "
is "processors: as many as there are, or more, cover nothing" \
  "$(on_trees 'cpu_covers two-nodes 7 out/i; cpu_covers two-nodes 64 out/i; ls out/i')" \
  "ls: out/i: No such file or directory
exit code 1"
is "processors: blocks stay whole, and so does what follows them" \
  "$(on_trees 'cpu_covers board 1 out/j >/dev/null; cat out/j/cpuinfo')" \
  "$(printf 'processor\t: 0\nBogoMIPS\t: 108.00\nCPU part\t: 0xd08\n\nHardware\t: BCM2835\nRevision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4')"
is "processors: made again over what is there" "$(on_trees 'cpu_covers board 1 out/j && cat out/j/cpu/online')" \
  "out/j/cpuinfo board/proc/cpuinfo
out/j/cpu board/sys/devices/system/cpu
0"
has "processors: a host that does not say is an error" "$(on_trees 'mkdir empty; cpu_covers empty 1 out/k')" "exit code 1"

is "joining: the wait is bounded" "$(on_trees 'mkdir -p /run/k3nest; K3NEST_WAIT=2; wait_for_peer 127.0.0.1')" \
  "k3nest: waiting until one of 127.0.0.1 can be joined (etcd on 2379 and k3s on 6443)
k3nest: none of 127.0.0.1 could be joined within 2 s
k3nest: starting k3s all the same, which will say why it cannot join"

# --- around a stand-in for k3s -------------------------------------------------------------------

# Resets as k3s does: leaves its flag before it begins, and refuses while there is one. `behaviour` in
# the data volume has it do something else.
cat >"$work/stand-in" <<'SH'
#!/bin/sh
flag=/var/lib/rancher/k3s/server/db/reset-flag
behaviour=$(cat /var/lib/rancher/k3s/behaviour 2>/dev/null)
if [ "$2" = --cluster-reset ]; then
  [ ! -e $flag ] || { echo "reset refused: there is a flag"; exit 1; }
  echo "reset runs with: $*"
  [ "$behaviour" = no-flag ] || touch $flag
  [ "$behaviour" != fails ] || exit 7
  if [ "$behaviour" = hangs ]; then
    trap 'echo "reset was sent TERM"; exit 0' TERM
    sleep 600 & wait $!
  fi
  echo "reset is done"
  exit 0
fi
rm -f $flag
echo "k3s runs at $(cut -d' ' -f1 /proc/uptime) as process $$ with: $*"
[ "$behaviour" != dies ] || { until [ -e /run/die ]; do sleep 0.1; done; exit 3; }
exec sleep 600
SH
chmod 755 "$work/stand-in"
logs() { docker logs "$1" 2>&1; }
runs() { logs "$1" | grep -q '^k3s runs'; }
ended() { [ "$(docker inspect -f '{{.State.Running}}' "$1")" = false ]; }
# Seconds after boot at which it ran, times 100.
ran_at() { docker logs "$1" 2>&1 | sed -n 's/^k3s runs at \([0-9]*\)\.\([0-9][0-9]\).*/\1\2/p'; }

node=$(create environment "K3NEST_MEMORY=$GIB
K3NEST_CPUS=1
K3NEST_PEERS=" "$work/stand-in" "${privileged[@]}" -e INVOCATION_ID=1 -e K3NEST_CPUS=7 -e K3NEST_DATA=kept \
  -e K3NEST_EPOCH=e -e K3NEST_RESET=1 -e K3NEST_FLAG=f -e limit=mine -e name=mine -e seen=mine -e peer=mine -e RUN=mine -- server --node-name 'a  b')
docker start "$node" >/dev/null
within 10 runs "$node" || true
has "k3s is process 1 and gets its arguments as they are" "$(docker logs "$node" 2>&1)" 'as process 1 with: server --node-name a  b$' "$node"
is "the environment of k3s has nothing of k3nest and no INVOCATION_ID" \
  "$(docker exec "$node" cat /proc/1/environ | tr '\0' '\n' | grep -E 'K3NEST|INVOCATION_ID|GIB' || true)" "" "$node"
is "the environment of k3s keeps what the script has names for, too" \
  "$(docker exec "$node" cat /proc/1/environ | tr '\0' '\n' | grep '=mine' | sort | tr '\n' ' ')" "RUN=mine limit=mine name=mine peer=mine seen=mine " "$node"
has "the root mount is shared" "$(docker exec "$node" cat /proc/1/mountinfo)" '^[0-9]* [0-9]* [0-9:]* / / .* shared:' "$node"
is "a link of a processor leads to the real one" \
  "$(docker exec "$node" sh -c 'cd /sys/devices/system/cpu && cat cpu0/topology/core_id && cat possible')" \
  "$(docker exec "$node" sh -c 'cd /run/k3nest/sys/devices/system/cpu && cat cpu0/topology/core_id && cat possible')" "$node"
is "a user namespace, as a Pod may have one, can still mount its own /proc" \
  "$(docker exec "$node" unshare -Urmpf --mount-proc true 2>&1 && echo yes)" yes "$node"
is "and its own /sys" "$(docker exec "$node" unshare -Urmn sh -c 'mount -t sysfs sysfs /sys' 2>&1 && echo yes)" yes "$node"
docker restart -t 1 "$node" >/dev/null
runs_again() { [ "$(docker logs "$1" 2>&1 | grep -c '^k3s runs')" = 2 ]; }
within 10 runs_again "$node" || true
has "a restarted container is covered again" "$(docker exec "$node" cat /proc/meminfo)" '^MemTotal: *1048576 kB$' "$node"

node=$(create plain "K3NEST_MEMORY=$GIB" "$work/stand-in" -- server)
docker start "$node" >/dev/null
within 10 ended "$node" || true
is "a node that cannot be covered does not start" "$(docker inspect -f '{{.State.ExitCode}}' "$node")" 1 "$node"
has "and says why, and what to do" "$(docker logs "$node" 2>&1)" 'k3nest: cannot mount proc: .* Is the container privileged' "$node"

node=$(create words 'K3NEST_MEMORY=1g' "$work/stand-in" "${privileged[@]}" -- server)
docker start "$node" >/dev/null
within 10 ended "$node" || true
has "a limit that is no number is refused" "$(docker logs "$node" 2>&1)" "k3nest: /etc/k3nest/node.conf: a limit is a number above 0, not '1g'" "$node"

# --- the way into a cluster ----------------------------------------------------------------------

# A peer that does not answer yet, and an address that nobody has.
peer=k3nest-entry-$run-peer
docker run -d --name "$peer" --label k3nest.dev/entrypoint-test="$run" --entrypoint /bin/sh "$image" -c 'sleep 600' >/dev/null
address=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$peer")
nobody=${address%.*}.253
listen() { # port $1; prints 100ths of seconds after boot
  docker exec "$peer" sh -c "nc -ll -p $1 -e true </dev/null >/dev/null 2>&1 & cut -d' ' -f1 /proc/uptime" | tr -d .
}

node=$(create joins "K3NEST_PEERS=\"$nobody $address\"" "$work/stand-in" "${privileged[@]}" -- server)
docker start "$node" >/dev/null
waits() { docker logs "$1" 2>&1 | grep -q "waiting until one of .* can be joined"; }
within 10 waits "$node" || true
sleep 1
is "a server waits while no peer answers" "$(runs "$node" && echo runs || echo waits)" waits "$node"
listen 2379 >/dev/null
sleep 1
is "a server waits while only etcd answers" "$(runs "$node" && echo runs || echo waits)" waits "$node"
ready=$(listen 6443)
within 10 runs "$node" || true
late=$(($(ran_at "$node") - ready))
echo "     k3s started ${late}0 ms after the peer listened"
is "k3s starts at once when a peer can be joined, whatever the others do" "$([ "$late" -le 50 ] && echo yes || echo "${late}0 ms")" yes "$node"
is "what it waited for, and when it went on, is said once" "$(docker logs "$node" 2>&1 | grep ^k3nest | sed 's/after [0-9]* s/after some time/')" \
  "k3nest: waiting until one of $nobody $address can be joined (etcd on 2379 and k3s on 6443)
k3nest: $address can be joined after some time" "$node"
sleep 0.5
is "nothing of the wait goes on beside k3s" "$(docker exec "$node" ps -o comm,stat | awk '$2 !~ /^Z/ && NR > 1 { print $1 }' | sort -u | tr '\n' ' ')" \
  "ps sleep " "$node"
is "k3s has no descriptor of the wait" "$(docker exec "$node" ls -l /proc/1/fd | grep -c joinable || true)" 0 "$node"

node=$(create member "K3NEST_PEERS=$nobody" "$work/stand-in" "${privileged[@]}" -- server)
in_data "$node" "$MEMBER"
docker start "$node" >/dev/null
within 10 runs "$node" || true
is "a server that is a member already does not wait" "$(docker logs "$node" 2>&1 | grep -c waiting || true) $(runs "$node" && echo runs)" "0 runs" "$node"

node=$(create stopped "K3NEST_PEERS=\"$nobody 127.0.0.1\"" "$work/stand-in" "${privileged[@]}" -- server)
docker start "$node" >/dev/null
within 10 waits "$node" || true
before=$(date +%s%N)
docker stop -t 20 "$node" >/dev/null
took=$((($(date +%s%N) - before) / 1000000))
is "SIGTERM ends the wait at once" "$([ "$took" -lt 3000 ] && echo yes || echo "$took ms") $(docker inspect -f '{{.State.ExitCode}}' "$node")" "yes 143" "$node"

# --- the data that k3s begins with ---------------------------------------------------------------

# Starts a node until it ends or runs k3s, and tells which.
goes() { # container $1
  docker start "$1" >/dev/null
  within 20 settled "$1" || true
  if ended "$1"; then docker inspect -f 'ended with {{.State.ExitCode}}' "$1"; else echo "runs k3s"; fi
}
settled() { ended "$1" || runs "$1"; }
# What the stand-in said, without times and processes.
acts() { logs "$1" | sed -n 's/^\(k3s runs\) .* with/\1 with/p; /^reset/p'; }

for role in server agent; do
  node=$(create "token-$role" "" "$work/stand-in" "${privileged[@]}" -- $role)
  in_data "$node" ': >k3nest/token'
  is "without a token: no k3s in an emptied volume, as $role" "$(goes "$node"), $(acts "$node")" "ended with 1, " "$node"
  has "and that is said, with what happens next" "$(logs "$node")" \
    'k3nest: there is no token in /var/lib/rancher/k3s/k3nest/token.* emptied.* k3nest starts the node by itself' "$node"
done

node=$(create emptied "" "$work/stand-in" "${privileged[@]}" --restart unless-stopped -- server)
in_data "$node" "$MEMBER; echo dies >behaviour"
docker start "$node" >/dev/null
within 20 runs "$node" || true
docker exec "$node" sh -c 'rm -rf /var/lib/rancher/k3s/*; touch /run/die'
refused() { logs "$1" | grep -q 'k3nest: there is no token'; }
within 20 refused "$node" || true
is "a volume that is emptied while k3s runs: Docker's restart begins nothing" \
  "$(acts "$node"), $(refused "$node" && echo refused), $(in_data "$node" 'ls -A')" "k3s runs with: server, refused, " "$node"
docker rm -fv "$node" >/dev/null

node=$(create kept "K3NEST_DATA=kept" "$work/stand-in" "${privileged[@]}" -- server --cluster-init)
is "data that is to be there, and is not: no k3s" "$(goes "$node")" "ended with 1" "$node"
has "and that is said" "$(logs "$node")" 'k3nest: this server has no etcd data in /var/lib/rancher/k3s/server/db/etcd.* empty cluster' "$node"
in_data "$node" 'mkdir -p server/db/etcd/member/wal; echo n-1 >server/db/etcd/name'
is "directories and a name are no data" "$(goes "$node"), $(acts "$node")" "ended with 1, " "$node"
in_data "$node" "$MEMBER; touch server/db/etcd/tombstone"
is "nor is what k3s puts away at its next start, because the member was removed" "$(goes "$node"), $(acts "$node")" "ended with 1, " "$node"
has "and that is another reason" "$(logs "$node")" 'k3nest: etcd has removed this server from its members' "$node"
in_data "$node" 'rm server/db/etcd/tombstone'
is "data that is to be there, and is: k3s runs" "$(goes "$node"), $(acts "$node")" "runs k3s, k3s runs with: server --cluster-init" "$node"

# --- recovery ------------------------------------------------------------------------------------

recovery="K3NEST_DATA=kept
K3NEST_EPOCH=e2
K3NEST_RESET=1"
node=$(create reset "$recovery" "$work/stand-in" "${privileged[@]}" -- server --node-name 'a  b')
is "a recovery never begins without data" "$(goes "$node"), $(acts "$node")" "ended with 1, " "$node"
in_data "$node" "$MEMBER; echo e1 >k3nest/epoch; echo fails >behaviour"
is "a reset that fails is the end" "$(goes "$node"), $(in_data "$node" 'cat k3nest/epoch')" "ended with 1, e1" "$node"
has "and is told with its exit code" "$(logs "$node")" 'k3nest: k3s server --cluster-reset ended with exit code 7' "$node"
in_data "$node" 'echo no-flag >behaviour'
is "a reset that did nothing is the end, too" "$(goes "$node"), $(in_data "$node" 'cat k3nest/epoch')" "ended with 1, e1" "$node"

in_data "$node" 'echo hangs >behaviour'
docker start "$node" >/dev/null
resets() { logs "$1" | tail -n 1 | grep -q '^reset runs'; }
within 20 resets "$node" || true
before=$(date +%s%N)
docker stop -t 20 "$node" >/dev/null
took=$((($(date +%s%N) - before) / 1000000))
is "SIGTERM is passed on to the reset and ends it at once" \
  "$([ "$took" -lt 5000 ] && echo yes || echo "$took ms") $(docker inspect -f '{{.State.ExitCode}}' "$node"), $(logs "$node" | tail -n 1)" \
  "yes 143, reset was sent TERM" "$node"

docker start "$node" >/dev/null
within 20 resets "$node" || true
docker kill "$node" >/dev/null || true
is "a reset that is killed leaves its flag, and an epoch that is not seen" \
  "$(in_data "$node" 'cat k3nest/epoch; ls server/db/reset-flag')" "e1
server/db/reset-flag" "$node"
in_data "$node" 'rm behaviour'
is "it is done again, whatever the flag says, and then k3s runs; both with the node's arguments" "$(goes "$node"), $(acts "$node" | tail -n 3)" \
  "runs k3s, reset runs with: server --cluster-reset --node-name a  b
reset is done
k3s runs with: server --node-name a  b" "$node"
is "the epoch is seen then, and nothing else is left" "$(in_data "$node" 'cat k3nest/epoch; ls k3nest')" "e2
epoch
token" "$node"
docker restart -t 1 "$node" >/dev/null
twice() { [ "$(acts "$1" | grep -c '^k3s runs')" = 2 ]; }
within 20 twice "$node" || true
is "a recovery is taken part in once" "$(acts "$node" | tail -n 2)" "k3s runs with: server --node-name a  b
k3s runs with: server --node-name a  b" "$node"

node=$(create lost "K3NEST_PEERS=$nobody
K3NEST_EPOCH=e2" "$work/stand-in" "${privileged[@]}" -- server)
in_data "$node" "$MEMBER; mkdir -p server/db/etcd.lost/member; touch server/db/reset-flag"
docker start "$node" >/dev/null
within 10 waits "$node" || true
sleep 1
is "the data of a lost membership stays while there is nobody to join" \
  "$(in_data "$node" 'ls k3nest; cat server/db/etcd/name') $(runs "$node" && echo runs || echo waits)" "token
n-1 waits" "$node"
docker kill "$node" >/dev/null || true
rm -rf "${work:?}/etc" && mkdir "$work/etc" && printf 'K3NEST_PEERS=%s\nK3NEST_EPOCH=e2\n' "$address" >"$work/etc/node.conf"
docker cp "$work/etc/node.conf" "$node:/etc/k3nest/node.conf" >/dev/null 2>&1
is "and is put aside, but for snapshots, once there is" "$(goes "$node"), $(in_data "$node" 'cat k3nest/epoch; find server -maxdepth 3 | sort')" "runs k3s, e2
server
server/db
server/db/etcd.lost
server/db/etcd.lost/member
server/db/etcd.lost/name
server/db/snapshots
server/db/snapshots/one" "$node"
docker restart -t 1 "$node" >/dev/null
within 20 twice "$node" || true
is "as long as it has not joined" "$(in_data "$node" 'cat server/db/etcd.lost/name')" "n-1" "$node"
docker kill "$node" >/dev/null || true
in_data "$node" "$MEMBER"
is "what it joins with is its own, and what was lost goes" "$(goes "$node"), $(in_data "$node" 'cat server/db/etcd/name; ls server/db')" "runs k3s, n-1
etcd
snapshots" "$node"

node=$(create restored "K3NEST_EPOCH=e2" "$work/stand-in" "${privileged[@]}" -- server)
in_data "$node" "$MEMBER"
is "where there is nobody to join at all it stays, and nothing is begun with it" \
  "$(goes "$node"), $(in_data "$node" 'ls k3nest; cat server/db/etcd/name')" "ended with 1, token
n-1" "$node"
has "and that is said, with what to do" "$(logs "$node")" 'k3nest: .* is of before the recovery e2,.* keeping it.* recover the cluster from this server' "$node"

node=$(create unclear "K3NEST_DATA=kept
K3NEST_EPOCH=e2" "$work/stand-in" "${privileged[@]}" -- server)
in_data "$node" "$MEMBER"
is "data that is both to be kept and of a lost membership is not touched" \
  "$(goes "$node"), $(in_data "$node" 'cat server/db/etcd/name')" "ended with 1, n-1" "$node"

node=$(create fresh "K3NEST_EPOCH=e2" "$work/stand-in" "${privileged[@]}" -- server)
is "a server of after the recovery has seen it" "$(goes "$node"), $(in_data "$node" 'cat k3nest/epoch')" "runs k3s, e2" "$node"

# --- real nodes ----------------------------------------------------------------------------------

args=(server --cluster-init --token "t$run")
[ "$(docker info --format '{{.CgroupVersion}}')" = 2 ] || args+=(--kubelet-arg=fail-cgroupv1=false)
capacity() {
  local seen
  seen=$(docker exec "$1" kubectl get node "$1" -o jsonpath='{.status.capacity.cpu} {.status.capacity.memory}' 2>/dev/null) && [ -n "$seen" ] && echo "$seen"
}
ready() { docker exec "$1" kubectl wait --for=condition=Ready --timeout=1s "node/$1"; }
host_cpus=$(docker info --format '{{.NCPU}}')
host_memory=$(docker run --rm --entrypoint /bin/sh "$image" -c "sed -n 's/^MemTotal: *\([0-9]*\) kB/\1Ki/p' /proc/meminfo")

limited=$(create limited "K3NEST_MEMORY=$GIB
K3NEST_CPUS=1" "" "${privileged[@]}" --memory 1g --memory-swap 1g --cpus 1 -- "${args[@]}")
docker start "$limited" >/dev/null
within 90 ready "$limited" || true
is "a node of 1 GiB and 1 processor has that capacity" "$(capacity "$limited")" "1 1Gi" "$limited"

docker restart -t 5 "$limited" >/dev/null
fresh() { # the kubelet of this start has spoken
  local started
  started=$(docker inspect -f '{{.State.StartedAt}}' "$limited")
  [[ $(docker exec "$limited" kubectl get node "$limited" -o jsonpath='{.status.conditions[?(@.type=="Ready")].lastHeartbeatTime}') > ${started%%.*} ]] && ready "$limited"
}
within 90 fresh || true
is "and keeps it after a restart" "$(capacity "$limited")" "1 1Gi" "$limited"

docker save "$TOOLS" | docker exec -i "$limited" ctr -n k8s.io image import - >/dev/null
glutton() {
  docker exec "$limited" kubectl run glutton --image="$TOOLS" --image-pull-policy=Never --restart=Never \
    --command -- dd if=/dev/zero of=/dev/null bs=2G count=1
}
within 60 glutton || true
pid=$(docker inspect -f '{{.State.Pid}}' "$limited")
has "its Pods are in cgroups below its limit" \
  "$(docker exec "$limited" sh -c 'ls -d /sys/fs/cgroup/kubepods /sys/fs/cgroup/memory/kubepods 2>/dev/null')" kubepods "$limited"
done_in() { docker exec "$limited" kubectl get pod glutton -o jsonpath='{.status.containerStatuses[0].state.terminated.exitCode}' | grep .; }
within 60 done_in || true
is "a Pod that takes twice what its node has is killed" \
  "$(docker exec "$limited" kubectl get pod glutton -o jsonpath='{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}' 2>&1)" \
  "OOMKilled 137" "$limited"
is "and its node is not" "$(docker inspect -f '{{.State.Pid}} {{.State.Running}}' "$limited") $(ready "$limited" >/dev/null && echo ready)" "$pid true ready" "$limited"
docker rm -fv "$limited" >/dev/null

node=$(create half "K3NEST_CPUS=2" "" "${privileged[@]}" --cpus 1.5 -- "${args[@]}")
docker start "$node" >/dev/null
within 90 ready "$node" || true
is "a node of 1.5 processors has 2, as far as the host has them, and the host's memory" \
  "$(capacity "$node")" "$((host_cpus < 2 ? host_cpus : 2)) $host_memory" "$node"
docker rm -fv "$node" >/dev/null

node=$(create unlimited "" "" "${privileged[@]}" -- "${args[@]}")
docker start "$node" >/dev/null
within 90 ready "$node" || true
is "a node without limits has what the host has" "$(capacity "$node")" "$host_cpus $host_memory" "$node"
is "and nothing is mounted for it" "$(docker exec "$node" grep -c k3nest /proc/1/mountinfo || true)" 0 "$node"
docker rm -fv "$node" >/dev/null

node=$(create recovered "" "" "${privileged[@]}" -- "${args[@]}")
docker start "$node" >/dev/null
within 90 ready "$node" || true
within 30 docker exec "$node" kubectl create configmap before || true
# A forced new cluster drops what etcd's log does not yet say is agreed on; it says so of an entry when
# the next is written (etcd, server/etcdserver/bootstrap.go, CommitedEntries).
within 30 docker exec "$node" kubectl create configmap last || true
docker kill "$node" >/dev/null
rm -rf "${work:?}/etc" && mkdir "$work/etc" && echo "$recovery" >"$work/etc/node.conf"
docker cp "$work/etc/node.conf" "$node:/etc/k3nest/node.conf" >/dev/null 2>&1
docker start "$node" >/dev/null
within 90 docker exec "$node" kubectl get configmap before || true
is "a real server is reset once, and has its data" \
  "$(docker exec "$node" kubectl get configmap before -o name 2>&1), $(in_data "$node" 'cat k3nest/epoch'), $(logs "$node" | grep -c 'restart without --cluster-reset')" \
  "configmap/before, e2, 1" "$node"
docker rm -fv "$node" >/dev/null

# As on a kernel without NUMA, with 1 GiB of huge pages, and with busybox's mount, which is the one
# that rancher/k3s has.
cat >"$work/wrapper" <<'SH'
set -e
rm /bin/mount
busybox ln -s busybox /bin/mount
mount -t tmpfs none /sys/devices/system/node
mount -t tmpfs none /sys/kernel/mm/hugepages
mkdir /sys/kernel/mm/hugepages/hugepages-2048kB
echo 512 >/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
exec /bin/sh /etc/k3nest/script "$@"
SH
node=$(create no-numa "K3NEST_MEMORY=$GIB
K3NEST_CPUS=1" "" "${privileged[@]}" -- "${args[@]}")
docker cp "$SCRIPT" "$node:/etc/k3nest/script" >/dev/null 2>&1
docker cp "$work/wrapper" "$node:/etc/k3nest/entrypoint.sh" >/dev/null 2>&1
docker start "$node" >/dev/null
within 90 ready "$node" || true
is "a node on a kernel without NUMA, with busybox's mount, has its limits" "$(capacity "$node")" "1 1Gi" "$node"
is "huge pages of the host are not taken off its memory" \
  "$(docker exec "$node" kubectl get node "$node" -o jsonpath='{.status.capacity.hugepages-2Mi} {.status.allocatable.memory}' 2>&1)" "0 1Gi" "$node"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
