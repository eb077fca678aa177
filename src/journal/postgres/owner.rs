//! Whose journal it is: one worker's at a time, or several workers' who share it; never of a worker that was succeeded.
//!
//! An advisory lock, held by a connection that does nothing else, tells whether a worker that has the journal alone
//! lives: it is gone with the connection, and a connection that stays silent is ended. Workers that share the journal hold
//! the lock together, so that nobody has it alone beside them, and renew a lease each. Who may write, the worker's row
//! tells: see [`super::succession`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::failure::{Failure, Unusable};
use super::rows::get;
use super::schema::{self, Company};
use super::session::{self, patient};
use super::succession;
use crate::domain::lease::{LEASE, RENEWAL};

/// How often the lock is looked after by who has the journal alone.
const BEAT: Duration = Duration::from_secs(5);

/// How a worker has the journal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tenure {
    /// Alone: others stand by.
    Alone,
    /// With others.
    Shared {
        /// How long its calls may last after its lease has run out.
        afterglow: Duration,
    },
}

impl Tenure {
    const fn company(self) -> Company {
        match self {
            Self::Alone => Company::Alone,
            Self::Shared { .. } => Company::Others,
        }
    }

    const fn beat(self) -> Duration {
        match self {
            Self::Alone => BEAT,
            Self::Shared { .. } => RENEWAL,
        }
    }

    /// How long a beat may take. A connection that leads nowhere is left while there is time for another.
    const fn patience(self) -> Duration {
        match self {
            Self::Alone => session::PATIENCE,
            Self::Shared { .. } => BEAT,
        }
    }
}

/// What the tables take, with their indexes.
const SIZE: &str = "SELECT COALESCE(SUM(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
     WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
         AND relkind = 'r' AND starts_with(relname::text, 'migma_eraser_')";

/// What others may know of the owner's state.
#[derive(Debug)]
struct Known {
    /// Of all tables, in bytes; 0 before the first look.
    size: AtomicU64,
    /// Until when the lease lasts in our view; `None` for one who has the journal alone.
    lease: Option<Mutex<Lease>>,
    taken: watch::Sender<bool>,
}

/// A lease in our own view.
#[derive(Clone, Copy, Debug)]
struct Lease {
    until: Instant,
    /// When it was had again after it had run out.
    again: Option<Instant>,
}

impl Known {
    /// The lease was renewed by a query that was sent then: the database counts from later.
    fn leased(&self, asked: Instant) {
        if let Some(lease) = &self.lease {
            let mut lease = lease.lock().unwrap_or_else(PoisonError::into_inner);
            if lease.until < asked {
                lease.again = Some(asked);
            }
            lease.until = asked + LEASE;
        }
    }
}

/// A journal in our hands; let go when this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    pub worker: i64,
    pub was_new: bool,
    known: Arc<Known>,
    tell_to_close: watch::Sender<bool>,
    keeper: AbortOnDropHandle<()>,
}

