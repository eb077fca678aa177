//! Counters and histograms that events move, as Prometheus reads them (OpenMetrics). What is a state is no event: see
//! [`super::readings`].
//!
//! Never here: a label whose values are not known beforehand; an id, a project or an address as one. The table in
//! `deploy/metrics.md` lists every metric, and a test holds it and the code together.

mod labels;
mod process;
#[cfg(test)]
mod tests;

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub(super) use self::labels::{By, One};
use crate::domain::gates::HoldReason;
use crate::domain::manifest::FailCode;
use crate::domain::outcome::{INVALID_EMAIL, Status};
use crate::domain::rejection::RejectCode;

/// HTTP statuses that are counted by themselves; all others by their class.
const STATUSES: [&str; 15] =
    ["200", "400", "401", "403", "404", "408", "409", "413", "422", "425", "429", "500", "502", "503", "504"];
/// What other statuses are counted as, by their first digit.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// A call without an answer.
const NONE: &str = "none";

/// The operations of a journal.
pub(super) const OPERATIONS: [&str; 16] = [
    "open_manifests",
    "lookup",
    "record",
    "succeed",
    "restate",
    "conclude",
    "split",
    "spend",
    "turns",
    "postpone",
    "spent",
    "forget",
    "pauses",
    "pause",
    "resume",
    "tidy",
];

/// All metrics that events move.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) deliveries: By<Counter>,
    pub(super) outcomes: By<Counter>,
    pub(super) dead_letters: By<Counter>,
    pub(super) emails: By<Counter>,
    pub(super) request_seconds: Histogram,
    pub(super) queue_wait_seconds: Histogram,
    pub(super) calls: By<Counter>,
    pub(super) call_seconds: Histogram,
    pub(super) batches: By<Counter>,
    pub(super) batch_emails: Histogram,
    pub(super) batch_fill: Histogram,
    pub(super) batch_attempts: Histogram,
    pub(super) recovered: Counter,
    pub(super) hold_starts: By<Counter>,
    pub(super) given_back: By<Counter>,
    pub(super) stepped_aside: Counter,
    pub(super) unpublished: By<Counter>,
    pub(super) journal_seconds: By<Histogram>,
    pub(super) journal_failures: By<Counter>,
    pub(super) forgotten: Counter,
    pub(super) spans: By<Counter>,
}

impl Metrics {
    /// Makes and registers them, under the prefix `migma_eraser_`, and what the process itself is known for.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::new();
        process::register(registry);
        let registry = registry.sub_registry_with_prefix("migma_eraser");
        metrics.register_requests(registry);
        metrics.register_batches(registry);
        metrics.register_journal(registry);
        registry.register("build", "Always 1", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        metrics
    }

