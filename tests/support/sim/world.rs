//! The clock of a simulated world: tokio's paused one, with a wall clock that can step.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use migma_eraser::domain::moment::{Moment, Timestamp};
use migma_eraser::ports::{Event, Observer, World};
use tokio::time::Instant;

use super::dice::Dice;

/// 2026-11-23T12:00:00Z.
pub const EPOCH_MS: i64 = 1_795_435_200_000;

#[derive(Clone)]
pub struct SimWorld {
    start: Instant,
    /// What the worker's wall clock is off by, in milliseconds.
    pub step: Arc<AtomicI64>,
    dice: Dice,
}

impl SimWorld {
    pub fn new(dice: Dice) -> Self {
        Self { start: Instant::now(), step: Arc::default(), dice }
    }

    /// The true time, which the API goes by.
    pub fn true_millis(&self) -> i64 {
        EPOCH_MS + i64::try_from(self.start.elapsed().as_millis()).unwrap()
    }
}

impl World for SimWorld {
    fn now(&self) -> Moment {
        Moment {
            wall: Timestamp::from_millis(self.true_millis() + self.step.load(Ordering::SeqCst)),
            steady: self.start.elapsed(),
        }
    }

    fn dice(&self) -> f64 {
        self.dice.unit()
    }
}

/// Nobody watches.
pub struct Blind;

impl Observer for Blind {
    fn see(&self, _: &Event<'_>) {}
}
