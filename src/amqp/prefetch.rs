//! How many deliveries to hold: as many as fit the buffer by the sizes seen, and no more than can be sent on in time. And
//! how many to take at a time.
//!
//! A live consumer's prefetch cannot be changed, so a change means to cancel and to consume anew; the arithmetic here
//! says when that is worth it. What an earlier consumer of the channel left unsettled counts against the buffer, not
//! against the present consumer's window.

/// What a delivery costs beside its payload, in bytes: its struct, its parsed form, its place in the maps, its outcome.
const OVERHEAD: usize = 3 * 1024;
/// How many times its payload a delivery costs: the payload itself, the addresses parsed from it, their places in a lane.
const PAYLOAD_FACTOR: usize = 8;
/// How much one size counts for the next estimate: 1 / this.
const MEMORY: usize = 16;
/// A window grows by no more than this factor at a time.
const GROWTH: usize = 8;
/// The window of a new channel, at most.
const FIRST: usize = 32;

/// The most deliveries that are taken at a time, and after how many bytes no further one is taken with them: what else there
/// is to do has its turn.
const BURST: usize = 256;
const BURST_BYTES: usize = 256 * 1024;

/// What a delivery of so many bytes costs in memory while it is unsettled.
pub(super) const fn cost(payload_bytes: usize) -> usize {
    payload_bytes.saturating_mul(PAYLOAD_FACTOR).saturating_add(OVERHEAD)
}

/// What is to be done about the consumer's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Change {
    /// Nothing.
    Keep,
    /// Consume anew with this one.
    Consume(u16),
    /// The buffer is full: cancel the consumers until what is here is done. What was on its way stays the broker's.
    Pause,
}

/// The deliveries that are not settled, as far as memory and windows go.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// All of the channel.
    pub unsettled: usize,
    /// Those of the present consumer of requests.
    pub own: usize,
    /// What all of them cost, in bytes.
    pub cost: usize,
}

/// The prefetch of the consumer of requests.
#[derive(Debug)]
pub(super) struct Prefetch {
    buffer_bytes: usize,
    /// As many as fit the buffer unparsed, were each as large as can be: never fewer.
    floor: usize,
    max: usize,
    /// The estimated cost of a delivery; `None` before the first.
    mean: Option<usize>,
    /// The present consumer's window.
    window: usize,
}

impl Prefetch {
    pub(super) fn new(buffer_bytes: usize, max_message_bytes: usize, max: u16) -> Self {
        let max = usize::from(max.max(1));
        let floor = (buffer_bytes / max_message_bytes.max(1)).clamp(1, FIRST);
        Self { buffer_bytes, floor, max, mean: None, window: floor.min(max) }
    }

    /// A new channel starts small; what is known of sizes stays known.
    pub(super) fn restart(&mut self) {
        self.window = self.target().min(FIRST);
    }

    /// The most deliveries that can be sent on in time; may change while a channel lives.
    pub(super) fn limit(&mut self, max: u16) {
        self.max = usize::from(max.max(1));
    }

    /// A delivery of this cost came.
    pub(super) fn saw(&mut self, cost: usize) {
        self.mean = Some(match self.mean {
            None => cost,
            // A large one counts at once in full, small ones bring the estimate down slowly.
            Some(mean) if cost > mean.saturating_mul(MEMORY) => cost,
            Some(mean) => (mean * (MEMORY - 1) + cost) / MEMORY,
        });
    }

    /// How many deliveries fit three quarters of the buffer: the rest is for those that are larger than the mean.
    fn target(&self) -> usize {
        let fit = self.mean.map_or(self.floor, |mean| self.buffer_bytes / 4 * 3 / mean.max(1));
        fit.max(self.floor).min(self.max)
    }

    /// What to do, given what is unsettled, and how much of it the pipeline has not looked at yet: it grows only by what
    /// is known of most that are here, for only then is the limit theirs.
    pub(super) fn change(&mut self, load: Load, unseen: usize) -> Change {
        if self.is_full(load) {
            return Change::Pause;
        }
        let target = self.target();
        let wanted = if target < self.window / 2 {
            target.saturating_sub(load.unsettled).max(self.floor.min(target))
        } else if load.own >= self.window
            && unseen <= self.window / 2
            && let Some(larger) = self.larger(load)
        {
            larger
        } else {
            return Change::Keep;
        };
        self.window = wanted;
        Change::Consume(self.window())
    }

