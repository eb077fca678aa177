//! The journal of one worker: a `SQLite` file.
//!
//! One connection writes, in transactions that are on the disk before anybody is told (`synchronous=FULL`); another
//! reads, so that a lookup waits for no disk. In WAL mode what is committed is seen by every read that begins later,
//! and only such a read serves a lookup. Never here: two writers, a body after its end, a number used twice.

mod batches;
mod clerk;
mod ends;
mod file;
mod footprint;
mod forgetting;
mod lookup;
mod members;
mod pauses;
mod quota;
mod rows;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use self::clerk::{Clerk, READ, WRITE};
use self::file::Claim;
pub use self::file::Unfit;
pub use self::footprint::Footprint;
use crate::domain::fate::Fate;
use crate::domain::ids::{ManifestId, ProjectId, RequestDigest};
use crate::domain::manifest::{Conclusion, Draft, Journaled, KnownRequest, Manifest};
use crate::domain::moment::Timestamp;
use crate::domain::pace::{Grant, Rate};
use crate::domain::pauses::Pause;
use crate::ports::{Forgotten, Journal, JournalError, Recorded};

/// What went wrong, before it is known what was being done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("{0}")]
    Refused(&'static str),
    #[error("the file holds what no worker wrote: {0}")]
    Damaged(&'static str),
    #[error("the journal is closed")]
    Closed,
}

impl Failure {
    fn into_error(self, action: &'static str) -> JournalError {
        let source: Box<dyn std::error::Error + Send + Sync> = match self {
            Self::Sql(error) => Box::new(error),
            Self::Unfit(unfit) => Box::new(unfit),
            other => Box::new(other),
        };
        JournalError { action, source }
    }
}

/// A [`Journal`] in a `SQLite` file.
///
/// A method whose future is dropped does its work whole or not at all, and in the order in which it was begun:
/// [`Journal::open_manifests`] sees all that was begun before it.
#[derive(Debug)]
pub struct SqliteJournal {
    writer: Clerk,
    reader: Clerk,
    was_new: bool,
}

impl SqliteJournal {
    /// Opens the file; makes it, and its folder, where they are missing. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Unfit`], as the source: the file does not serve, and why. Else what `SQLite` says.
    pub async fn open(path: &Path) -> Result<Self, JournalError> {
        Self::try_open(path).await.map_err(|failure| failure.into_error("open its file"))
    }

    async fn try_open(path: &Path) -> Result<Self, Failure> {
        let claim = Claim::take(path)?;
        let mut writer = claim.connect().await?;
        schema::prepare(&mut writer).await.map_err(|failure| claim.explain_failure(failure))?;
        let is_empty = schema::number(&mut writer, "SELECT NOT EXISTS (SELECT 1 FROM manifests)").await;
        let was_new = is_empty.map_err(|failure| claim.explain_failure(failure))? == 1;
        let mut reader = claim.connect().await?;
        clerk::execute(&mut reader, "PRAGMA query_only = ON").await?;
        // In KiB: the upper pages of the indices. Its lookups hit the others at random, and the system's own cache has those.
        clerk::execute(&mut reader, "PRAGMA cache_size = -2048").await?;
        Ok(Self { writer: Clerk::hire(writer, WRITE, claim), reader: Clerk::hire(reader, READ, ()), was_new })
    }

    /// Finishes what was asked for, leaves no erased address in side files, and closes the file. All later calls fail.
    ///
    /// # Errors
    /// What `SQLite` says. What was told to be durable is so all the same.
    pub async fn close(&self) -> Result<(), JournalError> {
        let close = async {
            // The writer last: it takes the side files with it.
            self.reader.close().await?;
            self.writer.checkpoint().await?;
            self.writer.close().await
        };
        close.await.map_err(|failure| failure.into_error("close its file"))
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn open_manifests(&self) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        // From the writer: what was begun before must not turn up after.
        self.writer.ask(batches::Open).await
    }

    async fn lookup(&self, requests: &[RequestDigest]) -> Result<HashMap<RequestDigest, KnownRequest>, JournalError> {
        if requests.is_empty() {
            return Ok(HashMap::new());
        }
        self.reader.ask(lookup::Lookup::new(requests)).await
    }

    async fn record(&self, draft: &Draft, fate: Fate, now: Timestamp) -> Result<Recorded, JournalError> {
        let recorded = self.writer.ask(batches::Record::new(draft, fate, now)).await?;
        Ok(Recorded::Manifest(Journaled::attest(recorded)))
    }

    async fn succeed(&self) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        Ok(Vec::new())
    }

    fn lease_left(&self) -> Option<Duration> {
        None
    }

    async fn restate(&self, manifest: &Journaled<Manifest>, fate: Fate) -> Result<Journaled<Manifest>, JournalError> {
        self.writer.ask(batches::Restate { manifest: manifest.id, fate }).await?;
        Ok(Journaled::attest(Manifest { fate, ..Manifest::clone(manifest) }))
    }

    async fn conclude(&self, manifest: ManifestId, conclusion: &Conclusion) -> Result<(), JournalError> {
        self.writer.ask(ends::Conclude { manifest, conclusion: conclusion.clone() }).await
    }

    async fn split(
        &self,
        manifest: &Journaled<Manifest>,
        conclusion: &Conclusion,
        inherited: Fate,
        children: &[Draft],
    ) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        let children = self.writer.ask(ends::Split::new(manifest, conclusion, inherited, children)).await?;
        Ok(children.into_iter().map(Journaled::attest).collect())
    }

    async fn spend(&self, quota: u64, now: Timestamp) -> Result<Option<Timestamp>, JournalError> {
        self.writer.ask(quota::Spend { quota, now }).await
    }

    async fn turns(&self, rate: Rate, wanted: u32) -> Result<Grant, JournalError> {
        Ok(Grant::at_once(&rate, wanted))
    }

    async fn postpone(&self, _: Duration) -> Result<(), JournalError> {
        Ok(())
    }

    async fn spent(&self, now: Timestamp) -> Result<u64, JournalError> {
        self.reader.ask(quota::Spent { now }).await
    }

    async fn forget(&self, before: Timestamp) -> Result<Forgotten, JournalError> {
        self.writer.ask(forgetting::Forget { before }).await
    }

    async fn pauses(&self) -> Result<Vec<Pause>, JournalError> {
        self.reader.ask(pauses::All).await
    }

    async fn pause(&self, pause: &Pause) -> Result<(), JournalError> {
        self.writer.ask(pauses::Begin { pause: pause.clone() }).await
    }

    async fn resume(&self, project: Option<&ProjectId>, at: Timestamp) -> Result<(), JournalError> {
        self.writer.ask(pauses::End { project: project.cloned(), at }).await
    }

    fn was_new(&self) -> bool {
        self.was_new
    }

    async fn tidy(&self) -> Result<(), JournalError> {
        self.writer.checkpoint().await.map_err(|failure| failure.into_error("empty its write-ahead log"))
    }
}
