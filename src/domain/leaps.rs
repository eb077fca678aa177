//! Leaps of the wall clock: time that it skipped, as when a machine that started with a wrong time is put right.
//!
//! What waits by the wall clock, because it must outlive the process, has not waited through a leap: nothing is given up
//! and nothing is forgotten for time that never passed. Seen by the steady clock beside it, in this process's life alone.

use std::collections::VecDeque;
use std::time::Duration;

use super::moment::{Moment, Timestamp};

/// Less than this may be a look that came late between two clocks, or a clock that is slewed.
const SLACK: Duration = Duration::from_secs(30);
/// The most leaps that are remembered: a clock that leaps more often cannot be helped.
const MOST: usize = 64;

/// What the wall clock skipped since the process started.
#[derive(Debug, Default)]
pub struct Leaps {
    last: Option<Moment>,
    /// From when to when.
    all: VecDeque<(Timestamp, Timestamp)>,
}

impl Leaps {
    /// Looks at both clocks; a leap since the last look is remembered.
    pub fn look(&mut self, now: Moment) {
        let last = self.last.replace(now).unwrap_or(now);
        let expected = last.wall.after(now.steady.saturating_sub(last.steady));
        if now.wall.millis_since(expected) > millis(SLACK) {
            if self.all.len() == MOST {
                self.all.pop_front();
            }
            self.all.push_back((expected, now.wall));
        }
    }

    /// How much of the time from `since` to `until` never passed.
    #[must_use]
    pub fn within(&self, since: Timestamp, until: Timestamp) -> Duration {
        let skipped = self.all.iter().map(|(from, to)| (*to).min(until).millis_since((*from).max(since)).max(0));
        Duration::from_millis(skipped.sum::<i64>().unsigned_abs())
    }

    /// A time that lies at least `by` before `now`, leaps left out.
    #[must_use]
    pub fn before(&self, now: Timestamp, by: Duration) -> Timestamp {
        let mut before = now.before(by);
        // Latest first: each moves the time back, perhaps to before the one before it.
        for (from, to) in self.all.iter().rev() {
            if *to > before {
                before = before.before(Duration::from_millis(to.millis_since(*from).unsigned_abs()));
            }
        }
        before
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_millis(hours * 3_600_000)
    }

    fn moment(wall_hours: i64, steady_hours: u32) -> Moment {
        Moment { wall: at(wall_hours), steady: HOUR * steady_hours }
    }

    /// The clock stood at hour 100 and one hour later at 201: a hundred never passed.
    fn leapt() -> Leaps {
        let mut leaps = Leaps::default();
        for now in [moment(100, 0), moment(201, 1), moment(202, 2)] {
            leaps.look(now);
        }
        leaps
    }

    #[test]
    fn time_that_was_skipped_is_no_time_that_passed() {
        let leaps = leapt();
        assert_eq!(leaps.within(at(99), at(202)), 100 * HOUR);
        assert_eq!(leaps.within(at(150), at(160)), 10 * HOUR);
        assert_eq!(leaps.within(at(201), at(300)), Duration::ZERO);
        assert_eq!(leaps.before(at(202), HOUR), at(201));
        assert_eq!(leaps.before(at(202), 3 * HOUR), at(99));
    }

    #[test]
    fn a_clock_that_goes_on_is_slewed_or_goes_back_leaps_over_nothing() {
        let mut leaps = Leaps::default();
        for now in [moment(100, 0), moment(101, 1), moment(50, 2), moment(51, 3)] {
            leaps.look(now);
        }
        let slewed = Moment { wall: at(52).after(Duration::from_secs(20)), steady: 4 * HOUR };
        leaps.look(slewed);
        assert_eq!(leaps.within(at(0), at(1000)), Duration::ZERO);
    }

    #[test]
    fn each_of_several_leaps_counts() {
        let mut leaps = leapt();
        leaps.look(moment(303, 3));
        assert_eq!(leaps.within(at(0), at(400)), 200 * HOUR);
        assert_eq!(leaps.before(at(303), 4 * HOUR), at(99));
    }
}
