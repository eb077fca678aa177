#!/usr/bin/env bash
# Counts the instructions of the pure path (tests/bench/pure.rs) for each request, and holds them against the bounds in
# tests/bench/instructions.txt. Callgrind's count does not depend on how busy the machine is.
#
#   tests/bench/count.sh             the counts, and whether they are within their bounds (exit 1 where one is not)
#   tests/bench/count.sh --profile   also where they go
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/install.sh valgrind

work=$(mktemp -d "${TMPDIR:-/tmp}/migma-eraser-count.XXXXXX")
trap 'rm -rf "$work"' EXIT
cargo bench --locked --bench pure --no-run --quiet
program=$(cargo bench --locked --bench pure --no-run --quiet --message-format=json \
    | sed -n 's/.*"name":"pure".*"executable":"\([^"]*\)".*/\1/p')
[ -x "$program" ] || { echo "the bench does not build: cargo bench --bench pure --no-run" >&2; exit 1; }

instructions() { # shape batches
    valgrind --tool=callgrind --callgrind-out-file="$work/$1.$2" "$program" count "$1" "$2" > "$work/said" 2>&1 \
        || { cat "$work/said" >&2; exit 1; }
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$work/said"
}

worst=0
while read -r shape requests bound; do
    case "$shape" in ''|'#'*) continue ;; esac
    # The difference of two runs leaves the start out.
    few=$(instructions "$shape" 2)
    many=$(instructions "$shape" 12)
    count=$(( (many - few) / (10 * requests) ))
    verdict=within
    if [ "$count" -gt "$bound" ]; then verdict="ABOVE"; worst=1; fi
    echo "$shape: $count instructions a request, $verdict the bound of $bound"
    if [ "${1:-}" = --profile ]; then callgrind_annotate --threshold=90 "$work/$shape.12" | head -60; fi
done < tests/bench/instructions.txt
exit $worst
