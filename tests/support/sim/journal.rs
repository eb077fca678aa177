//! The journal in memory. It outlives the worker, forgets nothing, and so is also the oracle of who was in which batch.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use migma_eraser::domain::fate::Fate;
use migma_eraser::domain::ids::{Fingerprint, ManifestId, RequestDigest};
use migma_eraser::domain::key::KeyBase;
use migma_eraser::domain::manifest::{
    Conclusion, Draft, Journaled, KnownPart, KnownRequest, Manifest, RequestRecord, positions,
};
use migma_eraser::domain::moment::Timestamp;
use migma_eraser::ports::{Forgotten, Journal, JournalError};

use super::fault::Faults;

/// A manifest with its end.
#[derive(Clone)]
pub struct Row {
    pub manifest: Manifest,
    pub conclusion: Option<Conclusion>,
}

/// What outlives the worker.
#[derive(Default)]
pub struct Store {
    pub requests: HashMap<RequestDigest, RequestRecord>,
    pub rows: BTreeMap<i64, Row>,
    by_request: HashMap<RequestDigest, Vec<i64>>,
    by_key: HashMap<KeyBase, i64>,
    minutes: BTreeMap<i64, u64>,
}

impl Store {
    fn insert(&mut self, draft: &Draft, fate: Fate, root: Option<ManifestId>) -> Manifest {
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
        self.rows.insert(id, Row { manifest: manifest.clone(), conclusion: None });
        manifest
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
    /// Whether this very call is what the journal says.
    pub fn allows(&self, manifest: &Manifest, fingerprint: Fingerprint) -> Result<(), String> {
        let store = self.0.lock().unwrap();
        let Some(row) = store.rows.get(&manifest.id.0) else {
            return Err(format!("manifest {:?} was sent and is not journaled", manifest.id));
        };
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
}

impl FakeJournal {
    pub fn new(store: Probe, faults: Arc<Faults>) -> Self {
        let new = store.0.lock().unwrap().rows.is_empty();
        Self { store, faults, new }
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
        if self.faults.is_crashed() {
            std::future::pending::<()>().await;
        }
        let written = write(&mut self.store.0.lock().unwrap());
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
        let store = self.store.0.lock().unwrap();
        Ok(store.rows.values().filter(|row| row.conclusion.is_none()).map(recovered).collect())
    }

    async fn lookup(&self, requests: &[RequestDigest]) -> Result<HashMap<RequestDigest, KnownRequest>, JournalError> {
        self.faults.crash("lookup", "before", "-").await;
        if self.faults.error("lookup", "before", "-") {
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

    async fn record(&self, draft: &Draft, fate: Fate, _: Timestamp) -> Result<Journaled<Manifest>, JournalError> {
        self.write("record", "unsent", |store| Journaled::attest(store.insert(draft, fate, None))).await
    }

    async fn restate(&self, manifest: &Journaled<Manifest>, fate: Fate) -> Result<Journaled<Manifest>, JournalError> {
        self.write("restate", state_of(manifest), |store| {
            let row = store.rows.get_mut(&manifest.id.0).unwrap();
            row.manifest.fate = fate;
            Journaled::attest(row.manifest.clone())
        })
        .await
    }

    async fn conclude(&self, manifest: ManifestId, conclusion: &Conclusion) -> Result<(), JournalError> {
        let state = state_of(&self.store.0.lock().unwrap().rows[&manifest.0].manifest);
        self.write("conclude", state, |store| {
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
            let row = store.rows.get_mut(&manifest.id.0).unwrap();
            row.conclusion.get_or_insert_with(|| conclusion.clone());
            let insert = |draft| Journaled::attest(store.insert(draft, inherited, Some(manifest.root)));
            children.iter().map(insert).collect()
        })
        .await
    }

    async fn spend(&self, quota: u64, now: Timestamp) -> Result<Option<Timestamp>, JournalError> {
        self.write("spend", "-", |store| {
            let minute = now.as_millis().div_euclid(60_000);
            let day_ago = minute - 24 * 60;
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

    async fn forget(&self, _: Timestamp) -> Result<Forgotten, JournalError> {
        Ok(Forgotten { requests: 0, more: false })
    }

    fn was_new(&self) -> bool {
        self.new
    }

    async fn tidy(&self) -> Result<(), JournalError> {
        Ok(())
    }
}
