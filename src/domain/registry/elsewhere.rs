//! Requests of which other workers have emails under way: what is heard of those comes from the journal alone.
//!
//! Never here: a guess of what another worker does. A request is looked up again for as long as the journal has an open
//! manifest with emails of it that is not this worker's.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Completed, Entry, Plan, Registry, is_same};
use crate::domain::attribution::CallRecord;
use crate::domain::ids::{ManifestId, RequestDigest};
use crate::domain::manifest::{KnownRequest, Member};
use crate::domain::request::DeletionRequest;

/// A request after it was looked up again.
#[derive(Debug)]
#[must_use]
pub struct Refreshed<D> {
    /// Whether its emails must leave their lane, for others have had some of them.
    pub unqueued: bool,
    /// What is to be done then.
    pub then: Then<D>,
}

/// What is to be done about it.
#[derive(Debug)]
#[must_use]
pub enum Then<D> {
    /// It waits on; these emails are to be queued.
    Waits(Plan),
    /// Nobody waits for it here.
    Nothing,
    /// All its emails have come to their end.
    Complete(Box<Completed<D>>),
    /// Another worker has recorded another request of this name.
    Reused(Arc<DeletionRequest>, Vec<D>),
}

impl<D> Registry<D> {
    /// Others work on the journal too: what the journal has open and is not under way here is theirs.
    #[must_use]
    pub fn among_others(self) -> Self {
        Self { among_others: true, ..self }
    }

    /// The requests of which another worker has emails under way, as far as is known here; in an order of their own, so that
    /// equal worlds go on equally.
    #[must_use]
    pub fn elsewhere(&self) -> Vec<RequestDigest> {
        let is_elsewhere = |entry: &Entry<D>| entry.open.iter().any(|manifest| !self.under_way.contains_key(manifest));
        let requests = self.entries.iter().filter(|(_, entry)| is_elsewhere(entry)).map(|(digest, _)| *digest);
        requests.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A batch was not recorded: its members' emails are in no manifest after all, but where the journal says so.
    pub fn back_out(&mut self, members: &[Member]) {
        for member in members {
            if let Some(entry) = self.entries.get_mut(&member.request) {
                entry.progress.back_out(&member.spans);
            }
        }
    }

    /// The emails of a request that are to be queued now, because they are in no lane and no manifest.
    pub fn plan_again(&mut self, request: &RequestDigest) -> Option<Plan> {
        let entry = self.entries.get_mut(request)?;
        if entry.is_abandoned() {
            self.entries.remove(request);
            return None;
        }
        (!entry.deliveries.is_empty()).then(|| entry.plan())
    }

    /// What the journal says of a request by now. An older word of it does no harm.
    pub fn refresh(&mut self, known: KnownRequest) -> Refreshed<D> {
        let nothing = Refreshed { unqueued: false, then: Then::Nothing };
        let digest = known.record.digest;
        let Some(entry) = self.entries.get_mut(&digest) else { return nothing };
        if !is_same(&entry.request, &known.record) || entry.request.len() != known.record.emails {
            let Some(entry) = self.entries.remove(&digest) else { return nothing };
            return Refreshed { unqueued: true, then: Then::Reused(entry.request, entry.deliveries) };
        }
        // An older word knows less: what it does not name is not over for that.
        let is_over =
            |id: &ManifestId| known.parts.iter().any(|part| part.manifest == *id && part.conclusion.is_some());
        let open = known.open_parts().into_iter().chain(entry.open.drain(..)).filter(|id| !is_over(id));
        entry.open = open.collect::<BTreeSet<_>>().into_iter().collect();
        let mut unqueued = false;
        for part in &known.parts {
            unqueued |= entry.progress.start(&part.spans);
            if let Some(end) = &part.conclusion {
                entry.progress.conclude(&CallRecord::of(part.manifest, part.key, end), &part.spans, end);
            }
        }
        // As it was first recorded, be it by another.
        entry.record = known.record.into();
        entry.recorded = true;
        if unqueued {
            entry.progress.unqueue();
        }
        if entry.progress.is_complete() {
            let complete = self.entries.remove(&digest).map(Entry::complete);
            return Refreshed { unqueued, then: complete.map_or(Then::Nothing, |done| Then::Complete(Box::new(done))) };
        }
        let then = self.plan_again(&digest).map_or(Then::Nothing, Then::Waits);
        Refreshed { unqueued, then }
    }

    /// The journal remembers nothing of a request that was under way elsewhere: it is not here any more, and comes again.
    /// Returns who waited.
    #[must_use = "they must go back to the broker"]
    pub fn forget(&mut self, request: &RequestDigest) -> Vec<D> {
        self.entries.remove(request).map_or_else(Vec::new, |entry| entry.deliveries)
    }
}

#[cfg(test)]
mod tests;
