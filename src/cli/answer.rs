//! What a command reads of an outcome: status, figures, names. Lists are counted, never kept.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::domain::outcome::{Counts, Status};

/// An outcome's figures.
pub(super) struct Answer {
    pub(super) message_id: Option<String>,
    pub(super) status: Status,
    pub(super) counts: Counts,
    /// Emails that failed, by code; for a rejected request its code, with 0.
    pub(super) codes: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    message_id: Option<String>,
    status: String,
    deleted: u64,
    not_found: Vec<IgnoredAny>,
    uncertain: Vec<IgnoredAny>,
    invalid: Vec<IgnoredAny>,
    failed: Vec<Failed>,
    error: Option<Refused>,
}

#[derive(Deserialize)]
struct Failed {
    emails: Vec<IgnoredAny>,
    code: String,
}

#[derive(Deserialize)]
struct Refused {
    code: String,
}

/// The status of this name.
pub(super) fn status(name: &str) -> Option<Status> {
    [Status::Succeeded, Status::Partial, Status::Failed, Status::Rejected].into_iter().find(|s| s.as_str() == name)
}

/// Reads an outcome's body; `None` where it is none.
pub(super) fn read(body: &[u8]) -> Option<Answer> {
    let body: Body = serde_json::from_slice(body).ok()?;
    let mut codes = BTreeMap::new();
    for failed in &body.failed {
        *codes.entry(failed.code.clone()).or_default() += failed.emails.len() as u64;
    }
    if let Some(refused) = body.error {
        codes.entry(refused.code).or_default();
    }
    Some(Answer {
        status: status(&body.status)?,
        message_id: body.message_id,
        counts: Counts {
            deleted: body.deleted,
            not_found: body.not_found.len() as u64,
            uncertain: body.uncertain.len() as u64,
            invalid: body.invalid.len() as u64,
            failed: body.failed.iter().map(|failed| failed.emails.len() as u64).sum(),
        },
        codes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_an_outcome_are_read_and_anything_else_is_none() {
        let body = r#"{"messageId":"m","projectId":"p","status":"partial","deleted":2,"notFound":["a@x"],"uncertain":[],
            "invalid":[{"email":"b","reason":"r"}],"failed":[{"emails":["c@x","d@x"],"code":"GAVE_UP","x":1}],
            "error":null,"new":[1]}"#;
        let answer = read(body.as_bytes()).unwrap();
        assert_eq!((answer.status, answer.message_id.as_deref()), (Status::Partial, Some("m")));
        let counts = Counts { deleted: 2, not_found: 1, uncertain: 0, invalid: 1, failed: 2 };
        assert_eq!((answer.counts, answer.codes), (counts, BTreeMap::from([("GAVE_UP".to_owned(), 2)])));
        for other in ["", "{}", "[]", &body.replace("partial", "other")] {
            assert!(read(other.as_bytes()).is_none(), "{other}");
        }
    }
}
