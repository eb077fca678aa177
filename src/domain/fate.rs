//! What is known of a manifest's calls: whether the API may have done the work without our having its answer.
//!
//! The rule (contract, `uncertain`): a repeat under the same idempotency key, inside the replay window and under the
//! same API key is certain, for the API replays its first answer or does the work for the first time. Where a call of
//! unknown fate is followed by anything else, what is then "not found" may have been found by that call: never guess.

use std::time::Duration;

use super::ids::Fingerprint;
use super::moment::{Moment, Timestamp};

/// How long a key's first answer is surely replayed: the API's 24 h less a margin of 1 h.
pub const REPLAY_WINDOW: Duration = Duration::from_hours(23);

/// How far the wall clock may have gone back since the first call before it is no longer believed.
const CLOCK_SLACK: Duration = Duration::from_mins(30);

/// The first call under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstCall {
    /// When it was journaled, just before it left.
    pub at: Timestamp,
    /// Under which API key.
    pub fingerprint: Fingerprint,
    /// The same on this process's steady clock; `None` where another process made the call.
    pub steady: Option<Duration>,
}

/// The fate of a manifest's calls so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The generation of the idempotency key in use.
    pub generation: u32,
    /// The first call under that key in that window under that API key; `None` before it.
    pub first_call: Option<FirstCall>,
    /// Whether a call under the key in use had no answer that tells what was done.
    pub unknown: bool,
    /// Whether a call of unknown fate lies behind, whose answer can no longer be had.
    pub lost: bool,
    /// Since when it meets trouble of its own or of its project's, not of the API's: `retry.give_up_after` counts from
    /// here.
    pub troubled_since: Option<Timestamp>,
}

/// What must be durable before a call may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum BeforeCall {
    /// The journal says it all.
    AsJournaled,
    /// This must be journaled first.
    Journal(Fate),
}

impl Fate {
    /// Before the first call of a new batch.
    #[must_use]
    pub const fn never_sent() -> Self {
        Self { generation: 0, first_call: None, unknown: false, lost: false, troubled_since: None }
    }

    /// With its first call about to leave now under this API key.
    #[must_use]
    pub const fn first_called(now: Moment, fingerprint: Fingerprint) -> Self {
        let first_call = FirstCall { at: now.wall, fingerprint, steady: Some(now.steady) };
        Self { first_call: Some(first_call), ..Self::never_sent() }
    }

    /// As another process left it in the journal: a call that was journaled may have left.
    #[must_use]
    pub fn recovered(self) -> Self {
        let first_call = self.first_call.map(|first| FirstCall { steady: None, ..first });
        Self { first_call, unknown: first_call.is_some(), ..self }
    }

    /// What the journal must know before a call leaves now under this API key, where it knows `journaled`.
    pub fn before_call(&self, journaled: &Self, now: Moment, fingerprint: Fingerprint) -> BeforeCall {
        let first_call = Some(FirstCall { at: now.wall, fingerprint, steady: Some(now.steady) });
        match self.first_call {
            None => BeforeCall::Journal(Self { first_call, ..*self }),
            Some(first) if first.fingerprint == fingerprint && first.replays_at(now) => {
                if self.troubled_since == journaled.troubled_since {
                    BeforeCall::AsJournaled
                } else {
                    BeforeCall::Journal(*self)
                }
            }
            Some(_) => {
                BeforeCall::Journal(Self { first_call, lost: self.may_have_taken_effect(), unknown: false, ..*self })
            }
        }
    }

    /// A call ended without telling what was done.
    #[must_use]
    pub const fn with_unknown_call(self) -> Self {
        Self { unknown: true, ..self }
    }

    /// It met trouble of its own or of its project's; what counts is when it did so first.
    #[must_use]
    pub fn troubled(self, at: Timestamp) -> Self {
        Self { troubled_since: self.troubled_since.or(Some(at)), ..self }
    }

    /// A later try must not meet this key's cached answer.
    #[must_use]
    pub fn next_key(self) -> Self {
        Self { generation: self.generation.saturating_add(1), ..self.inherited() }
    }

