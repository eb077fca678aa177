//! Migma in memory, with a ledger: what was really deleted, by which key. Calls run on after their caller has died.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use migma_eraser::domain::answer::{Deletion, Doubt, Refusal, Reply, Verdict};
use migma_eraser::domain::email::fold;
use migma_eraser::domain::ids::Fingerprint;
use migma_eraser::domain::manifest::{Journaled, Manifest, body_emails};
use migma_eraser::domain::traceparent::TraceParent;
use migma_eraser::ports::{Api, ApiKey};
use tokio::time::Instant;

use super::coverage;
use super::fault::Faults;
use super::journal::Probe;
use super::world::SimWorld;

/// What `Retry-After` asks for.
const ASKED: Duration = Duration::from_secs(2);
const REPLAY_MS: i64 = 24 * 3600 * 1000;

/// One performed call.
#[derive(Clone, Debug)]
pub struct Work {
    pub key: String,
    pub project: String,
    pub deleted: BTreeSet<String>,
}

#[derive(Clone)]
struct Cached {
    body: Vec<u8>,
    answer: Verdict,
    status: u16,
    at: i64,
}

/// What outlives the worker.
#[derive(Default)]
pub struct Store {
    pub contacts: BTreeMap<String, BTreeSet<String>>,
    pub ledger: Vec<Work>,
    cache: HashMap<(Fingerprint, String), Cached>,
    running: BTreeSet<(Vec<u8>, String)>,
    pub calls: u64,
    pub conflicts: Vec<String>,
    pub violations: Vec<String>,
    pub forbidden: BTreeSet<String>,
    pub refused_keys: Vec<Fingerprint>,
    pub poison: BTreeSet<String>,
    /// Emails whose every call ends in a 500, whatever else goes well.
    pub broken: BTreeSet<String>,
    /// Until when the API asked for no call; a new life knows nothing of it.
    quiet_until: Option<Instant>,
    /// The rate that the worker is bound to; a new life begins with a full burst.
    pace: Option<Pace>,
    pub down: bool,
    /// Projects whose pause is known to be in force; `None` for everything.
    pub paused: BTreeSet<Option<String>>,
}

/// So much time for each call, so many at once after a pause, and when the last one's time is over.
#[derive(Clone, Copy)]
struct Pace {
    period: Duration,
    burst: u32,
    used_until: Instant,
}

impl Pace {
    /// A call leaves; whether that is too soon.
    fn call(&mut self, now: Instant) -> bool {
        self.used_until = self.used_until.max(now) + self.period;
        self.used_until > now + self.period * self.burst + Duration::from_millis(1)
    }
}

#[derive(Clone)]
pub struct FakeApi {
    pub store: Arc<Mutex<Store>>,
    faults: Arc<Faults>,
    world: SimWorld,
    journal: Probe,
    max_emails: usize,
    /// Which of several workers calls.
    worker: Option<u64>,
}

/// How one call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Unsent,
    DropBefore,
    DropAfter,
    ServerBefore,
    ServerAfter,
    Throttled,
    GarbageAfter,
    Unsuccessful,
    Conflict,
}

impl FakeApi {
    pub fn new(faults: Arc<Faults>, world: SimWorld, journal: Probe, max_emails: usize) -> Self {
        Self { store: Arc::default(), faults, world, journal, max_emails, worker: None }
    }

    /// The same API for one of several workers, that has faults of its own.
    pub fn beside(&self, faults: Arc<Faults>, worker: u64) -> Self {
        Self { faults, worker: Some(worker), ..self.clone() }
    }

    /// What `rate_limit` has: no call may leave sooner.
    pub fn go_by(&self, per_minute: NonZeroU32, burst: NonZeroU32) {
        let period = Duration::from_mins(1) / per_minute.get();
        self.store.lock().unwrap().pace = Some(Pace { period, burst: burst.get(), used_until: Instant::now() });
    }

