//! Which acks to send, and when: one for all up to the highest tag below which everything is settled, single ones beyond.
//!
//! What is settled out of order waits a while for what came before it: one ack for a thousand deliveries costs the broker
//! as much as one for a single one. Where something keeps the others waiting, they are acked without it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// An ack to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The delivery tag: of a delivery that was not acked before, for RabbitMQ closes the channel on any other.
    pub tag: u64,
    /// Whether all lower tags are acked with it.
    pub multiple: bool,
}

/// Acks to be sent, in order, and what was noted of the deliveries that go with them.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a delivery that is not acked comes again"]
pub struct Acks<T> {
    /// What to send.
    pub acks: Vec<Ack>,
    /// What was noted of each delivery that is acked by it.
    pub gone: Vec<T>,
}

/// However often what keeps a delivery waiting moves, it waits no longer than so many times the patience.
const ENDURANCE: u32 = 4;

/// The settled tags of one channel, each with a note `T`. Tags start at 1 and have no gaps (AMQP 0-9-1, section 1.1).
#[derive(Debug)]
pub struct AckWindow<T> {
    patience: Duration,
    /// Everything up to here is acked.
    floor: u64,
    /// Settled tags beyond that are not acked.
    waiting: BTreeMap<u64, T>,
    /// Since when each of them waits; some that stand here are acked.
    since: VecDeque<(Duration, u64)>,
    /// Those of them that wait for nothing.
    urgent: Vec<u64>,
    /// Acked tags beyond.
    acked: Ranges,
    /// Since when something keeps the others waiting.
    stuck_since: Option<Duration>,
}

impl<T> AckWindow<T> {
    /// Of a new channel. What is settled out of order waits for `patience` while nothing moves.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            floor: 0,
            waiting: BTreeMap::new(),
            since: VecDeque::new(),
            urgent: Vec::new(),
            acked: Ranges::default(),
            stuck_since: None,
        }
    }

    /// This delivery, never named before, is settled.
    pub fn settle(&mut self, tag: u64, note: T, now: Duration) {
        self.waiting.insert(tag, note);
        self.since.push_back((now, tag));
    }

    /// The same for one that does not wait for those that came before it.
    pub fn settle_at_once(&mut self, tag: u64, note: T, now: Duration) {
        self.settle(tag, note, now);
        self.urgent.push(tag);
    }

    /// What to send now.
    pub fn acks(&mut self, now: Duration) -> Acks<T> {
        let mut sent = Acks { acks: Vec::new(), gone: Vec::new() };
        let mut up_to = None;
        let before = self.floor;
        loop {
            if let Some(note) = self.waiting.remove(&(self.floor + 1)) {
                self.floor += 1;
                sent.gone.push(note);
                up_to = Some(self.floor);
            } else if let Some(last) = self.acked.take_from(self.floor + 1) {
                self.floor = last;
            } else {
                break;
            }
        }
        sent.acks.extend(up_to.map(|tag| Ack { tag, multiple: true }));
        for tag in std::mem::take(&mut self.urgent) {
            self.ack_alone(tag, &mut sent);
        }
        if self.floor > before {
            self.stuck_since = None;
        }
        if !self.waiting.is_empty() && now >= *self.stuck_since.get_or_insert(now) + self.patience {
            for tag in self.waiting.keys().copied().collect::<Vec<_>>() {
                self.ack_alone(tag, &mut sent);
            }
        }
        while let Some((since, tag)) = self.since.front().copied()
            && (!self.waiting.contains_key(&tag) || now >= since + self.patience * ENDURANCE)
        {
            self.ack_alone(tag, &mut sent);
            self.since.pop_front();
        }
        sent
    }

    fn ack_alone(&mut self, tag: u64, sent: &mut Acks<T>) {
        if let Some(note) = self.waiting.remove(&tag) {
            self.acked.insert(tag);
            sent.gone.push(note);
            sent.acks.push(Ack { tag, multiple: false });
        }
    }

    /// The channel has ended: what was noted of those that will not be acked.
    pub fn abandon(&mut self) -> Vec<T> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// When there is something to send, though nothing else is settled until then: after a look by [`Self::acks`].
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let stuck = self.stuck_since.map(|since| since + self.patience);
        let oldest = self.since.front().map(|(since, _)| *since + self.patience * ENDURANCE);
        stuck.into_iter().chain(oldest).min().filter(|_| !self.waiting.is_empty())
    }
}

