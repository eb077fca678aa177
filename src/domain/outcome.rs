//! What a request's sender, and operations, are told: one meaning for each request, the same in every repeat.
//!
//! Everything but `publishedAt` is fixed by the request, its record and its progress, and written once; lists stand in the
//! request's canonical order, so that a repeat after a crash is equal to the letter.

mod batch_event;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

pub use self::batch_event::{BATCH_TYPE, BatchEvent};
use super::attribution::{Progress, Standing};
use super::email::fold;
use super::envelope::Envelope;
use super::ids::{MessageId, OutcomeId, ProjectId};
use super::manifest::{FailCode, RequestRecord};
use super::moment::Timestamp;
use super::rejection::Rejection;
use super::request::{DeletionRequest, InvalidEntry, Unusable, undone_indices};

/// The `type` of an outcome.
pub const OUTCOME_TYPE: &str = "contacts.deletion.outcome.v1";

/// What an outcome comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every email is deleted, not found or uncertain.
    Succeeded,
    /// Some are; others are invalid or failed.
    Partial,
    /// The request was sound, and none of its emails could be processed.
    Failed,
    /// The message is unusable; nothing was sent.
    Rejected,
}

impl Status {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Succeeded, Self::Partial, Self::Failed, Self::Rejected];

    /// As routing keys and metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
        }
    }
}

/// An outcome, ready to be published any number of times.
pub struct Outcome {
    /// Its own id.
    pub id: OutcomeId,
    /// What it comes to.
    pub status: Status,
    /// The request's correlation id, or else its message id.
    pub correlation_id: Option<String>,
    /// Emails by result, for metrics.
    pub counts: Counts,
    /// Why a copy of the message goes to the dead exchange; `None` where it does not.
    pub dead: Option<Dead>,
    /// The body, a JSON object, but for `publishedAt` and its end.
    written: Vec<u8>,
    /// The emails that failed, folded.
    failed: HashSet<String>,
}

/// Addresses stay out of logs.
impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outcome {{ {:?}, {:?}, {:?} }}", self.id, self.status, self.counts)
    }
}

/// Emails of a request by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Deleted.
    pub deleted: u64,
    /// Not found.
    pub not_found: u64,
    /// Uncertain.
    pub uncertain: u64,
    /// Invalid.
    pub invalid: u64,
    /// Failed.
    pub failed: u64,
}

/// What a dead letter says beside its message.
#[derive(Debug, PartialEq, Eq)]
pub struct Dead {
    /// The first reason; the routing key is `dead.<code>`.
    pub code: &'static str,
    /// The same in words.
    pub reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    message_id: Option<&'a str>,
    correlation_id: Option<&'a str>,
    project_id: Option<&'a str>,
    status: Status,
    deleted: u64,
    not_found: Vec<&'a str>,
    invalid: Vec<Invalid<'a>>,
    failed: Vec<Failed<'a>>,
    uncertain: Vec<&'a str>,
    count_mismatch: bool,
    error: Option<ErrorText<'a>>,
    requests: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    requests_omitted: usize,
    metadata: Option<&'a RawValue>,
    completed_at: Option<Timestamp>,
}

impl Fields<'_> {
    /// As JSON, without the brace that ends it.
    fn written(&self) -> Vec<u8> {
        // Strings, numbers and JSON that was parsed before: there is nothing that JSON could not say.
        let mut written = serde_json::to_vec(self).unwrap_or_default();
        written.pop();
        written
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct Invalid<'a> {
    email: &'a str,
    reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    emails: Vec<&'a str>,
    code: FailCode,
    http_status: Option<u16>,
    message: Cow<'a, str>,
    may_have_taken_effect: bool,
}

#[derive(Serialize)]
struct ErrorText<'a> {
    code: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Call<'a> {
    idempotency_key: &'a str,
    http_status: Option<u16>,
    attempts: u32,
    replayed: bool,
    request_id: Option<&'a str>,
}

/// The code of a dead letter whose emails were all processed, but for those that are no addresses.
pub const INVALID_EMAIL: &str = "INVALID_EMAIL";

/// The most calls that an outcome lists, oldest first: 2 MiB of them. A request of culprits alone costs two calls for each
/// of its emails, and no broker takes an outcome without end.
const LISTED_CALLS: usize = 10_000;

