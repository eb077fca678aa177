//! What the tasks of the pipeline share: requests, lanes and gates under one lock, and a bell that rings on change.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::housekeeping::Consuming;
use super::permits::{Line, RateLimiter};
use super::turns::Limiter;
use super::{KeyInUse, Ports, Settings, settle};
use crate::domain::gates::{Gates, Hold, HoldReason};
use crate::domain::ids::{ProjectId, RequestDigest};
use crate::domain::moment::Timestamp;
use crate::domain::pauses::Pause;
use crate::domain::planner::{Planner, Sight};
use crate::domain::registry::Registry;
use crate::ports::{Delivery, Epoch, Event, JournalError};

/// How long the journal may take before it counts as down.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(5);

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
    pub limiter: Limiter,
    /// Paces calls once more where they leave: permits that waited for the journal together do not leave together.
    pub departures: RateLimiter,
    /// Who waits for a permit.
    pub line: Line,
    /// What is known of deliveries to come.
    pub sight: Sight,
    /// The daily quota is spent until then (steady: the wall clock may be put right meanwhile).
    pub quota_until: Option<Duration>,
    /// Calls that counted against the daily quota when the journal was asked last.
    pub quota_spent: u64,
    /// What is taken from the broker.
    pub consuming: Consuming,
    /// Whether the channel has ended, and nothing came since.
    pub channel_lost: bool,
    /// Since when the journal fails, or does not answer (steady).
    pub journal_down: Option<Duration>,
    /// Whether a publication found no queue when it was tried last.
    pub unroutable: bool,
    /// The returned request that this process took last.
    pub last_returned: Option<RequestDigest>,
    /// The deliveries that intake is looking at: their epoch, and since when (steady).
    pub taking: Option<(Epoch, Duration)>,
    /// Deliveries that have left their requests for a pause, to step aside; whether their project is held, too.
    pub leaving: Vec<(Waiter, bool)>,
    /// Whether it was told that this journal is new and the requests are not.
    pub told_of_lost_journal: bool,
}

impl State {
    /// Whether some open manifest tries whether a hold of everything is over: those that are paused do not.
    pub(super) fn is_tried(&self) -> bool {
        self.registry.is_under_way(|project| !self.gates.pauses.stop(project))
    }

    /// Whether emails wait in a lane from which a new batch may come.
    pub(super) fn has_newcomer(&self) -> bool {
        self.planner.waits(|project| !self.gates.steps_aside(project))
    }
}

/// What the tasks of the pipeline share.
pub struct Desk {
    pub(super) ports: Ports,
    pub(super) settings: Settings,
    pub(super) key: KeyInUse,
    state: Mutex<State>,
    bell: Notify,
    /// Told when deliveries have left, so that the broker may send others.
    pub(super) room: Notify,
    /// Told when pauses began or ended.
    pub(super) paused_otherwise: Notify,
    /// Held from the journal's word on pauses to the gates' knowing it, so that no older word comes after.
    pub(super) pausing: tokio::sync::Mutex<()>,
    recovered: AtomicBool,
    pub(super) settling: Arc<settle::Shared>,
}

