//! What to do with a manifest once a call for it came back: finish, try again, or split.
//!
//! How the API's trouble is told from a body's own: [`Gates`] counts failures in a row over all calls, and successes.
//! A failure is a body's own only if it comes again and again while other calls are served in between; a refusal (400
//! and its like) is not about the bodies where three unlike batches meet it with no success between. In both other cases
//! everything waits, and nothing is split; new batches try too, for what they meet tells the two apart. `Retry-After`
//! holds everything, whatever else is decided.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::answer::{Refusal, Reply, Verdict, not_found};
use super::fate::Fate;
use super::gates::{Departure, Gates, HoldReason, Scope, Trouble};
use super::manifest::{End, FailCode, Manifest};
use super::moment::{Moment, Timestamp};

/// Equal answers in a row under one key after which it is left behind, where the API may be replaying them.
const REPLAYS: u32 = 3;
/// Conflicts in a row under one key before the next is taken: the first call may still be running.
const CONFLICTS: u32 = 5;
/// Failures of one body, with others served between them, and successes of others, that make a failure the body's own.
const OWN_FAILURES: u32 = 3;

/// What a manifest's calls came to in this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    /// Calls made.
    pub attempts: u32,
    /// Transient failures in a row.
    failures: Streak,
    /// Answers in a row under this key that the API may be replaying.
    replays: u32,
    /// Conflicts in a row.
    conflicts: Streak,
    /// What its time to give up counts for; `None` where that is not known, for another process met it.
    ordeal: Option<Ordeal>,
}

/// What a manifest may be given up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordeal {
    /// A 403.
    Forbidden,
    /// What its body alone meets.
    Own,
}

impl History {
    /// Of a batch whose requests have been through this already, since when its fate knows.
    #[must_use]
    pub fn after(ordeal: Ordeal) -> Self {
        Self { ordeal: Some(ordeal), ..Self::default() }
    }

    /// What the halves of its manifest begin with: calls of their own, in the trouble that they share.
    #[must_use]
    pub fn inherited(&self) -> Self {
        Self { ordeal: self.ordeal, ..Self::default() }
    }

    /// It is in this trouble now; another one than before counts anew.
    fn suffers(&mut self, ordeal: Ordeal, fate: Fate, at: Timestamp) -> Fate {
        let another = self.ordeal.is_some_and(|before| before != ordeal);
        self.ordeal = Some(ordeal);
        if another { Fate { troubled_since: Some(at), ..fate } } else { fate.troubled(at) }
    }
}

/// Failures of one kind in a row, against what others met meanwhile.
#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    /// How many.
    length: u32,
    /// How many of them others' successes set apart from the one before: a whole outage counts once.
    alone: u32,
    /// [`Gates::successes`] at the first of them.
    first: u64,
    /// [`Gates::successes`] at the last of them.
    last: u64,
}

impl Streak {
    /// One more; returns the exponent of the wait that it asks for.
    fn grow(&mut self, successes: u64) -> u32 {
        if self.length == 0 {
            *self = Self { length: 0, alone: 1, first: successes, last: successes };
        } else if successes > self.last {
            self.alone = self.alone.saturating_add(1);
            self.last = successes;
        }
        self.length = self.length.saturating_add(1);
        self.length - 1
    }

    /// Whether this body alone meets it.
    const fn is_own(&self) -> bool {
        self.alone >= OWN_FAILURES && self.last - self.first >= OWN_FAILURES as u64
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It has ended.
    Finish(End),
    /// It goes on in two halves, which inherit whether some call may have taken effect.
    Split {
        /// What they inherit.
        fate: Fate,
    },
    /// The same body again, under this fate, once `wait` allows.
    Again {
        /// The same key, or the next one.
        fate: Fate,
        /// How long.
        wait: Wait,
    },
}

/// How long a manifest waits, and who waits with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// This one alone, at the backoff's `exponent`-th interval.
    Alone {
        /// From 0.
        exponent: u32,
    },
    /// It and all others in scope.
    Hold {
        /// Who.
        scope: Scope,
        /// Why.
        reason: HoldReason,
    },
}

