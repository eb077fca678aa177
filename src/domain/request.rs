//! A deletion request: parsed once at the edge, trusted from there on.
//!
//! The emails stand in one canonical order (by folded address), whatever order the sender gave them in, so that a
//! position means the same email in every repeat of a request: the journal keeps positions, never addresses.

mod cloud_event;
mod json;
mod picked;

use std::collections::HashSet;
use std::ops::Range;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use self::json::{EmailsField, Fields};
use super::email::{Email, EmailFault};
use super::envelope::Envelope;
use super::ids::{ContentDigest, MESSAGE_ID_MAX, MessageId, ProjectId, RequestDigest};
use super::rejection::{RejectCode, Rejection};

/// The most bytes that `metadata` may have.
pub const METADATA_MAX_BYTES: usize = 4096;

/// The most bytes that `invalid` may take in an outcome, so that no outcome outgrows what brokers take (RabbitMQ 4.x: 16
/// MiB): other lists of addresses in it are no longer than the request, and the list of calls has a bound of its own.
pub const INVALID_MAX_BYTES: usize = 2 << 20;

/// A sound request, its project still to be settled: see [`Policy::admit`].
pub struct DeletionRequest {
    /// Its name.
    pub id: MessageId,
    /// The name as the journal knows it.
    pub digest: RequestDigest,
    /// The project that the message names, or the default; `None` where neither is there.
    pub project: Option<ProjectId>,
    /// Whether the message itself names the project.
    pub names_project: bool,
    /// Distinct emails in canonical order, each in the spelling that the message gives first.
    pub emails: Box<[Email]>,
    /// Distinct entries that are no address, in order of their text.
    pub invalid: Box<[InvalidEntry]>,
    /// What it asks for.
    pub content: ContentDigest,
    /// To be echoed; without one, the message id stands in.
    pub correlation_id: Option<String>,
    /// To be echoed as it was given.
    pub metadata: Option<Box<RawValue>>,
}

/// What a sender wrote stays out of logs.
impl std::fmt::Debug for DeletionRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeletionRequest {{ {:?}, emails: {} }}", self.id, self.emails.len())
    }
}

/// An entry of `emails` that is no address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InvalidEntry {
    /// As it was given, trimmed; cut to [`super::email::EMAIL_MAX_BYTES`] bytes.
    pub text: Box<str>,
    /// Which rule it breaks.
    pub fault: EmailFault,
}

/// What is nearly an address stays out of logs.
impl std::fmt::Debug for InvalidEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InvalidEntry({:?})", self.fault)
    }
}

/// An unusable message, with what is known of it all the same.
#[derive(Debug)]
pub struct Unusable {
    /// Its id, where it has one.
    pub id: Option<MessageId>,
    /// Its project, where it names one.
    pub project: Option<ProjectId>,
    /// Entries that are no address, where that is the reason.
    pub invalid: Box<[InvalidEntry]>,
    /// The reason.
    pub rejection: Rejection,
}

impl Unusable {
    fn new(id: Option<MessageId>, code: RejectCode, message: impl Into<String>) -> Box<Self> {
        Box::new(Self { id, project: None, invalid: Box::default(), rejection: Rejection::new(code, message) })
    }
}

/// What the configuration allows. It is asked of new requests alone: one that is under way or answered stays so,
/// whatever changes.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `migma.default_project_id`.
    pub default_project: Option<ProjectId>,
    /// `migma.allowed_projects`; empty allows all.
    pub allowed_projects: HashSet<ProjectId>,
    /// `amqp.max_message_bytes`.
    pub max_message_bytes: usize,
}

impl Policy {
    /// Whether a request that nobody knows yet may be taken; for which project.
    ///
    /// # Errors
    /// No project at all, or one that is not allowed.
    pub fn admit<'a>(&self, request: &'a DeletionRequest) -> Result<&'a ProjectId, Rejection> {
        match &request.project {
            None => Err(Rejection::new(
                RejectCode::InvalidRequest,
                "projectId: is missing; name the project, or configure migma.default_project_id",
            )),
            Some(project) if self.allowed_projects.is_empty() || self.allowed_projects.contains(project) => Ok(project),
            Some(_) => Err(Rejection::new(
                RejectCode::ProjectNotAllowed,
                "projectId: is not among migma.allowed_projects of this worker",
            )),
        }
    }

    /// Whether a message is too large to be looked at.
    ///
    /// # Errors
    /// `TOO_LARGE`, with both sizes.
    pub fn admit_size(&self, envelope: &Envelope) -> Result<(), Rejection> {
        if envelope.payload.len() <= self.max_message_bytes {
            return Ok(());
        }
        Err(Rejection::new(
            RejectCode::TooLarge,
            format!(
                "the body has {} bytes, more than amqp.max_message_bytes ({}); spread the emails over several requests",
                envelope.payload.len(),
                self.max_message_bytes
            ),
        ))
    }
}

