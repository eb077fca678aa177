//! What holds of every message, whatever is in it: it becomes a request that says what the message says, or a rejection
//! with a code of the contract that gives nothing away.

use std::collections::{BTreeMap, BTreeSet};

use migma_eraser::domain::email::{EMAIL_MAX_BYTES, Email, EmailFault};
use migma_eraser::domain::envelope::Envelope;
use migma_eraser::domain::ids::ProjectId;
use migma_eraser::domain::moment::Timestamp;
use migma_eraser::domain::outcome::Outcome;
use migma_eraser::domain::rejection::{RejectCode, Rejection};
use migma_eraser::domain::request::{
    DeletionRequest, INVALID_MAX_BYTES, METADATA_MAX_BYTES, Policy, Unusable, undone_indices,
};
use serde_json::{Map, Value, json};

/// The codes of a rejection, as the contract lists them.
const CODES: [&str; 9] = [
    "MALFORMED_JSON",
    "INVALID_REQUEST",
    "MISSING_MESSAGE_ID",
    "NO_EMAILS",
    "NO_VALID_EMAIL",
    "PROJECT_NOT_ALLOWED",
    "MESSAGE_ID_REUSED",
    "TOO_LARGE",
    "UNSUPPORTED_CONTENT_TYPE",
];

/// Reads a message and holds what comes of it against the message. `fields` are the request's as another parser reads
/// them: the body, or the event's `data`; `None` where that one cannot read them.
pub fn check(envelope: &Envelope, fields: Option<&Map<String, Value>>) -> Option<DeletionRequest> {
    assert!(!format!("{envelope:?}").contains('@'));
    let read = DeletionRequest::parse(envelope, None);
    match &read {
        Ok(request) => {
            is_sound(request);
            if let Some(fields) = fields {
                says_what_the_message_says(request, fields, envelope);
            }
            says_the_same_again(request);
            defaults_change_nothing_else(request, envelope);
        }
        Err(unusable) => tells_why(unusable, envelope),
    }
    if let (Some(fields), Err(unusable)) = (fields, &read) {
        assert!(!is_fine(fields) || is_about_the_envelope(unusable, fields), "refused: {:?}", unusable.rejection.code);
    }
    read.ok()
}

fn is_sound(request: &DeletionRequest) {
    assert!((1..=255).contains(&request.id.as_str().len()));
    assert!(!request.is_empty() && request.len() as usize == request.emails.len());
    for email in &request.emails {
        let text = email.as_str();
        assert_eq!(text.trim(), text);
        assert!(text.len() <= EMAIL_MAX_BYTES);
        assert!(!text.chars().any(|c| c.is_whitespace() || c.is_control()));
        let (local, host) = text.split_once('@').unwrap();
        assert!(!local.is_empty() && !host.is_empty() && !host.contains('@'));
    }
    // In order and distinct at once.
    assert!(request.emails.windows(2).all(|two| two[0].folded() < two[1].folded()));
    assert!(request.invalid.windows(2).all(|two| two[0] < two[1]));
    for entry in &request.invalid {
        assert!(entry.text.len() <= EMAIL_MAX_BYTES);
        if entry.fault != EmailFault::TooLong {
            assert!(Email::parse(&entry.text) == Err(entry.fault));
        }
    }
    if let Some(metadata) = &request.metadata {
        assert!(metadata.get().len() <= METADATA_MAX_BYTES);
        let read: Value = serde_json::from_str(metadata.get()).unwrap();
        assert!(read.is_object());
    }
    assert!(!format!("{request:?} {:?}", request.invalid).contains('@'));
}

/// Every position of the list is an email, a repeat of one, or invalid; nothing else is in the request.
fn says_what_the_message_says(request: &DeletionRequest, fields: &Map<String, Value>, envelope: &Envelope) {
    let list: Vec<&str> = fields["emails"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let mut first = BTreeMap::new();
    let mut invalid = BTreeSet::new();
    let mut wrong_at = Vec::new();
    for (at, text) in list.iter().enumerate() {
        match Email::parse(text) {
            Ok(email) => drop(first.entry(email.folded().into_owned()).or_insert_with(|| text.trim())),
            Err(fault) => {
                let text = text.trim();
                let end = (0..=text.len().min(EMAIL_MAX_BYTES)).rev().find(|end| text.is_char_boundary(*end)).unwrap();
                invalid.insert((&text[..end], fault));
                wrong_at.push(at);
            }
        }
    }
    assert!(request.emails.iter().map(Email::as_str).eq(first.into_values()));
    assert!(request.invalid.iter().map(|entry| (&*entry.text, entry.fault)).eq(invalid));

    let positions = |done: bool| undone_indices(envelope, |_| done).unwrap().into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(positions(true), wrong_at);
    assert_eq!(positions(false), (0..list.len()).collect::<Vec<_>>());

    assert_eq!(request.names_project, request.project.is_some());
    assert_eq!(request.project.as_ref().map(ProjectId::as_str), fields.get("projectId").and_then(Value::as_str));
    let metadata = request.metadata.as_ref().map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap());
    assert_eq!(metadata, fields.get("metadata").filter(|value| !value.is_null()).cloned());
}

