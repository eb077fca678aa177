//! One rate for all workers on a journal: calls have turns, evenly apart, and a worker is granted the next few of them.
//!
//! A turn is a time by the journal's clock. Who has it may make one call then or shortly after; later it is worth nothing,
//! so that turns that were kept cannot add up. Turns are a little further apart than the rate alone asks for: by as much as
//! a call may be late. Who hears of turns late may use them later, and nobody has the time that follows them. So no minute
//! ever has more calls than the rate, whoever makes them, but for the burst, which all share as well.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

/// How long a turn is good for, where the journal answers at once.
const FRESH: Duration = Duration::from_secs(1);

/// The longest that a turn is good for, however slow the journal is.
const OLD: Duration = Duration::from_secs(20);

/// What a call may take from its turn's end to the API.
const LATE: Duration = Duration::from_millis(500);

/// How far ahead turns are granted: a call of another worker's that is due sooner waits for them.
const AHEAD: Duration = Duration::from_millis(500);

/// The longest that anybody asks the API's callers to wait, and a little more: turns that are further off were granted by a
/// clock that was ahead.
const FAR: Duration = Duration::from_secs(3700);

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// `rate_limit.requests_per_minute`.
    pub per_minute: NonZeroU32,
    /// `rate_limit.burst`.
    pub burst: NonZeroU32,
    /// How long a turn is good for.
    good_for: Duration,
}

impl Rate {
    /// A rate, where the journal answers at once.
    #[must_use]
    pub const fn new(per_minute: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { per_minute, burst, good_for: FRESH }
    }

    /// The same where the journal took so long to answer, and will again for what it is asked between turn and call.
    fn heard_after(self, took: Duration) -> Self {
        Self { good_for: (took * 4).clamp(FRESH, OLD), ..self }
    }

    /// The time between two turns of one grant.
    #[must_use]
    pub fn apart(&self) -> Duration {
        ((Duration::from_mins(1) + FRESH + LATE) / self.per_minute.get()).max(Duration::from_micros(1))
    }
}

/// Turns, as of the moment at which they were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// When the first of them is, in microseconds; below zero for one that was saved for a burst.
    pub first: i64,
    /// The time between two of them.
    pub apart: Duration,
    /// How many. Where there is none, it is to be asked again half a second before the first.
    pub count: u32,
}

impl Grant {
    /// All that are wanted, now: the rate is kept elsewhere.
    #[must_use]
    pub fn at_once(rate: &Rate, wanted: u32) -> Self {
        Self { first: -micros(rate.apart()).saturating_mul(i64::from(wanted)), apart: rate.apart(), count: wanted }
    }

    /// How long after the moment the `n`-th turn is, from 0.
    fn after(&self, n: u32) -> Duration {
        let after = self.first.saturating_add(micros(self.apart).saturating_mul(i64::from(n)));
        Duration::from_micros(u64::try_from(after).unwrap_or(0))
    }

    /// Where there is no turn, how long to wait before asking again.
    #[must_use]
    pub fn again(&self) -> Duration {
        self.after(0).saturating_sub(AHEAD)
    }
}

/// Grants as many of the wanted turns as are due soon, where the next free one is at `next` and it is `now`, both in
/// microseconds. Returns the one that is free then.
#[must_use]
pub fn grant(rate: &Rate, wanted: u32, next: i64, now: i64) -> (Grant, i64) {
    let apart = micros(rate.apart());
    let saved = apart.saturating_mul(i64::from(rate.burst.get()) - 1);
    let base = next.min(now.saturating_add(micros(FAR))).max(now.saturating_sub(saved));
    let horizon = now.saturating_add(micros(AHEAD));
    let first = base - now;
    if base > horizon {
        return (Grant { first, apart: rate.apart(), count: 0 }, base);
    }
    let due = (horizon - base) / apart + 1;
    let count = u32::try_from(due).unwrap_or(u32::MAX).min(wanted);
    // As if those turns were so much later: others come after all of them, and none is later than it may be.
    let later = if count == 0 { 0 } else { micros(rate.good_for.saturating_sub(FRESH)) };
    let free = base.saturating_add(apart.saturating_mul(i64::from(count))).saturating_add(later);
    (Grant { first, apart: rate.apart(), count }, free)
}

