# Sourced: start_node FOLDER starts a private broker (tests/node.sh) and exports TEST_AMQP_URL and TEST_MANAGEMENT_URL;
# stop_node ends it. Descriptor 9 is its standard input, with which it ends at the latest.
node_pid=""
start_node() {
    mkfifo "$1/node.in"
    tests/node.sh < "$1/node.in" > "$1/node.out" &
    node_pid=$!
    exec 9> "$1/node.in"
    for _ in $(seq 900); do
        if grep -q MANAGEMENT "$1/node.out"; then
            TEST_AMQP_URL=$(sed -n 's/^TEST_AMQP_URL=//p' "$1/node.out")
            TEST_MANAGEMENT_URL=$(sed -n 's/^TEST_MANAGEMENT_URL=//p' "$1/node.out")
            export TEST_AMQP_URL TEST_MANAGEMENT_URL
            return
        fi
        kill -0 "$node_pid" 2>/dev/null || break
        sleep 0.2
    done
    echo "the broker did not start" >&2
    exit 1
}
stop_node() {
    if [ -n "$node_pid" ]; then
        exec 9>&- || true
        wait "$node_pid" 2>/dev/null || true
    fi
}
