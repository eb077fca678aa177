//! The journal in memory. It outlives the worker, forgets nothing, and so is also the oracle of who was in which batch.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use migma_eraser::domain::fate::Fate;
use migma_eraser::domain::ids::{Fingerprint, ManifestId, ProjectId, RequestDigest};
use migma_eraser::domain::key::KeyBase;
use migma_eraser::domain::lease::{self, LEASE};
use migma_eraser::domain::manifest::{
    Conclusion, Draft, Journaled, KnownPart, KnownRequest, Manifest, Member, RequestRecord, positions,
};
use migma_eraser::domain::moment::Timestamp;
use migma_eraser::domain::pace::{Grant, Rate};
use migma_eraser::domain::pauses::Pause;
use migma_eraser::ports::{Forgotten, Journal, JournalError, Recorded};
use tokio::time::Instant;

use super::coverage;
use super::fault::Faults;

/// How long a worker's manifests stay its own after its lease has run out.
const AFTERGLOW: Duration = lease::afterglow(Duration::from_secs(5));

/// A manifest with its end.
#[derive(Clone)]
pub struct Row {
    pub manifest: Manifest,
    pub conclusion: Option<Conclusion>,
    /// Which of several workers has it.
    owner: Option<u64>,
    inherited: bool,
}

/// One of several workers.
struct Worker {
    until: Instant,
    /// Whether its process is seen to be dead.
    dead: bool,
}

/// What outlives the worker.
#[derive(Default)]
pub struct Store {
    pub requests: HashMap<RequestDigest, RequestRecord>,
    pub rows: BTreeMap<i64, Row>,
    by_request: HashMap<RequestDigest, Vec<i64>>,
    by_key: HashMap<KeyBase, i64>,
    minutes: BTreeMap<i64, u64>,
    pub pauses: Vec<Pause>,
    workers: BTreeMap<u64, Worker>,
    next_worker: u64,
    pub violations: Vec<String>,
}

impl Store {
    fn insert(&mut self, draft: &Draft, fate: Fate, root: Option<ManifestId>, owner: Option<u64>) -> Manifest {
        let key = KeyBase::derive(&draft.members);
        if let Some(id) = self.by_key.get(&key) {
            // The same batch again: its first recording was not heard of.
            return self.rows[id].manifest.clone();
        }
        let id = i64::try_from(self.rows.len()).unwrap() + 1;
        let manifest = Manifest {
            id: ManifestId(id),
            root: root.unwrap_or(ManifestId(id)),
            project: draft.project.clone(),
            body: draft.body.clone(),
            emails: draft.emails,
            members: draft.members.clone(),
            key,
            fate,
        };
        for record in &draft.requests {
            self.requests.entry(record.digest).or_insert_with(|| record.clone());
        }
        for member in &draft.members {
            self.by_request.entry(member.request).or_default().push(id);
        }
        self.by_key.insert(key, id);
        self.rows.insert(id, Row { manifest: manifest.clone(), conclusion: None, owner, inherited: false });
        manifest
    }

    /// Which requests of a batch others have had, or another request by their name; as the database tells.
    fn lost(&self, draft: &Draft, worker: u64) -> Vec<RequestDigest> {
        if let Some(id) = self.by_key.get(&KeyBase::derive(&draft.members)) {
            let Row { owner, inherited, conclusion, .. } = &self.rows[id];
            let is_own = *owner == Some(worker) && !inherited && conclusion.is_none();
            return if is_own { Vec::new() } else { draft.members.iter().map(|member| member.request).collect() };
        }
        let given: HashMap<_, _> = draft.requests.iter().map(|record| (record.digest, record)).collect();
        let is_lost = |member: &&Member| {
            let known = self.requests.get(&member.request);
            let is_another = known
                .zip(given.get(&member.request))
                .is_some_and(|(known, given)| known.content != given.content || known.project != given.project);
            is_another || member.positions().any(|(at, _)| !self.carriers(member.request, at).is_empty())
        };
        draft.members.iter().filter(is_lost).map(|member| member.request).collect()
    }

    /// Ends the rows of workers that are gone, and gives what they had to this one.
    fn succeed(&mut self, worker: u64, sees_the_dead: bool, by_lease: bool) {
        let now = Instant::now();
        self.workers.retain(|id, other| {
            let is_past = by_lease && other.until + AFTERGLOW < now;
            *id == worker || !(is_past || (sees_the_dead && other.dead))
        });
        for row in self.rows.values_mut().filter(|row| row.conclusion.is_none()) {
            if row.owner.is_none_or(|owner| !self.workers.contains_key(&owner)) {
                coverage::hit("succession", "inherited", "-");
                (row.owner, row.inherited) = (Some(worker), true);
            }
        }
    }

