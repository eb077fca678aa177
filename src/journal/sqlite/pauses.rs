//! Pauses: who ordered calls to stop outlives every restart.
//!
//! Of one scope at most one is in force; the table's index sees to it.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::Failure;
use super::clerk::Work;
use super::rows::get;
use crate::domain::ids::ProjectId;
use crate::domain::moment::Timestamp;
use crate::domain::pauses::{KEPT, Pause};

/// [`crate::ports::Journal::pauses`].
pub(super) struct All;

#[async_trait]
impl Work for All {
    const ACTION: &'static str = "read the pauses";
    type Answer = Vec<Pause>;

    async fn work(&self, db: &mut SqliteConnection) -> Result<Vec<Pause>, Failure> {
        let rows = sqlx::query("SELECT project, since, until, reason FROM pauses ORDER BY id").fetch_all(db).await?;
        let pause = |row| {
            let project = match get::<Option<&str>>(row, 0)? {
                Some(name) => Some(ProjectId::parse(name).ok_or(Failure::Damaged("a project without a name"))?),
                None => None,
            };
            let until = get::<Option<i64>>(row, 2)?.map(Timestamp::from_millis);
            Ok(Pause { project, since: Timestamp::from_millis(get(row, 1)?), until, reason: get(row, 3)? })
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

    async fn work(&self, db: &mut SqliteConnection) -> Result<(), Failure> {
        sqlx::query("INSERT INTO pauses (project, since, reason) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(self.pause.project.as_ref().map(|project| project.as_str().to_owned()))
            .bind(self.pause.since.as_millis())
            .bind(self.pause.reason.clone())
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

    async fn work(&self, db: &mut SqliteConnection) -> Result<(), Failure> {
        sqlx::query("UPDATE pauses SET until = ? WHERE until IS NULL AND project IS ?")
            .bind(self.at.as_millis())
            .bind(self.project.as_ref().map(|project| project.as_str().to_owned()))
            .execute(&mut *db)
            .await?;
        sqlx::query("DELETE FROM pauses WHERE until < ?").bind(self.at.before(KEPT).as_millis()).execute(db).await?;
        Ok(())
    }
}
