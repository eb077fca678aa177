//! What was really done: one entry for each call that did its work, and counts of all others.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

/// A call that did its work.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The `Idempotency-Key`, where there was one.
    pub idempotency_key: Option<String>,
    /// The project.
    pub project_id: String,
    /// How many emails were sent.
    pub emails: usize,
    /// The contacts that were deleted, in lower case.
    pub deleted: Vec<String>,
    /// The emails that no contact has, as they were sent.
    pub not_found: Vec<String>,
}

/// The whole in numbers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Calls that came in.
    pub calls: u64,
    /// Answers by status; `0` for connections that were dropped.
    pub by_status: BTreeMap<u16, u64>,
    /// Calls that did their work.
    pub performed: u64,
    /// Answers that were replayed.
    pub replayed: u64,
    /// 409 for a key that was used with another body.
    pub conflicts: u64,
    /// Contacts deleted.
    pub deleted: u64,
    /// The most emails in one call.
    pub max_emails: usize,
    /// Calls that named one email twice.
    pub with_repeats: u64,
}

/// Entries and counts.
#[derive(Debug, Default)]
pub struct Ledger {
    /// In order of their work.
    pub entries: Vec<Entry>,
    /// The whole in numbers.
    pub summary: Summary,
}

impl Ledger {
    /// A call did its work.
    pub fn record(&mut self, entry: Entry) {
        self.summary.performed += 1;
        self.summary.deleted += entry.deleted.len() as u64;
        self.summary.max_emails = self.summary.max_emails.max(entry.emails);
        self.entries.push(entry);
    }

    /// A call was answered, or dropped with status 0.
    pub fn count(&mut self, status: u16) {
        *self.summary.by_status.entry(status).or_default() += 1;
    }

    /// The contacts that were deleted under one of these keys.
    #[must_use]
    pub fn deleted_under<'a>(&'a self, keys: &HashSet<&str>) -> HashSet<(&'a str, &'a str)> {
        self.entries
            .iter()
            .filter(|entry| entry.idempotency_key.as_deref().is_some_and(|key| keys.contains(key)))
            .flat_map(|entry| entry.deleted.iter().map(|email| (entry.project_id.as_str(), email.as_str())))
            .collect()
    }
}
