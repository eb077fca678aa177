//! A hold: why, since when, until when, and who tries whether it is over.

use std::time::Duration;

use super::{Departure, HoldReason};
use crate::domain::moment::{Moment, Timestamp};

/// What a call met, that others are to wait for.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// Why.
    pub reason: HoldReason,
    /// Whose call it was.
    pub departure: Departure,
    /// When the next try may leave (steady).
    pub until: Duration,
    /// Before which time the API asked for no call (steady); not after `until`.
    pub asked: Option<Duration>,
    /// Whether it may be about the body, rather than about all.
    pub doubtful: bool,
    /// Now.
    pub at: Moment,
}

/// A wait that is nobody's fault. One call at a time tries whether it is over.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// Since when.
    pub since: Timestamp,
    /// The same on the steady clock.
    pub(super) began: Duration,
    /// Tries that failed; the exponent of the next wait.
    pub tries: u32,
    /// When the next try may leave (steady).
    pub until: Duration,
    /// Before which time the API asked for no call (steady).
    pub(super) asked: Duration,
    /// The last call that had left when it began, or when the API asked last: what that one meets, and those before it,
    /// says nothing of now.
    pub(super) after: Departure,
    /// The try that is under way.
    pub(super) probe: Option<Departure>,
    /// Whether some body may be to blame for it.
    doubtful: bool,
    /// New batches that have tried in it.
    pub(super) newcomers: u32,
}

impl Hold {
    pub(super) fn new(trouble: &Trouble, after: Departure) -> Self {
        let Trouble { reason, until, asked, doubtful, at, .. } = *trouble;
        let asked = asked.unwrap_or_default();
        Self {
            reason,
            since: at.wall,
            began: at.steady,
            tries: 1,
            until,
            asked,
            after,
            probe: None,
            doubtful,
            newcomers: 0,
        }
    }

    /// Another call met trouble while it is in force; `last` is the last that has left.
    pub(super) fn goes_on(&mut self, trouble: &Trouble, last: Departure) {
        if trouble.departure > self.after {
            self.reason = trouble.reason;
            self.doubtful = trouble.doubtful;
            self.tries = self.tries.saturating_add(1);
            self.until = self.until.max(trouble.until);
        }
        if let Some(asked) = trouble.asked {
            self.asked = self.asked.max(asked);
            self.until = self.until.max(asked);
            self.after = last;
        }
    }

    /// Before which time the API asked for no call (steady); zero where it did not.
    #[must_use]
    pub const fn asked_until(&self) -> Duration {
        self.asked
    }

    /// For how long it has been in force (steady), whatever the wall clock did meanwhile.
    #[must_use]
    pub fn lasted(&self, now: Duration) -> Duration {
        now.saturating_sub(self.began)
    }

    /// Tries that must have failed before the next new batch may try: with each of them there is one more that is open,
    /// and tries on.
    pub(super) fn newcomer_due(&self) -> bool {
        let next = u64::from(self.newcomers) + 1;
        self.doubtful && u64::from(self.tries) >= next * (next + 1) / 2
    }
}