/// The request written in its canonical form is the same request.
fn says_the_same_again(request: &DeletionRequest) {
    let invalid = request.invalid.iter().map(|entry| match entry.fault {
        // It was cut: made too long again, it is cut at the same place.
        EmailFault::TooLong => format!("{}\u{10000}", entry.text),
        _ => entry.text.to_string(),
    });
    let emails: Vec<String> = request.emails.iter().map(|email| email.as_str().to_owned()).chain(invalid).collect();
    let mut body = json!({"emails": emails});
    if let Some(project) = &request.project {
        body["projectId"] = project.as_str().into();
    }
    let mut text = body.to_string();
    if let Some(metadata) = &request.metadata {
        text.insert_str(1, &format!("\"metadata\":{},", metadata.get()));
    }
    let again = Envelope {
        message_id: Some(request.id.as_str().to_owned()),
        correlation_id: request.correlation_id.clone(),
        payload: text.into(),
        ..Envelope::default()
    };
    let again = DeletionRequest::parse(&again, None).unwrap_or_else(|unusable| panic!("{:?}", unusable.rejection));
    assert!(again.id == request.id && again.digest == request.digest);
    assert_eq!(again.content, request.content);
    assert!(again.emails == request.emails && again.invalid == request.invalid);
    assert_eq!(again.project, request.project);
    assert_eq!(again.correlation_id, request.correlation_id);
    assert_eq!(again.metadata.map(|raw| raw.to_string()), request.metadata.as_ref().map(ToString::to_string));
}

fn defaults_change_nothing_else(request: &DeletionRequest, envelope: &Envelope) {
    let default = ProjectId::parse("the default").unwrap();
    let Ok(with) = DeletionRequest::parse(envelope, Some(&default)) else { panic!("a default made it unusable") };
    assert_eq!(with.content, request.content);
    assert_eq!(with.project.as_ref(), Some(request.project.as_ref().unwrap_or(&default)));
    let mut policy = Policy {
        default_project: Some(default.clone()),
        allowed_projects: [default.clone()].into(),
        max_message_bytes: envelope.payload.len(),
    };
    assert!(policy.admit_size(envelope).is_ok());
    match policy.admit(&with) {
        Ok(project) => assert_eq!(*project, default),
        Err(rejection) => {
            assert_eq!(rejection.code, RejectCode::ProjectNotAllowed);
            is_silent(&rejection);
            is_an_outcome(&Outcome::refused(&with, &rejection, envelope), &rejection);
        }
    }
    policy.max_message_bytes = policy.max_message_bytes.saturating_sub(1);
    if let Err(rejection) = policy.admit_size(envelope) {
        is_an_outcome(&Outcome::too_large(Some(&request.id), &rejection, envelope), &rejection);
    }
}

fn tells_why(unusable: &Unusable, envelope: &Envelope) {
    is_silent(&unusable.rejection);
    assert!(!format!("{unusable:?}").contains('@'));
    assert!(unusable.invalid.is_empty() || unusable.rejection.code == RejectCode::NoValidEmail);
    let outcome = Outcome::unusable(unusable, envelope);
    is_an_outcome(&outcome, &unusable.rejection);
    // Nothing was done of it, as far as its list can be read.
    let _ = outcome.undone(envelope);
}

fn is_silent(rejection: &Rejection) {
    assert!(CODES.contains(&rejection.code.as_str()));
    assert!(!rejection.message.is_empty() && rejection.message.is_ascii());
    assert!(!rejection.message.contains('@') && !rejection.message.contains(char::is_control));
}

fn is_an_outcome(outcome: &Outcome, rejection: &Rejection) {
    let told: Value = serde_json::from_slice(&outcome.json(Timestamp::from_millis(0))).unwrap();
    assert_eq!(told["status"], "rejected");
    assert_eq!(told["error"]["code"], rejection.code.as_str());
    assert!(told["completedAt"].is_null() && told["deleted"] == 0);
    assert_eq!(outcome.dead.as_ref().unwrap().code, rejection.code.as_str());
}

/// Whether nothing is wrong with the fields as this parser sees them.
fn is_fine(fields: &Map<String, Value>) -> bool {
    let project = match fields.get("projectId") {
        None | Some(Value::Null) => true,
        Some(project) => project.as_str().is_some_and(|text| !text.is_empty()),
    };
    let strings = |list: &Vec<Value>| list.iter().map(|text| text.as_str().map(str::to_owned)).collect();
    let emails: Option<Vec<String>> = fields.get("emails").and_then(Value::as_array).and_then(strings);
    let emails = emails.unwrap_or_default();
    // Far below what could be too much to list.
    let few = emails.iter().map(|text| text.len() * 6 + 100).sum::<usize>() < INVALID_MAX_BYTES;
    let metadata = match fields.get("metadata") {
        None | Some(Value::Null) => true,
        Some(metadata) => metadata.is_object() && metadata.to_string().len() <= METADATA_MAX_BYTES / 8,
    };
    project && few && metadata && emails.iter().any(|text| Email::parse(text).is_ok())
}

/// Whether the rejection is about what `fields` do not show: the message's properties, the event around the request, a
/// name given twice, metadata that is long as it was written.
fn is_about_the_envelope(unusable: &Unusable, fields: &Map<String, Value>) -> bool {
    let Rejection { code, message } = &unusable.rejection;
    match code {
        RejectCode::MissingMessageId | RejectCode::UnsupportedContentType => true,
        RejectCode::MalformedJson => message.starts_with("a field is given twice"),
        RejectCode::InvalidRequest => {
            let of_the_event = ["specversion", "id:", "source", "datacontenttype", "data", "data_base64"];
            of_the_event.iter().any(|field| message.starts_with(field))
                || (message.starts_with("metadata") && fields.contains_key("metadata"))
        }
        _ => false,
    }
}
