//! Every request that is here, by its id, from parsing on: so that a second delivery attaches to the first, and no
//! request is ever planned twice.
//!
//! A request that is not here is either new, which the journal must confirm, or was answered, which it remembers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::attribution::{CallRecord, Progress};
use super::ids::{ManifestId, ProjectId, RequestDigest};
use super::key::KeyBase;
use super::manifest::{Conclusion, KnownRequest, Member, RequestRecord};
use super::request::DeletionRequest;

mod elsewhere;

pub use self::elsewhere::{Refreshed, Then};

/// A request with what became of it so far, and the deliveries `D` that wait for its outcome.
#[derive(Debug)]
struct Entry<D> {
    request: Arc<DeletionRequest>,
    record: Arc<RequestRecord>,
    progress: Progress,
    deliveries: Vec<D>,
    /// The open manifests that carried it when the journal was asked last, whosoever they are.
    open: Vec<ManifestId>,
    /// Whether the journal knows it: until then its name may still be another request's.
    recorded: bool,
}

/// A request whose every email has come to its end.
#[derive(Debug)]
#[must_use = "its deliveries wait for the outcome"]
pub struct Completed<D> {
    /// As it was delivered.
    pub request: Arc<DeletionRequest>,
    /// As it was first recorded: what is echoed.
    pub record: Arc<RequestRecord>,
    /// What became of its emails.
    pub progress: Progress,
    /// Who waits.
    pub deliveries: Vec<D>,
}

/// Emails to be queued.
#[derive(Debug)]
#[must_use = "emails that are not queued are never sent"]
pub struct Plan {
    /// Whose.
    pub request: Arc<DeletionRequest>,
    /// The project to send them to.
    pub project: ProjectId,
    /// Which, by position; may be empty.
    pub positions: Vec<u32>,
}

/// Deliveries that have left their request.
#[derive(Debug)]
#[must_use = "they wait elsewhere from now on, or come again"]
pub struct Withdrawn<D> {
    /// Which.
    pub deliveries: Vec<D>,
    /// Whether no other waits for the request here, so that its emails must leave their lane.
    pub unqueued: bool,
}

/// What a delivery turned out to be.
#[derive(Debug)]
#[must_use]
pub enum Met<D> {
    /// It waits for its outcome; these emails are to be queued.
    Waits(Plan),
    /// All its emails came to their end before.
    Complete(Box<Completed<D>>),
    /// Its id is, so far, another request's that the journal does not know yet: it waits to be met again.
    Rival,
    /// Its id is another request's.
    Reused(Arc<DeletionRequest>, D),
    /// What the journal said has changed since: ask it again.
    Stale(Arc<DeletionRequest>, D),
}

/// All requests that are here, and the manifests under way.
#[derive(Debug)]
pub struct Registry<D> {
    entries: HashMap<RequestDigest, Entry<D>>,
    under_way: HashMap<ManifestId, ProjectId>,
    /// Requests under a name that another one has here, of which the journal does not know yet.
    rivals: Vec<(Arc<DeletionRequest>, D)>,
    /// Whether other workers have manifests in the journal too.
    among_others: bool,
}

impl<D> Default for Registry<D> {
    fn default() -> Self {
        Self { entries: HashMap::new(), under_way: HashMap::new(), rivals: Vec::new(), among_others: false }
    }
}

impl<D> Registry<D> {
    /// Whether the request is here, so that the journal need not be asked.
    #[must_use]
    pub fn contains(&self, request: &RequestDigest) -> bool {
        self.entries.contains_key(request)
    }

    /// Attaches a delivery to its request, where that is here already; gives both back where it is not.
    ///
    /// # Errors
    /// The request and its delivery, unchanged, where the request is not here.
    pub fn attach(&mut self, request: Arc<DeletionRequest>, delivery: D) -> Result<Met<D>, (Arc<DeletionRequest>, D)> {
        let Some(entry) = self.entries.get_mut(&request.digest) else { return Err((request, delivery)) };
        if !is_same(&request, &entry.record) {
            if entry.recorded {
                return Ok(Met::Reused(request, delivery));
            }
            self.rivals.push((request, delivery));
            return Ok(Met::Rival);
        }
        entry.deliveries.push(delivery);
        Ok(Met::Waits(entry.plan()))
    }

