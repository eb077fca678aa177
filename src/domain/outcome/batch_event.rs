//! What operations are told of a batch's end. Never here: an address.

use bytes::Bytes;
use serde::Serialize;

use crate::domain::manifest::{Conclusion, End, Manifest};
use crate::domain::moment::Timestamp;

/// The `type` of a batch event.
pub const BATCH_TYPE: &str = "contacts.deletion.batch.v1";

/// A manifest's end, for operations: no addresses, nobody waits for it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchEvent {
    idempotency_key: String,
    project_id: String,
    /// `completed`, or `failed` where the call's emails failed or the batch was split.
    pub status: &'static str,
    emails: u16,
    requests: usize,
    deleted: u32,
    not_found: u32,
    uncertain: u32,
    failed: u32,
    count_mismatch: bool,
    http_status: Option<u16>,
    code: Option<&'static str>,
    attempts: u32,
    duration_ms: u64,
    replayed: bool,
    request_id: Option<String>,
    completed_at: Timestamp,
}

impl BatchEvent {
    /// The event of this end, whose last call took `duration_ms`.
    #[must_use]
    pub fn of(manifest: &Manifest, conclusion: &Conclusion, duration_ms: u64) -> Self {
        let mut event = Self {
            idempotency_key: manifest.key.generation(conclusion.generation).as_str().to_owned(),
            project_id: manifest.project.as_str().to_owned(),
            status: "completed",
            emails: manifest.emails,
            requests: manifest.members.len(),
            deleted: 0,
            not_found: 0,
            uncertain: 0,
            failed: 0,
            count_mismatch: false,
            http_status: conclusion.http_status,
            code: None,
            attempts: conclusion.attempts,
            duration_ms,
            replayed: conclusion.replayed,
            request_id: conclusion.request_id.clone(),
            completed_at: conclusion.at,
        };
        match &conclusion.end {
            End::Answered { not_found, uncertain, count_mismatch } => {
                event.deleted = u32::from(manifest.emails) - not_found.len();
                *(if *uncertain { &mut event.uncertain } else { &mut event.not_found }) = not_found.len();
                event.count_mismatch = *count_mismatch;
            }
            End::Failed { code, .. } => {
                event.status = "failed";
                event.failed = u32::from(manifest.emails);
                event.code = Some(code.as_str());
            }
            End::Split => {
                event.status = "failed";
                event.code = Some("SPLIT");
            }
        }
        event
    }

    /// The key that the manifest ended under.
    #[must_use]
    pub fn idempotency_key(&self) -> &str {
        &self.idempotency_key
    }

    /// The message body.
    #[must_use]
    pub fn json(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}