/// Numbers, of which most have neighbours: first → last of each row.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// One that is not there yet.
    fn insert(&mut self, number: u64) {
        let last = self.0.remove(&(number + 1)).unwrap_or(number);
        match self.0.range_mut(..number).next_back() {
            Some((_, before)) if *before + 1 == number => *before = last,
            _ => drop(self.0.insert(number, last)),
        }
    }

    /// Takes the row that begins with this number; its last one.
    fn take_from(&mut self, first: u64) -> Option<u64> {
        self.0.remove(&first)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn settle(window: &mut AckWindow<u64>, tags: &[u64], now: Duration) -> Vec<Ack> {
        for tag in tags {
            window.settle(*tag, *tag, now);
        }
        window.acks(now).acks
    }

    fn one(tag: u64) -> Ack {
        Ack { tag, multiple: false }
    }

    fn up_to(tag: u64) -> Ack {
        Ack { tag, multiple: true }
    }

    #[test]
    fn what_is_contiguous_is_acked_at_once_and_the_rest_waits_for_what_came_before_it() {
        let mut window = AckWindow::new(PATIENCE);
        assert_eq!(settle(&mut window, &[3, 5], Duration::ZERO), []);
        assert_eq!(settle(&mut window, &[2, 1], PATIENCE / 2), [up_to(3)]);
        assert_eq!(window.due(), Some(PATIENCE + PATIENCE / 2), "what keeps 5 waiting is another one now");
        assert_eq!(settle(&mut window, &[4], PATIENCE), [up_to(5)]);
        assert_eq!(window.due(), None);
    }

    #[test]
    fn what_is_kept_waiting_is_acked_one_by_one_and_so_is_all_else_until_it_moves() {
        let mut window = AckWindow::new(PATIENCE);
        assert_eq!(settle(&mut window, &[3, 5], Duration::ZERO), []);
        assert_eq!(window.due(), Some(PATIENCE));
        assert_eq!(settle(&mut window, &[], PATIENCE), [one(3), one(5)]);
        assert_eq!(settle(&mut window, &[], PATIENCE), [], "a look that finds nothing forgets nothing");
        assert_eq!(settle(&mut window, &[6], PATIENCE), [one(6)]);
        // 3 is acked already: naming it again would close the channel.
        assert_eq!(settle(&mut window, &[2, 1], PATIENCE), [up_to(2)]);
        assert_eq!(settle(&mut window, &[8], PATIENCE), []);
        assert_eq!(settle(&mut window, &[4], PATIENCE), [up_to(4)]);
        assert_eq!(settle(&mut window, &[7], PATIENCE), [up_to(8)]);
    }

    #[test]
    fn what_is_urgent_waits_for_nothing() {
        let mut window = AckWindow::new(PATIENCE);
        window.settle_at_once(4, 4, Duration::ZERO);
        assert_eq!(settle(&mut window, &[3], Duration::ZERO), [one(4)]);
        window.settle_at_once(2, 2, Duration::ZERO);
        assert_eq!(settle(&mut window, &[1], Duration::ZERO), [up_to(3)], "once is enough");
    }

    #[test]
    fn without_patience_nothing_waits() {
        let mut window = AckWindow::new(Duration::ZERO);
        assert_eq!(settle(&mut window, &[3, 5], Duration::ZERO), [one(3), one(5)]);
        assert_eq!(settle(&mut window, &[2, 1], Duration::ZERO), [up_to(2)]);
    }

    #[test]
    fn however_often_the_others_move_none_waits_for_ever() {
        let mut window = AckWindow::new(PATIENCE);
        assert_eq!(settle(&mut window, &[50], Duration::ZERO), []);
        for step in 1..8 {
            let now = PATIENCE / 2 * step;
            assert_eq!(settle(&mut window, &[u64::from(step)], now), [up_to(u64::from(step))], "{step}");
            assert!(window.due() <= Some(PATIENCE * ENDURANCE));
        }
        assert_eq!(settle(&mut window, &[60], PATIENCE * ENDURANCE), [one(50)], "60 came later");
    }

    #[test]
    fn what_was_acked_long_ago_is_remembered_in_few_words() {
        let mut window = AckWindow::new(Duration::ZERO);
        for tag in (2..10_000).rev().step_by(2).chain((2..10_000).step_by(2)) {
            let _ = settle(&mut window, &[tag], Duration::ZERO);
        }
        assert_eq!((window.acked.0.len(), window.since.len()), (1, 0));
        assert_eq!(settle(&mut window, &[1], Duration::ZERO), [up_to(1)]);
        assert_eq!((window.floor, window.acked.0.len()), (9999, 0));
    }

    proptest! {
        #[test]
        fn every_settled_tag_is_acked_once_in_time_and_no_other_is(order in Just((1..60u64).collect::<Vec<_>>()).prop_shuffle(), chunk in 1..9usize, patience in 0..5u32) {
            let mut window = AckWindow::new(PATIENCE * patience);
            let mut outstanding: BTreeSet<u64> = (1..80).collect();
            let mut settled = BTreeSet::new();
            let mut told = BTreeSet::new();
            for (tags, now) in order.chunks(chunk).chain([&[][..]; 2]).zip((0..).map(|step| PATIENCE * step)) {
                settled.extend(tags.iter().copied());
                for tag in tags {
                    if tag % 7 == 0 {
                        window.settle_at_once(*tag, *tag, now);
                    } else {
                        window.settle(*tag, *tag, now);
                    }
                }
                let Acks { acks, gone } = window.acks(now);
                for ack in acks {
                    prop_assert!(outstanding.contains(&ack.tag), "a tag that is not outstanding closes the channel");
                    let acked: Vec<u64> = outstanding.iter().copied().filter(|t| *t == ack.tag || (ack.multiple && *t < ack.tag)).collect();
                    for tag in acked {
                        prop_assert!(settled.contains(&tag), "{tag} was not settled");
                        outstanding.remove(&tag);
                    }
                }
                for tag in gone {
                    prop_assert!(!outstanding.contains(&tag) && told.insert(tag), "{tag} is told of once, when it is acked");
                }
                let waits = settled.iter().any(|tag| outstanding.contains(tag));
                prop_assert_eq!(window.due().is_some(), waits, "what waits is due some time");
                prop_assert!(window.due().is_none_or(|due| due > now && due <= now + PATIENCE * patience));
            }
            prop_assert_eq!(told, settled, "all were settled in the end");
        }
    }
}