    /// Every batch that carried this email of this request: (key base, position in the body).
    pub fn carriers(&self, request: RequestDigest, at: u32) -> Vec<(&Row, u16)> {
        self.by_request
            .get(&request)
            .into_iter()
            .flatten()
            .filter_map(|id| {
                let row = &self.rows[id];
                let member = row.manifest.members.iter().find(|m| m.request == request)?;
                let body_at = positions(&member.spans).find(|(request_at, _)| *request_at == at)?.1;
                Some((row, body_at))
            })
            .collect()
    }
}

/// A look into the store for others.
#[derive(Clone, Default)]
pub struct Probe(pub Arc<Mutex<Store>>);

impl Probe {
    /// The process of one of several workers has ended.
    pub fn died(&self, worker: u64) {
        if let Some(worker) = self.0.lock().unwrap().workers.get_mut(&worker) {
            worker.dead = true;
        }
    }

    /// Whether this very call is what the journal says.
    pub fn allows(&self, manifest: &Manifest, fingerprint: Fingerprint, worker: Option<u64>) -> Result<(), String> {
        let store = self.0.lock().unwrap();
        let Some(row) = store.rows.get(&manifest.id.0) else {
            return Err(format!("manifest {:?} was sent and is not journaled", manifest.id));
        };
        if row.owner != worker {
            return Err(format!("manifest {:?} was sent by a worker that does not have it", manifest.id));
        }
        let first = row.manifest.fate.first_call;
        if row.manifest.body != manifest.body || row.manifest.fate.generation != manifest.fate.generation {
            return Err(format!("manifest {:?} was sent otherwise than journaled", manifest.id));
        }
        if first.map(|first| first.fingerprint) != Some(fingerprint) {
            return Err(format!("manifest {:?} was sent under an API key that is not journaled", manifest.id));
        }
        if row.conclusion.is_some() {
            return Err(format!("manifest {:?} was sent after its end", manifest.id));
        }
        Ok(())
    }
}

#[derive(Clone)]
pub struct FakeJournal {
    pub store: Probe,
    faults: Arc<Faults>,
    new: bool,
    /// Whether the life that opened it is over: what is still asked of it then is never done.
    closed: Arc<AtomicBool>,
    /// Whether the pauses were asked for before.
    asked: Arc<AtomicBool>,
    /// One of several workers, with its own view of how long its lease lasts.
    worker: Option<(u64, Arc<Mutex<Instant>>)>,
}

impl FakeJournal {
    pub fn new(store: Probe, faults: Arc<Faults>) -> Self {
        let new = store.0.lock().unwrap().rows.is_empty();
        Self { store, faults, new, closed: Arc::default(), asked: Arc::default(), worker: None }
    }

    /// For one of several workers.
    pub fn join(probe: &Probe, faults: Arc<Faults>) -> Self {
        let number = {
            let mut store = probe.0.lock().unwrap();
            store.next_worker += 1;
            let number = store.next_worker;
            store.workers.insert(number, Worker { until: Instant::now() + LEASE, dead: false });
            number
        };
        let lease = Arc::new(Mutex::new(Instant::now() + LEASE));
        Self { worker: Some((number, lease)), ..Self::new(probe.clone(), faults) }
    }

    /// Which of several workers it is for.
    pub fn worker(&self) -> Option<u64> {
        self.worker.as_ref().map(|(number, _)| *number)
    }

    /// Renews the lease, where the journal can be reached; `false` where the worker was succeeded.
    pub fn renew(&self) -> bool {
        let Some((number, lease)) = &self.worker else { return true };
        if self.faults.is_stopped() || self.faults.is_cut_off() {
            return true;
        }
        let until = Instant::now() + LEASE;
        let mut store = self.store.0.lock().unwrap();
        let Some(worker) = store.workers.get_mut(number) else { return false };
        worker.until = until;
        *lease.lock().unwrap() = until;
        true
    }

    /// The worker ends in order.
    pub fn leave(&self) {
        if let Some(number) = self.worker() {
            self.store.0.lock().unwrap().workers.remove(&number);
        }
    }

    /// Whether it cannot be reached, or may not be written any more.
    fn is_away(&self, store: &Store) -> bool {
        self.faults.is_cut_off() || self.worker().is_some_and(|worker| !store.workers.contains_key(&worker))
    }

