//! Each event as one log line and its counts, in one place. Per message nothing is logged at info; a batch has one line,
//! and so have the start and the end of a hold.

use tracing::{debug, error, info, warn};

use super::metrics::{Metrics, Outcome, Reason, Status};
use crate::domain::gates::{Change, Scope};
use crate::domain::ids::redacted;
use crate::domain::manifest::End;
use crate::ports::{Event, Observer};

/// Logs and counts.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Metrics,
}

impl Telemetry {
    /// Counts here.
    #[must_use]
    pub const fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl Observer for Telemetry {
    fn see(&self, event: &Event<'_>) {
        let metrics = &self.metrics;
        match event {
            Event::Received { deliveries } => {
                metrics.deliveries.inc_by(*deliveries);
            }
            Event::Published { status, counts, took } => {
                metrics.outcomes.get_or_create(&Status { status: status.as_str().to_owned() }).inc();
                for (result, count) in [
                    ("deleted", counts.deleted),
                    ("not_found", counts.not_found),
                    ("uncertain", counts.uncertain),
                    ("invalid", counts.invalid),
                    ("failed", counts.failed),
                ] {
                    metrics.emails.get_or_create(&Outcome { result }).inc_by(count);
                }
                metrics.request_seconds.observe(took.as_secs_f64());
            }
            Event::Unpublished { messages, unroutable } => {
                metrics.unpublished.inc_by(*messages);
                warn!(messages, unroutable, "outcomes or dead letters did not reach a queue; trying again");
            }
            Event::Called { key, reply } => {
                let status = reply.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
                debug!(key = key.as_str(), status, verdict = ?reply.verdict, took = ?reply.took, "called");
                metrics.calls.get_or_create(&Status { status }).inc();
                metrics.call_seconds.observe(reply.took.as_secs_f64());
            }
            Event::Concluded { manifest, conclusion } => {
                metrics.batch_emails.observe(f64::from(manifest.emails));
                let key = manifest.key.generation(conclusion.generation);
                let project = redacted(manifest.project.as_str());
                let (requests, emails, attempts) = (manifest.members.len(), manifest.emails, conclusion.attempts);
                match &conclusion.end {
                    End::Answered { not_found, uncertain, count_mismatch } => info!(
                        key = key.as_str(), %project, requests, emails, attempts, not_found = not_found.len(), uncertain,
                        count_mismatch, replayed = conclusion.replayed, "batch done"
                    ),
                    End::Failed { code, .. } => warn!(
                        key = key.as_str(), %project, requests, emails, attempts, code = code.as_str(),
                        http_status = conclusion.http_status, "batch failed"
                    ),
                    End::Split => info!(
                        key = key.as_str(), %project, requests, emails, attempts,
                        http_status = conclusion.http_status, "batch split"
                    ),
                }
            }
            Event::Gate(change, project) => {
                self.gate(*change, project.map(|project| redacted(project.as_str())).as_deref());
            }
            Event::JournalFailed(failure) => {
                metrics.journal_failures.inc();
                let cause = std::error::Error::source(failure).map(ToString::to_string).unwrap_or_default();
                error!(error = %failure, cause, "the journal failed; nothing is sent before it works again");
            }
            Event::JournalWorks => info!("the journal works again"),
            Event::Recovered { manifests } => {
                metrics.recovered.inc_by(*manifests as u64);
                info!(manifests, "taking up what was under way");
            }
            Event::JournalLost => warn!(
                "a redelivered request is unknown to this new journal: what an earlier journal knew is lost, and \
                 contacts that were deleted then may be reported not found"
            ),
            Event::GivenBack(reason) => {
                metrics.given_back.get_or_create(&Reason { reason }).inc();
                warn!(reason, "deliveries were given back to the broker");
            }
            Event::SteppedAside { deliveries } => {
                metrics.stepped_aside.inc_by(*deliveries);
            }
            Event::Forgot { requests } => {
                metrics.forgotten.inc_by(*requests);
                debug!(requests, "forgot answered requests");
            }
        }
    }
}

impl Telemetry {
    fn gate(&self, change: Change, project: Option<&str>) {
        match change {
            Change::Began(scope, reason) => {
                self.metrics.holds.get_or_create(&Reason { reason: reason.as_str() }).inc();
                let everything = scope == Scope::Everything;
                warn!(reason = reason.as_str(), everything, project, "holding");
            }
            Change::Ended(scope, reason, since) => {
                self.metrics.holds.get_or_create(&Reason { reason: reason.as_str() }).dec();
                let everything = scope == Scope::Everything;
                info!(reason = reason.as_str(), everything, project, %since, "going on");
            }
        }
    }
}