    /// A new life begins, which knows of no call before it.
    pub fn forgotten(&self) {
        let mut store = self.store.lock().unwrap();
        store.quiet_until = None;
        if let Some(pace) = &mut store.pace {
            pace.used_until = Instant::now();
        }
    }

    fn trouble(&self) -> Trouble {
        if self.store.lock().unwrap().down && self.faults.are_on() {
            return *self.faults.dice.pick(&[Trouble::Unsent, Trouble::ServerBefore, Trouble::DropBefore]);
        }
        if !self.faults.strikes(0.25) {
            return Trouble::None;
        }
        *self.faults.dice.pick(&[
            Trouble::Unsent,
            Trouble::DropBefore,
            Trouble::DropAfter,
            Trouble::DropAfter,
            Trouble::ServerBefore,
            Trouble::ServerAfter,
            Trouble::Throttled,
            Trouble::GarbageAfter,
            Trouble::Unsuccessful,
            Trouble::Conflict,
        ])
    }

    /// The work, as the server does it.
    fn serve(&self, body: &[u8], project: &str, key: &str, fingerprint: Fingerprint) -> (Verdict, u16, bool) {
        let now = self.world.true_millis();
        let mut store = self.store.lock().unwrap();
        if store.refused_keys.contains(&fingerprint) {
            return (Verdict::Refused(Refusal::Key), 401, false);
        }
        let place = (fingerprint, key.to_owned());
        if let Some(cached) = store.cache.get(&place).filter(|cached| now - cached.at < REPLAY_MS).cloned() {
            if cached.body != body {
                store.conflicts.push(key.to_owned());
                return (Verdict::Refused(Refusal::Conflict), 409, false);
            }
            return (cached.answer, cached.status, true);
        }
        let emails = body_emails(body).unwrap_or_default();
        let folded: BTreeSet<String> = emails.iter().map(|e| fold(e).into_owned()).collect();
        if emails.is_empty() || emails.len() > self.max_emails || folded.len() != emails.len() {
            store.violations.push(format!("a body of {} emails, {} distinct", emails.len(), folded.len()));
        }
        if folded.iter().any(|e| store.broken.contains(e)) {
            return (Verdict::Unknown(Doubt::Server), 500, false);
        }
        let (answer, status) = if store.forbidden.contains(project) {
            (Verdict::Refused(Refusal::Forbidden), 403)
        } else if !store.contacts.contains_key(project) {
            (Verdict::Refused(Refusal::Project), 404)
        } else if folded.iter().any(|e| store.poison.contains(e)) {
            (Verdict::Refused(Refusal::Body), 400)
        } else {
            let contacts = store.contacts.get_mut(project).unwrap();
            let mut not_found = Vec::new();
            let mut deleted = BTreeSet::new();
            for email in emails {
                if contacts.remove(&*fold(&email)) {
                    deleted.insert(fold(&email).into_owned());
                } else {
                    not_found.push(email);
                }
            }
            let count = deleted.len() as u64;
            let work = Work { key: key.to_owned(), project: project.to_owned(), deleted };
            store.ledger.push(work);
            (Verdict::Deleted(Deletion { deleted: Some(count), not_found }), 200)
        };
        store.cache.insert(place, Cached { body: body.to_vec(), answer: answer.clone(), status, at: now });
        (answer, status, false)
    }
}

fn reply(verdict: Verdict, status: Option<u16>, replayed: bool) -> Reply {
    Reply { verdict, status, api_code: None, replayed, request_id: None, retry_after: None, took: Duration::ZERO }
}

