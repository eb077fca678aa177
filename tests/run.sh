#!/usr/bin/env bash
# Runs every test: installs what is missing, starts one private broker for all of them, and stops it again. PostgreSQL is
# started by those tests that need it (tests/postgres.sh).
#
#   tests/run.sh           everything
#   tests/run.sh --fast    without the container path; it says so at the end
#   TEST_AMQP_URL=... TEST_MANAGEMENT_URL=... tests/run.sh    with a broker of yours (it makes and deletes vhosts)
#   TEST_POSTGRES_URL=... tests/run.sh    with a PostgreSQL of yours (it makes and deletes schemas test_*)
set -euo pipefail
cd "$(dirname "$0")/.."
fast=0
case "${1:-}" in
    "") ;;
    --fast) fast=1 ;;
    *) echo "usage: tests/run.sh [--fast]" >&2; exit 2 ;;
esac

tests/install.sh curl gcc libc6-dev
work=$(mktemp -d "${TMPDIR:-/tmp}/migma-eraser-tests.XXXXXX")
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

echo "== building the tests"
cargo test --locked --no-run --quiet --all-targets

if [ -z "${TEST_AMQP_URL:-}" ]; then
    tests/install.sh rabbitmq-server
    start_node "$work"
    echo "== a private broker for the tests"
fi

# Some tests stop and kill a server, which must be their own.
tests/install.sh postgresql

echo "== units and properties"
cargo test --locked --quiet --lib
echo "== the rules of the house"
cargo test --locked --quiet --test tidy
echo "== the simulation"
cargo test --locked --quiet --test simulation -- --nocapture
echo "== on a real broker"
cargo test --locked --test it -- --show-output
echo "== the status page in a browser"
tests/install.sh chromium chromium-driver fonts-dejavu-core
cargo test --locked --quiet --test status_page
echo "== a minute of chaos"
tests/chaos.sh --seed 1 --minutes 1
echo "== what stands under deploy/"
tests/deploy.sh
echo "== the examples in the documentation"
cargo test --locked --quiet --doc

if [ "$fast" = 1 ]; then
    echo "== NOT RUN (--fast): the container path, tests/container.sh"
else
    echo "== through a container"
    tests/container.sh
fi
echo "all tests passed"
