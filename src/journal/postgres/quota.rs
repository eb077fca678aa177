//! The daily quota: calls by the minute in which they were made, counted by one at a time.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::failure::Failure;
use super::office::Work;
use super::rows::get;
use crate::domain::moment::Timestamp;
use crate::journal::minutes::{DAY, MINUTE, first_counting, freed};

/// Tells our advisory lock from those of others (`Migq`); with the table's number, for each journal its own.
const COUNTING: i32 = 0x4d69_6771;

/// Whoever counts waits for who counts, until the commit: what was counted before is seen.
const ALONE: &str = "SELECT pg_advisory_xact_lock($1, 'migma_eraser_calls'::regclass::oid::int4)";

/// By which clock calls are counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// The worker's own, which says that it is now.
    Worker(Timestamp),
    /// The database's.
    Database,
}

impl Clock {
    async fn millis(self, db: &mut PgConnection) -> Result<i64, Failure> {
        match self {
            Self::Worker(now) => Ok(now.as_millis()),
            Self::Database => {
                const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
                get(&sqlx::query(NOW).fetch_one(db).await?, 0)
            }
        }
    }
}

/// [`crate::ports::Journal::spend`].
pub(super) struct Spend {
    pub quota: u64,
    pub now: Clock,
}

#[async_trait]
impl Work for Spend {
    const ACTION: &'static str = "count a call";
    type Answer = Option<Timestamp>;

    async fn work(&self, db: &mut PgConnection) -> Result<Option<Timestamp>, Failure> {
        sqlx::query(ALONE).bind(COUNTING).execute(&mut *db).await?;
        let now = self.now.millis(db).await?;
        let minute = now.div_euclid(MINUTE);
        put_right(db, minute).await?;
        let used = used(db, now).await?;
        if used < self.quota {
            count(db, minute, 1).await?;
            return Ok(None);
        }
        next(db, now, used - self.quota + 1).await.map(Some)
    }
}

/// [`crate::ports::Journal::spent`].
pub(super) struct Spent {
    pub now: Clock,
}

#[async_trait]
impl Work for Spent {
    const ACTION: &'static str = "count the calls of a day";
    type Answer = u64;

    async fn work(&self, db: &mut PgConnection) -> Result<u64, Failure> {
        let now = self.now.millis(db).await?;
        used(db, now).await
    }
}

/// The calls that still count.
async fn used(db: &mut PgConnection, now: i64) -> Result<u64, Failure> {
    let row = sqlx::query("SELECT COALESCE(SUM(calls), 0)::bigint FROM migma_eraser_calls WHERE minute >= $1")
        .bind(first_counting(now))
        .fetch_one(db)
        .await?;
    Ok(u64::try_from(get::<i64>(&row, 0)?).unwrap_or(0))
}

/// Calls that stand more than a day ahead were made under a clock that was wrong, and before now: now is when they count
/// from. Else they would stop all calls for as long as the clock was ahead.
async fn put_right(db: &mut PgConnection, minute: i64) -> Result<(), Failure> {
    let row = sqlx::query(
        "WITH astray AS (DELETE FROM migma_eraser_calls WHERE minute > $1 RETURNING calls)
         SELECT COALESCE(SUM(calls), 0)::bigint FROM astray",
    )
    .bind(minute + DAY / MINUTE)
    .fetch_one(&mut *db)
    .await?;
    match get::<i64>(&row, 0)? {
        0 => Ok(()),
        astray => count(db, minute, astray).await,
    }
}

/// Counts calls, never in an earlier minute than one that was seen before.
async fn count(db: &mut PgConnection, minute: i64, calls: i64) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO migma_eraser_calls AS counted (minute, calls)
         SELECT GREATEST($1, (SELECT MAX(minute) FROM migma_eraser_calls)), $2
         ON CONFLICT (minute) DO UPDATE SET calls = counted.calls + excluded.calls",
    )
    .bind(minute)
    .bind(calls)
    .execute(db)
    .await?;
    Ok(())
}

/// When so many of the calls have ceased to count.
async fn next(db: &mut PgConnection, now: i64, surplus: u64) -> Result<Timestamp, Failure> {
    let counting = "SELECT minute, calls FROM migma_eraser_calls WHERE minute >= $1 ORDER BY minute";
    let calls: Vec<(i64, i64)> = sqlx::query_as(counting).bind(first_counting(now)).fetch_all(db).await?;
    Ok(freed(now, surplus, &calls))
}

/// Forgets calls that had ceased to count before then.
pub(super) async fn forget(db: &mut PgConnection, before: Timestamp) -> Result<(), Failure> {
    let first = first_counting(before.as_millis());
    sqlx::query("DELETE FROM migma_eraser_calls WHERE minute < $1").bind(first).execute(db).await?;
    Ok(())
}