    /// Whose the manifest is that is written to; it must be this worker's.
    fn check_owner(&self, store: &mut Store, manifest: ManifestId) {
        if store.rows[&manifest.0].owner != self.worker() {
            store.violations.push(format!("manifest {manifest:?} is written by a worker that does not have it"));
        }
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    async fn write<T>(
        &self,
        effect: &'static str,
        state: &str,
        write: impl FnOnce(&mut Store) -> T,
    ) -> Result<T, JournalError> {
        self.faults.crash(effect, "before", state).await;
        if self.faults.error(effect, "before", state) {
            return Err(failed(effect));
        }
        tokio::time::sleep(Duration::from_micros(self.faults.dice.next() % 2000)).await;
        if matches!(effect, "record" | "restate") && self.faults.strikes(0.02) {
            coverage::hit(effect, "slow", state);
            tokio::time::sleep(Duration::from_secs(*self.faults.dice.pick(&[1, 20, 7200]))).await;
        }
        if self.faults.is_crashed() || self.closed.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let written = {
            let mut store = self.store.0.lock().unwrap();
            if self.is_away(&store) {
                return Err(failed(effect));
            }
            write(&mut store)
        };
        // Durable, but the word of it may be lost.
        let lost = self.faults.error(effect, "after", state);
        self.faults.crash(effect, "after", state).await;
        if lost { Err(failed(effect)) } else { Ok(written) }
    }
}

fn failed(action: &'static str) -> JournalError {
    JournalError { action, source: "a simulated fault".into() }
}

fn recovered(row: &Row) -> Journaled<Manifest> {
    Journaled::attest(Manifest { fate: row.manifest.fate.recovered(), ..row.manifest.clone() })
}

fn state_of(manifest: &Manifest) -> &'static str {
    match (manifest.root == manifest.id, manifest.fate.generation) {
        (false, _) => "child",
        (true, 0) => "first key",
        (true, _) => "next key",
    }
}

