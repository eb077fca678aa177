//! What the tasks of the pipeline share: requests, lanes and gates under one lock, and a bell that rings on change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::permits::RateLimiter;
use super::{KeyInUse, Ports, Settings};
use crate::domain::gates::{Gates, Hold, HoldReason};
use crate::domain::ids::ProjectId;
use crate::domain::moment::Timestamp;
use crate::domain::planner::Planner;
use crate::domain::registry::Registry;
use crate::ports::{Delivery, Epoch, Event, JournalError};

/// A delivery that waits for its request's outcome.
#[derive(Debug)]
pub(super) struct Waiter {
    pub delivery: Delivery,
    /// When it came (steady).
    pub since: Duration,
}

/// Under the lock. Nobody awaits while holding it.
#[allow(clippy::struct_excessive_bools, reason = "each tells of another door; no two exclude each other")]
pub(super) struct State {
    pub registry: Registry<Waiter>,
    pub planner: Planner,
    pub gates: Gates,
    pub limiter: RateLimiter,
    /// Who waits for a permit, in order of arrival, and for which project.
    pub queue: BTreeMap<u64, ProjectId>,
    pub next_ticket: u64,
    /// Whether deliveries are here that are in no lane yet.
    pub in_sight: bool,
    /// The daily quota is spent until then.
    pub quota_until: Option<Timestamp>,
    /// Since when the journal fails (steady).
    pub journal_down: Option<Duration>,
    /// Whether a publication found no queue when it was tried last.
    pub unroutable: bool,
    /// The deliveries that intake is looking at: their epoch, and since when (steady).
    pub taking: Option<(Epoch, Duration)>,
    /// Whether it was told that this journal is new and the requests are not.
    pub told_of_lost_journal: bool,
}

/// What the tasks of the pipeline share.
pub struct Desk {
    pub(super) ports: Ports,
    pub(super) settings: Settings,
    pub(super) key: KeyInUse,
    state: Mutex<State>,
    bell: Notify,
    recovered: AtomicBool,
}

/// What the worker does at a moment, for those who watch.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whether open manifests of an earlier life have been taken up.
    pub recovered: bool,
    /// The hold of everything.
    pub hold: Option<Hold>,
    /// How many projects are held by themselves.
    pub held_projects: usize,
    /// Requests here.
    pub requests: usize,
    /// Distinct emails in lanes.
    pub waiting: usize,
    /// Lanes.
    pub lanes: usize,
    /// Calls under way.
    pub in_flight: u32,
    /// Whether the journal failed when it was asked last.
    pub journal_down: bool,
    /// Whether a publication found no queue when it was tried last.
    pub unroutable: bool,
    /// Until when the daily quota is spent.
    pub quota_until: Option<Timestamp>,
}

impl Desk {
    /// An empty desk.
    #[must_use]
    pub fn new(ports: Ports, settings: Settings, key: KeyInUse) -> Arc<Self> {
        let state = State {
            registry: Registry::default(),
            planner: Planner::new(settings.max_emails, settings.linger),
            gates: Gates::new(settings.max_in_flight),
            limiter: RateLimiter::new(settings.requests_per_minute, settings.burst),
            queue: BTreeMap::new(),
            next_ticket: 0,
            in_sight: false,
            quota_until: None,
            journal_down: None,
            unroutable: false,
            taking: None,
            told_of_lost_journal: false,
        };
        Arc::new(Self {
            ports,
            settings,
            key,
            state: Mutex::new(state),
            bell: Notify::new(),
            recovered: AtomicBool::new(false),
        })
    }

    /// What the worker does now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot {
            recovered: self.recovered.load(Ordering::Acquire),
            hold: state.gates.held().cloned(),
            held_projects: state.gates.held_projects().count(),
            requests: state.registry.len(),
            waiting: state.planner.waiting(),
            lanes: state.planner.lanes(),
            in_flight: state.gates.in_flight(),
            journal_down: state.journal_down.is_some(),
            unroutable: state.unroutable,
            quota_until: state.quota_until,
        }
    }

    /// A new API key is in use: what waits because the old one was refused may try at once.
    pub fn key_changed(&self) {
        let mut state = self.lock();
        if state.gates.held().is_some_and(|hold| hold.reason == HoldReason::KeyRefused)
            || state.gates.held_projects().count() > 0
        {
            state.gates.try_now();
        }
        drop(state);
        self.ring();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Poisoned only by a panic, which ends the worker anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everyone who waits for a change.
    pub(super) fn ring(&self) {
        self.bell.notify_waiters();
    }

    /// Asks `look` until it gives a result: again at the time that it names (steady), and whenever the bell rings.
    pub(super) async fn wait_for<T>(&self, mut look: impl FnMut(&mut State, Duration) -> Look<T>) -> T {
        loop {
            let bell = self.bell.notified();
            tokio::pin!(bell);
            // Before looking, so that no ring between the look and the wait is missed.
            bell.as_mut().enable();
            let now = self.ports.world.now().steady;
            let again = match look(&mut self.lock(), now) {
                Look::Found(found) => return found,
                Look::Again(at) => at,
            };
            match again {
                None => bell.await,
                // Biased, here and elsewhere: no chance but the dice of `World`, so that a simulated world replays.
                Some(at) => tokio::select! {
                    biased;
                    () = bell => {}
                    () = tokio::time::sleep(at.saturating_sub(now).max(Duration::from_millis(1))) => {}
                },
            }
        }
    }

    pub(super) fn set_recovered(&self) {
        self.recovered.store(true, Ordering::Release);
    }

    /// A wait at the backoff's `exponent`-th interval.
    pub(super) fn backoff(&self, exponent: u32) -> Duration {
        self.settings.backoff.wait(exponent, self.ports.world.dice())
    }

    /// Asks the journal until it answers. A failing journal holds whoever needs it; nothing goes on without it.
    pub(super) async fn journaled<T, F: Future<Output = Result<T, JournalError>>>(
        &self,
        mut ask: impl FnMut() -> F,
    ) -> T {
        let mut failures = 0;
        loop {
            match ask().await {
                Ok(answer) => {
                    if failures > 0 {
                        self.lock().journal_down = None;
                        self.ports.observer.see(&Event::JournalWorks);
                    }
                    return answer;
                }
                Err(error) => {
                    let now = self.ports.world.now().steady;
                    self.lock().journal_down.get_or_insert(now);
                    if failures == 0 {
                        self.ports.observer.see(&Event::JournalFailed(&error));
                    }
                    // Not less than half the interval: full jitter could spin.
                    let pause = self.backoff(failures).max(self.settings.backoff.interval(failures) / 2);
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// What a look at the state gave.
pub(super) enum Look<T> {
    Found(T),
    /// Nothing yet: look again at this time, or when the bell rings.
    Again(Option<Duration>),
}
