//! The last hour, minute by minute, for the status page: a ring of fixed size, whose time is an argument.
//!
//! Never here: an id, a project, an address; what a monitor is for. It forgets all when the process ends.

use std::time::Duration;

use crate::domain::moment::Timestamp;
use crate::domain::outcome::{Counts, Status};

/// How many minutes are kept, the one under way included.
pub const MINUTES: usize = 60;
/// The same, to count times with.
const HOUR: i64 = 60;
/// The most codes of failed outcomes that are kept: more than there are.
const CODES: usize = 32;

/// Upper bounds of call latencies, in milliseconds; what is above the last one counts as it.
const LATENCIES: [u32; 24] = [
    1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2500, 5000, 10_000, 30_000, 60_000,
];

/// What came of a call, by the class of its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 2xx.
    Served,
    /// 429.
    Throttled,
    /// Any other status below 500.
    Refused,
    /// 5xx and above.
    Server,
    /// No answer.
    None,
}

impl Class {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Served, Self::Throttled, Self::Refused, Self::Server, Self::None];

    /// Of an answer with this status.
    #[must_use]
    pub const fn of(status: Option<u16>) -> Self {
        match status {
            None => Self::None,
            Some(429) => Self::Throttled,
            Some(200..=299) => Self::Served,
            Some(0..=499) => Self::Refused,
            Some(_) => Self::Server,
        }
    }

    /// As the page calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "2xx",
            Self::Throttled => "429",
            Self::Refused => "other 4xx",
            Self::Server => "5xx",
            Self::None => "no answer",
        }
    }
}

/// What a minute saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// Emails of outcomes that were confirmed in it: deleted.
    pub deleted: u64,
    /// The same: not found.
    pub not_found: u64,
    /// Calls that came back, by [`Class::ALL`].
    pub calls: [u64; 5],
    /// Batches that were packed.
    pub batches: u64,
    /// Their emails.
    pub packed: u64,
    latencies: [u32; LATENCIES.len()],
}

impl Minute {
    /// Calls that came back.
    #[must_use]
    pub fn all_calls(&self) -> u64 {
        self.calls.iter().sum()
    }

    /// The time within which this share of its calls (0 to 1) came back; `None` where there was none.
    #[must_use]
    pub fn latency(&self, share: f64) -> Option<Duration> {
        quantile(&self.latencies, share)
    }
}

fn quantile(latencies: &[u32], share: f64) -> Option<Duration> {
    let total: u64 = latencies.iter().map(|count| u64::from(*count)).sum();
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    let rank = ((total as f64) * share).ceil().max(1.0) as u64;
    let mut seen = 0;
    let bounds = LATENCIES.iter().zip(latencies);
    let found = bounds.map(|(bound, count)| (bound, u64::from(*count))).find(|(_, count)| {
        seen += count;
        seen >= rank
    });
    found.filter(|_| total > 0).map(|(bound, _)| Duration::from_millis(u64::from(*bound)))
}

/// Outcomes that failed with one code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub code: &'static str,
    /// The status of the last one.
    pub status: &'static str,
    /// When that was.
    pub at: Timestamp,
    /// How many outcomes.
    pub outcomes: u64,
    /// How many of their emails were not done.
    pub emails: u64,
}

/// The ring.
#[derive(Debug)]
pub struct History {
    ring: [Minute; MINUTES],
    /// The number of the latest minute, since 1970; it never falls.
    latest: i64,
    failures: Vec<Failure>,
}

impl History {
    /// Empty, from this time on.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { ring: [Minute::default(); MINUTES], latest: number(now), failures: Vec::new() }
    }

    /// An outcome is out.
    pub fn published(&mut self, now: Timestamp, status: Status, counts: Counts, code: Option<&'static str>) {
        let minute = self.minute(now);
        minute.deleted += counts.deleted;
        minute.not_found += counts.not_found;
        let Some(code) = code else { return };
        let emails = counts.failed + counts.invalid;
        let is_room = self.failures.len() < CODES;
        match self.failures.iter_mut().find(|failure| failure.code == code) {
            Some(failure) => {
                failure.status = status.as_str();
                failure.at = failure.at.max(now);
                failure.outcomes += 1;
                failure.emails += emails;
            }
            None if is_room => {
                self.failures.push(Failure { code, status: status.as_str(), at: now, outcomes: 1, emails });
            }
            None => {}
        }
    }

    /// A call came back.
    pub fn called(&mut self, now: Timestamp, status: Option<u16>, took: Duration) {
        let minute = self.minute(now);
        let class = Class::of(status);
        if let Some(at) = Class::ALL.iter().position(|other| *other == class) {
            minute.calls[at] += 1;
        }
        let millis = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        let at = LATENCIES.iter().position(|bound| millis <= *bound).unwrap_or(LATENCIES.len() - 1);
        minute.latencies[at] = minute.latencies[at].saturating_add(1);
    }

    /// A batch was packed.
    pub fn packed(&mut self, now: Timestamp, emails: u16) {
        let minute = self.minute(now);
        minute.batches += 1;
        minute.packed += u64::from(emails);
    }

    /// The last [`MINUTES`] minutes as of now, oldest first, each with its start.
    pub fn minutes(&mut self, now: Timestamp) -> Vec<(Timestamp, Minute)> {
        self.minute(now);
        let first = self.latest - HOUR + 1;
        (first..=self.latest).map(|n| (Timestamp::from_millis(n * 60_000), self.ring[place(n)])).collect()
    }

    /// Failed outcomes by their code, the latest first.
    #[must_use]
    pub fn failures(&self) -> Vec<Failure> {
        let mut failures = self.failures.clone();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.at));
        failures
    }

    /// The minute of now, or the latest one where the clock went back.
    fn minute(&mut self, now: Timestamp) -> &mut Minute {
        let n = number(now);
        let fresh = n.saturating_sub(self.latest).clamp(0, HOUR);
        for behind in 0..fresh {
            self.ring[place(n - behind)] = Minute::default();
        }
        self.latest = self.latest.max(n);
        &mut self.ring[place(self.latest)]
    }
}

