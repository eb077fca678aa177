//! Pauses: who ordered calls to stop outlives every restart.
//!
//! Of one scope at most one is in force; the table's index sees to it.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::failure::Failure;
use super::office::Work;
use super::rows::{get, moment, project, text};
use crate::domain::ids::ProjectId;
use crate::domain::moment::Timestamp;
use crate::domain::pauses::{KEPT, Pause};

/// [`crate::ports::Journal::pauses`].
pub(super) struct All;

#[async_trait]
impl Work for All {
    const ACTION: &'static str = "read the pauses";
    type Answer = Vec<Pause>;

    async fn work(&self, db: &mut PgConnection) -> Result<Vec<Pause>, Failure> {
        let rows = sqlx::query("SELECT project, since, until, reason FROM migma_eraser_pauses ORDER BY id")
            .fetch_all(db)
            .await?;
        let pause = |row| {
            let project = if get::<Option<&[u8]>>(row, 0)?.is_some() { Some(project(row, 0)?) } else { None };
            let since = Timestamp::from_millis(get(row, 1)?);
            Ok(Pause { project, since, until: moment(row, 2)?, reason: text(row, 3)? })
        };
        rows.iter().map(pause).collect()
    }
}

/// [`crate::ports::Journal::pause`].
pub(super) struct Begin {
    pub pause: Pause,
}

#[async_trait]
impl Work for Begin {
    const ACTION: &'static str = "record a pause";
    type Answer = ();

    async fn work(&self, db: &mut PgConnection) -> Result<(), Failure> {
        sqlx::query(
            "INSERT INTO migma_eraser_pauses (project, since, reason) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(self.pause.project.as_ref().map(|project| project.as_str().as_bytes().to_vec()))
        .bind(self.pause.since.as_millis())
        .bind(self.pause.reason.as_ref().map(|reason| reason.as_bytes().to_vec()))
        .execute(db)
        .await?;
        Ok(())
    }
}

/// [`crate::ports::Journal::resume`].
pub(super) struct End {
    pub project: Option<ProjectId>,
    pub at: Timestamp,
}

#[async_trait]
impl Work for End {
    const ACTION: &'static str = "record the end of a pause";
    type Answer = ();

    async fn work(&self, db: &mut PgConnection) -> Result<(), Failure> {
        sqlx::query(
            "UPDATE migma_eraser_pauses SET until = $1 WHERE until IS NULL AND project IS NOT DISTINCT FROM $2",
        )
        .bind(self.at.as_millis())
        .bind(self.project.as_ref().map(|project| project.as_str().as_bytes().to_vec()))
        .execute(&mut *db)
        .await?;
        sqlx::query("DELETE FROM migma_eraser_pauses WHERE until < $1")
            .bind(self.at.before(KEPT).as_millis())
            .execute(db)
            .await?;
        Ok(())
    }
}
