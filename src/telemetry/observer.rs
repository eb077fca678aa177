//! Each event as one log line and its counts, in one place. Per message nothing is logged at info; a batch has one line,
//! and so have the start and the end of a hold.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::{debug, error, info, warn};

use super::history::History;
use super::metrics::Metrics;
use crate::domain::gates::{Change, HoldReason, Scope};
use crate::domain::ids::redacted;
use crate::domain::manifest::{Conclusion, End, Manifest};
use crate::domain::moment::Timestamp;
use crate::domain::pauses::Pause;
use crate::ports::{Event, Observer, World};

/// The last hour, with the clock that it goes by.
pub struct Recent {
    world: Arc<dyn World>,
    history: Mutex<History>,
}

impl Recent {
    /// Nothing yet.
    #[must_use]
    pub fn new(world: Arc<dyn World>) -> Self {
        let history = Mutex::new(History::new(world.now().wall));
        Self { world, history }
    }

    /// Looks at it, or adds to it, now.
    pub fn at<T>(&self, look: impl FnOnce(&mut History, Timestamp) -> T) -> T {
        let now = self.world.now().wall;
        look(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

/// Logs and counts.
pub struct Telemetry {
    metrics: Metrics,
    recent: Arc<Recent>,
}

impl Telemetry {
    /// Counts here, and there.
    #[must_use]
    pub const fn new(metrics: Metrics, recent: Arc<Recent>) -> Self {
        Self { metrics, recent }
    }
}

impl Observer for Telemetry {
    fn see(&self, event: &Event<'_>) {
        let metrics = &self.metrics;
        match event {
            Event::Received { requests, returned } => {
                metrics.deliveries.of("requests").inc_by(*requests);
                metrics.deliveries.of("returned").inc_by(*returned);
            }
            Event::Packed { emails, max_emails, waits } => {
                self.recent.at(|history, now| history.packed(now, *emails));
                let emails = f64::from(*emails);
                metrics.batch_emails.observe(emails);
                metrics.batch_fill.observe(emails / f64::from(u16::try_from(*max_emails).unwrap_or(u16::MAX)).max(1.0));
                for wait in *waits {
                    metrics.queue_wait_seconds.observe(wait.as_secs_f64());
                }
            }
            Event::Published { status, counts, dead, took } => {
                self.recent.at(|history, now| history.published(now, *status, *counts, *dead));
                metrics.outcomes.of(status.as_str()).inc();
                if let Some(code) = dead {
                    metrics.dead_letters.of(code).inc();
                }
                for (result, count) in [
                    ("deleted", counts.deleted),
                    ("not_found", counts.not_found),
                    ("uncertain", counts.uncertain),
                    ("invalid", counts.invalid),
                    ("failed", counts.failed),
                ] {
                    if count > 0 {
                        metrics.emails.of(result).inc_by(count);
                    }
                }
                metrics.request_seconds.observe(took.as_secs_f64());
            }
            Event::Unpublished { unroutable, unconfirmed } => {
                metrics.unpublished.of("unroutable").inc_by(*unroutable);
                metrics.unpublished.of("unconfirmed").inc_by(*unconfirmed);
                warn!(unroutable, unconfirmed, "outcomes or dead letters did not reach a queue; trying again");
            }
            Event::Called { key, reply } => {
                let status = reply.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
                debug!(key = key.as_str(), status, verdict = ?reply.verdict, took = ?reply.took, "called");
                metrics.called(reply.status, reply.took);
                self.recent.at(|history, now| history.called(now, reply.status, reply.took));
            }
            Event::Concluded { manifest, conclusion } => self.concluded(manifest, conclusion),
            Event::Gate(change, project) => {
                self.gate(*change, project.map(|project| redacted(project.as_str())).as_deref());
            }
            Event::Paused(pause) => self.paused(pause),
            Event::Resumed(pause) => resumed(pause),
            Event::JournalFailed(failure) => {
                let cause = std::error::Error::source(failure).map(ToString::to_string).unwrap_or_default();
                error!(error = %failure, cause, "the journal failed; nothing is sent before it works again");
            }
            Event::JournalSilent => error!("the journal does not answer; nothing is sent before it does"),
            Event::ChoreFailed(failure) => {
                let cause = std::error::Error::source(failure).map(ToString::to_string).unwrap_or_default();
                warn!(error = %failure, cause, "the journal was not looked after; trying again later");
            }
            Event::JournalWorks => info!("the journal works again"),
            Event::Recovered { manifests } => {
                metrics.recovered.inc_by(*manifests as u64);
                info!(manifests, "taking up what was under way");
            }
            Event::Overtaken { requests } => {
                debug!(requests, "another worker had these first; planning the rest again");
            }
            Event::JournalLost => warn!(
                "a redelivered request is unknown to this new journal: what an earlier journal knew is lost, and \
                 contacts that were deleted then may be reported not found"
            ),
            Event::GivenBack(reason) => {
                metrics.given_back.of(reason).inc();
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

fn result(end: &End) -> &'static str {
    match end {
        End::Answered { .. } => "done",
        End::Failed { .. } => "failed",
        End::Split => "split",
    }
}

impl Telemetry {
    fn concluded(&self, manifest: &Manifest, conclusion: &Conclusion) {
        self.metrics.batch_attempts.observe(f64::from(conclusion.attempts));
        self.metrics.batches.of(result(&conclusion.end)).inc();
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

    fn gate(&self, change: Change, project: Option<&str>) {
        match change {
            Change::Began(scope, reason) => {
                self.metrics.hold_starts.of(reason.as_str()).inc();
                let everything = scope == Scope::Everything;
                warn!(reason = reason.as_str(), everything, project, "holding");
            }
            Change::Ended(scope, reason, since) => {
                let everything = scope == Scope::Everything;
                info!(reason = reason.as_str(), everything, project, %since, "going on");
            }
        }
    }

    fn paused(&self, pause: &Pause) {
        self.metrics.hold_starts.of(HoldReason::Paused.as_str()).inc();
        let (project, since, why) = (pause.shown_project(), pause.since, pause.reason.as_deref());
        let everything = project.is_none();
        warn!(reason = "paused", everything, project, %since, why, "holding; `migma-eraser resume` ends it");
    }
}

fn resumed(pause: &Pause) {
    let (project, since) = (pause.shown_project(), pause.since);
    info!(reason = "paused", everything = project.is_none(), project, %since, "going on");
}