/// What an answer is judged by, beside itself.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// When the call left.
    pub left: Moment,
    /// Its number.
    pub departure: Departure,
    /// `retry.give_up_after`.
    pub give_up_after: Duration,
}

/// Decides. The gates learn of the answer; [`Gates::back`] was called before.
pub fn decide(
    manifest: &Manifest,
    fate: Fate,
    history: &mut History,
    reply: &Reply,
    gates: &mut Gates,
    at: Circumstances,
) -> Decision {
    let decision = judge(manifest, fate, history, reply, gates, at);
    let obeyed = matches!(&decision, Decision::Again { wait: Wait::Hold { scope: Scope::Everything, .. }, .. });
    if let Some(wait) = reply.retry_after
        && !obeyed
        && !matches!(reply.verdict, Verdict::Deleted(_))
    {
        // What is decided of this body is no leave for others to go: its halves wait like everybody.
        let reason = match reply.verdict {
            Verdict::Unsent | Verdict::Unknown(_) => HoldReason::ApiDown,
            _ => HoldReason::Throttled,
        };
        let now = Moment { wall: at.left.wall.after(reply.took), steady: at.left.steady + reply.took };
        let until = now.steady + wait;
        // All wait for so long. Whether they may go then is not for this body alone to find out.
        let (asked, doubtful) = (Some(until), reply.verdict.may_spare_others());
        let trouble = Trouble { reason, departure: at.departure, until, asked, doubtful, at: now };
        gates.hold(Scope::Everything, &manifest.project, &trouble);
    }
    decision
}

fn judge(
    manifest: &Manifest,
    fate: Fate,
    history: &mut History,
    reply: &Reply,
    gates: &mut Gates,
    at: Circumstances,
) -> Decision {
    history.attempts = history.attempts.saturating_add(1);
    if !matches!(reply.verdict, Verdict::Refused(Refusal::Conflict)) {
        history.conflicts = Streak::default();
    }
    match &reply.verdict {
        Verdict::Deleted(deletion) => {
            gates.served(&manifest.project, at.departure, at.left.wall);
            let (not_found, count_mismatch) = not_found(manifest, deletion);
            Decision::Finish(End::Answered { not_found, uncertain: fate.lost, count_mismatch })
        }
        Verdict::Throttled => hold(fate, Scope::Everything, HoldReason::Throttled),
        Verdict::Unsent => transient(manifest, fate, history, reply, gates, at),
        Verdict::Unknown(doubt) => {
            let mut fate = fate.with_unknown_call();
            history.replays = if doubt.may_be_replayed(reply.status) { history.replays + 1 } else { 0 };
            if history.replays >= REPLAYS {
                history.replays = 0;
                fate = fate.next_key();
            }
            transient(manifest, fate, history, reply, gates, at)
        }
        Verdict::Refused(refusal) => {
            history.failures = Streak::default();
            history.replays = 0;
            refused(manifest, fate, history, reply, *refusal, gates, at)
        }
    }
}

