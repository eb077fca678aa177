#!/usr/bin/env bash
# Starts a private RabbitMQ node on free ports, in a directory of its own; prints its URLs, and stops it when standard
# input ends (so that it never outlives who started it). Needs the program rabbitmq-server, not a running broker.
#
# Orders, one a line on standard input, each answered by a line `done`:
#   restart   stops it in order and starts it again
#   kill      ends it with SIGKILL and starts it again
#   alarm     raises the memory alarm: publishers are blocked
#   calm      clears it
#   cut       parts it from the other nodes of its cluster, but not from its clients
#   heal      ends that
# NODE_CONSUMER_TIMEOUT_MS=5000 sets its consumer timeout, looked after every second.
# NODE_PROMETHEUS=1 turns its prometheus plugin on, and prints TEST_PROMETHEUS_URL.
# NODE_PLUGINS=rabbitmq_shovel switches on more plugins than the management.
# NODE_JOIN=name makes it join the cluster of the node of that name, where NODE_COOKIE has the same secret for all of them; a
# node that has one prints TEST_NODE_NAME, and pauses while it sees the lesser part of the cluster.
# NODE_TLS_DIR=... with ca.pem, cert.pem and key.pem makes it listen for TLS too, and print TEST_AMQPS_URL.
set -euo pipefail

server=/usr/lib/rabbitmq/bin/rabbitmq-server
[ -x "$server" ] || server=$(command -v rabbitmq-server) || { echo "no rabbitmq-server; apt-get install rabbitmq-server" >&2; exit 1; }

free_port() {
    local port
    for _ in $(seq 200); do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
    done
    exit 1
}

dir=$(mktemp -d "${TMPDIR:-/tmp}/migma-eraser-node.XXXXXX")
amqp=$(free_port); http=$(free_port); dist=$(free_port)
export HOME=$dir ERL_CRASH_DUMP=$dir/crash RABBITMQ_NODENAME="eraser-$$@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$amqp \
    RABBITMQ_DIST_PORT=$dist RABBITMQ_MNESIA_BASE=$dir/data RABBITMQ_LOG_BASE=$dir/log RABBITMQ_PID_FILE=$dir/pid \
    RABBITMQ_CONFIG_FILE=$dir/rabbitmq RABBITMQ_ENABLED_PLUGINS_FILE=$dir/plugins RABBITMQ_CONF_ENV_FILE=/dev/null \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 2:2"
cat > "$dir/rabbitmq.conf" <<CONF
loopback_users.guest = true
management.tcp.ip = 127.0.0.1
management.tcp.port = $http
management.rates_mode = none
log.file.level = warning
disk_free_limit.absolute = 50MB
CONF
if [ -n "${NODE_CONSUMER_TIMEOUT_MS:-}" ]; then
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS+=" -rabbit consumer_timeout $NODE_CONSUMER_TIMEOUT_MS -rabbit channel_tick_interval 1000"
fi
amqps=""
if [ -n "${NODE_TLS_DIR:-}" ]; then
    amqps=$(free_port)
    cat >> "$dir/rabbitmq.conf" <<CONF
listeners.ssl.default = 127.0.0.1:$amqps
ssl_options.cacertfile = $NODE_TLS_DIR/ca.pem
ssl_options.certfile = $NODE_TLS_DIR/cert.pem
ssl_options.keyfile = $NODE_TLS_DIR/key.pem
ssl_options.verify = verify_none
CONF
fi
if [ -n "${NODE_COOKIE:-}" ]; then
    (umask 277 && printf '%s' "$NODE_COOKIE" > "$dir/.erlang.cookie")
    # A node that is lost is missed after some seconds, not after a minute.
    printf 'cluster_partition_handling = pause_minority\nnet_ticktime = 8\n' >> "$dir/rabbitmq.conf"
fi
plugins="rabbitmq_management${NODE_PLUGINS:+,$NODE_PLUGINS}" prometheus=""
if [ -n "${NODE_PROMETHEUS:-}" ]; then
    prometheus=$(free_port)
    plugins+=,rabbitmq_prometheus
    printf 'prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = %s\n' "$prometheus" >> "$dir/rabbitmq.conf"
fi
echo "[$plugins]." > "$dir/plugins"

start() {
    rm -f "$dir/pid"
    "$server" > "$dir/out" 2>&1 < /dev/null &
    node=$!
    for _ in $(seq 600); do
        curl -fsS -u guest:guest "http://127.0.0.1:$http/api/overview" > /dev/null 2>&1 && return
        kill -0 "$node" 2>/dev/null || { cat "$dir/out" >&2; exit 1; }
        sleep 0.2
    done
    cat "$dir/out" >&2
    echo "the node did not start" >&2
    exit 1
}
finish() {
    [ -s "$dir/pid" ] && kill "$1" "$(cat "$dir/pid")" 2>/dev/null || true
    kill "$1" "$node" 2>/dev/null || true
    for _ in $(seq 300); do kill -0 "$node" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$node" 2>/dev/null || true
    wait "$node" 2>/dev/null || true
}
# Debian's wrapper would become another user, who has another cookie.
control=/usr/lib/rabbitmq/bin/rabbitmqctl
[ -x "$control" ] || control=rabbitmqctl
# It must not take the orders that come meanwhile for its own input.
control() { "$control" -q -n "$RABBITMQ_NODENAME" "$@" > /dev/null < /dev/null; }
# Nodes with another secret for each other refuse each other; the one for the rest, and for this script, stays.
others() {
    control eval "[begin erlang:set_cookie(Node, '$1'), erlang:disconnect_node(Node) end || Node <- rabbit_nodes:all(), Node =/= node()]."
}
watermark() { control set_vm_memory_high_watermark "$@"; }
trap 'finish -TERM; rm -rf "$dir"' EXIT
trap 'exit 0' TERM INT

start
if [ -n "${NODE_JOIN:-}" ]; then
    control stop_app && control join_cluster "$NODE_JOIN" && control start_app
fi
echo "TEST_AMQP_URL=amqp://guest:guest@127.0.0.1:$amqp"
echo "TEST_MANAGEMENT_URL=http://127.0.0.1:$http"
[ -z "$prometheus" ] || echo "TEST_PROMETHEUS_URL=http://127.0.0.1:$prometheus"
[ -z "$amqps" ] || echo "TEST_AMQPS_URL=amqps://guest:guest@localhost:$amqps"
[ -z "${NODE_COOKIE:-}" ] || echo "TEST_NODE_NAME=$RABBITMQ_NODENAME"
while read -r order; do
    case "$order" in
        restart) finish -TERM; start ;;
        kill) finish -KILL; start ;;
        alarm) watermark absolute 1MB ;;
        calm) watermark 0.4 ;;
        cut) others parted ;;
        heal) others "$NODE_COOKIE" ;;
        *) echo "what is '$order'?" >&2; exit 2 ;;
    esac
    echo done
done
