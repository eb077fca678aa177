//! Batches and ends to try the store with.

use crate::domain::email::Email;
use crate::domain::fate::{Fate, FirstCall};
use crate::domain::ids::{ContentDigest, Fingerprint, MessageId, ProjectId};
use crate::domain::manifest::{Conclusion, Draft, End, Manifest, Member, Positions, RequestRecord, body, body_emails};
use crate::domain::moment::Timestamp;

pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(super) fn called(millis: i64) -> Fate {
    let first = FirstCall { at: at(millis), fingerprint: Fingerprint([7; 16]), steady: None };
    Fate { first_call: Some(first), ..Fate::never_sent() }
}

pub(super) fn request(name: &str, emails: u32) -> RequestRecord {
    let digest = MessageId::parse(name).unwrap().digest();
    RequestRecord {
        digest,
        content: ContentDigest(digest.0),
        project: ProjectId::parse("p").unwrap(),
        emails,
        correlation_id: Some(name.into()),
        metadata: None,
    }
}

/// A batch of one request; its addresses are `<name.at@example.com`.
pub(super) fn draft(name: &str, emails: u16) -> Draft {
    let record = request(name, emails.into());
    let mut member = Member { request: record.digest, spans: Vec::new() };
    let addresses: Vec<Email> = (0..emails)
        .map(|at| {
            member.push(at.into(), at);
            Email::parse(&format!("<{name}.{at}@example.com")).unwrap()
        })
        .collect();
    Draft {
        project: record.project.clone(),
        body: body(&record.project, addresses.iter()),
        emails,
        members: vec![member],
        requests: vec![record],
    }
}

/// The request whose address comes first in a manifest's body.
pub(super) fn first_name(manifest: &Manifest) -> String {
    let first = body_emails(&manifest.body).unwrap().remove(0);
    first.trim_start_matches('<').split('.').next().unwrap().to_owned()
}

pub(super) fn ended(end: End, millis: i64) -> Conclusion {
    Conclusion {
        end,
        generation: 0,
        http_status: Some(200),
        attempts: 1,
        replayed: false,
        request_id: None,
        at: at(millis),
    }
}

pub(super) fn deleted(millis: i64) -> Conclusion {
    ended(End::Answered { not_found: Positions::default(), uncertain: false, count_mismatch: false }, millis)
}
