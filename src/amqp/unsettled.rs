//! The deliveries of one channel that are not settled, as the prefetch needs to know them. Never here: an ack.

use std::collections::BTreeMap;

use super::prefetch::Load;
use crate::domain::acks::Ack;
use crate::ports::Source;

/// A delivery that is not settled.
#[derive(Clone, Copy)]
struct Held {
    cost: usize,
    source: Source,
}

/// The deliveries of one channel that are not settled.
#[derive(Default)]
pub(super) struct Unsettled {
    costs: BTreeMap<u64, Held>,
    /// The highest tag before the present consumer of requests.
    earlier: u64,
    last: u64,
    pub load: Load,
}

impl Unsettled {
    pub(super) fn add(&mut self, tag: u64, cost: usize, source: Source) {
        self.costs.insert(tag, Held { cost, source });
        self.last = self.last.max(tag);
        self.load.unsettled += 1;
        self.load.own += usize::from(source == Source::Requests);
        self.load.cost += cost;
    }

    pub(super) fn settle(&mut self, ack: Ack) {
        if ack.multiple {
            let rest = self.costs.split_off(&(ack.tag + 1));
            for (tag, held) in std::mem::replace(&mut self.costs, rest) {
                self.forget(tag, held);
            }
        } else if let Some(held) = self.costs.remove(&ack.tag) {
            self.forget(ack.tag, held);
        }
    }

    fn forget(&mut self, tag: u64, held: Held) {
        self.load.unsettled -= 1;
        self.load.cost -= held.cost;
        if tag > self.earlier && held.source == Source::Requests {
            self.load.own -= 1;
        }
    }

    /// Another consumer takes over: what is here is an earlier one's.
    pub(super) const fn hand_over(&mut self) {
        self.earlier = self.last;
        self.load.own = 0;
    }
}
