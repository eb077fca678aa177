//! Which acks to send: one for all up to the highest tag below which everything is settled, single ones beyond.

use std::collections::BTreeSet;

/// An ack to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The delivery tag: of a delivery that was not acked before, for RabbitMQ closes the channel on any other.
    pub tag: u64,
    /// Whether all lower tags are acked with it.
    pub multiple: bool,
}

/// The settled tags of one channel. Tags start at 1 and have no gaps (AMQP 0-9-1, section 1.1).
#[derive(Debug, Default)]
pub struct AckWindow {
    /// Everything up to here is settled.
    floor: u64,
    beyond: BTreeSet<u64>,
}

impl AckWindow {
    /// These deliveries, never named before, are settled. What to send for it, in order.
    #[must_use]
    pub fn settle(&mut self, tags: &[u64]) -> Vec<Ack> {
        self.beyond.extend(tags.iter().copied().filter(|tag| *tag > self.floor));
        while self.beyond.remove(&(self.floor + 1)) {
            self.floor += 1;
        }
        let highest = tags.iter().copied().filter(|tag| *tag <= self.floor).max();
        let mut acks: Vec<Ack> = highest.map(|tag| Ack { tag, multiple: true }).into_iter().collect();
        acks.extend(tags.iter().copied().filter(|tag| *tag > self.floor).map(|tag| Ack { tag, multiple: false }));
        acks
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_contiguous_is_acked_at_once_and_the_rest_one_by_one() {
        let mut window = AckWindow::default();
        assert_eq!(window.settle(&[3, 5]), [Ack { tag: 3, multiple: false }, Ack { tag: 5, multiple: false }]);
        // 3 is acked already: naming it again would close the channel.
        assert_eq!(window.settle(&[2, 1]), [Ack { tag: 2, multiple: true }]);
        assert_eq!(window.settle(&[4]), [Ack { tag: 4, multiple: true }]);
    }

    proptest! {
        #[test]
        fn every_settled_tag_is_acked_once_and_no_other_is(order in Just((1..60u64).collect::<Vec<_>>()).prop_shuffle(), chunk in 1..9usize) {
            let mut window = AckWindow::default();
            let mut outstanding: BTreeSet<u64> = (1..80).collect();
            let mut settled = BTreeSet::new();
            for tags in order.chunks(chunk) {
                settled.extend(tags.iter().copied());
                for ack in window.settle(tags) {
                    prop_assert!(outstanding.contains(&ack.tag), "a tag that is not outstanding closes the channel");
                    let gone: Vec<u64> = outstanding.iter().copied().filter(|t| *t == ack.tag || (ack.multiple && *t < ack.tag)).collect();
                    for tag in gone {
                        prop_assert!(settled.contains(&tag), "{tag} was not settled");
                        outstanding.remove(&tag);
                    }
                }
                prop_assert!(settled.iter().all(|tag| !outstanding.contains(tag)));
            }
        }
    }
}
