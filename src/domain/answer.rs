//! What came of one call, sorted by what it says about the work: done, surely not done, or unknown.

use std::time::Duration;

use super::email::fold;
use super::manifest::{Manifest, Positions, body_emails};

/// What came of one call.
#[derive(Clone, Debug)]
pub struct Reply {
    /// What it says about the work.
    pub verdict: Verdict,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The API's machine code ([`machine_code`]).
    pub api_code: Option<String>,
    /// Whether the API said that it replayed an earlier answer.
    pub replayed: bool,
    /// The API's name for the call (`metadata.requestId`), where it is a plain token.
    pub request_id: Option<String>,
    /// `Retry-After`: how long the server wants all calls to wait; at most an hour.
    pub retry_after: Option<Duration>,
    /// How long the call took.
    pub took: Duration,
}

/// What an answer says about the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The work is done, now or by the call that is replayed.
    Deleted(Deletion),
    /// 429: not done, and never cached.
    Throttled,
    /// Any other 4xx that is a JSON error of the API: not done, and it may be replayed under this key.
    Refused(Refusal),
    /// No connection was made: nothing has left.
    Unsent,
    /// The call left, and no answer tells what was done.
    Unknown(Doubt),
}

impl Verdict {
    /// Whether others may be spared it: the body, or its project, may be to blame.
    #[must_use]
    pub const fn may_spare_others(&self) -> bool {
        matches!(
            self,
            Self::Unknown(_) | Self::Refused(Refusal::Body | Refusal::Project | Refusal::Conflict | Refusal::Forbidden)
        )
    }
}

/// The API's report.
#[derive(Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Its own count; `None` where it is missing or absurd.
    pub deleted: Option<u64>,
    /// The emails that it did not know, in its spelling.
    pub not_found: Vec<String>,
}

/// Addresses stay out of logs.
impl std::fmt::Debug for Deletion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Deletion {{ deleted: {:?}, not_found: {} }}", self.deleted, self.not_found.len())
    }
}

/// A 4xx, by what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 401.
    Key,
    /// 403.
    Forbidden,
    /// 404.
    Project,
    /// 409.
    Conflict,
    /// 400 and every other 4xx.
    Body,
}

/// Why nobody knows what a call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// No answer in time.
    Timeout,
    /// The connection ended before the answer did.
    Reset,
    /// 5xx.
    Server,
    /// 408 or 425.
    Busy,
    /// 200 with `success: false`.
    Unsuccessful,
    /// An answer that the API would not give: no JSON, another shape, too large, a redirect, a proxy's page.
    Garbage,
}

impl Doubt {
    /// Whether the API itself may keep giving this answer under this key, so that it must be left behind some time.
    #[must_use]
    pub const fn may_be_replayed(self, status: Option<u16>) -> bool {
        match self {
            Self::Unsuccessful | Self::Busy => true,
            Self::Garbage => matches!(status, Some(200..=299)),
            Self::Timeout | Self::Reset | Self::Server => false,
        }
    }
}

/// An API's machine code as it may be passed on: letters, digits and `_.-`, at most 64, so that it cannot be an address.
#[must_use]
pub fn machine_code(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!text.is_empty() && text.len() <= 64 && text.chars().all(plain)).then(|| text.to_owned())
}

/// Which of a manifest's emails were not found, and whether the API's count agrees.
///
/// An address in the answer that was never sent says nothing about those that were; the count then disagrees.
#[must_use]
pub fn not_found(manifest: &Manifest, deletion: &Deletion) -> (Positions, bool) {
    let mut positions = Positions::default();
    if !deletion.not_found.is_empty() {
        let missing: std::collections::HashSet<_> =
            deletion.not_found.iter().map(|text| fold(text.trim()).into_owned()).collect();
        // A journaled body is one that we built.
        let emails = body_emails(&manifest.body).unwrap_or_default();
        for (at, email) in (0u16..).zip(&emails) {
            if missing.contains(&*fold(email)) {
                positions.insert(at);
            }
        }
    }
    let implied = u64::from(manifest.emails).saturating_sub(deletion.not_found.len() as u64);
    let exact = u64::from(manifest.emails) - u64::from(positions.len());
    let mismatch = deletion.deleted != Some(implied) || implied != exact;
    (positions, mismatch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_code_cannot_carry_an_address() {
        assert_eq!(machine_code("IDEMPOTENCY_CONFLICT").as_deref(), Some("IDEMPOTENCY_CONFLICT"));
        assert_eq!(machine_code("no contact ann@example.com"), None);
        assert_eq!(machine_code("ann@example.com"), None);
        assert_eq!(machine_code(""), None);
    }
}
