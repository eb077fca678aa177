//! Who works on connections: any of a few, each piece of work in a transaction of its own.
//!
//! A caller that is dropped leaves its work running, which is done whole or not at all. Nobody is answered before the
//! commit; who is not answered in time must ask again, for the commit may have been done. Never here: what the work is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Acquire as _, PgConnection, PgPool, Postgres};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::failure::{Failure, Unusable};
use super::rows::get;
use super::session::{self, patient};
use super::succession;
use crate::ports::JournalError;

/// The most connections: calls are few at a time, and lookups are one.
const CONNECTIONS: u32 = 8;

/// How long a connection is waited for. A database that has none to give is told of soon.
const CONNECTING: Duration = Duration::from_secs(5);

/// A connection that was idle for so long is asked whether it lives, before it is used.
const SURELY_ALIVE: Duration = Duration::from_secs(5);

/// How often a piece of work is tried before its failure is told.
const TRIES: usize = 4;

/// Whether the table of bodies takes any room, for what is in it or for what was.
const HAS_PAGES: &str = "SELECT pg_relation_size(oid) + pg_relation_size(reltoastrelid) > 0
     FROM pg_class WHERE oid = 'migma_eraser_bodies'::regclass";

/// A piece of work.
#[async_trait]
pub(super) trait Work: Send + Sync + 'static {
    /// What a failure of it is called.
    const ACTION: &'static str;
    /// What it gives.
    type Answer: Send + 'static;
    /// Does it, within a transaction that may be done again.
    async fn work(&self, db: &mut PgConnection) -> Result<Self::Answer, Failure>;
    /// Whether what it did is to stay.
    fn is_to_stay(_: &Self::Answer) -> bool {
        true
    }
}

/// The connections of one worker.
#[derive(Debug)]
pub(super) struct Office {
    pool: PgPool,
    worker: i64,
    /// Read by all work under way.
    under_way: Arc<RwLock<()>>,
}

impl Office {
    /// Opens it; connects when there is work.
    pub(super) fn open(options: PgConnectOptions, worker: i64) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECTING)
            .idle_timeout(Duration::from_mins(5))
            .test_before_acquire(false)
            .before_acquire(|db, known| {
                Box::pin(async move {
                    if known.idle_for < SURELY_ALIVE {
                        return Ok(true);
                    }
                    let alive = sqlx::query("SELECT 1").execute(db);
                    Ok(tokio::time::timeout(SURELY_ALIVE, alive).await.is_ok_and(|alive| alive.is_ok()))
                })
            })
            .after_connect(|db, _| Box::pin(session::prepare(db)))
            .connect_lazy_with(options);
        Self { pool, worker, under_way: Arc::default() }
    }

    /// Has work done that writes; told once it is committed. Fails for ever once another has succeeded this worker.
    pub(super) async fn write<W: Work>(&self, work: W) -> Result<W::Answer, JournalError> {
        let begun = Arc::clone(&self.under_way).read_owned().await;
        self.run(Some(begun), work, Some(self.worker)).await
    }

    /// Has work done that reads, and sees all that was begun before it.
    pub(super) async fn read_all<W: Work>(&self, work: W) -> Result<W::Answer, JournalError> {
        // Waits for those, and for no more: a waiting writer keeps later readers out.
        drop(self.under_way.write().await);
        self.read(work).await
    }

    /// Has work done that reads, and sees all that was told to be done before it.
    pub(super) async fn read<W: Work>(&self, work: W) -> Result<W::Answer, JournalError> {
        self.run(None, work, None).await
    }

    /// Empties what deleted bodies leave behind, as far as `PostgreSQL` does so; nothing, where their table has no page.
    pub(super) async fn vacuum(&self) -> Result<(), Failure> {
        let mut db = self.pool.acquire().await?;
        let done = patient(async {
            if get(&sqlx::query(HAS_PAGES).fetch_one(&mut *db).await?, 0)? {
                sqlx::query("VACUUM migma_eraser_bodies").execute(&mut *db).await?;
            }
            Ok(())
        })
        .await;
        spare(&mut db, &done);
        done
    }

    /// Waits for the work under way, and ends the connections.
    pub(super) async fn close(&self) {
        drop(self.under_way.write().await);
        self.pool.close().await;
    }

    async fn run<W: Work>(
        &self,
        begun: Option<OwnedRwLockReadGuard<()>>,
        work: W,
        worker: Option<i64>,
    ) -> Result<W::Answer, JournalError> {
        let pool = self.pool.clone();
        let done = tokio::spawn(async move {
            let done = insist(&pool, &work, worker).await;
            drop(begun);
            done
        });
        let done = done.await.unwrap_or(Err(Failure::Closed));
        done.map_err(|failure| failure.into_error(W::ACTION))
    }
}

/// Does it again where that is likely to help. Every piece of work may be done twice.
async fn insist<W: Work>(pool: &PgPool, work: &W, worker: Option<i64>) -> Result<W::Answer, Failure> {
    let mut tries = 1;
    loop {
        match once(pool, work, worker).await {
            Err(failure) if failure.is_passing() && tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

async fn once<W: Work>(pool: &PgPool, work: &W, worker: Option<i64>) -> Result<W::Answer, Failure> {
    let mut db = pool.acquire().await?;
    let done = patient(transact(&mut db, work, worker)).await;
    spare(&mut db, &done);
    done
}

async fn transact<W: Work>(db: &mut PgConnection, work: &W, worker: Option<i64>) -> Result<W::Answer, Failure> {
    let mut transaction = db.begin().await?;
    if let Some(worker) = worker
        && !succession::stays(&mut transaction, worker).await?
    {
        return Err(Unusable::Taken.into());
    }
    let answer = work.work(&mut transaction).await?;
    if W::is_to_stay(&answer) {
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
    Ok(answer)
}

/// A connection on which something failed is not used again: it may lead to a server that is a standby now.
fn spare<T>(db: &mut PoolConnection<Postgres>, done: &Result<T, Failure>) {
    if done.as_ref().is_err_and(|failure| !failure.spares_connection()) {
        db.close_on_drop();
    }
}