impl Claim {
    /// Takes the journal, and brings it up to date.
    pub(super) async fn take(options: &PgConnectOptions, tenure: Tenure) -> Result<Self, Failure> {
        let mut db = session::connect(options).await?;
        let place = patient(async {
            let place = schema::place(&mut db).await?;
            if schema::take(&mut db, place, tenure.company()).await? { Ok(place) } else { Err(Unusable::InUse.into()) }
        })
        .await?;
        // As long as it takes.
        schema::migrate(&mut db, place).await?;
        let asked = Instant::now();
        let (worker, was_new, size) = patient(begin(&mut db, tenure)).await?;
        let lease = match tenure {
            Tenure::Alone => None,
            Tenure::Shared { .. } => Some(Mutex::new(Lease { until: asked + LEASE, again: None })),
        };
        let known = Arc::new(Known { size: AtomicU64::new(size), lease, taken: watch::channel(false).0 });
        let (tell_to_close, close) = watch::channel(false);
        let keeper = Keeper { options: options.clone(), worker, tenure, known: Arc::clone(&known), close };
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper.keep(db)));
        Ok(Self { worker, was_new, known, tell_to_close, keeper })
    }

    /// How much longer the lease lasts in our view; `None` for one who has the journal alone.
    pub(super) fn lease_left(&self) -> Option<Duration> {
        Some(self.lease()?.until.saturating_duration_since(Instant::now()))
    }

    /// Whether others' leases mean something: where ours had run out until just now, so have theirs, and they may be
    /// about to renew them.
    pub(super) fn sees_others_leases(&self) -> bool {
        self.lease().is_some_and(|lease| lease.again.is_none_or(|again| again.elapsed() >= RENEWAL * 4))
    }

    fn lease(&self) -> Option<Lease> {
        Some(*self.known.lease.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the tables take, in bytes, as of some seconds ago.
    pub(super) fn size_bytes(&self) -> u64 {
        self.known.size.load(Ordering::Relaxed)
    }

    /// Returns once another worker has taken the journal.
    pub(super) async fn taken(&self) {
        // The sender lives as long as this does.
        let _ = self.known.taken.subscribe().wait_for(|taken| *taken).await;
    }

    /// Lets go of the lock, and returns once that is so.
    pub(super) async fn close(&self) {
        self.tell_to_close.send_replace(true);
        while !self.keeper.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Enters the worker, once who is gone has written what it is just writing. Gives its number; whether nothing was there;
/// and what the tables take.
async fn begin(db: &mut PgConnection, tenure: Tenure) -> Result<(i64, bool, u64), Failure> {
    let mut transaction = db.begin().await?;
    let row =
        sqlx::query("SELECT NOT EXISTS (SELECT FROM migma_eraser_manifests)").fetch_one(&mut *transaction).await?;
    let was_new = get(&row, 0)?;
    let worker = match tenure {
        Tenure::Alone => succession::enter_alone(&mut transaction).await?,
        Tenure::Shared { afterglow } => succession::enter(&mut transaction, afterglow).await?,
    };
    let size = size(&mut transaction).await?;
    transaction.commit().await?;
    Ok((worker, was_new, size))
}

async fn size(db: &mut PgConnection) -> Result<u64, Failure> {
    let row = sqlx::query(SIZE).fetch_one(db).await?;
    Ok(u64::try_from(get::<i64>(&row, 0)?).unwrap_or(0))
}

/// Who holds the lock.
struct Keeper {
    options: PgConnectOptions,
    worker: i64,
    tenure: Tenure,
    known: Arc<Known>,
    close: watch::Receiver<bool>,
}

impl Keeper {
    /// Holds it until told to close, taking it again where the connection was lost, or until another has it.
    async fn keep(mut self, db: PgConnection) {
        let mut held = Some(db);
        loop {
            tokio::select! {
                biased;
                _ = self.close.wait_for(|close| *close) => break,
                () = tokio::time::sleep(self.tenure.beat()) => {}
            }
            let beat = tokio::time::timeout(self.tenure.patience(), self.beat(held));
            held = match beat.await.unwrap_or(Err(Failure::Slow)) {
                Ok(db) => Some(db),
                Err(Failure::Unusable(Unusable::Taken)) => {
                    self.known.taken.send_replace(true);
                    return;
                }
                // Whatever it was, a new connection will show.
                Err(_) => None,
            };
        }
        if let Some(db) = held {
            let _ = tokio::time::timeout(BEAT, db.close()).await;
        }
    }

    /// Looks after the lock; takes it anew where the connection is gone.
    async fn beat(&self, held: Option<PgConnection>) -> Result<PgConnection, Failure> {
        let mut db = match held {
            Some(db) => db,
            None => session::connect(&self.options).await?,
        };
        let asked = Instant::now();
        let is_there = match self.tenure {
            Tenure::Alone => succession::is_there(&mut db, self.worker).await?,
            Tenure::Shared { .. } => succession::renew(&mut db, self.worker).await?,
        };
        if !is_there {
            return Err(Unusable::Taken.into());
        }
        self.known.leased(asked);
        let place = schema::place(&mut db).await?;
        // Ours already, or our own earlier connection's that the server has not given up yet, or that of one who will
        // end our row next.
        if !schema::hold(&mut db, place, self.tenure.company()).await? {
            return Err(Unusable::InUse.into());
        }
        self.known.size.store(size(&mut db).await?, Ordering::Relaxed);
        Ok(db)
    }
}
