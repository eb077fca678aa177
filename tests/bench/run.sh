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
. tests/broker.sh
cleanup() {
    local code=$?
    trap - EXIT
    stop_node
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
    NODE_PLUGINS=rabbitmq_shovel start_node "$work"
fi

echo "== measuring on $(nproc) cores; load before: $(cut -d' ' -f1-3 /proc/loadavg)"
cargo bench --locked --quiet --bench speed -- "$@"
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