impl Outcome {
    /// The outcome of a request whose every email has come to its end.
    #[must_use]
    pub fn of(request: &DeletionRequest, record: &RequestRecord, progress: &Progress) -> Self {
        let mut deleted = 0;
        let (mut not_found, mut uncertain) = (Vec::new(), Vec::new());
        let mut failed: Vec<(u16, Vec<&str>)> = Vec::new();
        for (email, standing) in request.emails.iter().zip(progress.standings()) {
            match standing {
                Standing::Deleted => deleted += 1,
                Standing::NotFound => not_found.push(email.as_str()),
                Standing::Uncertain => uncertain.push(email.as_str()),
                Standing::Failed(reason) => match failed.iter_mut().find(|(known, _)| known == reason) {
                    Some((_, emails)) => emails.push(email.as_str()),
                    None => failed.push((*reason, vec![email.as_str()])),
                },
                Standing::Fresh | Standing::Queued | Standing::UnderWay => {
                    debug_assert!(false, "an outcome is made of a complete request");
                }
            }
        }
        let failed = failed.into_iter().filter_map(|(reason, emails)| {
            let failure = progress.failures().get(usize::from(reason))?;
            let message = match &failure.api_code {
                Some(code) => Cow::Owned(format!("{} (the API's code: {code})", failure.code.text())),
                None => Cow::Borrowed(failure.code.text()),
            };
            Some(Failed {
                emails,
                code: failure.code,
                http_status: failure.http_status,
                message,
                may_have_taken_effect: failure.may_have_taken_effect,
            })
        });
        let failed: Vec<Failed<'_>> = failed.collect();
        let counts = Counts {
            deleted,
            not_found: not_found.len() as u64,
            uncertain: uncertain.len() as u64,
            invalid: request.invalid.len() as u64,
            failed: failed.iter().map(|f| f.emails.len() as u64).sum(),
        };
        let processed = counts.deleted + counts.not_found + counts.uncertain;
        let status = match (processed, counts.invalid + counts.failed) {
            (_, 0) => Status::Succeeded,
            (0, _) => Status::Failed,
            _ => Status::Partial,
        };
        let dead = (status != Status::Succeeded).then(|| match failed.first() {
            Some(first) => Dead { code: first.code.as_str(), reason: first.message.to_string() },
            None => Dead { code: INVALID_EMAIL, reason: "some entries of emails are no addresses".to_owned() },
        });
        let calls = progress.calls();
        let correlation_id = record.correlation_id.as_deref().unwrap_or(request.id.as_str());
        let folded = failed.iter().flat_map(|failed| &failed.emails).map(|text| fold(text).into_owned()).collect();
        let fields = Fields {
            message_id: Some(request.id.as_str()),
            correlation_id: Some(correlation_id),
            project_id: Some(record.project.as_str()),
            status,
            deleted,
            not_found,
            invalid: invalid(&request.invalid),
            failed,
            uncertain,
            count_mismatch: progress.count_mismatch(),
            error: None,
            requests_omitted: calls.len().saturating_sub(LISTED_CALLS),
            requests: calls
                .into_iter()
                .take(LISTED_CALLS)
                .map(|call| Call {
                    idempotency_key: call.key.as_str(),
                    http_status: call.http_status,
                    attempts: call.attempts,
                    replayed: call.replayed,
                    request_id: call.request_id.as_deref(),
                })
                .collect(),
            metadata: record.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            completed_at: progress.completed_at(),
        };
        Self {
            id: OutcomeId::of_request(&request.id),
            status,
            correlation_id: Some(correlation_id.to_owned()),
            counts,
            dead,
            written: fields.written(),
            failed: folded,
        }
    }

    /// The outcome of a message that could not be read as a request.
    #[must_use]
    pub fn unusable(unusable: &Unusable, envelope: &Envelope) -> Self {
        let Unusable { id, project, invalid, rejection } = unusable;
        Self::rejected(id.as_ref(), project.as_ref(), invalid, rejection, envelope)
    }

    /// The outcome of a sound request that is not taken.
    #[must_use]
    pub fn refused(request: &DeletionRequest, rejection: &Rejection, envelope: &Envelope) -> Self {
        Self::rejected(Some(&request.id), request.project.as_ref(), &request.invalid, rejection, envelope)
    }

    /// The outcome of a message that is too large to be looked at.
    #[must_use]
    pub fn too_large(id: Option<&MessageId>, rejection: &Rejection, envelope: &Envelope) -> Self {
        Self::rejected(id, None, &[], rejection, envelope)
    }

    fn rejected(
        id: Option<&MessageId>,
        project: Option<&ProjectId>,
        entries: &[InvalidEntry],
        rejection: &Rejection,
        envelope: &Envelope,
    ) -> Self {
        let message_id = id.map(MessageId::as_str);
        let correlation_id = envelope.correlation_id.as_deref().or(message_id);
        let fields = Fields {
            message_id,
            correlation_id,
            project_id: project.map(ProjectId::as_str),
            status: Status::Rejected,
            deleted: 0,
            not_found: Vec::new(),
            invalid: invalid(entries),
            failed: Vec::new(),
            uncertain: Vec::new(),
            count_mismatch: false,
            error: Some(ErrorText { code: rejection.code.as_str(), message: &rejection.message }),
            requests: Vec::new(),
            requests_omitted: 0,
            metadata: None,
            completed_at: None,
        };
        Self {
            id: OutcomeId::of_rejected(id, &envelope.payload),
            status: Status::Rejected,
            correlation_id: correlation_id.map(str::to_owned),
            counts: Counts { invalid: entries.len() as u64, ..Counts::default() },
            dead: Some(Dead { code: rejection.code.as_str(), reason: rejection.message.clone() }),
            written: fields.written(),
            failed: HashSet::new(),
        }
    }

    /// The message body, as of now.
    #[must_use]
    pub fn json(&self, published_at: Timestamp) -> Bytes {
        let rest = format!(r#","publishedAt":"{published_at}"}}"#);
        [&self.written[..], rest.as_bytes()].concat().into()
    }

    /// Which entries of the message's own list were not done, as index ranges such as `0,4-7`; empty where all were.
    /// `None` where the list cannot be read.
    #[must_use]
    pub fn undone(&self, envelope: &Envelope) -> Option<String> {
        let nothing_done = self.status == Status::Rejected;
        undone_indices(envelope, |folded| !nothing_done && !self.failed.contains(folded)).map(|ranges| print(&ranges))
    }
}

fn print(ranges: &[Range<usize>]) -> String {
    let one = |range: &Range<usize>| match range.len() {
        1 => range.start.to_string(),
        _ => format!("{}-{}", range.start, range.end - 1),
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(",")
}

fn invalid(entries: &[InvalidEntry]) -> Vec<Invalid<'_>> {
    entries.iter().map(|e| Invalid { email: &e.text, reason: e.fault.to_string() }).collect()
}

#[cfg(test)]
mod tests;
