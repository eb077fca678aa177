//! Counts and gauges, as Prometheus reads them (OpenMetrics). Label sets are bounded; no label holds an id or an address.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// One label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Status {
    /// Its value.
    pub status: String,
}

/// One label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// Its value.
    pub result: &'static str,
}

/// One label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Its value.
    pub reason: &'static str,
}

/// All metrics that events move.
#[derive(Debug)]
pub struct Metrics {
    /// Deliveries received.
    pub deliveries: Counter,
    /// Outcomes confirmed, by status.
    pub outcomes: Family<Status, Counter>,
    /// Emails, by result.
    pub emails: Family<Outcome, Counter>,
    /// Calls that came back, by HTTP status (`none` without an answer).
    pub calls: Family<Status, Counter>,
    /// How long calls took, in seconds.
    pub call_seconds: Histogram,
    /// Emails in ended batches.
    pub batch_emails: Histogram,
    /// From delivery to confirmed outcome, in seconds.
    pub request_seconds: Histogram,
    /// Holds in force, by reason.
    pub holds: Family<Reason, Gauge>,
    /// Publications that did not reach a queue.
    pub unpublished: Counter,
    /// Failures of the journal.
    pub journal_failures: Counter,
    /// Times that deliveries were given back.
    pub given_back: Family<Reason, Counter>,
    /// Deliveries put aside.
    pub stepped_aside: Counter,
    /// Requests forgotten.
    pub forgotten: Counter,
    /// Manifests taken up after a restart.
    pub recovered: Counter,
}

impl Metrics {
    /// Makes and registers them, under the prefix `migma_eraser_`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let seconds =
            || Histogram::new([0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0]);
        let metrics = Self {
            deliveries: Counter::default(),
            outcomes: Family::default(),
            emails: Family::default(),
            calls: Family::default(),
            call_seconds: seconds(),
            batch_emails: Histogram::new([1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 750.0, 900.0, 999.0, 1000.0]),
            request_seconds: seconds(),
            holds: Family::default(),
            unpublished: Counter::default(),
            journal_failures: Counter::default(),
            given_back: Family::default(),
            stepped_aside: Counter::default(),
            forgotten: Counter::default(),
            recovered: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("migma_eraser");
        registry.register("deliveries", "Deliveries received", metrics.deliveries.clone());
        registry.register("outcomes", "Outcomes confirmed by the broker, by status", metrics.outcomes.clone());
        registry.register("emails", "Emails of confirmed outcomes, by result", metrics.emails.clone());
        registry.register("calls", "Calls that came back, by HTTP status", metrics.calls.clone());
        registry.register("call_duration_seconds", "How long calls took", metrics.call_seconds.clone());
        registry.register("batch_emails", "Emails in ended batches", metrics.batch_emails.clone());
        registry.register(
            "request_duration_seconds",
            "From delivery to confirmed outcome",
            metrics.request_seconds.clone(),
        );
        registry.register("holds", "Holds in force, by reason", metrics.holds.clone());
        registry.register(
            "unpublished_messages",
            "Publications that did not reach a queue",
            metrics.unpublished.clone(),
        );
        registry.register("journal_failures", "Failures of the journal", metrics.journal_failures.clone());
        registry.register("given_back", "Times that deliveries were given back, by reason", metrics.given_back.clone());
        registry.register(
            "stepped_aside",
            "Deliveries put aside, for their project is held or they have waited too long alone",
            metrics.stepped_aside.clone(),
        );
        registry.register(
            "forgotten_requests",
            "Requests forgotten after journal.retention",
            metrics.forgotten.clone(),
        );
        registry.register("recovered_manifests", "Manifests taken up after a restart", metrics.recovered.clone());
        metrics
    }
}
