//! Pauses as the admin address orders them. An order once begun is carried out, whoever stops waiting for it.

use std::sync::Arc;

use async_trait::async_trait;
use tracing::error;

use super::WorkerHealth;
use crate::admin::{Brakes, Hindrance, Paused};
use crate::config::AdminToken;
use crate::domain::ids::ProjectId;
use crate::domain::pauses::Pause;
use crate::pipeline::Desk;
use crate::ports::JournalError;

/// The worker's brakes.
pub(super) struct WorkerBrakes {
    pub health: Arc<WorkerHealth>,
    pub token: AdminToken,
}

impl WorkerBrakes {
    fn desk(&self) -> Result<Arc<Desk>, Hindrance> {
        self.health.parts().map(|(desk, ..)| Arc::clone(desk)).ok_or(Hindrance::Starting)
    }
}

/// As the admin address shows them.
pub(super) fn shown(pauses: &[Pause]) -> Vec<Paused> {
    let one = |pause: &Pause| Paused {
        project: pause.shown_project(),
        since: pause.since.to_string(),
        reason: pause.reason.clone(),
    };
    pauses.iter().map(one).collect()
}

fn project(name: Option<String>) -> Result<Option<ProjectId>, Hindrance> {
    name.map(|name| ProjectId::parse(&name).ok_or(Hindrance::NoProject)).transpose()
}

async fn carry_out(
    order: impl Future<Output = Result<Vec<Pause>, JournalError>> + Send + 'static,
) -> Result<Vec<Paused>, Hindrance> {
    match tokio::spawn(order).await {
        Ok(Ok(pauses)) => Ok(shown(&pauses)),
        Ok(Err(failure)) => {
            let cause = std::error::Error::source(&failure).map(ToString::to_string).unwrap_or_default();
            error!(error = %failure, cause, "the journal did not confirm an order to pause or to resume");
            Err(Hindrance::Journal)
        }
        Err(_) => Err(Hindrance::Journal),
    }
}

#[async_trait]
impl Brakes for WorkerBrakes {
    fn token(&self) -> Result<Option<String>, String> {
        match self.token.read() {
            Ok(token) => Ok(token.map(|token| token.expose().to_owned())),
            Err(error) => Err(error.to_string()),
        }
    }

    fn pauses(&self) -> Result<Vec<Paused>, Hindrance> {
        Ok(shown(&self.desk()?.pauses()))
    }

    async fn pause(&self, name: Option<String>, reason: Option<String>) -> Result<Vec<Paused>, Hindrance> {
        let (desk, project) = (self.desk()?, project(name)?);
        carry_out(async move { desk.pause(project, reason.as_deref()).await }).await
    }

    async fn resume(&self, name: Option<String>) -> Result<Vec<Paused>, Hindrance> {
        let (desk, project) = (self.desk()?, project(name)?);
        carry_out(async move { desk.resume(project.as_ref()).await }).await
    }
}