/// The next free turn where no call may leave before `wait` from `now` on.
#[must_use]
pub fn postpone(wait: Duration, next: i64, now: i64) -> i64 {
    next.min(now.saturating_add(micros(FAR))).max(now.saturating_add(micros(wait.min(FAR))))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A turn, on this worker's steady clock.
#[derive(Clone, Copy, Debug)]
struct Turn {
    from: Duration,
    until: Duration,
}

/// What there is to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Take {
    /// A turn was taken: one call may leave.
    Taken {
        /// Until then (steady).
        until: Duration,
    },
    /// The next turn is then (steady).
    At(Duration),
    /// Turns must be asked for.
    None,
}

/// The turns that a worker has been granted.
#[derive(Debug)]
pub struct Stock {
    rate: Rate,
    turns: VecDeque<Turn>,
    /// How many were granted last, and when.
    last: Option<(u32, Duration)>,
}

impl Stock {
    /// None yet.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self { rate, turns: VecDeque::new(), last: None }
    }

    /// Their rate.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes the next turn.
    pub fn take(&mut self, now: Duration) -> Take {
        while self.turns.front().is_some_and(|turn| turn.until < now) {
            self.turns.pop_front();
        }
        match self.turns.front() {
            None => Take::None,
            Some(turn) if turn.from > now => Take::At(turn.from),
            Some(&Turn { until, .. }) => {
                self.turns.pop_front();
                Take::Taken { until }
            }
        }
    }

    /// How many turns to ask for now, where so many calls wait: more, the faster they are used up.
    #[must_use]
    pub fn wanted(&self, waiting: usize, now: Duration) -> u32 {
        let most = AHEAD.as_micros() / self.rate.apart().as_micros() + u128::from(self.rate.burst.get());
        let most = u32::try_from(most).unwrap_or(u32::MAX).max(1);
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let used_up = self.last.filter(|(_, at)| now.saturating_sub(*at) <= AHEAD);
        used_up.map_or(1, |(count, _)| count.saturating_mul(2)).max(waiting).clamp(1, most)
    }

    /// Puts turns in that were asked for at `asked`, and heard of at `heard` (steady). The journal looked at its clock in
    /// between: none counts from too early, nor until too late.
    pub fn put(&mut self, grant: &Grant, asked: Duration, heard: Duration) {
        self.last = Some((grant.count, heard));
        let good_for = self.rate.good_for;
        self.turns.extend((0..grant.count).map(|n| {
            let after = grant.after(n);
            Turn { from: heard + after, until: asked + after + good_for }
        }));
        self.rate = self.rate.heard_after(heard.saturating_sub(asked));
    }

    /// How many turns are here and good now.
    #[must_use]
    pub fn available(&self, now: Duration) -> u32 {
        let good = self.turns.iter().filter(|turn| turn.from <= now && now <= turn.until).count();
        u32::try_from(good).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_minute: u32, burst: u32) -> Rate {
        Rate::new(NonZeroU32::new(per_minute).unwrap(), NonZeroU32::new(burst).unwrap())
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn turns_are_granted_soon_and_no_sooner_than_the_rate() {
        let rate = rate(100, 1);
        let (first, next) = grant(&rate, 5, 0, 1_000_000);
        assert_eq!((first.count, first.first), (1, 0));
        let (second, after) = grant(&rate, 5, next, 1_000_000);
        assert_eq!((second.count, after), (0, next), "it is 615 ms off");
        assert_eq!(second.again(), ms(115));
        let (third, _) = grant(&rate, 5, next, 1_200_000);
        assert_eq!((third.count, third.first), (1, 415_000));
    }

    #[test]
    fn a_burst_is_what_was_saved_in_a_quiet_time_and_is_due_at_once() {
        let rate = rate(60, 5);
        let (grant, next) = grant(&rate, 9, 0, 1_000_000_000);
        assert_eq!(grant.count, 5);
        assert!((0..5).all(|n| grant.after(n).is_zero()));
        assert_eq!(next, 1_000_000_000 + 1_025_000);
    }

    #[test]
    fn a_turn_is_good_for_a_second() {
        let mut stock = Stock::new(rate(100, 1));
        let turns = Grant { first: 200_000, apart: ms(615), count: 2 };
        stock.put(&turns, ms(1000), ms(1050));
        assert_eq!(stock.take(ms(1249)), Take::At(ms(1250)));
        assert_eq!(stock.take(ms(2300)), Take::Taken { until: ms(2815) }, "the first is gone by, the second is good");
        assert_eq!(stock.take(ms(2300)), Take::None);
    }

    #[test]
    fn where_the_journal_is_slow_turns_are_good_for_longer_and_the_next_are_further_off() {
        let mut stock = Stock::new(rate(60, 1));
        let turn = Grant { first: 0, apart: ms(1025), count: 1 };
        stock.put(&turn, ms(0), ms(3000));
        assert_eq!(stock.take(ms(3000)), Take::None, "it came too late");
        let (granted, next) = grant(&stock.rate(), 1, 0, 1_000_000);
        assert_eq!((granted.count, next), (1, 1_000_000 + 1_025_000 + 11_000_000));
        stock.put(&turn, ms(3000), ms(6000));
        assert_eq!(stock.take(ms(6000)), Take::Taken { until: ms(15_000) });
        stock.put(&turn, ms(6000), ms(6010));
        assert_eq!(stock.rate(), rate(60, 1), "and when it is quick again, as before");
    }

    #[test]
    fn more_is_asked_for_the_faster_it_is_used_up() {
        let mut stock = Stock::new(rate(60_000, 10));
        assert_eq!(stock.wanted(1, ms(0)), 1);
        stock.put(&Grant { first: 0, apart: ms(1), count: 8 }, ms(0), ms(1));
        assert_eq!(stock.wanted(1, ms(100)), 16);
        assert_eq!(stock.wanted(40, ms(100)), 40);
        assert_eq!(stock.wanted(1, ms(900)), 1);
        assert!(stock.wanted(1_000_000, ms(900)) < 600, "half a second's worth and the burst");
    }

    #[test]
    fn what_is_postponed_is_granted_to_nobody_before_and_no_clock_postpones_for_ever() {
        let next = postpone(Duration::from_secs(30), 0, 1_000_000);
        assert_eq!(next, 31_000_000);
        assert_eq!(grant(&rate(100, 1), 1, next, 1_000_000).0.count, 0);
        assert_eq!(grant(&rate(100, 50), 50, next, 31_000_000).0.count, 1, "nothing is saved meanwhile");
        let (grant, next) = grant(&rate(100, 1), 1, i64::MAX, 0);
        assert!(grant.count == 0 && next <= micros(FAR));
    }

    proptest! {
        /// Workers that ask at any time, hear of their turns soon or late, and use each at once or as late as they may.
        #[test]
        fn no_minute_has_more_calls_than_the_rate_and_the_shared_burst(
            per_minute in 1u32..400,
            burst in 1u32..6,
            asks in proptest::collection::vec((0u64..900, 1u32..40, any::<bool>(), prop_oneof![4 => Just(0), 1 => 0u64..6000]), 1..300),
        ) {
            let quick = rate(per_minute, burst);
            let (mut now, mut next) = (10_000_000_000i64, 0i64);
            let mut calls: Vec<i64> = Vec::new();
            for (pause, wanted, late, took) in asks {
                let rate = quick.heard_after(ms(took));
                now += i64::try_from(pause).unwrap() * 1000;
                let (granted, free) = grant(&rate, wanted, next, now);
                next = free;
                for n in 0..granted.count {
                    let turn = now + micros(granted.after(n));
                    calls.push(turn + if late { micros(rate.good_for) } else { 0 });
                }
            }
            calls.sort_unstable();
            let most = (per_minute + burst - 1) as usize;
            for (n, first) in calls.iter().enumerate() {
                let in_a_minute = calls[n..].iter().take_while(|at| **at < first + 60_000_000).count();
                prop_assert!(in_a_minute <= most, "{in_a_minute} of {most}");
            }
        }
    }
}
