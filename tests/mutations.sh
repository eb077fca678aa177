#!/usr/bin/env bash
# Breaks the worker on purpose, one promise at a time, in a copy of the tree, and demands that the named test notices.
# A mutation that no longer applies, or that no test notices, fails.
#
#   tests/mutations.sh          all of them
#   tests/mutations.sh NAME     one
set -euo pipefail
cd "$(dirname "$0")/.."
only=${1:-}
export SIM_SEEDS=1000
# What is caught is caught soon; what takes long is building, and without optimisation it takes half as long.
export CARGO_PROFILE_DEV_OPT_LEVEL=0
copy=$(mktemp -d "${TMPDIR:-/tmp}/migma-eraser-mutation.XXXXXX")
trap 'rm -rf "$copy"' EXIT
# What others are made of is built already; what is broken here must not lie where the sound program is looked for.
built=${CARGO_TARGET_DIR:-$PWD/target}/debug
export CARGO_TARGET_DIR=$copy/target
mkdir "$CARGO_TARGET_DIR"
if [ -d "$built" ]; then
    mkdir "$CARGO_TARGET_DIR/debug"
    for part in build deps .fingerprint; do cp -a "$built/$part" "$CARGO_TARGET_DIR/debug/"; done
fi
caught=0 missed=0

# NAME  FILE  SED-EXPRESSION  TEST-BINARY  TEST
mutate() {
    local name=$1 file=$2 expression=$3 target=$4 test=$5 arguments
    if [ -n "$only" ] && [ "$only" != "$name" ]; then return; fi
    rm -rf "${copy:?}/tree"
    mkdir "$copy/tree"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy/tree"
    sed -E -i "$expression" "$copy/tree/$file"
    if cmp -s "$file" "$copy/tree/$file"; then
        echo "FAILED  $name: the mutation no longer applies to $file"
        missed=$((missed + 1))
        return
    fi
    if [ "$target" = lib ]; then arguments=(--lib); else arguments=(--test "$target"); fi
    # What does not compile proves nothing.
    if ! (cd "$copy/tree" && cargo test --quiet --locked "${arguments[@]}" --no-run) > "$copy/build" 2>&1; then
        tail -20 "$copy/build"
        echo "FAILED  $name: the mutated tree does not compile"
        missed=$((missed + 1))
        return
    fi
    if (cd "$copy/tree" && timeout 600 cargo test --quiet --locked "${arguments[@]}" -- --exact "$test") > "$copy/log" 2>&1; then
        echo "MISSED  $name: $test still passes"
        missed=$((missed + 1))
    elif grep -q 'test result: FAILED' "$copy/log"; then
        echo "caught  $name, by $test"
        caught=$((caught + 1))
    else
        tail -20 "$copy/log"
        echo "FAILED  $name: $test did not run to its end"
        missed=$((missed + 1))
    fi
}

simulation=no_request_is_lost_and_every_outcome_is_true_whatever_crashes
two_workers=several::two_workers_lose_nothing_and_tell_the_truth_whatever_befalls_either

mutate journal-write-skipped src/pipeline/dispatch.rs \
    's/manifest = desk\.journaled\(\|\| desk\.ports\.journal\.restate\(&manifest, restated\)\)\.await;/manifest = Journaled::attest(Manifest { fate: restated, ..(*manifest).clone() });/' \
    simulation "$simulation"
mutate ack-before-confirm src/pipeline/settle.rs \
    's/Confirm::Unconfirmed => unconfirmed \+= 1,/Confirm::Unconfirmed => { unconfirmed += 1; if is_outcome { group[at].publish_outcome = false; } else { group[at].forward = false; } }/' \
    simulation "$simulation"
mutate returned-with-another-group-overlooked src/amqp/confirms.rs \
    's/^( *)self\.look\(\);$//' \
    lib amqp::confirms::tests::what_comes_back_with_another_group_s_confirm_is_known_all_the_same
mutate key-from-a-clock src/domain/key.rs \
    's/hasher\.update\(b"migma-eraser\/key\/1"\);/hasher.update(format!("{:?}", std::time::SystemTime::now()).as_bytes());/' \
    lib domain::key::tests::keys_are_equal_for_equal_batches_and_different_otherwise
mutate retry-under-a-new-key src/domain/attempt.rs \
    's/Decision::Again \{ fate, wait: Wait::Alone \{ exponent \} \}$/Decision::Again { fate: fate.next_key(), wait: Wait::Alone { exponent } }/' \
    lib domain::attempt::tests::a_lost_answer_goes_out_again_under_the_same_key_and_its_replay_is_certain
