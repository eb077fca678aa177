//! What goes wrong, and how often. All fields have a default, so a set of faults names only what it wants.

use std::collections::{BTreeMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

/// The faults in force; replaced as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Faults {
    /// How long a call takes at least, in milliseconds.
    pub latency_ms: u64,
    /// How much longer it may take, in milliseconds.
    pub jitter_ms: u64,
    /// Share of calls (0.0 to 1.0) that answer with a status instead of working, by status; 429 and 5xx.
    pub errors: BTreeMap<u16, f64>,
    /// Share of calls whose connection is dropped before the work is done.
    pub drop_before: f64,
    /// Share of calls whose connection is dropped after the work is done.
    pub drop_after: f64,
    /// Every so-manieth call that does its work loses its answer; 0 for none.
    pub drop_after_every: u64,
    /// Share of calls that do their work and answer with something that is no JSON.
    pub garbage: f64,
    /// Share of calls that answer 200 with `success: false` and do nothing.
    pub unsuccessful: f64,
    /// Every call gets a proxy's HTML page with this status.
    pub proxy_page: Option<u16>,
    /// Every call is redirected here.
    pub redirect: Option<String>,
    /// The server's own rate limit.
    pub rate_limit: Option<RateLimit>,
    /// Every API key is refused with 401.
    pub refuse_all_keys: bool,
    /// Projects that answer 403.
    pub forbidden_projects: HashSet<String>,
    /// Projects that answer 404, whatever contacts they have.
    pub unknown_projects: HashSet<String>,
    /// Emails, in lower case, that make a whole call fail.
    pub poison_emails: HashSet<String>,
    /// The status of that failure.
    pub poison_status: Option<u16>,
    /// Addresses that are added to every `notFound`, though nobody sent them.
    pub invented_not_found: Vec<String>,
    /// What the next calls meet, in order, before any of the above.
    pub next: VecDeque<Next>,
}

/// A fault for exactly one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// Nothing goes wrong.
    Fine,
    /// The connection is dropped before the work is done.
    DropBefore,
    /// The connection is dropped after the work is done.
    DropAfter,
    /// The work is done, and the answer is no JSON.
    Garbage,
    /// 200 with `success: false`; nothing is done.
    Unsuccessful,
    /// This status; nothing is done.
    Status(u16),
    /// This status after the work is done.
    StatusAfter(u16),
    /// 429 with `Retry-After` in seconds.
    RetryAfter(u64),
    /// The same with a date, counted from the answer's `Date`.
    RetryAfterDate(u64),
}

/// So many calls a second, with so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Calls a second.
    pub per_second: f64,
    /// Calls at once after a pause.
    pub burst: f64,
}
