//! What the status page shows of a moment, in plain values. Never here: an address, an id of a message, a secret.

use crate::telemetry::{Failure, Minute};

use super::Paused;

/// Who knows what the worker is at.
pub trait Overview: Send + Sync {
    /// As of now.
    fn status(&self) -> Status;
}

/// How the worker is, at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It does its work, or has none.
    Well,
    /// It waits for something that ends by itself, or for somebody.
    Waits,
    /// Somebody stopped it.
    Paused,
    /// It starts or stops.
    Passing,
}

/// What the worker is at, at a moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Now: RFC 3339, UTC.
    pub now: String,
    /// Of the worker.
    pub version: &'static str,
    /// At a glance.
    pub mood: Mood,
    /// What it does, in words; each a sentence.
    pub words: Vec<String>,
    /// What is in its way, as `/readyz` names it.
    pub reasons: Vec<&'static str>,
    /// Calls that came back in the last 60 seconds, about.
    pub rate: u64,
    /// `rate_limit.requests_per_minute`.
    pub calls_a_minute: u64,
    /// Calls under way, and the most that may be.
    pub in_flight: (u64, u64),
    /// Calls left of the daily quota, and the quota; `None` where there is none.
    pub quota: Option<(u64, u64)>,
    /// `batch.max_emails`.
    pub max_emails: u64,
    /// What waits.
    pub backlog: Backlog,
    /// What holds calls.
    pub holds: Vec<Held>,
    /// What somebody stopped.
    pub pauses: Vec<Paused>,
    /// The last hour, oldest first: the start of each minute (`HH:MM`), and what it saw.
    pub minutes: Vec<(String, Minute)>,
    /// Failed outcomes by code, the latest first; each with its time (RFC 3339).
    pub failures: Vec<(String, Failure)>,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backlog {
    /// Distinct emails in lanes.
    pub emails: u64,
    /// Lanes.
    pub lanes: u64,
    /// Requests without an outcome.
    pub requests: u64,
    /// Deliveries that are not acked.
    pub deliveries: u64,
    /// How long ago the oldest of them came, in seconds.
    pub oldest: Option<u64>,
}

/// A hold.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its name, as metrics have it.
    pub reason: &'static str,
    /// The same for people, with the cure where there is one.
    pub words: &'static str,
    /// The project that it is about; `None` for all.
    pub project: Option<String>,
    /// Since when: RFC 3339.
    pub since: String,
    /// Tries that failed.
    pub tries: u32,
    /// Seconds to the next try; `None` while one may leave or is under way.
    pub next_try: Option<u64>,
}
