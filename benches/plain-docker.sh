#!/bin/sh
# The containers of one cluster by plain `docker run`, as somebody would who knows everything
# beforehand: every address, port, token and file. What k3nest is measured against.
#
#   plain-docker.sh FOLDER
#
# FOLDER is written by benches/plain.rs from a cluster that k3nest made before:
#   cluster.env           NETWORK SUBNET GATEWAY IP_RANGE RUNTIME NODE_IMAGE, BALANCER_IMAGE and API, as
#                         assignments; NODES, the names of the nodes' folders; what each container
#                         needs is in such a folder (`balancer` for the load balancer):
#   NODE/container.env    NAME HOST ADDRESS ROLE
#   NODE/labels           a line each
#   NODE/mounts           arguments of --mount, a line each: volumes (Docker makes them) and files
#
# Once there is a network, everything starts at once, and ends when all of it runs. Joining nodes wait for
# their server with the same entrypoint as k3nest's do.
set -eu
cd "$1"
. ./cluster.env

docker network create --driver bridge \
  --subnet "$SUBNET" --gateway "$GATEWAY" --ip-range "$IP_RANGE" "$NETWORK" >/dev/null

# What a node and a load balancer have in common; the folder is $1.
run() {
  folder=$1
  shift
  while read -r mount; do set -- --mount "$mount" "$@"; done <"$folder/mounts"
  docker run --detach --name "$NAME" --hostname "$HOST" --label-file "$folder/labels" \
    --network "$NETWORK" --ip "$ADDRESS" \
    --restart unless-stopped --stop-signal SIGTERM --stop-timeout 30 \
    --log-driver json-file --log-opt max-size=10m --log-opt max-file=3 "$@" >/dev/null
}

running=
for node in $NODES; do
  . "./$node/container.env"
  run "$node" --privileged --userns host ${RUNTIME:+--runtime "$RUNTIME"} --tmpfs /run --tmpfs /var/run \
    --entrypoint /bin/sh "$NODE_IMAGE" /etc/k3nest/entrypoint.sh "$ROLE" &
  running="$running $!"
done
. ./balancer/container.env
run balancer --publish "$API:6443" \
  --entrypoint nginx "$BALANCER_IMAGE" -c /etc/nginx/k3nest.conf -g 'daemon off;' &
running="$running $!"

for one in $running; do wait "$one"; done
