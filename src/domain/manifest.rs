//! A batch made durable: what is sent, for whom, under which key, and what is known of its calls.
//!
//! `Draft` (planned) → [`Journaled`]`<Manifest>` (may be sent) → [`Conclusion`] (ended). Nothing here is sent that is
//! not journaled: the API port takes a `&Journaled<Manifest>`, and only a journal attests one.

use std::ops::Deref;

use bytes::Bytes;
use serde::Serialize;

use super::email::Email;
use super::fate::Fate;
use super::ids::{ContentDigest, ManifestId, ProjectId, RequestDigest};
use super::key::{IdempotencyKey, KeyBase};
use super::moment::Timestamp;

/// The most emails in one call (the API's `maxItems`).
pub const BATCH_MAX: usize = 1000;

/// Neighbouring emails of one request that stand side by side in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Position of the first in its request.
    pub request_at: u32,
    /// Position of the first in the body; below [`BATCH_MAX`].
    pub body_at: u16,
    /// How many; at least 1.
    pub len: u16,
}

/// A request's part in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The request.
    pub request: RequestDigest,
    /// Its emails in the body: in order of `request_at`, never overlapping, each as long as it can be.
    pub spans: Vec<Span>,
}

impl Member {
    /// Adds one email to the member; positions come in rising order.
    pub fn push(&mut self, request_at: u32, body_at: u16) {
        if let Some(last) = self.spans.last_mut()
            && last.request_at + u32::from(last.len) == request_at
            && last.body_at + last.len == body_at
        {
            last.len += 1;
            return;
        }
        self.spans.push(Span { request_at, body_at, len: 1 });
    }

    /// Each of its emails as (position in the request, position in the body).
    pub fn positions(&self) -> impl Iterator<Item = (u32, u16)> + '_ {
        positions(&self.spans)
    }
}

/// Each email of the spans as (position in the request, position in the body).
pub fn positions(spans: &[Span]) -> impl Iterator<Item = (u32, u16)> + '_ {
    spans.iter().flat_map(|s| (0..s.len).map(move |i| (s.request_at + u32::from(i), s.body_at + i)))
}

/// What a journal keeps of a request for as long as it remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// Its name.
    pub digest: RequestDigest,
    /// What it asks for.
    pub content: ContentDigest,
    /// Its project.
    pub project: ProjectId,
    /// How many distinct emails it has.
    pub emails: u32,
    /// To be echoed.
    pub correlation_id: Option<String>,
    /// To be echoed: a JSON object.
    pub metadata: Option<String>,
}

/// A batch that has been planned and is nowhere yet but in memory.
#[must_use = "a planned batch that is dropped takes its requests' emails with it"]
pub struct Draft {
    /// The project of all its emails.
    pub project: ProjectId,
    /// The exact bytes to be sent, each time the same.
    pub body: Bytes,
    /// How many emails the body has; 1 to [`BATCH_MAX`].
    pub emails: u16,
    /// For whom.
    pub members: Vec<Member>,
    /// The requests among the members, for the journal to remember.
    pub requests: Vec<RequestRecord>,
}

/// Addresses stay out of logs.
impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Draft {{ project: {:?}, emails: {}, members: {} }}", self.project, self.emails, self.members.len())
    }
}

/// A batch as the journal has it.
#[derive(Clone)]
pub struct Manifest {
    /// Its number in the journal.
    pub id: ManifestId,
    /// The number of the first manifest that it was split from; its own, where it was not.
    pub root: ManifestId,
    /// The project of all its emails.
    pub project: ProjectId,
    /// The exact bytes to be sent.
    pub body: Bytes,
    /// How many emails the body has.
    pub emails: u16,
    /// For whom.
    pub members: Vec<Member>,
    /// What its idempotency keys are derived from.
    pub key: KeyBase,
    /// What is known of its calls.
    pub fate: Fate,
}

/// Addresses stay out of logs.
impl std::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Manifest {{ {:?}, project: {:?}, emails: {}, {:?} }}", self.id, self.project, self.emails, self.fate)
    }
}

impl Manifest {
    /// The key of its next call.
    #[must_use]
    pub fn idempotency_key(&self) -> IdempotencyKey {
        self.key.generation(self.fate.generation)
    }
}

/// Proof that a journal holds this durably. Only a journal makes one ([`Journaled::attest`]).
#[derive(Clone, Debug)]
pub struct Journaled<T>(T);

impl<T> Journaled<T> {
    /// For journals alone, once what they attest is durable.
    #[must_use]
    pub fn attest(durable: T) -> Self {
        Self(durable)
    }
}

impl<T> Deref for Journaled<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A set of positions in a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(Vec<u8>);

impl Positions {
    /// From the bytes that [`Self::as_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// One bit for each position, the lowest bit of the first byte for position 0; bytes of zeros at the end left out.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds a position.
    pub fn insert(&mut self, at: u16) {
        let byte = usize::from(at / 8);
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        self.0[byte] |= 1 << (at % 8);
    }

    /// Whether the position is in the set.
    #[must_use]
    pub fn contains(&self, at: u16) -> bool {
        self.0.get(usize::from(at / 8)).is_some_and(|byte| byte & (1 << (at % 8)) != 0)
    }

    /// How many positions are in the set.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why emails could not be processed, as outcomes carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailCode {
    /// A 4xx that concerns this body.
    ApiRejected,
    /// 404.
    ProjectNotFound,
    /// A 403 that outlasted `retry.give_up_after`.
    Forbidden,
    /// A transient failure that this body alone met, and that outlasted `retry.give_up_after`.
    GaveUp,
}

