//! Who works on a connection: one task, that takes what is asked of it in order, and in groups.
//!
//! A caller that is dropped leaves its work with the clerk, which does it whole or not at all; nobody is answered before
//! the commit. What waited while the disk was busy shares the next commit. Where a piece of work fails, the others of its
//! group are done again without it: failures are rare, and a savepoint for each piece would have `SQLite` copy every page
//! that it touches (with what `rows::insert` spares, a tenth of all that a request costs, as measured). Never here: what
//! the work is.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::Failure;
use crate::ports::JournalError;

/// The most pieces of work in one transaction: none waits for long.
const GROUP_MAX: usize = 32;

/// A piece of work.
#[async_trait]
pub(super) trait Work: Send + Sync + 'static {
    /// What a failure of it is called.
    const ACTION: &'static str;
    /// What it gives.
    type Answer: Send + 'static;
    /// Does it, within a transaction.
    async fn work(&self, db: &mut SqliteConnection) -> Result<Self::Answer, Failure>;
}

/// Begins a transaction that writes.
pub(super) const WRITE: &str = "BEGIN IMMEDIATE";
/// Begins a transaction that reads.
pub(super) const READ: &str = "BEGIN";

/// A connection with its clerk. Dropped, it finishes what it was asked, and closes the connection.
#[derive(Debug)]
pub(super) struct Clerk {
    orders: mpsc::UnboundedSender<Order>,
}

enum Order {
    Work(Box<dyn Job>),
    Checkpoint(Reply),
    Close(Reply),
}

type Reply = oneshot::Sender<Result<(), sqlx::Error>>;

impl Clerk {
    /// Puts a clerk to a connection; it holds `keep` until the connection is closed.
    pub(super) fn hire(mut db: SqliteConnection, begin: &'static str, keep: impl Send + 'static) -> Self {
        let (orders, taken) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let closed = serve(&mut db, begin, taken).await;
            let done = db.close().await;
            drop(keep);
            // Told last: who hears of it may open the file again.
            if let Some(reply) = closed {
                let _ = reply.send(done);
            }
        });
        Self { orders }
    }

    /// Has work done; told once it is committed.
    pub(super) async fn ask<W: Work>(&self, work: W) -> Result<W::Answer, JournalError> {
        let (reply, answer) = oneshot::channel();
        // A clerk that is gone drops the order, and so the reply.
        let _ = self.orders.send(Order::Work(Box::new(Asked { work, done: None, reply })));
        answer.await.unwrap_or_else(|_| Err(Failure::Closed.into_error(W::ACTION)))
    }

    /// Brings everything into the file itself, and empties the write-ahead log where no reader needs it.
    pub(super) async fn checkpoint(&self) -> Result<(), Failure> {
        self.order(Order::Checkpoint).await
    }

    /// Closes the connection once the work asked for so far is done.
    pub(super) async fn close(&self) -> Result<(), Failure> {
        self.order(Order::Close).await
    }

    async fn order(&self, order: fn(Reply) -> Order) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        let _ = self.orders.send(order(reply));
        Ok(answer.await.map_err(|_| Failure::Closed)??)
    }
}

/// Executes a statement that takes nothing and gives nothing.
pub(super) async fn execute(db: &mut SqliteConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(db).await.map(drop)
}

/// Works until it is told to close, or nobody is left; gives whom to tell that it is closed.
async fn serve(
    db: &mut SqliteConnection,
    begin: &'static str,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> Option<Reply> {
    let mut put_off = None;
    loop {
        let order = match put_off.take() {
            Some(order) => Some(order),
            None => orders.recv().await,
        };
        match order {
            Some(Order::Work(first)) => {
                let mut group = vec![first];
                while group.len() < GROUP_MAX {
                    match orders.try_recv() {
                        Ok(Order::Work(job)) => group.push(job),
                        Ok(other) => {
                            put_off = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                settle(db, begin, group).await;
            }
            Some(Order::Checkpoint(reply)) => {
                // Where a reader is in the way, the row says so, and a later time does it.
                let done = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *db).await;
                let _ = reply.send(done.map(drop));
            }
            Some(Order::Close(reply)) => return Some(reply),
            None => return None,
        }
    }
}

/// Does the group's work in one transaction, and tells who asked. Where one piece fails, the others are done again
/// without it.
async fn settle(db: &mut SqliteConnection, begin: &'static str, mut group: Vec<Box<dyn Job>>) {
    while !group.is_empty() {
        let lost = match transact(db, begin, &mut group).await {
            Ok(()) => {
                group.drain(..).for_each(|job| job.answer(&Ok(())));
                return;
            }
            Err(lost) => lost,
        };
        // Fails where `SQLite` has rolled back by itself already.
        let _ = execute(db, "ROLLBACK").await;
        match lost {
            Lost::By(culprit) => group.remove(culprit).answer(&Ok(())),
            Lost::For(error) => {
                let error = Err(Arc::new(error));
                group.drain(..).for_each(|job| job.answer(&error));
            }
        }
    }
}

/// A transaction that came to nothing.
enum Lost {
    /// Because of this piece of work.
    By(usize),
    /// For this reason.
    For(sqlx::Error),
}

impl From<sqlx::Error> for Lost {
    fn from(error: sqlx::Error) -> Self {
        Self::For(error)
    }
}

async fn transact(db: &mut SqliteConnection, begin: &'static str, group: &mut [Box<dyn Job>]) -> Result<(), Lost> {
    execute(db, begin).await?;
    for (at, job) in group.iter_mut().enumerate() {
        if !job.work(db).await {
            return Err(Lost::By(at));
        }
        if !stands(db).await {
            return Err(Lost::For(sqlx::Error::Protocol("the transaction ended under its work".to_owned())));
        }
    }
    Ok(execute(db, "COMMIT").await?)
}

/// Whether the transaction is open still: then, and only then, `SQLite` refuses to begin another. What came after its end
/// would be durable by itself, whatever its caller is told.
async fn stands(db: &mut SqliteConnection) -> bool {
    execute(db, "BEGIN").await.is_err()
}

/// Work of any kind.
#[async_trait]
trait Job: Send {
    /// Does it; whether it succeeded.
    async fn work(&mut self, db: &mut SqliteConnection) -> bool;
    /// Tells who asked.
    fn answer(self: Box<Self>, committed: &Result<(), Arc<sqlx::Error>>);
}

struct Asked<W: Work> {
    work: W,
    done: Option<Result<W::Answer, Failure>>,
    reply: oneshot::Sender<Result<W::Answer, JournalError>>,
}

#[async_trait]
impl<W: Work> Job for Asked<W> {
    async fn work(&mut self, db: &mut SqliteConnection) -> bool {
        let done = self.work.work(db).await;
        self.done.insert(done).is_ok()
    }

    fn answer(self: Box<Self>, committed: &Result<(), Arc<sqlx::Error>>) {
        let answer = match (self.done, committed) {
            (Some(Err(failure)), _) => Err(failure.into_error(W::ACTION)),
            (_, Err(error)) => Err(JournalError { action: W::ACTION, source: Box::new(Arc::clone(error)) }),
            (Some(Ok(answer)), Ok(())) => Ok(answer),
            (None, Ok(())) => Err(Failure::Closed.into_error(W::ACTION)),
        };
        // The caller may have been dropped.
        let _ = self.reply.send(answer);
    }
}