/// What the worker does at a moment, for those who watch.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whether open manifests of an earlier life have been taken up.
    pub recovered: bool,
    /// The hold of everything.
    pub hold: Option<Hold>,
    /// The holds of single projects.
    pub held_projects: Vec<(ProjectId, Hold)>,
    /// The pauses in force.
    pub pauses: Vec<Pause>,
    /// Requests here.
    pub requests: usize,
    /// Distinct emails in lanes.
    pub waiting: usize,
    /// Lanes.
    pub lanes: usize,
    /// Calls under way.
    pub in_flight: u32,
    /// Calls that could leave now, for a project that is not held by itself.
    pub permits: u32,
    /// Calls left of the daily quota, some seconds old; `None` where there is no quota.
    pub quota_left: Option<u64>,
    /// How long ago the oldest delivery came that is not settled; `None` where all are.
    pub oldest: Option<Duration>,
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
        let (registry, limiter) = match ports.journal.lease_left() {
            None => (Registry::default(), Limiter::own(&settings)),
            Some(_) => (Registry::default().among_others(), Limiter::shared(&settings)),
        };
        let state = State {
            registry,
            planner: Planner::new(settings.max_emails, settings.linger),
            gates: Gates::new(settings.max_in_flight),
            limiter,
            departures: RateLimiter::new(settings.requests_per_minute, settings.burst),
            line: Line::default(),
            sight: Sight::Nothing,
            quota_until: None,
            quota_spent: 0,
            consuming: Consuming::Nothing,
            channel_lost: false,
            journal_down: None,
            unroutable: false,
            last_returned: None,
            taking: None,
            leaving: Vec::new(),
            told_of_lost_journal: false,
        };
        Arc::new(Self {
            ports,
            settings,
            key,
            state: Mutex::new(state),
            bell: Notify::new(),
            room: Notify::new(),
            paused_otherwise: Notify::new(),
            pausing: tokio::sync::Mutex::default(),
            recovered: AtomicBool::new(false),
            settling: Arc::default(),
        })
    }

    /// What the worker does now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = self.ports.world.now();
        let settling = self.settling.oldest();
        let state = self.lock();
        let spent = state.quota_until.is_some_and(|until| until > now.steady);
        let waiting = state.registry.all_deliveries().map(|waiter| waiter.since);
        let oldest = waiting.chain(state.taking.map(|(_, since)| since)).chain(settling).min();
        let quota_left =
            self.settings.requests_per_day.map(|quota| if spent { 0 } else { quota.saturating_sub(state.quota_spent) });
        let room = state.gates.room(now.steady).min(state.limiter.available(now.steady));
        Snapshot {
            recovered: self.recovered.load(Ordering::Acquire),
            hold: state.gates.held().cloned(),
            held_projects: state.gates.held_projects().map(|(p, hold)| (p.clone(), hold.clone())).collect(),
            pauses: state.gates.pauses.in_force().cloned().collect(),
            requests: state.registry.len(),
            waiting: state.planner.waiting(),
            lanes: state.planner.lanes(),
            in_flight: state.gates.in_flight(),
            permits: if quota_left == Some(0) { 0 } else { room },
            quota_left,
            oldest: oldest.map(|since| now.steady.saturating_sub(since)),
            journal_down: state.journal_down.is_some(),
            unroutable: state.unroutable,
            quota_until: state
                .quota_until
                .filter(|_| spent)
                .map(|until| now.wall.after(until.saturating_sub(now.steady))),
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

    /// What a batch may wait for: where nothing is under way, nothing makes room for what would come later.
    pub(super) fn worth_waiting_for(&self, state: &State) -> Sight {
        match state.sight {
            Sight::Later if !state.registry.is_under_way(|_| true) && self.settling.oldest().is_none() => {
                Sight::Nothing
            }
            sight => sight,
        }
    }

    pub(super) fn set_recovered(&self) {
        self.recovered.store(true, Ordering::Release);
    }

    /// A wait at the backoff's `exponent`-th interval.
    pub(super) fn backoff(&self, exponent: u32) -> Duration {
        self.settings.backoff.wait(exponent, self.ports.world.dice())
    }

    /// Asks the journal until it answers. One that fails, or does not answer, holds whoever needs it; nothing goes on
    /// without it.
    pub(super) async fn journaled<T, F: Future<Output = Result<T, JournalError>>>(
        &self,
        mut ask: impl FnMut() -> F,
    ) -> T {
        let mut failures = 0;
        let mut told = false;
        loop {
            let mut asking = pin!(ask());
            let answer = if let Ok(answer) = tokio::time::timeout(JOURNAL_PATIENCE, &mut asking).await {
                answer
            } else {
                told = true;
                self.journal_is_down(&Event::JournalSilent);
                // Not dropped and asked anew: what it was asked may be done by then.
                asking.await
            };
            match answer {
                Ok(answer) => {
                    if told && self.lock().journal_down.take().is_some() {
                        self.ports.observer.see(&Event::JournalWorks);
                    }
                    return answer;
                }
                Err(error) => {
                    told = true;
                    self.journal_is_down(&Event::JournalFailed(&error));
                    // Not less than half the interval: full jitter could spin.
                    let pause = self.backoff(failures).max(self.settings.backoff.interval(failures) / 2);
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Tells once, however many ask.
    fn journal_is_down(&self, event: &Event<'_>) {
        let now = self.ports.world.now().steady;
        let began = {
            let mut state = self.lock();
            let began = state.journal_down.is_none();
            state.journal_down.get_or_insert(now);
            began
        };
        if began {
            self.ports.observer.see(event);
        }
    }
}

/// What a look at the state gave.
pub(super) enum Look<T> {
    Found(T),
    /// Nothing yet: look again at this time, or when the bell rings.
    Again(Option<Duration>),
}
