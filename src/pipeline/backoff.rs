//! How long to wait: exponential intervals with full jitter
//! (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
//!
//! The crate `backoff` does the interval arithmetic and nothing else: no sleeping, no clock, no dice of its own.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// `retry.initial_interval`, `retry.multiplier`, `retry.max_interval`.
#[derive(Clone, Copy, Debug)]
pub struct BackoffSettings {
    /// The first interval.
    pub initial_interval: Duration,
    /// What each interval is multiplied by for the next; at least 1.
    pub multiplier: f64,
    /// No interval is longer.
    pub max_interval: Duration,
}

impl BackoffSettings {
    /// A wait of between nothing and the `exponent`-th interval (from 0), as `dice` (0.0 to 1.0) falls.
    #[must_use]
    pub fn wait(&self, exponent: u32, dice: f64) -> Duration {
        self.interval(exponent).mul_f64(dice.clamp(0.0, 1.0))
    }

    /// The `exponent`-th interval, from 0.
    #[must_use]
    pub fn interval(&self, exponent: u32) -> Duration {
        let mut intervals = ExponentialBackoff {
            current_interval: self.initial_interval,
            initial_interval: self.initial_interval,
            multiplier: self.multiplier,
            max_interval: self.max_interval,
            randomization_factor: 0.0,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        // From some exponent on all intervals are the longest; 64 doublings pass any.
        for _ in 0..exponent.min(64) {
            let _ = intervals.next_backoff();
        }
        intervals.current_interval.min(self.max_interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_to_the_longest_and_the_dice_pick_within() {
        let backoff = BackoffSettings {
            initial_interval: Duration::from_millis(500),
            multiplier: 2.0,
            max_interval: Duration::from_mins(1),
        };
        let intervals: Vec<u128> = (0..9).map(|n| backoff.interval(n).as_millis()).collect();
        assert_eq!(intervals, [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
        assert_eq!(backoff.interval(u32::MAX), Duration::from_mins(1));
        assert_eq!(backoff.wait(2, 0.0), Duration::ZERO);
        assert_eq!(backoff.wait(2, 0.5), Duration::from_secs(1));
    }
}