/// The id that the property gives, if any. A `CloudEvent` may name itself in its body instead.
#[must_use]
pub fn property_id(envelope: &Envelope) -> Option<MessageId> {
    envelope.message_id.as_deref().and_then(MessageId::parse)
}

impl DeletionRequest {
    /// Reads a message.
    ///
    /// # Errors
    /// The first rule of the contract that the message breaks.
    pub fn parse(envelope: &Envelope, default_project: Option<&ProjectId>) -> Result<Self, Box<Unusable>> {
        let id = property_id(envelope);
        let form = Form::of(envelope).map_err(|rejection| {
            Box::new(Unusable { id: id.clone(), project: None, invalid: Box::default(), rejection })
        })?;
        let (id, fields) = match form {
            Form::Plain => {
                let Some(id) = id else {
                    return Err(missing_id(envelope));
                };
                let fields = json::fields(&envelope.payload).map_err(|fault| fault.unusable(Some(&id)))?;
                (id, fields)
            }
            Form::CloudEvent => {
                let event = cloud_event::parse(&envelope.payload).map_err(|fault| fault.unusable(id.as_ref()))?;
                let Some(id) = id.or(event.id) else {
                    return Err(missing_id(envelope));
                };
                let fields = event.data.map_err(|fault| fault.unusable(Some(&id)))?;
                (id, fields)
            }
        };
        Self::from_fields(id, fields, envelope.correlation_id.clone(), default_project)
    }

    fn from_fields(
        id: MessageId,
        fields: Fields,
        correlation_id: Option<String>,
        default_project: Option<&ProjectId>,
    ) -> Result<Self, Box<Unusable>> {
        let named = match fields.project {
            Ok(project) => project,
            Err(fault) => return Err(fault.unusable(Some(&id))),
        };
        let refuse = |code, message: String, invalid: Box<[InvalidEntry]>| {
            let project = named.clone().or_else(|| default_project.cloned());
            Box::new(Unusable { id: Some(id.clone()), project, invalid, rejection: Rejection::new(code, message) })
        };
        let invalid_request = |message: &str| refuse(RejectCode::InvalidRequest, message.into(), Box::default());
        let texts = match fields.emails {
            EmailsField::Missing => return Err(invalid_request("emails: is missing; give a list of addresses")),
            EmailsField::NotAList => return Err(invalid_request("emails: must be a list of strings")),
            EmailsField::NotAString(at) => {
                return Err(invalid_request(&format!("emails[{at}]: must be a string")));
            }
            EmailsField::List(texts) => texts,
        };
        let metadata = fields.metadata.map_err(|fault| fault.unusable(Some(&id)))?;
        if metadata.as_ref().is_some_and(|m| m.get().len() > METADATA_MAX_BYTES) {
            return Err(invalid_request("metadata: has more than 4096 bytes"));
        }
        if texts.is_empty() {
            return Err(refuse(RejectCode::NoEmails, "emails: is empty; give at least one".into(), Box::default()));
        }
        let (emails, invalid) = sort(&texts);
        if listing_bytes(&invalid) > INVALID_MAX_BYTES {
            let message =
                format!("emails: {} entries are no addresses, too many to be listed; give addresses", invalid.len());
            return Err(invalid_request(&message));
        }
        if emails.is_empty() {
            let message = "emails: no entry is an address; see `invalid`";
            return Err(refuse(RejectCode::NoValidEmail, message.into(), invalid));
        }
        Ok(Self {
            digest: id.digest(),
            content: content_digest(&emails, &invalid),
            names_project: named.is_some(),
            project: named.or_else(|| default_project.cloned()),
            id,
            emails,
            invalid,
            correlation_id,
            metadata,
        })
    }

