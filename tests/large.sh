#!/usr/bin/env bash
# Memory at sizes that take some minutes: a million requests, and a thousand of a mebibyte each. The peaks are printed.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/install.sh curl gcc libc6-dev rabbitmq-server
exec cargo test --locked --test large -- --test-threads 1 --show-output "$@"
