#!/usr/bin/env bash
# The chaos suite: worker, broker, network and API in every kind of trouble at once, on real processes.
#
#   tests/chaos.sh [--seed N] [--minutes M]     15 minutes unless told; a random seed unless told
#
# At the end it prints what was done and what was wrong; a failure says how to do the same again.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/install.sh curl gcc libc6-dev rabbitmq-server
exec cargo test --locked --quiet --test chaos -- "$@"