    /// Whether it asks to delete this email.
    #[must_use]
    pub fn names(&self, email: &Email) -> bool {
        let folded = email.folded();
        self.emails.binary_search_by(|other| other.folded().cmp(&folded)).is_ok()
    }

    /// How many distinct emails it asks to delete.
    #[must_use]
    pub fn len(&self) -> u32 {
        // A message is far smaller than 2^32 emails: the body is bounded by AMQP's own frame arithmetic.
        u32::try_from(self.emails.len()).unwrap_or(u32::MAX)
    }

    /// Never: a request without emails is rejected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.emails.is_empty()
    }
}

/// The entries of a message's own `emails` list, by index, that are not in `done`: what `x-eraser-undone` tells.
///
/// `done` answers for a folded address. `None` where the list cannot be read.
#[must_use]
pub fn undone_indices(envelope: &Envelope, done: impl Fn(&str) -> bool) -> Option<Vec<Range<usize>>> {
    let fields = match Form::of(envelope).ok()? {
        Form::Plain => json::fields(&envelope.payload).ok()?,
        Form::CloudEvent => cloud_event::parse(&envelope.payload).ok()?.data.ok()?,
    };
    let EmailsField::List(texts) = fields.emails else { return None };
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        if Email::parse(text).is_ok_and(|email| done(&email.folded())) {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.end == at => last.end = at + 1,
            _ => ranges.push(at..at + 1),
        }
    }
    Some(ranges)
}

/// A message's body with those entries alone of its own `emails` list that stand at these indices; all else is as it was
/// written. `None` where the body cannot be read, or has no such entries.
#[must_use]
pub fn with_entries(envelope: &Envelope, indices: &[Range<usize>]) -> Option<Vec<u8>> {
    picked::pick(&Form::of(envelope).ok()?, &envelope.payload, indices)
}

/// Distinct emails in canonical order, and what is no email.
fn sort(texts: &[String]) -> (Box<[Email]>, Box<[InvalidEntry]>) {
    let mut emails = Vec::with_capacity(texts.len());
    let mut invalid = Vec::new();
    for text in texts {
        match Email::parse(text) {
            Ok(email) => emails.push(email),
            Err(fault) => invalid.push(InvalidEntry { text: cut(text.trim()).into(), fault }),
        }
    }
    // Stable, so that of two spellings the first stays.
    emails.sort_by(|a, b| a.folded().cmp(&b.folded()));
    emails.dedup_by(|later, first| later.folded() == first.folded());
    invalid.sort();
    invalid.dedup();
    (emails.into(), invalid.into())
}

/// What the entries take in an outcome, in bytes, with room for each one's reason.
fn listing_bytes(invalid: &[InvalidEntry]) -> usize {
    const REASON: usize = 80;
    invalid.iter().map(|entry| REASON + serde_json::to_string(&entry.text).map_or(0, |text| text.len())).sum()
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(super::email::EMAIL_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn content_digest(emails: &[Email], invalid: &[InvalidEntry]) -> ContentDigest {
    let mut hasher = Sha256::new();
    hasher.update(b"migma-eraser/content/1");
    hasher.update((emails.len() as u64).to_be_bytes());
    for text in emails.iter().map(|e| e.folded()).chain(invalid.iter().map(|i| (&*i.text).into())) {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    ContentDigest(hasher.finalize().into())
}

fn missing_id(envelope: &Envelope) -> Box<Unusable> {
    let message = match &envelope.message_id {
        Some(id) if id.len() > MESSAGE_ID_MAX => "message_id: has more than 255 bytes",
        _ => "message_id: is missing; set the property to a name of 1 to 255 bytes that is this request's alone",
    };
    Unusable::new(None, RejectCode::MissingMessageId, message)
}

enum Form {
    Plain,
    CloudEvent,
}

impl Form {
    fn of(envelope: &Envelope) -> Result<Self, Rejection> {
        let Some(content_type) = &envelope.content_type else { return Ok(Self::Plain) };
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "" | "application/json" => Ok(Self::Plain),
            "application/cloudevents+json" => Ok(Self::CloudEvent),
            _ => Err(Rejection::new(
                RejectCode::UnsupportedContentType,
                "content_type: must be application/json, application/cloudevents+json or absent",
            )),
        }
    }
}

#[cfg(test)]
mod tests;
