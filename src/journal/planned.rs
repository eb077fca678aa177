//! A batch on its way into a store, before it has its number there.

use bytes::Bytes;

use crate::domain::fate::Fate;
use crate::domain::ids::{ManifestId, ProjectId};
use crate::domain::key::KeyBase;
use crate::domain::manifest::{Draft, Manifest, Member, RequestRecord};
use crate::domain::moment::Timestamp;

/// A manifest that is still to get its number, and the requests that it names.
pub(super) struct Planned {
    pub project: ProjectId,
    pub body: Bytes,
    pub emails: u16,
    pub members: Vec<Member>,
    pub requests: Vec<RequestRecord>,
}

/// Where a manifest comes from: of what it is a part, and when it was recorded.
pub(super) struct Line {
    pub parent: Option<ManifestId>,
    pub root: Option<ManifestId>,
    pub recorded_at: Timestamp,
}

impl Planned {
    pub(super) fn new(draft: &Draft) -> Self {
        Self {
            project: draft.project.clone(),
            body: draft.body.clone(),
            emails: draft.emails,
            members: draft.members.clone(),
            requests: draft.requests.clone(),
        }
    }

    /// The manifest, once it has its number.
    pub(super) fn manifest(&self, id: ManifestId, line: &Line, fate: Fate) -> Manifest {
        Manifest {
            id,
            root: line.root.unwrap_or(id),
            project: self.project.clone(),
            body: self.body.clone(),
            emails: self.emails,
            members: self.members.clone(),
            key: KeyBase::derive(&self.members),
            fate,
        }
    }
}

/// The children of an earlier split, by number and key in their order, where they are those that are planned.
pub(super) fn split_before(
    planned: &[Planned],
    found: &[(ManifestId, KeyBase)],
    line: &Line,
    fate: Fate,
) -> Option<Vec<Manifest>> {
    if found.is_empty() || found.len() != planned.len() {
        return None;
    }
    let child = |((id, key), planned): (&(ManifestId, KeyBase), &Planned)| {
        Some(planned.manifest(*id, line, fate)).filter(|child| child.key == *key)
    };
    found.iter().zip(planned).map(child).collect()
}
