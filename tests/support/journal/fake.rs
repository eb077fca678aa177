//! A journal in memory: the same words as the durable ones, without a file, a clock or chance.
//!
//! The [`Store`] is the disk: it outlives any [`FakeJournal`] that was opened on it. No method awaits anything, so a
//! caller that is dropped has either done all of its writing or none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use migma_eraser::domain::fate::Fate;
use migma_eraser::domain::ids::{ManifestId, ProjectId, RequestDigest};
use migma_eraser::domain::key::KeyBase;
use migma_eraser::domain::manifest::{
    Conclusion, Draft, End, Journaled, KnownPart, KnownRequest, Manifest, Member, RequestRecord, Span,
};
use migma_eraser::domain::moment::Timestamp;
use migma_eraser::domain::pace::{Grant, Rate};
use migma_eraser::domain::pauses::{KEPT, Pause};
use migma_eraser::ports::{Forgotten, Journal, JournalError, Recorded};

/// The most requests that one step forgets.
pub const FORGET_STEP: usize = 500;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// What a crash leaves behind.
#[derive(Debug, Default)]
pub struct Store {
    manifests: BTreeMap<ManifestId, Row>,
    requests: BTreeMap<RequestDigest, Remembered>,
    open: BTreeSet<ManifestId>,
    last: i64,
    calls: BTreeMap<i64, u64>,
    pauses: Vec<Pause>,
}

#[derive(Debug)]
struct Row {
    root: ManifestId,
    project: ProjectId,
    body: Bytes,
    emails: u16,
    members: Vec<Member>,
    key: KeyBase,
    fate: Fate,
    children: Vec<ManifestId>,
    conclusion: Option<Conclusion>,
}

#[derive(Debug)]
struct Remembered {
    record: RequestRecord,
    parts: Vec<(ManifestId, Vec<Span>)>,
}

/// A [`Journal`] over a [`Store`].
#[derive(Debug)]
pub struct FakeJournal {
    store: Arc<Mutex<Store>>,
    was_new: bool,
}

impl FakeJournal {
    /// Opens the store, as a start of the worker does.
    pub fn open(store: &Arc<Mutex<Store>>) -> Self {
        let was_new = lock(store).manifests.is_empty();
        Self { store: Arc::clone(store), was_new }
    }
}

fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cannot<T>(action: &'static str, why: &'static str) -> Result<T, JournalError> {
    Err(JournalError { action, source: why.into() })
}

impl Store {
    /// How many requests are remembered.
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// How many manifests are kept, ended ones too.
    pub fn manifests(&self) -> usize {
        self.manifests.len()
    }

    /// How many manifests have no end yet.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    fn insert(&mut self, draft: &Draft, root: Option<ManifestId>, fate: Fate) -> ManifestId {
        self.last += 1;
        let id = ManifestId(self.last);
        let root = root.unwrap_or(id);
        for member in &draft.members {
            if let Some(remembered) = self.requests.get_mut(&member.request) {
                remembered.parts.push((id, member.spans.clone()));
            }
        }
        let row = Row {
            root,
            project: draft.project.clone(),
            body: draft.body.clone(),
            emails: draft.emails,
            members: draft.members.clone(),
            key: KeyBase::derive(&draft.members),
            fate,
            children: Vec::new(),
            conclusion: None,
        };
        self.manifests.insert(id, row);
        self.open.insert(id);
        id
    }

    fn attest(&self, id: ManifestId, fate: Fate) -> Option<Journaled<Manifest>> {
        let row = self.manifests.get(&id)?;
        Some(Journaled::attest(Manifest {
            id,
            root: row.root,
            project: row.project.clone(),
            body: row.body.clone(),
            emails: row.emails,
            members: row.members.clone(),
            key: row.key,
            fate,
        }))
    }

    fn end(&mut self, id: ManifestId, conclusion: &Conclusion) {
        if let Some(row) = self.manifests.get_mut(&id)
            && row.conclusion.is_none()
        {
            row.conclusion = Some(conclusion.clone());
            row.body = Bytes::new();
            self.open.remove(&id);
        }
    }

    fn known(&self, remembered: &Remembered) -> KnownRequest {
        let part = |(id, spans): &(ManifestId, Vec<Span>)| {
            let row = &self.manifests[id];
            KnownPart { manifest: *id, key: row.key, spans: spans.clone(), conclusion: row.conclusion.clone() }
        };
        KnownRequest { record: remembered.record.clone(), parts: remembered.parts.iter().map(part).collect() }
    }

    /// When the last of its emails came to its end; `None` while some has not.
    fn ended(&self, remembered: &Remembered) -> Option<Timestamp> {
        let mut ended = BTreeSet::new();
        let mut last = None;
        for (id, spans) in &remembered.parts {
            match self.manifests[id].conclusion.as_ref() {
                Some(Conclusion { end: End::Answered { .. } | End::Failed { .. }, at, .. }) => {
                    last = last.max(Some(*at));
                    for span in spans {
                        ended.extend(span.request_at..span.request_at + u32::from(span.len));
                    }
                }
                Some(Conclusion { end: End::Split, .. }) | None => {}
            }
        }
        (ended.len() == remembered.record.emails as usize).then_some(last).flatten()
    }
}

