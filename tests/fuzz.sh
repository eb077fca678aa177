#!/usr/bin/env bash
# Feeds what comes from outside with whatever makes a difference to it, and holds what comes of it to its promises.
#
#   tests/fuzz.sh                     every target for 10 seconds, after all of its corpus
#   tests/fuzz.sh --seconds 120       for longer
#   tests/fuzz.sh --target config     one of them: message, cloudevents, headers, api_answer, config, unreadable
#   tests/fuzz.sh --minimize          and takes what was found into tests/fuzz/corpus, as little of it as tells all
#   tests/fuzz.sh --replay FILE --target config    one input again
#
# It needs no nightly Rust: the instrumentation is LLVM's own, and libFuzzer comes with libfuzzer-sys.
set -euo pipefail
cd "$(dirname "$0")/.."
usage() {
    echo "usage: tests/fuzz.sh [--seconds N] [--target NAME] [--minimize] [--replay FILE]" >&2
    exit 2
}
seconds=10
targets=(message cloudevents headers api_answer config unreadable)
minimize=0
replay=""
while [ $# -gt 0 ]; do
    case "$1" in
        --seconds) [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || usage; seconds=$2; shift 2 ;;
        --target) [[ " ${targets[*]} " = *" ${2:-} "* ]] || usage; targets=("$2"); shift 2 ;;
        --minimize) minimize=1; shift ;;
        --replay) [ -f "${2:-}" ] || usage; replay=$(realpath "$2"); shift 2 ;;
        *) usage ;;
    esac
done
[ -z "$replay" ] || [ ${#targets[@]} = 1 ] || usage

tests/install.sh gcc g++ libc6-dev
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR="$PWD/target/fuzz"
# With --target given, build scripts and procedural macros are spared the instrumentation.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1 \
-Cdebug-assertions -Coverflow-checks"
echo "== building the fuzz targets"
cargo build --locked --quiet --manifest-path tests/fuzz/Cargo.toml --target "$host" "${targets[@]/#/--bin=}"
programs="$CARGO_TARGET_DIR/$host/debug"

if [ -n "$replay" ]; then
    exec "$programs/${targets[0]}" "$replay"
fi
# Kept between runs, and not in the repository.
crashes="$CARGO_TARGET_DIR/crashes"
mkdir -p "$crashes"
work=$(mktemp -d "${TMPDIR:-/tmp}/migma-eraser-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT
failed=()
for target in "${targets[@]}"; do
    corpus="tests/fuzz/corpus/$target"
    found="$work/$target"
    log="$work/$target.log"
    mkdir -p "$found" "$corpus"
    echo "== fuzzing $target: ${seconds} s, from $(find "$corpus" -type f | wc -l) inputs"
    # New finds go to the first folder; the kept ones are read and stay as they are.
    if ! "$programs/$target" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -verbosity=1 \
        -artifact_prefix="$crashes/$target-" "$found" "$corpus" > "$log" 2>&1; then
        failed+=("$target")
        sed -n '/panicked at/,/^stack backtrace/p' "$log" | head -20
        grep -E 'SUMMARY' "$log" || tail -5 "$log"
        input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
        if [ -n "$input" ]; then
            echo "the input: $input"
            echo "again:     tests/fuzz.sh --target $target --replay $input"
        fi
        continue
    fi
    grep -E '^#[0-9]+\s+DONE' "$log"
    if [ "$minimize" = 1 ]; then
        mkdir "$work/$target.less"
        # By what is reached, not by how often: a tenth of the inputs. Cut short, for they are in the repository.
        "$programs/$target" -set_cover_merge=1 -use_counters=0 -max_len=1024 \
            "$work/$target.less" "$corpus" "$found" > "$log" 2>&1
        rm -rf "$corpus"
        mv "$work/$target.less" "$corpus"
        echo "kept: $(find "$corpus" -type f | wc -l) inputs, $(cat "$corpus"/* | wc -c) bytes"
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
