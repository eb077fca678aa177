//! What every journal must do, in cases that each take a fresh one.
//!
//! One list ([`each_case`]), so that no store can leave a case out. Never here: anything that only one store could know,
//! such as its files.

mod batches;
mod ends;
mod memory;
mod pauses;
mod quota;
mod retention;

use std::sync::Arc;

use async_trait::async_trait;
use migma_eraser::domain::manifest::{Draft, Journaled, KnownRequest, Manifest};
use migma_eraser::ports::Journal;

pub use self::batches::*;
pub use self::ends::*;
pub use self::memory::*;
pub use self::pauses::*;
pub use self::quota::*;
pub use self::retention::*;
use super::sample;

/// Where a journal lives.
#[async_trait]
pub trait Stand: Send {
    /// Opens the journal; one that was opened here before is closed first. The first opening finds it empty.
    async fn open(&mut self) -> Arc<dyn Journal>;
}

/// Hands the names of all cases to a macro: `each_case!(run)` is `run! { case, case, … }`.
macro_rules! each_case {
    ($run:ident) => {
        $run! {
            a_new_journal_is_empty_and_says_so,
            it_was_new_only_where_it_was_empty_when_it_was_opened,
            a_batch_comes_back_byte_for_byte_after_a_restart,
            what_is_recorded_is_told_at_once_as_it_was_recorded,
            open_manifests_come_oldest_first,
            numbers_rise_and_never_repeat,
            a_batch_recorded_again_is_there_once,
            a_request_recorded_again_stays_as_it_was_first_recorded,
            a_batch_that_cannot_be_recorded_leaves_nothing_behind,
            a_large_batch_with_many_requests_and_gaps_comes_back_whole,
            a_restated_fate_outlives_a_restart,
            an_ended_manifest_is_not_restated,
            a_dropped_call_writes_all_or_nothing_and_never_later,
            many_writers_at_once_lose_nothing,
            every_kind_of_end_is_remembered_as_it_was,
            an_ended_manifest_is_open_no_more,
            ending_twice_keeps_the_first_end,
            what_was_never_recorded_cannot_end,
            children_inherit_their_line_and_have_keys_of_their_own,
            grandchildren_keep_the_first_root,
            a_split_is_all_or_nothing,
            splitting_twice_gives_the_same_children,
            what_ended_otherwise_is_not_split,
            lookup_tells_what_is_under_way_and_nothing_of_the_unknown,
            lookup_takes_equal_and_many_ids,
            lookup_tells_parts_oldest_manifest_first_and_parents_that_were_split,
            lookup_sees_whatever_was_written_before,
            echoes_may_be_absent_or_odd,
            a_request_is_forgotten_only_once_its_end_is_old_enough,
            a_request_under_way_is_never_forgotten,
            a_request_with_emails_in_no_manifest_is_never_forgotten,
            the_last_end_of_a_spread_request_counts,
            a_split_is_no_end,
            a_forgotten_request_leaves_its_companions,
            forgetting_goes_in_steps_and_tells_when_it_is_through,
            ends_that_came_in_another_order_than_their_times_are_forgotten_too,
            emails_that_share_a_position_are_each_forgotten,
            a_forgotten_request_is_new_again,
            a_quota_fits_so_many_calls_and_names_the_time_of_the_next,
            a_quota_outlives_a_restart,
            what_is_spent_is_told_until_it_ceases_to_count,
            no_24_hours_ever_see_more_calls_than_the_quota,
            a_clock_that_goes_back_gives_no_calls_for_free,
            a_clock_that_was_far_ahead_does_not_stop_calls_for_ever,
            a_smaller_quota_counts_what_was_spent_under_a_larger_one,
            concurrent_spenders_share_one_quota,
            forgetting_does_not_forget_calls_that_count,
            a_pause_outlives_a_restart_and_so_does_its_end,
            a_pause_ordered_twice_stays_as_it_was_first,
            what_is_resumed_can_be_paused_again_and_ends_no_other,
            a_pause_is_forgotten_only_long_after_its_end,
            tidying_changes_nothing_that_is_remembered,
        }
    };
}
pub(crate) use each_case;

/// All that a manifest is, but for what only the process that called knows.
pub fn facts(manifest: &Manifest) -> impl PartialEq + std::fmt::Debug + use<> {
    let Manifest { id, root, project, body, emails, members, key, fate } = manifest.clone();
    let first_call = fate.first_call.map(|first| (first.at, first.fingerprint));
    (id, root, project, (body, emails), members, key.0, (fate.generation, first_call, fate.lost, fate.troubled_since))
}

/// All that is known of a request.
fn remembered(known: &KnownRequest) -> impl PartialEq + std::fmt::Debug + use<> {
    let part = |part: &migma_eraser::domain::manifest::KnownPart| {
        (part.manifest, part.key.0, part.spans.clone(), part.conclusion.clone())
    };
    (known.record.clone(), known.parts.iter().map(part).collect::<Vec<_>>())
}

async fn record(journal: &Arc<dyn Journal>, draft: &Draft) -> Journaled<Manifest> {
    journal.record(draft, sample::called(1_000), sample::at(1_000)).await.unwrap().manifest().unwrap()
}

async fn known(journal: &Arc<dyn Journal>, name: &str) -> Option<KnownRequest> {
    journal.lookup(&[sample::digest(name)]).await.unwrap().remove(&sample::digest(name))
}

async fn open(journal: &Arc<dyn Journal>) -> Vec<Journaled<Manifest>> {
    journal.open_manifests().await.unwrap()
}

/// Checks now, and again after a restart.
async fn now_and_later(stand: &mut dyn Stand, journal: Arc<dyn Journal>, check: impl AsyncFn(&Arc<dyn Journal>)) {
    check(&journal).await;
    drop(journal);
    check(&stand.open().await).await;
}
