//! What the metrics read at the scrape: the desk, the connections and the journal's files, in one reading.

use std::sync::{Arc, OnceLock};

use super::{Store, WorkerHealth};
use crate::admin::Health as _;
use crate::config::JournalUrl;
use crate::domain::gates::HoldReason;
use crate::telemetry::{Gauges, Readings};

/// Reads whatever the worker is at.
pub(super) struct WorkerGauges {
    pub health: Arc<WorkerHealth>,
    /// Once it is open.
    pub journal: Arc<OnceLock<Store>>,
    pub journal_url: JournalUrl,
    /// `amqp.buffer_bytes`.
    pub buffer_bytes: usize,
    /// `rate_limit.requests_per_day`: all of it is left as long as nobody knows better.
    pub quota: Option<u64>,
}

impl Gauges for WorkerGauges {
    fn read(&self) -> Readings {
        let footprint = self.journal.get().map(|journal| journal.footprint(&self.journal_url));
        let readings = Readings {
            not_ready: self.health.readiness().reasons.iter().map(|reason| reason.reason).collect(),
            quota_left: self.quota,
            buffer_limit_bytes: self.buffer_bytes as u64,
            journal_size_bytes: footprint.and_then(|footprint| footprint.size_bytes),
            journal_disk_free_bytes: footprint.and_then(|footprint| footprint.disk_free_bytes),
            ..Readings::default()
        };
        let Some((desk, broker, _)) = self.health.parts() else { return readings };
        let (now, broker) = (desk.snapshot(), *broker.borrow());
        let held = std::iter::repeat_n(HoldReason::Forbidden, now.held_projects.len());
        let paused = std::iter::repeat_n(HoldReason::Paused, now.pauses.len());
        Readings {
            calls_in_flight: now.in_flight.into(),
            permits_available: now.permits.into(),
            quota_left: now.quota_left,
            holds: now.hold.iter().map(|hold| hold.reason).chain(held).chain(paused).collect(),
            lanes: now.lanes as u64,
            waiting_emails: now.waiting as u64,
            open_requests: now.requests as u64,
            oldest_unsettled: now.oldest,
            unsettled_deliveries: broker.unsettled as u64,
            unsettled_bytes: broker.held_bytes as u64,
            prefetch: broker.prefetch.into(),
            connections: [
                (broker.consuming, broker.consuming_reconnects),
                (broker.publishing, broker.publishing_reconnects),
            ],
            ..readings
        }
    }
}
