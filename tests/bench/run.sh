#!/usr/bin/env bash
# The worker, a bare forwarder, RabbitMQ's shovel and a plain Python worker side by side, and every bar of speed.
# Starts a private broker, or takes one that is named; takes about ten minutes, with --quick two.
#
#   tests/bench/run.sh [--requests 200000] [--rounds 5] [--sizes 10000,100000,1000000]
#       [--only speed,permits,cores,idle,flat,restart] [--quick]
#   TEST_AMQP_URL=amqp://guest:guest@host:5672 TEST_MANAGEMENT_URL=http://host:15672 tests/bench/run.sh
#       with a broker of yours, the shovel plugin switched on (it makes and deletes a vhost)
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d "${TMPDIR:-/tmp}/migma-eraser-bench.XXXXXX")
node=""
cleanup() {
    local code=$?
    trap - EXIT
    if [ -n "$node" ]; then exec 9>&- || true; wait "$node" 2>/dev/null || true; fi
    rm -rf "$work"
    exit $code
}
trap cleanup EXIT
trap 'exit 130' INT TERM

echo "== building"
cargo bench --locked --quiet --bench speed --no-run

python=target/bench-python
if ! cmp -s tests/bench/python/requirements.txt "$python/requirements.txt"; then
    echo "== a Python environment"
    python3 -c 'import ensurepip, venv' 2> /dev/null || tests/install.sh python3 python3-venv
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check -r tests/bench/python/requirements.txt
    cp tests/bench/python/requirements.txt "$python/"
fi
export BENCH_PYTHON=$PWD/$python/bin/python

if [ -z "${TEST_AMQP_URL:-}" ]; then
    tests/install.sh curl rabbitmq-server
    mkfifo "$work/in"
    NODE_PLUGINS=rabbitmq_shovel tests/node.sh < "$work/in" > "$work/out" &
    node=$!
    exec 9> "$work/in"
    for _ in $(seq 900); do
        if grep -q MANAGEMENT "$work/out"; then break; fi
        kill -0 "$node" 2>/dev/null || { echo "the broker did not start" >&2; exit 1; }
        sleep 0.2
    done
    TEST_AMQP_URL=$(sed -n 's/^TEST_AMQP_URL=//p' "$work/out")
    TEST_MANAGEMENT_URL=$(sed -n 's/^TEST_MANAGEMENT_URL=//p' "$work/out")
    export TEST_AMQP_URL TEST_MANAGEMENT_URL
fi

echo "== measuring on $(nproc) cores; load before: $(cut -d' ' -f1-3 /proc/loadavg)"
cargo bench --locked --quiet --bench speed -- "$@"
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