impl FailCode {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::ApiRejected, Self::ProjectNotFound, Self::Forbidden, Self::GaveUp];

    /// The code as messages carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiRejected => "API_REJECTED",
            Self::ProjectNotFound => "PROJECT_NOT_FOUND",
            Self::Forbidden => "FORBIDDEN",
            Self::GaveUp => "GAVE_UP",
        }
    }

    /// The text that goes with the code.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::ApiRejected => "the API refused this request; correct it and submit it under a new message id",
            Self::ProjectNotFound => "the API does not know the project; check projectId",
            Self::Forbidden => "the API key may not delete contacts of this project; grant it audience:write",
            Self::GaveUp => "the API failed on these emails again and again while it served others",
        }
    }
}

/// How a manifest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The API did the work.
    Answered {
        /// The positions that it did not find; all others it deleted.
        not_found: Positions,
        /// Whether an earlier call, whose answer can no longer be had, may have deleted what was not found.
        uncertain: bool,
        /// Whether the API's own count differs from what its list implies.
        count_mismatch: bool,
    },
    /// The API will not do the work.
    Failed {
        /// Why.
        code: FailCode,
        /// The API's own machine code.
        api_code: Option<String>,
        /// Whether a call of unknown fate may have deleted some all the same.
        may_have_taken_effect: bool,
    },
    /// It lives on in its children.
    Split,
}

/// A manifest's end, as it is journaled before anybody hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// How it ended.
    pub end: End,
    /// The generation of the key that it ended under.
    pub generation: u32,
    /// The last HTTP status.
    pub http_status: Option<u16>,
    /// Calls made that are known of, by this process and those before it; at least 1.
    pub attempts: u32,
    /// Whether the API said that it replayed an earlier answer.
    pub replayed: bool,
    /// The API's name for the call.
    pub request_id: Option<String>,
    /// When the last answer came.
    pub at: Timestamp,
}

/// A part of a request that the journal remembers.
#[derive(Clone, Debug)]
pub struct KnownPart {
    /// The manifest that carries it.
    pub manifest: ManifestId,
    /// What that manifest's keys are derived from.
    pub key: KeyBase,
    /// Which emails.
    pub spans: Vec<Span>,
    /// Its end; `None` while it is under way.
    pub conclusion: Option<Conclusion>,
}

/// All that the journal remembers of a request.
#[derive(Clone, Debug)]
pub struct KnownRequest {
    /// What it asked for.
    pub record: RequestRecord,
    /// Where its emails went, oldest manifest first.
    pub parts: Vec<KnownPart>,
}

impl KnownRequest {
    /// The manifests with emails of it that have no end yet.
    #[must_use]
    pub fn open_parts(&self) -> Vec<ManifestId> {
        self.parts.iter().filter(|part| part.conclusion.is_none()).map(|part| part.manifest).collect()
    }
}

/// The bytes of a call.
#[must_use]
pub fn body<'a>(project: &ProjectId, emails: impl Iterator<Item = &'a Email>) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        project_id: &'a str,
        emails: Vec<&'a str>,
    }
    let body = Body { project_id: project.as_str(), emails: emails.map(Email::as_str).collect() };
    // Strings alone: there is nothing that JSON could not say.
    serde_json::to_vec(&body).unwrap_or_default().into()
}

/// The addresses of a body, in their order; `None` where the bytes are not such a body.
#[must_use]
pub fn body_emails(body: &[u8]) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Body {
        emails: Vec<String>,
    }
    serde_json::from_slice::<Body>(body).ok().map(|b| b.emails)
}

/// Splits a manifest in two, between requests where it can, else between emails. `None` where one email stands alone.
///
/// Each email goes into one half, with all the requests that name it.
#[must_use]
pub fn split(manifest: &Manifest) -> Option<[Draft; 2]> {
    if manifest.emails < 2 {
        return None;
    }
    let emails = body_emails(&manifest.body)?;
    let cut = cut_point(manifest);
    Some([0..cut, cut..manifest.emails].map(|range| {
        let members = manifest
            .members
            .iter()
            .filter_map(|member| {
                let mut part = Member { request: member.request, spans: Vec::new() };
                for (request_at, body_at) in member.positions().filter(|(_, at)| range.contains(at)) {
                    part.push(request_at, body_at - range.start);
                }
                (!part.spans.is_empty()).then_some(part)
            })
            .collect();
        let texts = &emails[usize::from(range.start)..usize::from(range.end)];
        let parsed: Vec<Email> = texts.iter().filter_map(|text| Email::parse(text).ok()).collect();
        Draft {
            project: manifest.project.clone(),
            body: body(&manifest.project, parsed.iter()),
            emails: range.end - range.start,
            members,
            requests: Vec::new(),
        }
    }))
}

/// The start of a request's own emails nearest the middle, else the middle. Neither half has more emails than the power
/// of two below the whole: so a culprit among 1000 stands alone after ten cuts at the most, wherever requests begin.
fn cut_point(manifest: &Manifest) -> u16 {
    let middle = manifest.emails / 2;
    let most = manifest.emails.next_power_of_two() / 2;
    manifest
        .members
        .iter()
        .filter_map(|member| member.spans.first())
        .map(|span| span.body_at)
        .filter(|at| *at > 0 && *at <= most && manifest.emails.saturating_sub(*at) <= most)
        .min_by_key(|at| at.abs_diff(middle))
        // A border far from the middle would cost more calls than it spares bystanders.
        .filter(|at| at.abs_diff(middle) <= manifest.emails / 4)
        .unwrap_or(middle)
}

#[cfg(test)]
mod tests;
