//! The worker in numbers, for `/metrics`.
//!
//! Never here: a label whose values the world makes up (a project, a message id, an address). Every label is one of our
//! own words, so the number of series is known.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::domain::gates::HoldReason;
use crate::domain::outcome::Status;

/// All names begin with it.
const PREFIX: &str = "migma_eraser";

const STATUSES: [Status; 4] = [Status::Succeeded, Status::Partial, Status::Failed, Status::Rejected];
const EMAIL_RESULTS: [&str; 5] = ["deleted", "not_found", "uncertain", "invalid", "failed"];
const BATCH_RESULTS: [&str; 3] = ["answered", "failed", "split"];
const CALL_CLASSES: [&str; 10] = ["2xx", "3xx", "401", "403", "409", "429", "4xx", "5xx", "other", "none"];
const CONNECTIONS: [&str; 3] = ["consumer", "publisher", "replies"];
const HOLD_REASONS: [HoldReason; 6] = [
    HoldReason::ApiDown,
    HoldReason::Throttled,
    HoldReason::KeyRefused,
    HoldReason::RefusesAll,
    HoldReason::UnknownProjects,
    HoldReason::Forbidden,
];

/// A label of one of our own words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByStatus {
    /// Of an outcome ([`crate::domain::outcome::Status::as_str`]), or a call's class: `2xx`, `429`, `none`.
    pub status: &'static str,
}

/// A label of one of our own words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByResult {
    /// What became of it.
    pub result: &'static str,
}

/// A label of one of our own words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByReason {
    /// Why ([`crate::domain::gates::HoldReason::as_str`]).
    pub reason: &'static str,
}

/// A label of one of our own words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByConnection {
    /// `consumer`, `publisher` or `replies`.
    pub connection: &'static str,
}

/// The metrics. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Deliveries received.
    pub deliveries: Counter,
    /// Outcomes that the broker has, by status.
    pub requests: Family<ByStatus, Counter>,
    /// Emails in those outcomes, by result: `deleted`, `not_found`, `uncertain`, `invalid`, `failed`.
    pub emails: Family<ByResult, Counter>,
    /// Calls to the API, by class of the answer ([`call_class`]).
    pub calls: Family<ByStatus, Counter>,
    /// Batches that have ended, by result: `answered`, `failed`, `split`.
    pub batches: Family<ByResult, Counter>,
    /// Calls that a batch took to its end.
    pub batch_attempts: Histogram,
    /// Emails in a batch, when it ends.
    pub batch_emails: Histogram,
    /// How long a call took.
    pub call_duration: Histogram,
    /// From a request's delivery to its outcome.
    pub request_duration: Histogram,
    /// Holds in force, by reason.
    pub holds: Family<ByReason, Gauge>,
    /// Deliveries in hand that are not settled.
    pub unsettled_deliveries: Gauge,
    /// Calls under way.
    pub calls_in_flight: Gauge,
    /// Publications that did not reach a queue and were tried again.
    pub unpublished: Counter,
    /// Connections to the broker that were made anew.
    pub reconnects: Family<ByConnection, Counter>,
    /// Steps that the journal could not take.
    pub journal_failures: Counter,
    /// Requests that the journal forgot after their time.
    pub forgotten_requests: Counter,
    /// When the API last did its work, in seconds since the epoch.
    pub last_success: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            deliveries: Counter::default(),
            requests: Family::default(),
            emails: Family::default(),
            calls: Family::default(),
            batches: Family::default(),
            batch_attempts: Histogram::new([1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0]),
            batch_emails: Histogram::new([1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 750.0, 900.0, 999.0, 1000.0]),
            call_duration: Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0]),
            request_duration: Histogram::new([
                0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14_400.0, 86_400.0,
            ]),
            holds: Family::default(),
            unsettled_deliveries: Gauge::default(),
            calls_in_flight: Gauge::default(),
            unpublished: Counter::default(),
            reconnects: Family::default(),
            journal_failures: Counter::default(),
            forgotten_requests: Counter::default(),
            last_success: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Names them all. Units and `_total` are added to the names as `OpenMetrics` has it.
    pub fn register(&self, registry: &mut Registry) {
        self.begin();
        let all = registry.sub_registry_with_prefix(PREFIX);
        all.register("deliveries", "Deliveries received", self.deliveries.clone());
        all.register("requests", "Requests answered, by the status of their outcome", self.requests.clone());
        all.register("emails", "Emails answered for, by result", self.emails.clone());
        all.register("api_calls", "Calls to the API, by class of the answer", self.calls.clone());
        all.register("batches", "Batches that have ended, by result", self.batches.clone());
        all.register("batch_attempts", "Calls that a batch took to its end", self.batch_attempts.clone());
        all.register("batch_emails", "Emails in a batch", self.batch_emails.clone());
        all.register_with_unit("api_call_duration", "How long a call took", Unit::Seconds, self.call_duration.clone());
        all.register_with_unit(
            "request_duration",
            "From the delivery of a request to its outcome",
            Unit::Seconds,
            self.request_duration.clone(),
        );
        all.register("holds", "Holds in force, by reason", self.holds.clone());
        all.register("unsettled_deliveries", "Deliveries in hand", self.unsettled_deliveries.clone());
        all.register("api_calls_in_flight", "Calls under way", self.calls_in_flight.clone());
        all.register("publish_retries", "Publications that did not reach a queue", self.unpublished.clone());
        all.register("reconnects", "Connections to the broker made anew", self.reconnects.clone());
        all.register("journal_failures", "Steps that the journal could not take", self.journal_failures.clone());
        all.register("forgotten_requests", "Requests forgotten after their time", self.forgotten_requests.clone());
        all.register_with_unit(
            "last_success_timestamp",
            "When the API last did its work",
            Unit::Seconds,
            self.last_success.clone(),
        );
    }
}