    /// Takes in a request that the journal has never seen, and that policy has admitted: it names a project.
    pub fn admit(&mut self, request: Arc<DeletionRequest>, project: ProjectId, delivery: D) -> Met<D> {
        let record = RequestRecord {
            digest: request.digest,
            content: request.content,
            project,
            emails: request.len(),
            correlation_id: request.correlation_id.clone(),
            metadata: request.metadata.as_ref().map(|metadata| metadata.get().to_owned()),
        };
        let progress = Progress::new(request.len());
        let mut entry = Entry {
            request,
            record: record.into(),
            progress,
            deliveries: vec![delivery],
            open: Vec::new(),
            recorded: false,
        };
        let plan = entry.plan();
        self.entries.insert(plan.request.digest, entry);
        Met::Waits(plan)
    }

    /// Takes in a request that the journal remembers. Among others, what is open and not under way here is theirs.
    pub fn recall(&mut self, request: Arc<DeletionRequest>, known: KnownRequest, delivery: D) -> Met<D> {
        if !is_same(&request, &known.record) || request.len() != known.record.emails {
            return Met::Reused(request, delivery);
        }
        let open = known.open_parts();
        if !self.among_others && open.iter().any(|manifest| !self.under_way.contains_key(manifest)) {
            return Met::Stale(request, delivery);
        }
        let mut progress = Progress::new(request.len());
        for part in &known.parts {
            match &part.conclusion {
                Some(end) => progress.conclude(&CallRecord::of(part.manifest, part.key, end), &part.spans, end),
                None => {
                    let _ = progress.start(&part.spans);
                }
            }
        }
        let mut entry =
            Entry { request, record: known.record.into(), progress, deliveries: vec![delivery], open, recorded: true };
        if entry.progress.is_complete() {
            return Met::Complete(Box::new(entry.complete()));
        }
        let plan = entry.plan();
        self.entries.insert(plan.request.digest, entry);
        Met::Waits(plan)
    }

    /// The members' emails leave their lanes in a batch. Returns what the journal is to remember of the requests.
    pub fn start(&mut self, members: &[Member]) -> Vec<RequestRecord> {
        let mut records = Vec::with_capacity(members.len());
        for member in members {
            // A request that has emails in a lane is here.
            if let Some(entry) = self.entries.get_mut(&member.request) {
                let _ = entry.progress.start(&member.spans);
                records.push((*entry.record).clone());
            }
        }
        records
    }

    /// A manifest is journaled: its answer will come.
    pub fn open(&mut self, manifest: ManifestId, project: &ProjectId) {
        self.under_way.insert(manifest, project.clone());
    }

    /// A batch of these is journaled that was made of what is here: their names are theirs. (A batch that comes from an
    /// earlier life, or from another worker, may be of other requests by the same names.)
    pub fn recorded(&mut self, members: &[Member]) {
        for member in members {
            if let Some(entry) = self.entries.get_mut(&member.request) {
                entry.recorded = true;
            }
        }
    }

    /// Whether some wait to be met again.
    #[must_use]
    pub const fn has_rivals(&self) -> bool {
        !self.rivals.is_empty()
    }

    /// Those that waited for the journal to know whose their name is, to be met again.
    #[must_use = "nobody else has them"]
    pub fn take_rivals(&mut self) -> Vec<(Arc<DeletionRequest>, D)> {
        std::mem::take(&mut self.rivals)
    }

    /// A manifest has ended, and the journal knows it. Returns the requests that it completed.
    pub fn conclude(
        &mut self,
        id: ManifestId,
        key: KeyBase,
        members: &[Member],
        conclusion: &Conclusion,
    ) -> Vec<Completed<D>> {
        self.under_way.remove(&id);
        let call = CallRecord::of(id, key, conclusion);
        let mut completed = Vec::new();
        for member in members {
            // One that the journal does not know may have the name alone in common with what was in this manifest.
            let Some(entry) = self.entries.get_mut(&member.request).filter(|entry| entry.recorded) else { continue };
            entry.progress.conclude(&call, &member.spans, conclusion);
            let done = entry.progress.is_complete();
            if (done || entry.is_abandoned())
                && let Some(entry) = self.entries.remove(&member.request)
                && done
            {
                completed.push(entry.complete());
            }
        }
        completed
    }

