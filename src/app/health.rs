//! How the worker is: readiness, from the desk and the connections. Never a decision: who asks is told, and no more.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::admin::{Health, Readiness, Reason};
use crate::amqp::BrokerState;
use crate::domain::gates::HoldReason;
use crate::domain::pauses::Pause;
use crate::pipeline::Desk;
use crate::shutdown::{Phase, Shutdown};

/// Readiness, from the desk and the connections.
#[derive(Default)]
pub(super) struct WorkerHealth(OnceLock<(Arc<Desk>, watch::Receiver<BrokerState>, Shutdown)>);

impl WorkerHealth {
    pub(super) fn set(&self, desk: Arc<Desk>, broker: watch::Receiver<BrokerState>, told: Shutdown) {
        let _ = self.0.set((desk, broker, told));
    }
}

impl WorkerHealth {
    /// The worker's parts, once they stand.
    pub(super) fn parts(&self) -> Option<&(Arc<Desk>, watch::Receiver<BrokerState>, Shutdown)> {
        self.0.get()
    }
}

impl Health for WorkerHealth {
    fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        let mut say = |reason, detail| reasons.push(Reason { reason, detail });
        match self.0.get() {
            None => say("starting", None),
            Some((desk, broker, told)) => {
                let (now, broker) = (desk.snapshot(), *broker.borrow());
                if told.phase() > Phase::Running {
                    say("stopping", None);
                }
                if !now.recovered {
                    say("recovering", None);
                }
                if let Some(hold) = &now.hold {
                    say(hold.reason.as_str(), Some(format!("since {}, tried {} times", hold.since, hold.tries)));
                }
                if !now.held_projects.is_empty() {
                    say(HoldReason::Forbidden.as_str(), Some(format!("{} projects", now.held_projects.len())));
                }
                let paused = now.pauses.iter().any(|pause| pause.project.is_none());
                if !now.pauses.is_empty() {
                    say(HoldReason::Paused.as_str(), Some(paused_in_words(&now.pauses)));
                }
                if let Some(until) = now.quota_until {
                    say("daily_quota", Some(format!("until {until}")));
                }
                if now.journal_down {
                    say("journal", None);
                }
                if now.unroutable {
                    say("unroutable_outcome", None);
                }
                // A hold that lasts stops consuming by itself, and so does a pause.
                if !broker.consuming && now.hold.is_none() && !paused {
                    say("broker_consuming", None);
                }
                if !broker.publishing {
                    say("broker_publishing", None);
                }
            }
        }
        Readiness { ready: reasons.is_empty(), reasons }
    }
}
/// What is paused, since when and why.
fn paused_in_words(pauses: &[Pause]) -> String {
    let projects = pauses.iter().filter(|pause| pause.project.is_some()).count();
    let why = |pause: &Pause| pause.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let everything = pauses
        .iter()
        .find(|pause| pause.project.is_none())
        .map(|pause| format!("everything, since {}{}", pause.since, why(pause)));
    let some = pauses.iter().filter(|pause| pause.project.is_some()).map(|pause| pause.since).min();
    let some = some.map(|since| match projects {
        1 => format!("1 project, since {since}"),
        _ => format!("{projects} projects, the first since {since}"),
    });
    everything.into_iter().chain(some).collect::<Vec<_>>().join("; ")
}