#[async_trait]
impl Journal for FakeJournal {
    async fn open_manifests(&self) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        self.faults.crash("open", "before", "-").await;
        if self.faults.error("open", "before", "-") {
            return Err(failed("open"));
        }
        let mut store = self.store.0.lock().unwrap();
        if let Some(worker) = self.worker() {
            if self.is_away(&store) {
                return Err(failed("open"));
            }
            store.succeed(worker, self.faults.dice.chance(0.5), false);
        }
        let is_open = |row: &&Row| row.conclusion.is_none() && row.owner == self.worker();
        Ok(store.rows.values().filter(is_open).map(recovered).collect())
    }

    async fn lookup(&self, requests: &[RequestDigest]) -> Result<HashMap<RequestDigest, KnownRequest>, JournalError> {
        self.faults.crash("lookup", "before", "-").await;
        if self.faults.error("lookup", "before", "-") || self.faults.is_cut_off() {
            return Err(failed("lookup"));
        }
        let known = {
            let store = self.store.0.lock().unwrap();
            requests
                .iter()
                .filter_map(|digest| {
                    let record = store.requests.get(digest)?.clone();
                    let parts = store.by_request.get(digest).into_iter().flatten().map(|id| {
                        let row = &store.rows[id];
                        let member = row.manifest.members.iter().find(|m| m.request == *digest).unwrap();
                        KnownPart {
                            manifest: row.manifest.id,
                            key: row.manifest.key,
                            spans: member.spans.clone(),
                            conclusion: row.conclusion.clone(),
                        }
                    });
                    Some((*digest, KnownRequest { record, parts: parts.collect() }))
                })
                .collect()
        };
        // What was read may be old by the time it is heard.
        tokio::time::sleep(Duration::from_micros(self.faults.dice.next() % 5000)).await;
        self.faults.crash("lookup", "after", "-").await;
        Ok(known)
    }

    async fn record(&self, draft: &Draft, fate: Fate, _: Timestamp) -> Result<Recorded, JournalError> {
        let insert = |store: &mut Store| {
            let lost = self.worker().map(|worker| store.lost(draft, worker)).unwrap_or_default();
            if !lost.is_empty() {
                coverage::hit("record", "lost to another", "unsent");
                return Recorded::Lost(lost);
            }
            Recorded::Manifest(Journaled::attest(store.insert(draft, fate, None, self.worker())))
        };
        self.write("record", "unsent", insert).await
    }

    async fn succeed(&self) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        let Some(worker) = self.worker() else { return Ok(Vec::new()) };
        let sees_the_dead = self.faults.dice.chance(0.5);
        self.write("succeed", "-", |store| {
            store.succeed(worker, sees_the_dead, true);
            let is_inherited = |row: &&Row| row.conclusion.is_none() && row.inherited && row.owner == Some(worker);
            store.rows.values().filter(is_inherited).map(recovered).collect()
        })
        .await
    }

    fn lease_left(&self) -> Option<Duration> {
        let (_, lease) = self.worker.as_ref()?;
        Some(lease.lock().unwrap().saturating_duration_since(Instant::now()))
    }

    async fn restate(&self, manifest: &Journaled<Manifest>, fate: Fate) -> Result<Journaled<Manifest>, JournalError> {
        self.write("restate", state_of(manifest), |store| {
            self.check_owner(store, manifest.id);
            let row = store.rows.get_mut(&manifest.id.0).unwrap();
            row.manifest.fate = fate;
            Journaled::attest(row.manifest.clone())
        })
        .await
    }

    async fn conclude(&self, manifest: ManifestId, conclusion: &Conclusion) -> Result<(), JournalError> {
        let state = state_of(&self.store.0.lock().unwrap().rows[&manifest.0].manifest);
        self.write("conclude", state, |store| {
            self.check_owner(store, manifest);
            let row = store.rows.get_mut(&manifest.0).unwrap();
            row.conclusion.get_or_insert_with(|| conclusion.clone());
        })
        .await
    }

    async fn split(
        &self,
        manifest: &Journaled<Manifest>,
        conclusion: &Conclusion,
        inherited: Fate,
        children: &[Draft],
    ) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        self.write("split", state_of(manifest), |store| {
            self.check_owner(store, manifest.id);
            let row = store.rows.get_mut(&manifest.id.0).unwrap();
            row.conclusion.get_or_insert_with(|| conclusion.clone());
            let insert = |draft| Journaled::attest(store.insert(draft, inherited, Some(manifest.root), self.worker()));
            children.iter().map(insert).collect()
        })
        .await
    }

    async fn spend(&self, quota: u64, now: Timestamp) -> Result<Option<Timestamp>, JournalError> {
        self.write("spend", "-", |store| {
            let minute = now.as_millis().div_euclid(60_000);
            let day_ago = minute - 24 * 60;
            // Made under a clock that was wrong: they count from now.
            let astray: u64 = store.minutes.split_off(&(minute + 24 * 60 + 1)).values().sum();
            if astray > 0 {
                *store.minutes.entry(minute).or_default() += astray;
            }
            let used: u64 = store.minutes.range(day_ago..).map(|(_, calls)| calls).sum();
            if used < quota {
                *store.minutes.entry(minute).or_default() += 1;
                return None;
            }
            let oldest = *store.minutes.range(day_ago..).next().unwrap().0;
            Some(Timestamp::from_millis((oldest + 24 * 60 + 1) * 60_000))
        })
        .await
    }

    async fn turns(&self, rate: Rate, wanted: u32) -> Result<Grant, JournalError> {
        Ok(Grant::at_once(&rate, wanted))
    }

    async fn postpone(&self, _: Duration) -> Result<(), JournalError> {
        Ok(())
    }

    async fn spent(&self, now: Timestamp) -> Result<u64, JournalError> {
        let day_ago = now.as_millis().div_euclid(60_000) - 24 * 60;
        Ok(self.store.0.lock().unwrap().minutes.range(day_ago..).map(|(_, calls)| calls).sum())
    }

    async fn forget(&self, _: Timestamp) -> Result<Forgotten, JournalError> {
        Ok(Forgotten { requests: 0, more: false })
    }

    async fn pauses(&self) -> Result<Vec<Pause>, JournalError> {
        // They are looked at every few seconds: faults are for the look that matters.
        if !self.asked.swap(true, Ordering::SeqCst) {
            self.faults.crash("pauses", "before", "-").await;
            if self.faults.error("pauses", "before", "-") {
                return Err(failed("pauses"));
            }
        }
        Ok(self.store.0.lock().unwrap().pauses.clone())
    }

    async fn pause(&self, pause: &Pause) -> Result<(), JournalError> {
        self.write("pause", "-", |store| {
            if !store.pauses.iter().any(|p| p.is_in_force() && p.project == pause.project) {
                store.pauses.push(pause.clone());
            }
        })
        .await
    }

    async fn resume(&self, project: Option<&ProjectId>, at: Timestamp) -> Result<(), JournalError> {
        self.write("resume", "-", |store| {
            for pause in store.pauses.iter_mut().filter(|p| p.is_in_force() && p.project.as_ref() == project) {
                pause.until = Some(at);
            }
        })
        .await
    }

    fn was_new(&self) -> bool {
        self.new
    }

    async fn tidy(&self) -> Result<(), JournalError> {
        Ok(())
    }
}