    /// The next larger window, where there is room for one that is worth the while.
    fn larger(&self, load: Load) -> Option<usize> {
        // All that is unsettled now will be an earlier consumer's.
        let room = self.target().min(self.window.saturating_mul(GROWTH)).saturating_sub(load.unsettled);
        (room > self.window + self.window / 2).then_some(room)
    }

    /// Whether the broker sends nothing more before something is settled: the window has its size, and is full.
    pub(super) fn is_used_up(&self, load: Load) -> bool {
        load.own >= self.window && self.larger(load).is_none()
    }

    /// Whether a further delivery is taken with so many, of so many bytes, that are part of the load already.
    pub(super) const fn takes_another(&self, load: Load, taken: usize, bytes: usize) -> bool {
        !self.is_full(load) && taken < BURST && bytes < BURST_BYTES
    }

    const fn is_full(&self, load: Load) -> bool {
        load.cost > self.buffer_bytes
    }

    /// Whether enough is done after a pause to go on.
    pub(super) const fn may_go_on(&self, load: Load) -> bool {
        load.unsettled == 0 || load.cost <= self.buffer_bytes / 2
    }

    /// The present window.
    pub(super) fn window(&self) -> u16 {
        u16::try_from(self.window).unwrap_or(u16::MAX)
    }
}