fn refused(
    manifest: &Manifest,
    fate: Fate,
    history: &mut History,
    reply: &Reply,
    refusal: Refusal,
    gates: &mut Gates,
    at: Circumstances,
) -> Decision {
    let fail = |code| {
        let api_code = reply.api_code.clone();
        Decision::Finish(End::Failed { code, api_code, may_have_taken_effect: fate.may_have_taken_effect() })
    };
    let fate = match refusal {
        Refusal::Forbidden => history.suffers(Ordeal::Forbidden, fate, at.left.wall),
        Refusal::Conflict => history.suffers(Ordeal::Own, fate, at.left.wall),
        Refusal::Key | Refusal::Project | Refusal::Body => fate,
    };
    let about_all = match refusal {
        Refusal::Key => Some(HoldReason::KeyRefused),
        Refusal::Project => {
            gates.unknown_project(&manifest.project, manifest.root).then_some(HoldReason::UnknownProjects)
        }
        Refusal::Body => gates.refused(reply.status.unwrap_or(400), manifest.root).then_some(HoldReason::RefusesAll),
        Refusal::Forbidden | Refusal::Conflict => None,
    };
    if let Some(reason) = about_all {
        return hold(fate.next_key(), Scope::Everything, reason);
    }
    gates.spoke(at.departure);
    if refusal != Refusal::Forbidden || past_deadline(manifest, fate, gates, at) {
        // Who tries for its project is about to end, or has met something else: others of the project may go.
        gates.release(&manifest.project);
    }
    match refusal {
        Refusal::Forbidden if past_deadline(manifest, fate, gates, at) => fail(FailCode::Forbidden),
        Refusal::Forbidden => hold(fate.next_key(), Scope::Project, HoldReason::Forbidden),
        Refusal::Project => fail(FailCode::ProjectNotFound),
        Refusal::Conflict => {
            // Whatever holds the key may be a call of ours that is still running, or one that we no longer know.
            let fate = fate.with_unknown_call();
            let exponent = history.conflicts.grow(gates.successes());
            if !(exponent + 1).is_multiple_of(CONFLICTS) {
                return Decision::Again { fate, wait: Wait::Alone { exponent } };
            }
            if exponent >= CONFLICTS && history.conflicts.is_own() && past_deadline(manifest, fate, gates, at) {
                // Several keys have met it for too long, while others were served.
                let api_code = reply.api_code.clone();
                return Decision::Finish(End::Failed { code: FailCode::GaveUp, api_code, may_have_taken_effect: true });
            }
            Decision::Again { fate: fate.next_key(), wait: Wait::Alone { exponent } }
        }
        Refusal::Body if manifest.emails > 1 => Decision::Split { fate: fate.inherited() },
        Refusal::Body | Refusal::Key => fail(FailCode::ApiRejected),
    }
}

fn transient(
    manifest: &Manifest,
    fate: Fate,
    history: &mut History,
    reply: &Reply,
    gates: &mut Gates,
    at: Circumstances,
) -> Decision {
    let exponent = history.failures.grow(gates.successes());
    if history.failures.is_own() {
        let fate = history.suffers(Ordeal::Own, fate, at.left.wall);
        if manifest.emails > 1 {
            return Decision::Split { fate: fate.inherited() };
        }
        if past_deadline(manifest, fate, gates, at) {
            // Where its project is held, it was the one that tries: others of the project may go.
            gates.release(&manifest.project);
            let may_have_taken_effect = fate.may_have_taken_effect();
            return Decision::Finish(End::Failed { code: FailCode::GaveUp, api_code: None, may_have_taken_effect });
        }
        return Decision::Again { fate, wait: Wait::Alone { exponent } };
    }
    if gates.failed() || reply.retry_after.is_some() {
        return hold(fate, Scope::Everything, HoldReason::ApiDown);
    }
    Decision::Again { fate, wait: Wait::Alone { exponent } }
}

/// Whether this was the one more try after the time to give up. Time during which nobody could try for a pause, and time
/// that the clock skipped, is no patience spent.
fn past_deadline(manifest: &Manifest, fate: Fate, gates: &Gates, at: Circumstances) -> bool {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    fate.troubled_since.is_some_and(|since| {
        let until = at.left.wall;
        let no_wait = gates.pauses.time_paused(&manifest.project, since, until) + gates.leaps.within(since, until);
        until.millis_since(since).saturating_sub(millis(no_wait)) >= millis(at.give_up_after)
    })
}

fn hold(fate: Fate, scope: Scope, reason: HoldReason) -> Decision {
    Decision::Again { fate, wait: Wait::Hold { scope, reason } }
}