    /// What its parts begin with, when it is split: its doubt and its trouble, under keys of their own.
    #[must_use]
    pub const fn inherited(self) -> Self {
        Self { lost: self.may_have_taken_effect(), troubled_since: self.troubled_since, ..Self::never_sent() }
    }

    /// Whether some call may have done the work without our knowing.
    #[must_use]
    pub const fn may_have_taken_effect(&self) -> bool {
        self.lost || self.unknown
    }
}

impl FirstCall {
    /// Whether a call now surely meets the replay of this one, whatever the wall clock did in between.
    fn replays_at(&self, now: Moment) -> bool {
        let wall = now.wall.millis_since(self.at);
        let steady = self.steady.map_or(Duration::ZERO, |then| now.steady.saturating_sub(then));
        steady <= REPLAY_WINDOW && wall <= millis(REPLAY_WINDOW) && wall >= -millis(CLOCK_SLACK)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(wall_hours: i64, steady_hours: u64) -> Moment {
        Moment { wall: Timestamp::from_millis(wall_hours * HOUR), steady: Duration::from_secs(steady_hours * 3600) }
    }

    fn key(n: u8) -> Fingerprint {
        Fingerprint([n; 16])
    }

    fn called(fate: Fate, now: Moment, fingerprint: Fingerprint) -> Fate {
        match fate.before_call(&fate, now, fingerprint) {
            BeforeCall::Journal(fate) => fate,
            BeforeCall::AsJournaled => fate,
        }
    }

    #[test]
    fn a_repeat_in_the_window_under_the_same_keys_is_certain() {
        let fate = called(Fate::never_sent(), at(100, 0), key(1)).with_unknown_call();
        assert_eq!(fate.before_call(&fate, at(123, 23), key(1)), BeforeCall::AsJournaled);
        assert!(!called(fate, at(123, 23), key(1)).lost);
    }

    #[test]
    fn a_lost_answer_stays_lost_past_the_window_and_under_another_api_key_and_under_the_next_key() {
        let fate = called(Fate::never_sent(), at(100, 0), key(1)).with_unknown_call();
        assert!(called(fate, at(124, 24), key(1)).lost);
        assert!(called(fate, at(101, 1), key(2)).lost);
        assert!(called(fate.next_key(), at(101, 1), key(1)).lost);
        assert!(fate.next_key().next_key().lost);
    }

    #[test]
    fn an_answer_that_says_nothing_was_done_leaves_no_doubt_behind() {
        let fate = called(Fate::never_sent(), at(100, 0), key(1));
        assert!(!called(fate, at(200, 100), key(1)).lost);
        assert!(!called(fate.next_key(), at(101, 1), key(2)).lost);
    }

    #[test]
    fn a_recovered_call_may_have_left() {
        assert!(Fate::first_called(at(100, 0), key(1)).recovered().unknown);
        assert!(!Fate::never_sent().recovered().unknown);
    }

    #[test]
    fn a_clock_that_steps_does_not_stretch_the_window() {
        let fate = called(Fate::never_sent(), at(100, 0), key(1)).with_unknown_call();
        // Back by a day while 24 hours pass; and far back over a restart.
        assert!(called(fate, at(100, 24), key(1)).lost);
        assert!(called(fate.recovered(), at(98, 0), key(1)).lost);
    }

    #[test]
    fn trouble_is_told_to_the_journal_before_the_next_call_and_counts_from_its_first_time() {
        let journaled = Fate::first_called(at(100, 0), key(1));
        let fate = journaled.troubled(at(101, 1).wall).troubled(at(102, 2).wall);
        assert_eq!(fate.before_call(&journaled, at(103, 3), key(1)), BeforeCall::Journal(fate));
        assert_eq!(fate.before_call(&fate, at(103, 3), key(1)), BeforeCall::AsJournaled);
        for later in [fate.next_key(), fate.inherited(), fate.recovered()] {
            assert_eq!(later.troubled_since, Some(at(101, 1).wall));
        }
    }
}
