//! Workers on one journal, and who succeeds one that is gone.
//!
//! # What holds at every moment
//!
//! 1. A worker is its row in `migma_eraser_workers`. Its number is never used twice, and a row that is gone does not come
//!    back: who was succeeded starts anew under another number.
//! 2. An open manifest has one owner, the worker that recorded it or that succeeded its owner. It changes hands in one way
//!    alone: in the transaction that deletes its owner's row, or later, where nobody did so then.
//! 3. Every transaction that writes holds its worker's row against deletion (`FOR KEY SHARE`) until its commit, and
//!    does nothing where the row is gone. So a worker that was succeeded, however late it wakes up, can neither restate,
//!    split nor end a manifest; and what it was just writing is there before its successor reads.
//! 4. A row is deleted by its own worker, at an orderly end without a call under way; by who has the journal alone; by
//!    another on the same machine that sees its process dead; or by another once its lease and the longest of its calls
//!    are past, by this database's clock. A lease is renewed by an update that such locks do not hinder.
//! 5. A successor knows nothing of the calls that were made: their fate is unknown, as after a crash, so that it sends the
//!    same body under the same key, or tells what is not found as uncertain.
//!
//! From 3 and 5 follows that outcomes stay true whatever becomes of leases. They see to it that two workers do not
//! send one manifest at once, as long as the database's clock runs evenly: if it steps ahead, live workers are succeeded
//! and start anew; if it steps back, it is put right.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::batches::{Open, Which};
use super::failure::Failure;
use super::office::Work;
use super::process::Process;
use super::rows::get;
use crate::domain::lease::LEASE;
use crate::domain::manifest::{Journaled, Manifest};

/// Tells our advisory lock from those of others (`Migs`); with the table's number, for each journal its own.
const SUCCEEDING: i32 = 0x4d69_6773;

/// One worker looks at a time.
const ALONE: &str = "SELECT pg_advisory_xact_lock($1, 'migma_eraser_workers'::regclass::oid::int4)";

/// A lease that lasts longer than any was given while the clock was ahead.
const PUT_RIGHT: &str = "UPDATE migma_eraser_workers SET until = clock_timestamp() + $1 * interval '1 millisecond'
     WHERE until > clock_timestamp() + $1 * interval '1 millisecond' AND until < 'infinity'";

/// Who had the journal alone is gone as well: its lock was not compatible with ours.
const BURY_WHO_WAS_ALONE: &str = "DELETE FROM migma_eraser_workers WHERE id <> $1 AND until = 'infinity'";

const BURY: &str = "DELETE FROM migma_eraser_workers WHERE id <> $1
     AND until + afterglow * interval '1 millisecond' < clock_timestamp()";

/// Machines that were copied while they ran tell themselves apart by their address alone.
const NEIGHBOURS: &str = "SELECT id, process FROM migma_eraser_workers
     WHERE id <> $1 AND home = $2 || ' ' || COALESCE(host(inet_client_addr()), '')";

const BURY_THESE: &str = "DELETE FROM migma_eraser_workers WHERE id = ANY ($1)";

/// Who is alone has nobody to be told apart from.
const TAKE_ALL: &str = "UPDATE migma_eraser_manifests SET owner = $1, inherited = false
     WHERE id IN (SELECT manifest FROM migma_eraser_bodies) AND ended_as IS NULL";

const INHERIT: &str = "UPDATE migma_eraser_manifests AS manifests SET owner = $1, inherited = true
     WHERE id IN (SELECT manifest FROM migma_eraser_bodies) AND ended_as IS NULL
         AND NOT EXISTS (SELECT FROM migma_eraser_workers AS workers WHERE workers.id = manifests.owner)";

const RENEW: &str = "UPDATE migma_eraser_workers SET until = clock_timestamp() + $2 * interval '1 millisecond'
     WHERE id = $1 RETURNING id";

/// Who has the journal alone shares it with nobody.
const LIVE: &str = "SELECT COUNT(*) FROM migma_eraser_workers WHERE until > clock_timestamp() AND until < 'infinity'";

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Enters a worker that has the journal alone, for as long as its row stands, and gives it all that is open.
pub(super) async fn enter_alone(db: &mut PgConnection) -> Result<i64, Failure> {
    sqlx::query("DELETE FROM migma_eraser_workers").execute(&mut *db).await?;
    let row = sqlx::query("INSERT INTO migma_eraser_workers (until, afterglow) VALUES ('infinity', 0) RETURNING id")
        .fetch_one(&mut *db)
        .await?;
    let worker = get(&row, 0)?;
    sqlx::query(TAKE_ALL).bind(worker).execute(db).await?;
    Ok(worker)
}