#[async_trait]
impl Api for FakeApi {
    async fn delete(&self, manifest: &Journaled<Manifest>, key: &ApiKey, _: Option<TraceParent>) -> Reply {
        let state =
            match (manifest.root == manifest.id, manifest.fate.generation, manifest.fate.may_have_taken_effect()) {
                (false, ..) => "child",
                (true, 0, false) => "first key",
                (true, 0, true) => "recovered",
                (true, ..) => "next key",
            };
        let start = Instant::now();
        self.faults.crash("call", "before", state).await;
        // What was about to leave when the worker's process stopped leaves late: the same body under the same key.
        if self.worker.is_some() && start < Instant::now() {
            coverage::hit("call", "late", "-");
        } else if let Err(violation) = self.journal.allows(manifest, key.fingerprint(), self.worker) {
            self.store.lock().unwrap().violations.push(violation);
        }
        {
            let mut store = self.store.lock().unwrap();
            store.calls += 1;
            // Several workers hear of it one after the other.
            if self.worker.is_none() && store.quiet_until.is_some_and(|until| Instant::now() < until) {
                store.violations.push("a call leaves before the time that the API asked for".to_owned());
            }
            if store.pace.as_mut().is_some_and(|pace| pace.call(Instant::now())) {
                store.violations.push("a call leaves before the rate allows".to_owned());
            }
            let project = manifest.project.as_str().to_owned();
            if store.paused.contains(&None) || store.paused.contains(&Some(project)) {
                store.violations.push(format!("manifest {:?} was sent while it was paused", manifest.id));
            }
        }
        let trouble = self.trouble();
        if trouble != Trouble::None {
            coverage::hit("call", &format!("{trouble:?}"), state);
        }
        let text = manifest.idempotency_key().as_str().to_owned();
        match trouble {
            Trouble::Unsent => return reply(Verdict::Unsent, None, false),
            Trouble::Throttled => {
                self.store.lock().unwrap().quiet_until = Some(Instant::now() + ASKED);
                return Reply { retry_after: Some(ASKED), ..reply(Verdict::Throttled, Some(429), false) };
            }
            Trouble::DropBefore => return reply(Verdict::Unknown(Doubt::Reset), None, false),
            Trouble::ServerBefore => return reply(Verdict::Unknown(Doubt::Server), Some(503), false),
            Trouble::Unsuccessful => return reply(Verdict::Unknown(Doubt::Unsuccessful), Some(200), false),
            _ => {}
        }
        // The server works by itself, whatever becomes of its caller.
        let place = (manifest.body.to_vec(), text.clone());
        if trouble == Trouble::Conflict || !self.store.lock().unwrap().running.insert(place.clone()) {
            return reply(Verdict::Refused(Refusal::Conflict), Some(409), false);
        }
        let (tell, told) = tokio::sync::oneshot::channel();
        let server = self.clone();
        let (body, project, fingerprint) =
            (manifest.body.clone(), manifest.project.as_str().to_owned(), key.fingerprint());
        let latency = Duration::from_millis(self.faults.dice.next() % 400);
        tokio::spawn(async move {
            tokio::time::sleep(latency / 2).await;
            let answer = server.serve(&body, &project, &text, fingerprint);
            server.store.lock().unwrap().running.remove(&place);
            tokio::time::sleep(latency / 2).await;
            let _ = tell.send(answer);
        });
        if self.faults.strikes(0.05) {
            coverage::hit("call", "Timeout", state);
            tokio::time::sleep(latency / 4).await;
            return reply(Verdict::Unknown(Doubt::Timeout), None, false);
        }
        let (verdict, status, replayed) = told.await.expect("the server answers");
        self.faults.crash("call", "after", state).await;
        match trouble {
            Trouble::DropAfter => reply(Verdict::Unknown(Doubt::Reset), None, false),
            Trouble::ServerAfter => reply(Verdict::Unknown(Doubt::Server), Some(502), false),
            Trouble::GarbageAfter => reply(Verdict::Unknown(Doubt::Garbage), Some(200), false),
            _ => {
                let asks = !matches!(verdict, Verdict::Deleted(_)) && self.faults.dice.chance(0.1);
                let retry_after = asks.then_some(ASKED);
                if asks {
                    coverage::hit("call", &format!("{status} with Retry-After"), "-");
                    self.store.lock().unwrap().quiet_until = Some(Instant::now() + ASKED);
                }
                Reply { retry_after, took: start.elapsed(), ..reply(verdict, Some(status), replayed) }
            }
        }
    }
}
