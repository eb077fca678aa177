//! The daily quota: calls by the minute in which they were made.
//!
//! A minute's calls count until 24 hours after its end. They are never counted in an earlier minute than one that was
//! seen before: a clock that goes back and is put right must not let them expire early.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::Failure;
use super::clerk::Work;
use super::rows::get;
use crate::domain::moment::Timestamp;
use crate::journal::minutes::{DAY, MINUTE, first_counting, freed};

/// [`crate::ports::Journal::spend`].
pub(super) struct Spend {
    pub quota: u64,
    pub now: Timestamp,
}

#[async_trait]
impl Work for Spend {
    const ACTION: &'static str = "count a call";
    type Answer = Option<Timestamp>;

    async fn work(&self, db: &mut SqliteConnection) -> Result<Option<Timestamp>, Failure> {
        let now = self.now.as_millis();
        let minute = now.div_euclid(MINUTE);
        let latest = self.put_right(db, minute).await?;
        let used = used(db, now).await?;
        if used < self.quota {
            count(db, minute.max(latest), 1).await?;
            return Ok(None);
        }
        self.next(db, used - self.quota + 1).await.map(Some)
    }
}

/// [`crate::ports::Journal::spent`].
pub(super) struct Spent {
    pub now: Timestamp,
}

#[async_trait]
impl Work for Spent {
    const ACTION: &'static str = "count the calls of a day";
    type Answer = u64;

    async fn work(&self, db: &mut SqliteConnection) -> Result<u64, Failure> {
        used(db, self.now.as_millis()).await
    }
}

/// The calls that still count.
async fn used(db: &mut SqliteConnection, now: i64) -> Result<u64, Failure> {
    let row = sqlx::query("SELECT COALESCE(SUM(calls), 0) FROM calls WHERE minute >= ?")
        .bind(first_counting(now))
        .fetch_one(db)
        .await?;
    Ok(u64::try_from(get::<i64>(&row, 0)?).unwrap_or(0))
}

impl Spend {
    /// Calls that stand more than a day ahead were made under a clock that was wrong, and before now: now is when they
    /// count from. Else they would stop all calls for as long as the clock was ahead. Gives the latest minute.
    async fn put_right(&self, db: &mut SqliteConnection, minute: i64) -> Result<i64, Failure> {
        let row = sqlx::query("SELECT MAX(minute) FROM calls").fetch_one(&mut *db).await?;
        let latest = get::<Option<i64>>(&row, 0)?.unwrap_or(minute);
        let limit = minute + DAY / MINUTE;
        if latest <= limit {
            return Ok(latest);
        }
        let row = sqlx::query("SELECT SUM(calls) FROM calls WHERE minute > ?").bind(limit).fetch_one(&mut *db).await?;
        let astray: i64 = get(&row, 0)?;
        sqlx::query("DELETE FROM calls WHERE minute > ?").bind(limit).execute(&mut *db).await?;
        count(db, minute, astray).await?;
        let row = sqlx::query("SELECT MAX(minute) FROM calls").fetch_one(db).await?;
        get(&row, 0)
    }

    /// When so many of the calls have ceased to count.
    async fn next(&self, db: &mut SqliteConnection, surplus: u64) -> Result<Timestamp, Failure> {
        let now = self.now.as_millis();
        let calls: Vec<(i64, i64)> =
            sqlx::query_as("SELECT minute, calls FROM calls WHERE minute >= ? ORDER BY minute")
                .bind(first_counting(now))
                .fetch_all(db)
                .await?;
        Ok(freed(now, surplus, &calls))
    }
}

async fn count(db: &mut SqliteConnection, minute: i64, calls: i64) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO calls (minute, calls) VALUES (?, ?)
         ON CONFLICT (minute) DO UPDATE SET calls = calls + excluded.calls",
    )
    .bind(minute)
    .bind(calls)
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets calls that had ceased to count before then.
pub(super) async fn forget(db: &mut SqliteConnection, before: Timestamp) -> Result<(), Failure> {
    let first = first_counting(before.as_millis());
    sqlx::query("DELETE FROM calls WHERE minute < ?").bind(first).execute(db).await?;
    Ok(())
}