/// Enters a worker among others, with a lease that begins now. It succeeds nobody before it can be at work.
pub(super) async fn enter(db: &mut PgConnection, afterglow: std::time::Duration) -> Result<i64, Failure> {
    let process = Process::own();
    let row = sqlx::query(
        "INSERT INTO migma_eraser_workers (until, afterglow, home, process)
         VALUES (clock_timestamp() + $1 * interval '1 millisecond', $2,
             $3 || ' ' || COALESCE(host(inet_client_addr()), ''), $4) RETURNING id",
    )
    .bind(millis(LEASE))
    .bind(millis(afterglow))
    .bind(process.as_ref().map(|process| &process.home))
    .bind(process.as_ref().map(|process| &process.name))
    .fetch_one(&mut *db)
    .await?;
    get(&row, 0)
}

/// Renews a worker's lease; `false` where it was succeeded.
pub(super) async fn renew(db: &mut PgConnection, worker: i64) -> Result<bool, Failure> {
    Ok(sqlx::query(RENEW).bind(worker).bind(millis(LEASE)).fetch_optional(db).await?.is_some())
}

/// Whether a worker is still there.
pub(super) async fn is_there(db: &mut PgConnection, worker: i64) -> Result<bool, Failure> {
    let row = sqlx::query("SELECT FROM migma_eraser_workers WHERE id = $1").bind(worker).fetch_optional(db).await?;
    Ok(row.is_some())
}

/// The same, and that it stays so until the commit.
pub(super) async fn stays(db: &mut PgConnection, worker: i64) -> Result<bool, Failure> {
    let row = sqlx::query("SELECT FROM migma_eraser_workers WHERE id = $1 FOR KEY SHARE")
        .bind(worker)
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}

/// How many workers have a lease that lasts.
pub(super) async fn live(db: &mut PgConnection) -> Result<u64, Failure> {
    let row = sqlx::query(LIVE).fetch_one(db).await?;
    Ok(u64::try_from(get::<i64>(&row, 0)?).unwrap_or(0))
}

async fn succeed(db: &mut PgConnection, worker: i64, by_lease: bool) -> Result<(), Failure> {
    sqlx::query(ALONE).bind(SUCCEEDING).execute(&mut *db).await?;
    sqlx::query(PUT_RIGHT).bind(millis(LEASE)).execute(&mut *db).await?;
    sqlx::query(BURY_WHO_WAS_ALONE).bind(worker).execute(&mut *db).await?;
    if by_lease {
        sqlx::query(BURY).bind(worker).execute(&mut *db).await?;
    }
    bury_neighbours(db, worker).await?;
    // A statement of its own: what those were just writing is seen by now.
    sqlx::query(INHERIT).bind(worker).execute(db).await?;
    Ok(())
}

/// Those on this machine whose process is dead, whatever their lease says.
async fn bury_neighbours(db: &mut PgConnection, worker: i64) -> Result<(), Failure> {
    let Some(own) = Process::own() else { return Ok(()) };
    let rows = sqlx::query(NEIGHBOURS).bind(worker).bind(own.home).fetch_all(&mut *db).await?;
    let mut dead = Vec::new();
    for row in rows {
        if Process::is_dead(&get::<String>(&row, 1)?) {
            dead.push(get::<i64>(&row, 0)?);
        }
    }
    if !dead.is_empty() {
        sqlx::query(BURY_THESE).bind(dead).execute(db).await?;
    }
    Ok(())
}

/// [`crate::ports::Journal::succeed`].
pub(super) struct Succeed {
    pub worker: i64,
    /// Whether those are gone too whose lease has run out.
    pub by_lease: bool,
}

#[async_trait]
impl Work for Succeed {
    const ACTION: &'static str = "succeed workers that are gone";
    type Answer = Vec<Journaled<Manifest>>;

    async fn work(&self, db: &mut PgConnection) -> Result<Self::Answer, Failure> {
        succeed(db, self.worker, self.by_lease).await?;
        Open { worker: self.worker, which: Which::Inherited }.work(db).await
    }
}

/// The worker's orderly end: no call of its own is under way any more.
pub(super) struct Leave {
    pub worker: i64,
}

#[async_trait]
impl Work for Leave {
    const ACTION: &'static str = "leave";
    type Answer = ();

    async fn work(&self, db: &mut PgConnection) -> Result<(), Failure> {
        sqlx::query("DELETE FROM migma_eraser_workers WHERE id = $1").bind(self.worker).execute(db).await?;
        Ok(())
    }
}