    fn new() -> Self {
        let holds = HoldReason::ALL.map(HoldReason::as_str);
        let codes = RejectCode::ALL.map(RejectCode::as_str).into_iter().chain(FailCode::ALL.map(FailCode::as_str));
        Self {
            deliveries: By::label("queue", ["requests", "returned"], Counter::default),
            outcomes: By::label("status", Status::ALL.map(Status::as_str), Counter::default),
            dead_letters: By::label("code", codes.chain([INVALID_EMAIL]), Counter::default),
            emails: By::label("result", ["deleted", "not_found", "uncertain", "invalid", "failed"], Counter::default),
            request_seconds: long_seconds(),
            queue_wait_seconds: long_seconds(),
            calls: By::label("status", STATUSES.into_iter().chain(CLASSES).chain([NONE]), Counter::default),
            call_seconds: Histogram::new([
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
            ]),
            batches: By::label("result", ["done", "failed", "split"], Counter::default),
            batch_emails: Histogram::new([1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 750.0, 900.0, 999.0, 1000.0]),
            batch_fill: Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]),
            batch_attempts: Histogram::new([1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0]),
            recovered: Counter::default(),
            hold_starts: By::label("reason", holds, Counter::default),
            given_back: By::label("reason", ["consumer_timeout", "held"], Counter::default),
            stepped_aside: Counter::default(),
            unpublished: By::label("cause", ["unroutable", "unconfirmed"], Counter::default),
            journal_seconds: By::label("operation", OPERATIONS, || {
                Histogram::new(exponential_buckets(0.0001, 4.0, 10))
            }),
            journal_failures: By::label("operation", OPERATIONS, Counter::default),
            forgotten: Counter::default(),
            spans: By::label("result", ["exported", "lost"], Counter::default),
        }
    }

    fn register_requests(&self, registry: &mut Registry) {
        let Self { deliveries, outcomes, dead_letters, emails, request_seconds, queue_wait_seconds, .. } = self.clone();
        let help = "Messages taken from the request queue and from the returned queue";
        registry.register("deliveries", help, deliveries);
        registry.register("outcomes", "Outcomes that the broker has confirmed", outcomes);
        registry.register("dead_letters", "Dead letters that the broker has confirmed", dead_letters);
        registry.register("emails", "Emails of confirmed outcomes", emails);
        let help = "From a request's delivery to its confirmed outcome";
        registry.register_with_unit("request_duration", help, Unit::Seconds, request_seconds);
        let help = "From a request's delivery to the batch that takes it up";
        registry.register_with_unit("queue_wait", help, Unit::Seconds, queue_wait_seconds);
        let Self { given_back, stepped_aside, unpublished, .. } = self.clone();
        registry.register("given_back", "Times that everything unsettled was given back to the broker", given_back);
        registry.register("stepped_aside", "Messages that were put aside", stepped_aside);
        registry.register("unpublished_messages", "Tries to publish that came to nothing", unpublished);
    }

    fn register_batches(&self, registry: &mut Registry) {
        let Self { calls, call_seconds, hold_starts, batches, batch_emails, batch_fill, .. } = self.clone();
        registry.register("calls", "Calls to the API that came back, by HTTP status", calls);
        registry.register_with_unit("call_duration", "How long one call took", Unit::Seconds, call_seconds);
        registry.register("hold_starts", "Holds that began", hold_starts);
        registry.register("batches", "Batches that ended, by how", batches);
        registry.register("batch_emails", "Emails in a new batch", batch_emails);
        let ratio = Unit::Other("ratio".to_owned());
        registry.register_with_unit("batch_fill", "Emails in a new batch, by batch.max_emails", ratio, batch_fill);
        registry.register("batch_attempts", "Calls that an ended batch took", self.batch_attempts.clone());
        registry.register(
            "recovered_batches",
            "Batches taken up from an earlier life or a worker that is gone",
            self.recovered.clone(),
        );
        registry.register("spans", "Spans, by what became of them", self.spans.clone());
    }

    fn register_journal(&self, registry: &mut Registry) {
        let help = "How long the journal took, to the disk and back";
        registry.register_with_unit("journal_operation_duration", help, Unit::Seconds, self.journal_seconds.clone());
        registry.register("journal_failures", "Operations of the journal that failed", self.journal_failures.clone());
        registry.register("forgotten_requests", "Requests forgotten after journal.retention", self.forgotten.clone());
    }

    /// A call came back.
    pub(super) fn called(&self, status: Option<u16>, took: Duration) {
        self.calls.of(status.map_or(NONE, status_label)).inc();
        self.call_seconds.observe(took.as_secs_f64());
    }
}

/// For what may wait for a permit, or for a hold to end.
fn long_seconds() -> Histogram {
    Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86400.0])
}

fn status_label(status: u16) -> &'static str {
    let exact = STATUSES.iter().find(|known| known.parse() == Ok(status));
    // Out of range only where a server invents its own: HTTP knows none.
    exact.copied().unwrap_or_else(|| CLASSES[usize::from((status / 100).clamp(1, 5)) - 1])
}
