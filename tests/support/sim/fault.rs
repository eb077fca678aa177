//! Faults: a crash before or after an effect, and whether faults are on at all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

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
    /// Until when the worker's process stands still.
    stopped: Mutex<Option<Instant>>,
    /// Whether its way to the journal is cut.
    cut_off: AtomicBool,
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
            stopped: Mutex::default(),
            cut_off: AtomicBool::new(false),
            crash_rate,
            error_rate,
        })
    }

    pub fn off(&self) {
        self.on.store(false, Ordering::SeqCst);
    }

    /// The worker's process stands still until then: nothing that it asks for is done sooner. Not again soon after: what
    /// hardly ever goes on holds its deliveries for too long.
    pub fn stop(&self, until: Instant) {
        let mut stopped = self.stopped.lock().unwrap();
        if stopped.is_none_or(|last| last + Duration::from_mins(10) < Instant::now()) {
            *stopped = Some(until);
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.lock().unwrap().is_some_and(|until| Instant::now() < until)
    }

    /// Returns once it goes on.
    pub async fn goes_on(&self) {
        while self.is_stopped() {
            let until = self.stopped.lock().unwrap().unwrap();
            tokio::time::sleep_until(until).await;
        }
    }

    /// Cuts the way to the journal, or mends it.
    pub fn cut_off(&self, cut: bool) {
        self.cut_off.store(cut, Ordering::SeqCst);
    }

    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::SeqCst)
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
        // What is rare gets its share.
        let rate = if effect == "split" { self.error_rate * 10.0 } else { self.error_rate };
        let strikes = self.strikes_within_bounds(rate);
        if strikes {
            coverage::hit(effect, &format!("error {when}"), state);
        }
        strikes
    }

    /// The worker may die here: then this never returns, nor does anything else that it calls.
    pub async fn crash(&self, effect: &str, when: &str, state: &str) {
        self.goes_on().await;
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
