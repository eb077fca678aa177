//! How many deliveries to hold: as many as fit the buffer by the sizes seen, and no more than can be sent on in time.
//!
//! A live consumer's prefetch cannot be changed, so a change means to cancel and to consume anew; the arithmetic here
//! says when that is worth it.

/// What a delivery costs beside its payload, in bytes: its struct, its parsed form, its place in the maps.
const OVERHEAD: usize = 512;
/// How much one size counts for the next estimate: 1 / this.
const MEMORY: usize = 64;
/// A window grows by no more than this factor at a time.
const GROWTH: usize = 8;

/// The prefetch of the consumer of requests.
#[derive(Debug)]
pub(super) struct Prefetch {
    buffer_bytes: usize,
    max: usize,
    /// The estimated size of a delivery; `None` before the first.
    mean: Option<usize>,
    worst: usize,
    /// What the consumer has been given.
    window: usize,
}

impl Prefetch {
    pub(super) fn new(buffer_bytes: usize, max_message_bytes: usize, max: u16) -> Self {
        let worst = max_message_bytes + OVERHEAD;
        let window = (buffer_bytes / worst).clamp(1, 32).min(usize::from(max.max(1)));
        Self { buffer_bytes, max: usize::from(max.max(1)), mean: None, worst, window }
    }

    /// A delivery of this size came.
    pub(super) fn saw(&mut self, bytes: usize) {
        let size = (bytes + OVERHEAD).min(self.worst);
        self.mean = Some(match self.mean {
            None => size,
            // A large one counts at once in full, small ones bring the estimate down slowly.
            Some(mean) if size > mean * MEMORY => size,
            Some(mean) => (mean * (MEMORY - 1) + size) / MEMORY,
        });
    }

    /// How many deliveries fit the buffer.
    fn target(&self) -> usize {
        (self.buffer_bytes / self.mean.unwrap_or(self.worst).max(1)).clamp(1, self.max)
    }

    /// The window to ask for instead of the present one, given what is unsettled and how many bytes that holds;
    /// `None` where the present one will do.
    pub(super) fn change(&mut self, unsettled: usize, held_bytes: usize) -> Option<u16> {
        let target = self.target();
        let full = unsettled >= self.window;
        let grown = target.min(self.window.saturating_mul(GROWTH));
        let wanted = if held_bytes > self.buffer_bytes {
            1
        } else if full && grown >= self.window.saturating_add(self.window / 2) {
            grown
        } else if target < self.window / 2 {
            target
        } else {
            return None;
        };
        if wanted == self.window {
            return None;
        }
        self.window = wanted;
        Some(self.window())
    }

    /// The present window.
    pub(super) fn window(&self) -> u16 {
        u16::try_from(self.window).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn it_starts_with_as_many_as_fit_at_their_largest() {
        assert_eq!(Prefetch::new(64 * MIB, 12 * MIB, u16::MAX).window(), 5);
        assert_eq!(Prefetch::new(MIB, 12 * MIB, u16::MAX).window(), 1);
        assert_eq!(Prefetch::new(64 * MIB, 12 * MIB, 3).window(), 3);
    }

    #[test]
    fn it_grows_to_thousands_of_small_messages_in_a_few_steps() {
        let mut prefetch = Prefetch::new(64 * MIB, 12 * MIB, u16::MAX);
        let mut steps = 0;
        loop {
            for _ in 0..prefetch.window() {
                prefetch.saw(200);
            }
            match prefetch.change(usize::from(prefetch.window()), 0) {
                Some(_) => steps += 1,
                None => break,
            }
        }
        assert!(prefetch.window() > 20_000, "{}", prefetch.window());
        assert!(steps <= 5, "{steps}");
    }

    #[test]
    fn it_does_not_grow_while_its_window_is_not_full() {
        let mut prefetch = Prefetch::new(64 * MIB, 12 * MIB, u16::MAX);
        prefetch.saw(200);
        assert_eq!(prefetch.change(4, 1000), None);
    }

    #[test]
    fn it_shrinks_for_large_messages_and_to_one_when_the_buffer_is_over_full() {
        let mut prefetch = Prefetch::new(64 * MIB, 12 * MIB, u16::MAX);
        for _ in 0..10 {
            prefetch.saw(200);
            let _ = prefetch.change(usize::from(prefetch.window()), 0);
        }
        prefetch.saw(MIB);
        assert!(prefetch.change(100, 10 * MIB).unwrap() <= 64);
        assert_eq!(prefetch.change(100, 65 * MIB), Some(1));
    }
}