mutate fresh-key-forgets-a-lost-answer src/domain/fate.rs \
    's/Self \{ lost: self\.may_have_taken_effect\(\), /Self { lost: false, /' \
    simulation "$simulation"
mutate fate-not-inherited-by-a-split src/pipeline/dispatch.rs \
    's/journal\.split\(&manifest, &conclusion, inherited, &halves\)/journal.split(\&manifest, \&conclusion, { let _ = inherited; Fate::never_sent() }, \&halves)/' \
    simulation "$simulation"
mutate conflict-split src/domain/attempt.rs \
    's/^( *)let fate = fate\.with_unknown_call\(\);$/\1let fate = fate.with_unknown_call(); if manifest.emails > 1 { return Decision::Split { fate: fate.inherited() }; }/' \
    lib domain::attempt::tests::a_conflict_is_tried_again_under_its_key_and_then_under_the_next_with_doubt
mutate aside-without-a-copy src/pipeline/settle.rs \
    's/How::Aside \{ held \}, false, true\)/How::Aside { held }, false, false)/' \
    simulation "$simulation"
mutate parked-without-its-routing-key src/amqp/topology.rs \
    's/dead_letters\(&self\.request_exchange, "request\.parked", None\)/{ let mut a = dead_letters(\&self.request_exchange, "", None); a.remove(1); a }/' \
    lib amqp::topology::tests::every_queue_that_dead_letters_does_so_at_least_once_under_a_key_of_its_own
mutate returned-answered-with-a-second-meaning src/pipeline/intake.rs \
    's/^( *)Some\(None\) => match desk/\1Some(None) if alone => return Recognised::Refused(request, waiter, Rejection::message_id_reused()),\n&/' \
    simulation "$simulation"
mutate twin-planned-into-a-second-batch src/domain/registry.rs \
    's/self\.entries\.contains_key\(request\)/self.entries.contains_key(request) \&\& false/; s/let Some\(entry\) = self\.entries\.get_mut\(&request\.digest\) else/let Some(entry) = self.entries.get_mut(\&request.digest).filter(|_| false) else/' \
    simulation "$simulation"
mutate outcome-with-another-completed-at src/domain/attribution.rs \
    's/self\.completed_at = self\.completed_at\.max\(Some\(conclusion\.at\)\);/self.completed_at = Some(conclusion.at);/' \
    lib domain::attribution::tests::every_email_ends_in_exactly_one_list_whatever_the_order_of_the_answers
mutate one-outcome-id-for-two-meanings src/domain/ids.rs \
    's/Self::from_hash\(&hash\(&\[b"migma-eraser\/rejected\/1", id, payload\]\)\)/{ let _ = payload; Self::from_hash(\&hash(\&[b"migma-eraser\/outcome\/1", id])) }/' \
    simulation "$simulation"
mutate purge-at-start src/amqp/topology.rs \
    's/^( *)let _ = within\(COMMAND_TIMEOUT, "closing a channel"/\1let _ = channel.queue_purge(short(\&names.request_queue), lapin::options::QueuePurgeOptions::default()).await;\n&/' \
    it promise_4_full_batches::a_backlog_of_2000_requests_takes_the_fewest_calls
mutate postgres-written-by-one-who-was-replaced src/journal/postgres/office.rs \
    's/&& !succession::stays\(&mut transaction, worker\)\.await\?/& \&\& false/' \
    it journal_postgres::who_was_cut_off_and_replaced_writes_no_more
mutate pause-unseen-by-who-has-a-permit src/domain/gates.rs \
    's/^( *)self\.pauses\.stop\(project\)$/\1false/' \
    simulation "$simulation"
mutate pause-not-taken-up-at-the-start src/pipeline/mod.rs \
    's/^( *)pausing::take_up\(&desk\)\.await;/\1let _ = pausing::take_up;/' \
    simulation "$simulation"
mutate name-taken-on-the-word-of-what-waits src/domain/registry.rs \
    's/^( *)if entry\.recorded \{/\1if true {/' \
    simulation "$two_workers"
mutate ended-by-name-alone src/domain/registry.rs \
    's/\.filter\(\|entry\| entry\.recorded\)//' \
    lib domain::registry::elsewhere::tests::what_was_done_for_another_request_of_the_same_name_is_not_told_of_one_that_the_journal_does_not_know
mutate sent-past-the-lease src/pipeline/dispatch.rs \
    's/if !lease::may_send\(/if false \&\& !lease::may_send(/' \
    simulation "$two_workers"

echo "$caught caught, $missed missed"
[ "$missed" -eq 0 ]
