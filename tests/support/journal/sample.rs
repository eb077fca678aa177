//! Batches, fates and ends to try a journal with.

use std::ops::Range;
use std::time::Duration;

use migma_eraser::domain::email::Email;
use migma_eraser::domain::fate::{Fate, FirstCall};
use migma_eraser::domain::ids::{ContentDigest, Fingerprint, MessageId, ProjectId, RequestDigest};
use migma_eraser::domain::manifest::{Conclusion, Draft, End, Member, Positions, RequestRecord, Span, body};
use migma_eraser::domain::moment::Timestamp;

/// The request's digest.
pub fn digest(name: &str) -> RequestDigest {
    MessageId::parse(name).unwrap().digest()
}

/// So many milliseconds.
pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The `at`-th address of a request.
pub fn address(name: &str, at: u32) -> String {
    format!("{name}.{at}@example.com")
}

/// What is remembered of a request with so many emails.
pub fn request(name: &str, emails: u32) -> RequestRecord {
    RequestRecord {
        digest: digest(name),
        content: ContentDigest(digest(&format!("content of {name}")).0),
        project: project("proj_1"),
        emails,
        correlation_id: Some(format!("correlation of {name}")),
        metadata: Some(format!(r#"{{"ticket": "{name}"}}"#)),
    }
}

/// A project.
pub fn project(id: &str) -> ProjectId {
    ProjectId::parse(id).unwrap()
}

/// A batch of parts: (request, how many emails it has, which of them are in the batch).
pub fn draft(parts: &[(&str, u32, Range<u32>)]) -> Draft {
    let mut emails = Vec::new();
    let mut members = Vec::new();
    for (name, _, range) in parts {
        let mut member = Member { request: digest(name), spans: Vec::new() };
        for at in range.clone() {
            member.push(at, u16::try_from(emails.len()).unwrap());
            emails.push(Email::parse(&address(name, at)).unwrap());
        }
        members.push(member);
    }
    Draft {
        project: project("proj_1"),
        body: body(&project("proj_1"), emails.iter()),
        emails: u16::try_from(emails.len()).unwrap(),
        members,
        requests: parts.iter().map(|(name, emails, _)| request(name, *emails)).collect(),
    }
}

/// A batch of whole requests.
pub fn whole(requests: &[(&str, u32)]) -> Draft {
    let parts: Vec<_> = requests.iter().map(|(name, emails)| (*name, *emails, 0..*emails)).collect();
    draft(&parts)
}

/// A span.
pub fn span(request_at: u32, body_at: u16, len: u16) -> Span {
    Span { request_at, body_at, len }
}

/// First called at that time.
pub fn called(millis: i64) -> Fate {
    let first = FirstCall { at: at(millis), fingerprint: Fingerprint([7; 16]), steady: Some(Duration::from_secs(5)) };
    Fate { first_call: Some(first), ..Fate::never_sent() }
}

/// What the parts of a batch begin with whose call may have taken effect.
pub fn doubtful() -> Fate {
    Fate { lost: true, troubled_since: Some(at(4_000)), ..Fate::never_sent() }
}

/// Positions in a body.
pub fn positions(at: &[u16]) -> Positions {
    let mut positions = Positions::default();
    for at in at {
        positions.insert(*at);
    }
    positions
}

/// An end at that time.
pub fn ended(end: End, millis: i64) -> Conclusion {
    Conclusion {
        end,
        generation: 0,
        http_status: Some(200),
        attempts: 1,
        replayed: false,
        request_id: Some("req_1".into()),
        at: at(millis),
    }
}

/// All deleted.
pub fn deleted(millis: i64) -> Conclusion {
    ended(End::Answered { not_found: positions(&[]), uncertain: false, count_mismatch: false }, millis)
}