/// Parts of [`BURST`] at the most, in their order.
pub(super) fn in_bursts<T>(mut items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let rest = items.split_off(items.len().min(BURST));
        let burst = std::mem::replace(&mut items, rest);
        (!burst.is_empty()).then_some(burst)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const SMALL: usize = cost(80);

    /// A queue that is never empty, of deliveries of one cost, none of which is settled before the window has its size.
    fn grow(prefetch: &mut Prefetch, each: usize) -> (usize, usize) {
        let (mut unsettled, mut steps) = (0, 0);
        loop {
            let own = usize::from(prefetch.window());
            for _ in 0..own {
                prefetch.saw(each);
            }
            unsettled += own;
            match prefetch.change(Load { unsettled, own, cost: unsettled * each }, 0) {
                Change::Consume(_) => steps += 1,
                Change::Keep | Change::Pause => return (unsettled, steps),
            }
        }
    }

    #[test]
    fn it_starts_with_as_many_as_fit_unparsed_at_their_largest() {
        assert_eq!(Prefetch::new(64 * MIB, 12 * MIB, u16::MAX).window(), 5);
        assert_eq!(Prefetch::new(MIB, 12 * MIB, u16::MAX).window(), 1);
        assert_eq!(Prefetch::new(64 * MIB, 12 * MIB, 3).window(), 3);
    }

    #[test]
    fn it_grows_to_thousands_of_small_messages_in_a_few_steps() {
        let (held, steps) = grow(&mut Prefetch::new(64 * MIB, 12 * MIB, u16::MAX), SMALL);
        assert!(held > 12_000, "{held}");
        assert!(steps <= 8, "{steps}");
    }

    #[test]
    fn whatever_the_size_no_more_than_one_delivery_is_beyond_the_buffer() {
        for bytes in [1, 80, 1000, 10_000, 100_000, MIB, 12 * MIB] {
            let mut prefetch = Prefetch::new(64 * MIB, 12 * MIB, u16::MAX);
            let (mut unsettled, mut own) = (0, 0);
            loop {
                (unsettled, own) = (unsettled + 1, own + 1);
                prefetch.saw(cost(bytes));
                match prefetch.change(Load { unsettled, own, cost: unsettled * cost(bytes) }, 0) {
                    Change::Consume(_) => own = 0,
                    Change::Keep if own == usize::from(prefetch.window()) => break,
                    Change::Keep => {}
                    Change::Pause => break,
                }
            }
            assert!((unsettled - 1) * cost(bytes) <= 64 * MIB, "{unsettled} of {bytes}");
        }
    }

    #[test]
    fn it_does_not_grow_while_its_window_is_not_full() {
        let mut prefetch = Prefetch::new(64 * MIB, 12 * MIB, u16::MAX);
        prefetch.saw(SMALL);
        assert_eq!(prefetch.change(Load { unsettled: 4, own: 4, cost: 4 * SMALL }, 0), Change::Keep);
    }

    #[test]
    fn it_does_not_grow_before_the_pipeline_has_looked_at_most_of_what_is_here() {
        let mut prefetch = Prefetch::new(384 * MIB, 12 * MIB, u16::MAX);
        for _ in 0..32 {
            prefetch.saw(SMALL);
        }
        let load = Load { unsettled: 32, own: 32, cost: 32 * SMALL };
        assert_eq!(prefetch.change(load, 17), Change::Keep);
        prefetch.limit(40);
        assert_eq!(prefetch.change(load, 16), Change::Keep, "there is no room worth the while");
        prefetch.limit(100);
        assert_eq!(prefetch.change(load, 16), Change::Consume(68));
    }

    #[test]
    fn one_large_message_among_small_ones_shrinks_the_window_and_small_ones_widen_it_soon() {
        let mut prefetch = Prefetch::new(64 * MIB, 12 * MIB, u16::MAX);
        let (held, _) = grow(&mut prefetch, SMALL);
        prefetch.saw(cost(MIB));
        let load = Load { unsettled: held, own: held, cost: 100 * SMALL + cost(MIB) };
        assert_eq!(prefetch.change(load, 0), Change::Consume(5));
        // What the earlier consumer left is settled, and the new one's window is full again and again.
        let mut seen = 0;
        while prefetch.window() < 1000 {
            let own = usize::from(prefetch.window());
            for _ in 0..own {
                prefetch.saw(SMALL);
            }
            seen += own;
            let _ = prefetch.change(Load { unsettled: own, own, cost: own * SMALL }, 0);
        }
        assert!(seen < 1000, "{seen}");
    }

    #[test]
    fn a_window_is_used_up_once_it_is_full_and_will_not_grow() {
        let mut prefetch = Prefetch::new(64 * MIB, 12 * MIB, u16::MAX);
        prefetch.saw(SMALL);
        let load = |own| Load { unsettled: own, own, cost: own * SMALL };
        assert!(!prefetch.is_used_up(load(usize::from(prefetch.window()))), "a larger one is to come");
        prefetch.limit(prefetch.window());
        assert!(prefetch.is_used_up(load(usize::from(prefetch.window()))));
        assert!(!prefetch.is_used_up(load(usize::from(prefetch.window()) - 1)));
    }

    #[test]
    fn a_full_buffer_is_paused_for_until_half_of_it_is_free() {
        let mut prefetch = Prefetch::new(64 * MIB, 12 * MIB, u16::MAX);
        assert_eq!(prefetch.change(Load { unsettled: 2, own: 2, cost: 65 * MIB }, 0), Change::Pause);
        assert!(!prefetch.may_go_on(Load { unsettled: 1, own: 1, cost: 33 * MIB }));
        assert!(prefetch.may_go_on(Load { unsettled: 1, own: 1, cost: 32 * MIB }));
        assert!(prefetch.may_go_on(Load::default()));
    }

    #[test]
    fn a_new_channel_starts_small_and_remembers_the_sizes() {
        let mut prefetch = Prefetch::new(64 * MIB, 12 * MIB, u16::MAX);
        grow(&mut prefetch, SMALL);
        prefetch.restart();
        assert_eq!(prefetch.window(), 32);
        prefetch.saw(cost(12 * MIB));
        prefetch.restart();
        assert_eq!(prefetch.window(), 5);
    }

    #[test]
    fn a_new_limit_narrows_the_window() {
        let mut prefetch = Prefetch::new(64 * MIB, 12 * MIB, u16::MAX);
        grow(&mut prefetch, SMALL);
        prefetch.limit(100);
        let load = Load { unsettled: 10, own: 10, cost: 10 * SMALL };
        assert_eq!(prefetch.change(load, 0), Change::Consume(90));
    }

    #[test]
    fn a_burst_ends_where_the_buffer_is_full_or_others_wait_for_their_turn() {
        let prefetch = Prefetch::new(64 * 1024, 64 * 1024, 100);
        let load = |cost| Load { unsettled: 1, own: 1, cost };
        assert!(prefetch.takes_another(load(64 * 1024), 1, 1));
        assert!(!prefetch.takes_another(load(64 * 1024 + 1), 1, 1), "no delivery beyond the one that fills it");
        assert!(!prefetch.takes_another(load(1), BURST, 1) && !prefetch.takes_another(load(1), 1, BURST_BYTES));
    }

    #[test]
    fn however_many_are_drained_at_once_they_are_handed_over_in_bursts() {
        let lengths: Vec<_> = in_bursts((0..600).collect()).map(|burst: Vec<u32>| burst.len()).collect();
        assert_eq!(lengths, [256, 256, 88]);
        assert_eq!(in_bursts((0..600).collect::<Vec<_>>()).flatten().collect::<Vec<_>>(), (0..600).collect::<Vec<_>>());
        assert_eq!(in_bursts(Vec::<u32>::new()).count(), 0);
    }
}