impl Metrics {
    /// Lets every series stand at 0 from the start: a rate that begins with its first event misses it.
    fn begin(&self) {
        for status in STATUSES {
            drop(self.requests.get_or_create(&ByStatus { status: status.as_str() }));
        }
        for result in EMAIL_RESULTS {
            drop(self.emails.get_or_create(&ByResult { result }));
        }
        for result in BATCH_RESULTS {
            drop(self.batches.get_or_create(&ByResult { result }));
        }
        for status in CALL_CLASSES {
            drop(self.calls.get_or_create(&ByStatus { status }));
        }
        for connection in CONNECTIONS {
            drop(self.reconnects.get_or_create(&ByConnection { connection }));
        }
        for reason in HOLD_REASONS {
            drop(self.holds.get_or_create(&ByReason { reason: reason.as_str() }));
        }
    }
}

/// A call's class: the status where it says more than its hundred, `none` where there was no answer.
#[must_use]
pub const fn call_class(status: Option<u16>) -> &'static str {
    match status {
        None => "none",
        Some(401) => "401",
        Some(403) => "403",
        Some(409) => "409",
        Some(429) => "429",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        Some(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn every_metric_has_the_prefix_and_a_help_and_its_unit() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.requests.get_or_create(&ByStatus { status: "partial" }).inc();
        metrics.call_duration.observe(0.2);
        let text = text(&registry);
        assert!(text.contains("migma_eraser_requests_total{status=\"partial\"} 1\n"), "{text}");
        assert!(text.contains("migma_eraser_api_call_duration_seconds_bucket{le=\"0.25\"} 1\n"), "{text}");
        assert!(text.contains("migma_eraser_requests_total{status=\"failed\"} 0\n"), "{text}");
        assert!(text.contains("migma_eraser_holds{reason=\"api_down\"} 0\n"), "{text}");
        assert!(text.contains("migma_eraser_last_success_timestamp_seconds 0.0\n"), "{text}");
        for line in text.lines().filter(|line| *line != "# EOF") {
            let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").trim_start_matches("# UNIT ");
            assert!(name.starts_with("migma_eraser_"), "{line}");
        }
        assert_eq!(text.matches("# HELP ").count(), 17, "{text}");
    }

    #[test]
    fn every_status_has_its_class_and_no_other_series() {
        assert!((0..=1000).map(Some).chain([None]).all(|status| CALL_CLASSES.contains(&call_class(status))));
        assert_eq!(
            [None, Some(200), Some(429), Some(422), Some(503), Some(302)].map(call_class),
            ["none", "2xx", "429", "4xx", "5xx", "3xx"]
        );
    }
}