fn number(now: Timestamp) -> i64 {
    now.as_millis().div_euclid(60_000)
}

fn place(number: i64) -> usize {
    usize::try_from(number.rem_euclid(HOUR)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_435_200_000;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_millis(NOON + minutes * 60_000 + 5)
    }

    fn counts(deleted: u64, not_found: u64, failed: u64) -> Counts {
        Counts { deleted, not_found, uncertain: 0, invalid: 0, failed }
    }

    #[test]
    fn what_happened_stands_in_its_minute_for_an_hour() {
        let mut history = History::new(at(0));
        history.published(at(0), Status::Succeeded, counts(3, 1, 0), None);
        history.published(at(59), Status::Succeeded, counts(5, 0, 0), None);
        let minutes = history.minutes(at(59));
        assert_eq!(
            (minutes.len(), minutes[0].0.as_millis(), minutes[59].0.as_millis()),
            (60, NOON, NOON + 59 * 60_000)
        );
        assert_eq!((minutes[0].1.deleted, minutes[0].1.not_found, minutes[59].1.deleted), (3, 1, 5));
        assert_eq!(minutes[1..59].iter().map(|(_, minute)| minute.deleted).sum::<u64>(), 0);
        let minutes = history.minutes(at(60));
        assert_eq!((minutes[58].1.deleted, minutes[0].1.deleted, minutes[59].1.deleted), (5, 0, 0));
        assert!(history.minutes(at(10_000)).iter().all(|(_, minute)| *minute == Minute::default()));
    }

    #[test]
    fn a_clock_that_goes_back_counts_in_the_latest_minute_and_wipes_nothing() {
        let mut history = History::new(at(0));
        history.packed(at(10), 700);
        history.packed(at(3), 300);
        let minutes = history.minutes(at(2));
        let last = minutes[59];
        assert_eq!((last.0.as_millis(), last.1.batches, last.1.packed), (NOON + 600_000, 2, 1000));
    }

    #[test]
    fn calls_count_by_the_class_of_their_status() {
        let mut history = History::new(at(0));
        let took = Duration::from_millis(1);
        for status in [Some(200), Some(204), Some(429), Some(400), Some(301), Some(503), Some(999), None] {
            history.called(at(0), status, took);
        }
        assert_eq!(history.minutes(at(0))[59].1.calls, [2, 1, 2, 2, 1]);
        assert_eq!(history.minutes(at(0))[59].1.all_calls(), 8);
    }

    #[test]
    fn latencies_are_told_by_the_share_of_calls_that_were_no_slower() {
        let mut history = History::new(at(0));
        assert_eq!(history.minutes(at(0))[59].1.latency(0.5), None);
        for millis in 1..=100 {
            history.called(at(0), Some(200), Duration::from_millis(millis));
        }
        let minute = history.minutes(at(0))[59].1;
        assert_eq!(minute.latency(0.5), Some(Duration::from_millis(50)));
        assert_eq!(minute.latency(0.95), Some(Duration::from_millis(100)));
        history.called(at(1), Some(200), Duration::from_hours(1));
        assert_eq!(history.minutes(at(1))[59].1.latency(0.5), Some(Duration::from_mins(1)));
    }

    #[test]
    fn failed_outcomes_are_counted_by_code_the_latest_first() {
        let mut history = History::new(at(0));
        history.published(at(1), Status::Failed, counts(0, 0, 4), Some("API_REJECTED"));
        history.published(at(2), Status::Rejected, counts(0, 0, 0), Some("MALFORMED_JSON"));
        history.published(at(3), Status::Partial, counts(1, 0, 2), Some("API_REJECTED"));
        let failures = history.failures();
        let first = Failure { code: "API_REJECTED", status: "partial", at: at(3), outcomes: 2, emails: 6 };
        assert_eq!((&failures[0], failures[1].code, failures.len()), (&first, "MALFORMED_JSON", 2));
    }
}