#[async_trait]
impl Journal for FakeJournal {
    async fn open_manifests(&self) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        let store = lock(&self.store);
        let recovered = |id: &ManifestId| store.attest(*id, store.manifests[id].fate.recovered());
        Ok(store.open.iter().filter_map(recovered).collect())
    }

    async fn lookup(&self, requests: &[RequestDigest]) -> Result<HashMap<RequestDigest, KnownRequest>, JournalError> {
        let store = lock(&self.store);
        let known = |digest: &RequestDigest| Some((*digest, store.known(store.requests.get(digest)?)));
        Ok(requests.iter().filter_map(known).collect())
    }

    async fn record(&self, draft: &Draft, fate: Fate, _: Timestamp) -> Result<Recorded, JournalError> {
        const ACTION: &str = "record a batch";
        let mut store = lock(&self.store);
        let new: HashMap<RequestDigest, &RequestRecord> = draft.requests.iter().map(|r| (r.digest, r)).collect();
        let named: BTreeSet<RequestDigest> = draft.members.iter().map(|member| member.request).collect();
        if named.len() < draft.members.len() {
            return cannot(ACTION, "it names a request twice");
        }
        if named.iter().any(|request| !store.requests.contains_key(request) && !new.contains_key(request)) {
            return cannot(ACTION, "it names a request that is neither remembered nor given");
        }
        for request in named {
            if let Some(record) = new.get(&request) {
                let record = (*record).clone();
                store.requests.entry(request).or_insert(Remembered { record, parts: Vec::new() });
            }
        }
        let key = KeyBase::derive(&draft.members);
        let again =
            store.manifests.iter().find(|(_, row)| row.key == key && row.conclusion.is_none()).map(|(id, _)| *id);
        let id = again.unwrap_or_else(|| store.insert(draft, None, fate));
        store.attest(id, fate).map(Recorded::Manifest).map_or_else(|| cannot(ACTION, "it is gone"), Ok)
    }

    async fn succeed(&self) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        Ok(Vec::new())
    }

    fn lease_left(&self) -> Option<Duration> {
        None
    }

    async fn restate(&self, manifest: &Journaled<Manifest>, fate: Fate) -> Result<Journaled<Manifest>, JournalError> {
        const ACTION: &str = "restate a manifest";
        let mut store = lock(&self.store);
        match store.manifests.get_mut(&manifest.id) {
            Some(row) if row.conclusion.is_none() => row.fate = fate,
            _ => return cannot(ACTION, "it is not open"),
        }
        store.attest(manifest.id, fate).map_or_else(|| cannot(ACTION, "it is gone"), Ok)
    }

    async fn conclude(&self, manifest: ManifestId, conclusion: &Conclusion) -> Result<(), JournalError> {
        let mut store = lock(&self.store);
        if !store.manifests.contains_key(&manifest) {
            return cannot("record an end", "the manifest is unknown");
        }
        store.end(manifest, conclusion);
        Ok(())
    }

    async fn split(
        &self,
        manifest: &Journaled<Manifest>,
        conclusion: &Conclusion,
        inherited: Fate,
        children: &[Draft],
    ) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        const ACTION: &str = "record a split";
        let mut store = lock(&self.store);
        let Some(row) = store.manifests.get(&manifest.id) else { return cannot(ACTION, "the manifest is unknown") };
        if let Some(ended) = &row.conclusion {
            let as_before = ended.end == End::Split && row.children.len() == children.len();
            let again = row.children.iter().zip(children).map(|(id, draft)| {
                let child = store.attest(*id, store.manifests.get(id)?.fate)?;
                (child.body == draft.body).then_some(child)
            });
            let again: Option<Vec<_>> = again.collect();
            return again.filter(|_| as_before).map_or_else(|| cannot(ACTION, "it has ended otherwise"), Ok);
        }
        let unknown = |member: &Member| !store.requests.contains_key(&member.request);
        if children.iter().any(|draft| draft.members.iter().any(unknown)) {
            return cannot(ACTION, "it names a request that is not remembered");
        }
        let root = row.root;
        store.end(manifest.id, conclusion);
        let ids: Vec<ManifestId> = children.iter().map(|draft| store.insert(draft, Some(root), inherited)).collect();
        if let Some(row) = store.manifests.get_mut(&manifest.id) {
            row.children.clone_from(&ids);
        }
        Ok(ids.into_iter().filter_map(|id| store.attest(id, inherited)).collect())
    }

    async fn spend(&self, quota: u64, now: Timestamp) -> Result<Option<Timestamp>, JournalError> {
        let mut store = lock(&self.store);
        let now = now.as_millis();
        let minute = now.div_euclid(MINUTE);
        // Far in the future: a clock was wrong, and the calls were made before now.
        let astray = store.calls.split_off(&(minute + DAY / MINUTE + 1));
        if !astray.is_empty() {
            *store.calls.entry(minute).or_default() += astray.values().sum::<u64>();
        }
        let counting = (now - DAY).div_euclid(MINUTE);
        let used: u64 = store.calls.range(counting..).map(|(_, calls)| calls).sum();
        if used < quota {
            let latest = store.calls.last_key_value().map_or(minute, |(latest, _)| *latest);
            *store.calls.entry(minute.max(latest)).or_default() += 1;
            return Ok(None);
        }
        let mut surplus = used - quota + 1;
        let mut again = now + DAY;
        for (minute, calls) in store.calls.range(counting..) {
            again = (minute + 1) * MINUTE + DAY;
            surplus = surplus.saturating_sub(*calls);
            if surplus == 0 {
                break;
            }
        }
        Ok(Some(Timestamp::from_millis(again)))
    }

    async fn turns(&self, rate: Rate, wanted: u32) -> Result<Grant, JournalError> {
        Ok(Grant::at_once(&rate, wanted))
    }

    async fn postpone(&self, _: Duration) -> Result<(), JournalError> {
        Ok(())
    }

    async fn spent(&self, now: Timestamp) -> Result<u64, JournalError> {
        let counting = (now.as_millis() - DAY).div_euclid(MINUTE);
        Ok(lock(&self.store).calls.range(counting..).map(|(_, calls)| calls).sum())
    }

    async fn forget(&self, before: Timestamp) -> Result<Forgotten, JournalError> {
        let mut store = lock(&self.store);
        let mut old = store.requests.iter().filter(|(_, r)| store.ended(r).is_some_and(|at| at < before));
        let step: Vec<RequestDigest> = old.by_ref().take(FORGET_STEP).map(|(digest, _)| *digest).collect();
        let more = old.next().is_some();
        for digest in &step {
            let parts = store.requests.remove(digest).map_or_else(Vec::new, |remembered| remembered.parts);
            for (id, _) in parts {
                let row = store.manifests.get(&id);
                if row.is_some_and(|row| row.members.iter().all(|m| !store.requests.contains_key(&m.request))) {
                    store.manifests.remove(&id);
                }
            }
        }
        store.calls.retain(|minute, _| (minute + 1) * MINUTE + DAY > before.as_millis());
        Ok(Forgotten { requests: step.len() as u64, more })
    }

    async fn pauses(&self) -> Result<Vec<Pause>, JournalError> {
        Ok(lock(&self.store).pauses.clone())
    }

    async fn pause(&self, pause: &Pause) -> Result<(), JournalError> {
        let pauses = &mut lock(&self.store).pauses;
        if !pauses.iter().any(|other| other.is_in_force() && other.project == pause.project) {
            pauses.push(pause.clone());
        }
        Ok(())
    }

    async fn resume(&self, project: Option<&ProjectId>, at: Timestamp) -> Result<(), JournalError> {
        let pauses = &mut lock(&self.store).pauses;
        for pause in pauses.iter_mut().filter(|p| p.is_in_force() && p.project.as_ref() == project) {
            pause.until = Some(at);
        }
        pauses.retain(|pause| pause.until.is_none_or(|until| until >= at.before(KEPT)));
        Ok(())
    }

    fn was_new(&self) -> bool {
        self.was_new
    }

    async fn tidy(&self) -> Result<(), JournalError> {
        Ok(())
    }
}
