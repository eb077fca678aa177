#!/usr/bin/env bash
# The main job, for real: finds or starts a RabbitMQ, builds the worker, runs the shipped requests through it with a
# SIGKILL in the middle, and ends with a table. Exit 0 only where every outcome agrees with the sandbox's ledger.
#
#   ./deploy/demo.sh           run it and clean up
#   ./deploy/demo.sh --keep    leave broker, sandbox and worker running
#   AMQP_URL=amqp://user:password@host:5672/vhost ./deploy/demo.sh    with a broker of yours
set -euo pipefail
cd "$(dirname "$0")/.."

keep=0
case "${1:-}" in
    "") ;;
    --keep) keep=1 ;;
    *) echo "usage: deploy/demo.sh [--keep]" >&2; exit 2 ;;
esac

command -v curl > /dev/null || tests/install.sh curl
work=$(mktemp -d "${TMPDIR:-/tmp}/migma-eraser-demo.XXXXXX")
id="demo-$$-$RANDOM"
. tests/broker.sh
vhost="" container="" management=""

cleanup() {
    local code=$?
    trap - EXIT
    if [ "$keep" = 1 ] && [ $code -eq 0 ]; then exit 0; fi
    if [ -n "$vhost" ]; then
        if [ -n "$management" ]; then
            curl -fsS -u guest:guest -X DELETE "$management/api/vhosts/$vhost" > /dev/null || true
        else
            rabbitmqctl -q delete_vhost "$vhost" > /dev/null 2>&1 || true
        fi
    fi
    [ -z "$container" ] || docker rm -f "$container" > /dev/null 2>&1 || true
    stop_node
    [ $code -ne 0 ] || rm -rf "$work"
    exit $code
}
trap cleanup EXIT
trap 'exit 130' INT TERM

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

private_node() {
    start_node "$work"
    amqp=$TEST_AMQP_URL management=$TEST_MANAGEMENT_URL
}

# A vhost of our own where we may make one; elsewhere names of our own.
own_vhost() {
    if [ -n "$management" ]; then
        curl -fsS -u guest:guest -X PUT "$management/api/vhosts/$id" > /dev/null
        curl -fsS -u guest:guest -X PUT -H 'content-type: application/json' \
            -d '{"configure":".*","write":".*","read":".*"}' "$management/api/permissions/$id/guest" > /dev/null
    elif command -v rabbitmqctl > /dev/null && rabbitmqctl -q add_vhost "$id" > /dev/null 2>&1; then
        rabbitmqctl -q set_permissions -p "$id" guest '.*' '.*' '.*' > /dev/null
    else
        return 1
    fi
    vhost=$id
}

prefix=$id
if [ -n "${AMQP_URL:-}" ]; then
    echo "• broker: AMQP_URL, under names of the demo's own ($prefix)"
    url=$AMQP_URL
elif listening 5672; then
    if curl -fsS -u guest:guest http://127.0.0.1:15672/api/overview > /dev/null 2>&1; then management=http://127.0.0.1:15672; fi
    amqp=amqp://guest:guest@127.0.0.1:5672
    if own_vhost; then
        echo "• broker: the one on port 5672, in a vhost of the demo's own ($vhost)"
        url="$amqp/$vhost"; prefix=contacts.deletion
    else
        echo "• broker: the one on port 5672, under names of the demo's own ($prefix)"
        url="$amqp/%2f"
    fi
elif docker info > /dev/null 2>&1 && docker image inspect rabbitmq:management > /dev/null 2>&1; then
    echo "• broker: a container of rabbitmq:management"
    container=$id
    docker run -d --name "$container" -p 127.0.0.1::5672 rabbitmq:management > /dev/null
    port=$(docker port "$container" 5672/tcp | sed 's/.*://;q')
    for _ in $(seq 300); do
        docker exec "$container" rabbitmq-diagnostics -q check_running > /dev/null 2>&1 && break
        sleep 0.5
    done
    url="amqp://guest:guest@127.0.0.1:$port/%2f"; prefix=contacts.deletion
else
    if ! command -v rabbitmq-server > /dev/null; then
        echo "• broker: installing rabbitmq-server"
        tests/install.sh rabbitmq-server
    fi
    echo "• broker: a private node, started for the demo"
    private_node
    own_vhost
    url="$amqp/$vhost"; prefix=contacts.deletion
fi

echo "• building (release)"
cargo build --release --locked --quiet --bins
target=${CARGO_TARGET_DIR:-target}
DEMO_BINARY=$(realpath "$target/release/migma-eraser") DEMO_DIR=$work DEMO_AMQP_URL=$url DEMO_PREFIX=$prefix DEMO_KEEP=$keep \
    "$target/release/migma-eraser-demo"
