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
