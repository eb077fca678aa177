//! The rate of all workers together: the next free turn, moved on under its row's lock.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::failure::Failure;
use super::office::Work;
use super::rows::get;
use crate::domain::pace::{self, Grant, Rate};

/// The clock is read with the row. One that waits for another's turns reads it a little too early, and is none the worse.
const NEXT: &str = "SELECT next, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
     FROM migma_eraser_rate FOR UPDATE";

const MOVE_ON: &str = "UPDATE migma_eraser_rate SET next = $1";

/// [`crate::ports::Journal::turns`].
pub(super) struct Turns {
    pub rate: Rate,
    pub wanted: u32,
}

#[async_trait]
impl Work for Turns {
    const ACTION: &'static str = "take turns";
    type Answer = Grant;

    async fn work(&self, db: &mut PgConnection) -> Result<Grant, Failure> {
        let row = sqlx::query(NEXT).fetch_one(&mut *db).await?;
        let (grant, next) = pace::grant(&self.rate, self.wanted, get(&row, 0)?, get(&row, 1)?);
        sqlx::query(MOVE_ON).bind(next).execute(db).await?;
        Ok(grant)
    }
}

/// [`crate::ports::Journal::postpone`].
pub(super) struct Postpone {
    pub wait: std::time::Duration,
}

#[async_trait]
impl Work for Postpone {
    const ACTION: &'static str = "postpone turns";
    type Answer = ();

    async fn work(&self, db: &mut PgConnection) -> Result<(), Failure> {
        let row = sqlx::query(NEXT).fetch_one(&mut *db).await?;
        let next = pace::postpone(self.wait, get(&row, 0)?, get(&row, 1)?);
        sqlx::query(MOVE_ON).bind(next).execute(db).await?;
        Ok(())
    }
}
