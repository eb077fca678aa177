//! Gauges that are states: read at the moment of the scrape from whoever knows them, and never kept.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::metrics::One;
use crate::domain::gates::HoldReason;

/// Why the worker can be not ready, as `/readyz` says it.
const NOT_READY: [&str; 15] = [
    "starting",
    "stopping",
    "recovering",
    "api_down",
    "throttled",
    "key_refused",
    "api_refuses_all",
    "unknown_projects",
    "forbidden",
    "paused",
    "daily_quota",
    "journal",
    "unroutable_outcome",
    "broker_consuming",
    "broker_publishing",
];

/// What the worker is at, at a moment.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// Calls under way.
    pub calls_in_flight: u64,
    /// Calls that could leave now.
    pub permits_available: u64,
    /// Calls left of the daily quota; `None` where there is none.
    pub quota_left: Option<u64>,
    /// The reason of each hold in force.
    pub holds: Vec<HoldReason>,
    /// The reasons that `/readyz` gives.
    pub not_ready: Vec<&'static str>,
    /// Lanes in which emails wait.
    pub lanes: u64,
    /// Emails that wait.
    pub waiting_emails: u64,
    /// Requests without an outcome.
    pub open_requests: u64,
    /// How long ago the oldest delivery came that is not settled.
    pub oldest_unsettled: Option<Duration>,
    /// Deliveries that are not acked.
    pub unsettled_deliveries: u64,
    /// What they cost, in bytes.
    pub unsettled_bytes: u64,
    /// `amqp.buffer_bytes`.
    pub buffer_limit_bytes: u64,
    /// The prefetch in use.
    pub prefetch: u64,
    /// Of the consuming and of the publishing connection: whether it stands, and how often it was made again.
    pub connections: [(bool, u64); 2],
    /// The journal's files or tables, in bytes; `None` where they cannot be looked at.
    pub journal_size_bytes: Option<u64>,
    /// Room on its disk, in bytes; `None` where it cannot be looked at.
    pub journal_disk_free_bytes: Option<u64>,
}

/// Who knows the readings.
pub trait Gauges: Send + Sync + 'static {
    /// As of now. May read files, so that it belongs off the runtime's own threads.
    fn read(&self) -> Readings;
}

/// Has them read at every scrape.
pub fn register(registry: &mut Registry, gauges: Arc<dyn Gauges>) {
    registry.sub_registry_with_prefix("migma_eraser").register_collector(Box::new(AtScrape(gauges)));
}

struct AtScrape(Arc<dyn Gauges>);

impl std::fmt::Debug for AtScrape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AtScrape")
    }
}

/// A gauge: its name, its unit, what it tells, and its value.
type Plain = (&'static str, Option<Unit>, &'static str, Option<f64>);
/// The same for each value of a label.
type Labelled = (&'static str, MetricType, &'static str, &'static str, Vec<(&'static str, u64)>);

impl Collector for AtScrape {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let now = self.0.read();
        for (name, unit, help, value) in plain(&now) {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(to.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?)?;
        }
        for (name, kind, label, help, values) in labelled(&now) {
            let mut metric = to.encode_descriptor(name, help, None, kind)?;
            for (value, count) in values {
                let label: One = [(label, value)];
                let to = metric.encode_family(&label)?;
                match kind {
                    MetricType::Counter => ConstCounter::new(count).encode(to)?,
                    _ => ConstGauge::new(count).encode(to)?,
                }
            }
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn plain(now: &Readings) -> [Plain; 13] {
    let some = |count: u64| Some(count as f64);
    let bytes = || Some(Unit::Bytes);
    let oldest = now.oldest_unsettled.unwrap_or_default().as_secs_f64();
    [
        ("calls_in_flight", None, "Calls under way.", some(now.calls_in_flight)),
        ("permits_available", None, "Calls that could leave now.", some(now.permits_available)),
        ("quota_left_calls", None, "Calls left of rate_limit.requests_per_day.", now.quota_left.and_then(some)),
        ("lanes", None, "Projects with emails that wait, and requests that wait alone.", some(now.lanes)),
        ("waiting_emails", None, "Distinct emails that wait for a call.", some(now.waiting_emails)),
        ("open_requests", None, "Requests in memory without an outcome.", some(now.open_requests)),
        (
            "oldest_unsettled_request_age",
            Some(Unit::Seconds),
            "How long ago the oldest delivery came that is not settled.",
            Some(oldest),
        ),
        ("unsettled_deliveries", None, "Messages that are not acked.", some(now.unsettled_deliveries)),
        ("unsettled", bytes(), "What messages that are not acked cost in memory.", some(now.unsettled_bytes)),
        ("buffer_limit", bytes(), "amqp.buffer_bytes.", some(now.buffer_limit_bytes)),
        ("prefetch_deliveries", None, "The prefetch on the request queue.", some(now.prefetch)),
        ("journal_size", bytes(), "The journal's files.", now.journal_size_bytes.and_then(some)),
        ("journal_disk_free", bytes(), "Room on the journal's disk.", now.journal_disk_free_bytes.and_then(some)),
    ]
}

fn labelled(now: &Readings) -> [Labelled; 4] {
    let holds =
        HoldReason::ALL.map(|reason| (reason.as_str(), now.holds.iter().filter(|r| **r == reason).count() as u64));
    let known = NOT_READY.map(|reason| (reason, u64::from(now.not_ready.contains(&reason))));
    let unknown = now.not_ready.iter().filter(|reason| !NOT_READY.contains(reason)).map(|reason| (*reason, 1));
    let [(consuming, consuming_again), (publishing, publishing_again)] = now.connections;
    let stand = vec![("consuming", u64::from(consuming)), ("publishing", u64::from(publishing))];
    let again = vec![("consuming", consuming_again), ("publishing", publishing_again)];
    [
        ("holds", MetricType::Gauge, "reason", "Holds in force.", holds.to_vec()),
        (
            "not_ready",
            MetricType::Gauge,
            "reason",
            "1 for each reason that /readyz gives.",
            known.into_iter().chain(unknown).collect(),
        ),
        ("connected", MetricType::Gauge, "connection", "Whether the connection to the broker stands.", stand),
        ("reconnects", MetricType::Counter, "connection", "Connections made after the first.", again),
    ]
}