    /// Deliveries for which `gone` is true are no longer ours. Returns which requests have left their lanes for it.
    pub fn detach(&mut self, gone: impl Fn(&D) -> bool) -> HashSet<RequestDigest> {
        let mut unqueued = HashSet::new();
        self.rivals.retain(|(_, delivery)| !gone(delivery));
        self.entries.retain(|digest, entry| {
            drop(entry.let_go(&gone));
            if entry.deliveries.is_empty() {
                unqueued.insert(*digest);
            }
            !entry.is_abandoned()
        });
        unqueued
    }

    /// The deliveries of a request for which `goes` is true leave, for its outcome is not to be waited for here. Where
    /// none is left, its emails must leave their lane, and it is here for what is under way alone.
    pub fn withdraw(&mut self, request: &RequestDigest, goes: impl Fn(&D) -> bool) -> Withdrawn<D> {
        let Some(entry) = self.entries.get_mut(request) else {
            return Withdrawn { deliveries: Vec::new(), unqueued: false };
        };
        let deliveries = entry.let_go(goes);
        let unqueued = entry.deliveries.is_empty();
        if entry.is_abandoned() {
            self.entries.remove(request);
        }
        Withdrawn { deliveries, unqueued }
    }

    /// The requests for a project.
    #[must_use]
    pub fn of_project(&self, project: &ProjectId) -> Vec<RequestDigest> {
        self.entries.iter().filter(|(_, entry)| entry.record.project == *project).map(|(digest, _)| *digest).collect()
    }

    /// The deliveries that wait for this request's outcome.
    #[must_use]
    pub fn deliveries_of(&self, request: &RequestDigest) -> &[D] {
        self.entries.get(request).map_or(&[], |entry| &entry.deliveries)
    }

    /// Whether some manifest of a project for which `of` is true has not ended.
    #[must_use]
    pub fn is_under_way(&self, of: impl Fn(&ProjectId) -> bool) -> bool {
        self.under_way.values().any(of)
    }

    /// The deliveries that wait, each with its request and that one's project.
    pub fn deliveries(&self) -> impl Iterator<Item = (RequestDigest, &ProjectId, &D)> {
        self.entries.iter().flat_map(|(digest, entry)| {
            entry.deliveries.iter().map(|delivery| (*digest, &entry.record.project, delivery))
        })
    }

    /// All deliveries that are here.
    pub fn all_deliveries(&self) -> impl Iterator<Item = &D> {
        let rivals = self.rivals.iter().map(|(_, delivery)| delivery);
        self.entries.values().flat_map(|entry| &entry.deliveries).chain(rivals)
    }

    /// How many requests are here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<D> Entry<D> {
    fn plan(&mut self) -> Plan {
        let positions = self.progress.queue_fresh();
        Plan { request: Arc::clone(&self.request), project: self.record.project.clone(), positions }
    }

    /// Lets deliveries go; emails that nobody waits for any more are not queued.
    fn let_go(&mut self, goes: impl Fn(&D) -> bool) -> Vec<D> {
        let gone = self.deliveries.extract_if(.., |delivery| goes(delivery)).collect();
        if self.deliveries.is_empty() {
            self.progress.unqueue();
        }
        gone
    }

    /// Nobody waits for it and none of its emails is under way: what is left of it, if anything, comes again.
    fn is_abandoned(&self) -> bool {
        self.deliveries.is_empty() && !self.progress.is_under_way()
    }

    fn complete(self) -> Completed<D> {
        Completed { request: self.request, record: self.record, progress: self.progress, deliveries: self.deliveries }
    }
}

/// Whether a delivery is the request that was recorded: the same emails, and no other project. A message that leaves
/// its project to the configuration means whichever it meant when it was recorded.
fn is_same(request: &DeletionRequest, record: &RequestRecord) -> bool {
    request.content == record.content && (!request.names_project || request.project.as_ref() == Some(&record.project))
}
