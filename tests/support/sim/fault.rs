//! Faults: a crash before or after an effect, and whether faults are on at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use super::coverage;
use super::dice::Dice;

const STRIKES: u64 = 60;

/// One world's faults.
pub struct Faults {
    pub dice: Dice,
    on: AtomicBool,
    crashed: AtomicBool,
    bell: Notify,
    crashes_left: AtomicU64,
    /// Errors and cuts, all together: a world in which every so many messages one is doubled, for days, drowns in them.
    strikes_left: AtomicU64,
    /// How often, per effect.
    pub crash_rate: f64,
    pub error_rate: f64,
}

impl Faults {
    pub fn new(dice: Dice, crash_rate: f64, error_rate: f64, crashes: u64) -> Arc<Self> {
        Arc::new(Self {
            dice,
            on: AtomicBool::new(true),
            crashed: AtomicBool::new(false),
            bell: Notify::new(),
            crashes_left: AtomicU64::new(crashes),
            strikes_left: AtomicU64::new(STRIKES),
            crash_rate,
            error_rate,
        })
    }

    pub fn off(&self) {
        self.on.store(false, Ordering::SeqCst);
    }

    pub fn are_on(&self) -> bool {
        self.on.load(Ordering::SeqCst)
    }

    /// Whether something else than a crash goes wrong here.
    pub fn strikes(&self, rate: f64) -> bool {
        self.are_on() && self.dice.chance(rate)
    }

    /// The same, for what a world can bear only so often.
    pub fn strikes_within_bounds(&self, rate: f64) -> bool {
        self.strikes(rate)
            && self.strikes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    pub fn error(&self, effect: &str, when: &str, state: &str) -> bool {
        let strikes = self.strikes_within_bounds(self.error_rate);
        if strikes {
            coverage::hit(effect, &format!("error {when}"), state);
        }
        strikes
    }

    /// The worker may die here: then this never returns, nor does anything else that it calls.
    pub async fn crash(&self, effect: &str, when: &str, state: &str) {
        if self.crashed.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        // What is rare gets its share.
        let rate = if effect == "split" || state == "next key" { self.crash_rate * 10.0 } else { self.crash_rate };
        if self.strikes(rate)
            && self.crashes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            coverage::hit(effect, &format!("crash {when}"), state);
            self.crashed.store(true, Ordering::SeqCst);
            self.bell.notify_waiters();
            self.bell.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Whether the worker is dead already.
    pub fn is_crashed(&self) -> bool {
        self.crashed.load(Ordering::SeqCst)
    }

    /// Returns once the worker has died.
    pub async fn died(&self) {
        while !self.is_crashed() {
            self.bell.notified().await;
        }
    }

    /// The next life begins.
    pub fn revive(&self) {
        self.crashed.store(false, Ordering::SeqCst);
    }
}
