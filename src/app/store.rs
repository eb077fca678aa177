//! The journal that the configuration names: opened, waited for where it can be, looked at, closed.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::{Config, JournalUrl};
use crate::journal::{Footprint, PostgresJournal, SqliteJournal, Unusable};
use crate::ports::{Journal, JournalError};
use crate::shutdown::{Phase, Shutdown};

/// How often a database is tried that cannot be had.
const AGAIN: Duration = Duration::from_secs(1);

/// One of the journal's stores.
#[derive(Clone, Debug)]
pub enum Store {
    /// A file.
    Sqlite(Arc<SqliteJournal>),
    /// A database.
    Postgres(Arc<PostgresJournal>),
}

impl Store {
    /// Opens it.
    ///
    /// # Errors
    /// Where it cannot be used.
    pub async fn open(config: &Config) -> Result<Self, JournalError> {
        Ok(match &config.journal.url {
            JournalUrl::Sqlite(path) => Self::Sqlite(Arc::new(SqliteJournal::open(path).await?)),
            JournalUrl::Postgres(url) => Self::Postgres(Arc::new(if config.journal.shared {
                PostgresJournal::join(url.expose(), config.migma.request_timeout).await?
            } else {
                PostgresJournal::open(url.expose()).await?
            })),
        })
    }

    /// Opens it, however long that takes, where it is a database that is away or in another worker's hands alone; `None` where
    /// the worker is told to stop before.
    ///
    /// # Errors
    /// Where somebody must mend something first.
    pub(super) async fn wait_for(config: &Config, told: &Shutdown) -> Result<Option<Self>, JournalError> {
        let mut last = None;
        loop {
            let attempt = tokio::select! {
                () = told.reached(Phase::Draining) => return Ok(None),
                attempt = Self::open(config) => attempt,
            };
            let error = match attempt {
                Ok(store) => {
                    if last.is_some() {
                        info!("the journal is ours");
                    }
                    return Ok(Some(store));
                }
                Err(error) if !passes(config, &error) => return Err(error),
                Err(error) => error,
            };
            // Once for each cause: behind one that goes away another may stand.
            let cause = error.source.to_string();
            if last.as_ref() != Some(&cause) {
                warn!(error = %error, cause, "waiting for the journal");
                last = Some(cause);
            }
            tokio::select! {
                () = told.reached(Phase::Draining) => return Ok(None),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// As the pipeline knows it.
    #[must_use]
    pub fn journal(&self) -> Arc<dyn Journal> {
        match self {
            Self::Sqlite(journal) => Arc::clone(journal) as _,
            Self::Postgres(journal) => Arc::clone(journal) as _,
        }
    }

    /// What it takes of its disk. May wait for the disk, where that is ours.
    pub(super) fn footprint(&self, url: &JournalUrl) -> Footprint {
        match (self, url) {
            (Self::Postgres(journal), _) => Footprint { size_bytes: Some(journal.size_bytes()), disk_free_bytes: None },
            (Self::Sqlite(_), JournalUrl::Sqlite(path)) => Footprint::of(path),
            (Self::Sqlite(_), JournalUrl::Postgres(_)) => Footprint { size_bytes: None, disk_free_bytes: None },
        }
    }

    /// Returns once another worker has taken the journal over; never, where none can.
    pub(super) async fn taken(&self) {
        match self {
            Self::Sqlite(_) => std::future::pending().await,
            Self::Postgres(journal) => journal.taken().await,
        }
    }

    /// No call is under way any more: where other workers share it, they may take up at once what is left open.
    pub(super) async fn leave(&self) {
        if let Self::Postgres(journal) = self
            && let Err(error) = journal.leave().await
        {
            let cause = error.source.to_string();
            warn!(error = %error, cause, "other workers take up what is left once the lease has run out");
        }
    }

    /// Finishes what was asked for, and lets go of it.
    ///
    /// # Errors
    /// What the store says. What was told to be durable is so all the same.
    pub async fn close(&self) -> Result<(), JournalError> {
        match self {
            Self::Sqlite(journal) => journal.close().await,
            Self::Postgres(journal) => {
                journal.close().await;
                Ok(())
            }
        }
    }
}

/// Whether waiting can help: of a database, unless it says what must be mended.
fn passes(config: &Config, error: &JournalError) -> bool {
    match (&config.journal.url, error.source.downcast_ref::<Unusable>()) {
        (JournalUrl::Sqlite(_), _) => false,
        (JournalUrl::Postgres(_), why) => matches!(why, None | Some(Unusable::InUse)),
    }
}
