//! The journal of a worker that keeps it in `PostgreSQL`.
//!
//! A few connections work, each piece of work in a transaction of its own that is durable before anybody is told;
//! another holds the journal for this worker, alone or with others ([`succession`] has what holds among them). Whatever is
//! asked again, after an answer that was not heard, finds what it did the first time. Never here: a write of a worker that
//! was succeeded, a statement for each row, an error that quotes a row.

mod batches;
mod claims;
mod ends;
mod failure;
mod forgetting;
mod lookup;
mod members;
mod office;
mod owner;
mod pauses;
mod process;
mod quota;
mod rate;
mod rows;
mod schema;
mod session;
mod succession;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection as _;

use self::failure::Failure;
pub use self::failure::Unusable;
use self::office::{Office, Work as _};
use self::owner::{Claim, Tenure};
use self::schema::Company;
use crate::domain::fate::Fate;
use crate::domain::ids::{ManifestId, ProjectId, RequestDigest};
use crate::domain::lease;
use crate::domain::manifest::{Conclusion, Draft, Journaled, KnownRequest, Manifest};
use crate::domain::moment::Timestamp;
use crate::domain::pace::{Grant, Rate};
use crate::domain::pauses::Pause;
use crate::ports::{Forgotten, Journal, JournalError, Recorded};

/// A [`Journal`] in a `PostgreSQL` database, version 13 or later.
///
/// A method whose future is dropped does its work whole or not at all: [`Journal::open_manifests`] sees all that was
/// begun before it. Every method may be called again after an error, whatever it did the first time.
#[derive(Debug)]
pub struct PostgresJournal {
    office: Office,
    claim: Claim,
}

/// What is at a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether tables are there already.
    pub has_tables: bool,
    /// Whether a worker has them that would have to end first.
    pub in_use: bool,
    /// The pauses in force.
    pub pauses: Vec<Pause>,
    /// How many workers share it now; `None` where its tables do not tell.
    pub live_workers: Option<u64>,
}

impl PostgresJournal {
    /// Takes the journal at the URL for one worker alone; makes its tables where they are missing. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Unusable`], as the source: it does not serve, and why. Else what the database says, or that it does not answer:
    /// that passes.
    pub async fn open(url: &str) -> Result<Self, JournalError> {
        Self::take(url, Tenure::Alone).await
    }

    /// The same for one of several workers that share it, whose calls take no longer than `request_timeout`.
    ///
    /// # Errors
    /// As for [`Self::open`]; it is in use where another worker has it alone.
    pub async fn join(url: &str, request_timeout: Duration) -> Result<Self, JournalError> {
        Self::take(url, Tenure::Shared { afterglow: lease::afterglow(request_timeout) }).await
    }

    async fn take(url: &str, tenure: Tenure) -> Result<Self, JournalError> {
        let take = async {
            let options = session::options(url)?;
            let claim = Claim::take(&options, tenure).await?;
            Ok::<_, Failure>(Self { office: Office::open(options, claim.worker), claim })
        };
        take.await.map_err(|failure| failure.at_the_door().into_error("open its database"))
    }

    /// Looks what is at the URL, for a worker that would have it alone or with others, and changes nothing there.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub async fn inspect(url: &str, shared: bool) -> Result<Standing, JournalError> {
        let company = if shared { Company::Others } else { Company::Alone };
        let inspect = async {
            let options = session::options(url)?;
            let mut db = session::connect(&options).await?;
            let place = schema::place(&mut db).await?;
            let in_use = !schema::take(&mut db, place, company).await?;
            let version = schema::version(&mut db).await?;
            if version.is_none() {
                schema::may_create(&mut db).await?;
            }
            let mut pauses = match version {
                Some(version) if version >= schema::WITH_PAUSES => pauses::All.work(&mut db).await?,
                _ => Vec::new(),
            };
            pauses.retain(Pause::is_in_force);
            let live_workers = match version {
                Some(version) if version >= schema::WITH_WORKERS => Some(succession::live(&mut db).await?),
                _ => None,
            };
            let _ = db.close().await;
            Ok::<_, Failure>(Standing { has_tables: version.is_some(), in_use, pauses, live_workers })
        };
        session::patient(inspect).await.map_err(|failure| failure.at_the_door().into_error("look at its database"))
    }

    /// By which clock calls are counted: where several workers count them, by one that they share.
    fn clock(&self, now: Timestamp) -> quota::Clock {
        if self.lease_left().is_some() { quota::Clock::Database } else { quota::Clock::Worker(now) }
    }

    /// What the tables take with their indexes, in bytes, as of some seconds ago.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.claim.size_bytes()
    }

    /// The end of a worker that shares the journal and has no call under way: what it leaves open passes on at once, and it
    /// writes no more.
    ///
    /// # Errors
    /// What the database says. Then its lease must run out first.
    pub async fn leave(&self) -> Result<(), JournalError> {
        if self.lease_left().is_none() {
            return Ok(());
        }
        self.office.write(succession::Leave { worker: self.claim.worker }).await
    }

    /// Returns once another worker has taken the journal over, or has succeeded this one: it writes no more.
    pub async fn taken(&self) {
        self.claim.taken().await;
    }

    /// Finishes what was asked for, and lets another worker have the journal. All later calls fail.
    pub async fn close(&self) {
        self.office.close().await;
        self.claim.close().await;
    }
}

#[async_trait]
impl Journal for PostgresJournal {
    async fn open_manifests(&self) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        let worker = self.claim.worker;
        if self.lease_left().is_some() {
            // Only such as are surely gone: others may be about to renew their leases, after an outage of the database.
            let _ = self.office.write(succession::Succeed { worker, by_lease: false }).await?;
        }
        self.office.read_all(batches::Open { worker, which: batches::Which::All }).await
    }

    async fn lookup(&self, requests: &[RequestDigest]) -> Result<HashMap<RequestDigest, KnownRequest>, JournalError> {
        if requests.is_empty() {
            return Ok(HashMap::new());
        }
        self.office.read(lookup::Lookup::new(requests)).await
    }

    async fn record(&self, draft: &Draft, fate: Fate, now: Timestamp) -> Result<Recorded, JournalError> {
        self.office.write(batches::Record::new(self.claim.worker, draft, fate, now)).await
    }

    async fn succeed(&self) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        if self.lease_left().is_none() {
            return Ok(Vec::new());
        }
        let by_lease = self.claim.sees_others_leases();
        self.office.write(succession::Succeed { worker: self.claim.worker, by_lease }).await
    }

    fn lease_left(&self) -> Option<Duration> {
        self.claim.lease_left()
    }

    async fn restate(&self, manifest: &Journaled<Manifest>, fate: Fate) -> Result<Journaled<Manifest>, JournalError> {
        self.office.write(batches::Restate { manifest: manifest.id, fate }).await?;
        Ok(Journaled::attest(Manifest { fate, ..Manifest::clone(manifest) }))
    }

    async fn conclude(&self, manifest: ManifestId, conclusion: &Conclusion) -> Result<(), JournalError> {
        self.office.write(ends::Conclude { manifest, conclusion: conclusion.clone() }).await
    }

    async fn split(
        &self,
        manifest: &Journaled<Manifest>,
        conclusion: &Conclusion,
        inherited: Fate,
        children: &[Draft],
    ) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        let children =
            self.office.write(ends::Split::new(self.claim.worker, manifest, conclusion, inherited, children)).await?;
        Ok(children.into_iter().map(Journaled::attest).collect())
    }

    async fn spend(&self, quota: u64, now: Timestamp) -> Result<Option<Timestamp>, JournalError> {
        self.office.write(quota::Spend { quota, now: self.clock(now) }).await
    }

    async fn turns(&self, rate: Rate, wanted: u32) -> Result<Grant, JournalError> {
        self.office.write(rate::Turns { rate, wanted }).await
    }

    async fn postpone(&self, wait: Duration) -> Result<(), JournalError> {
        self.office.write(rate::Postpone { wait }).await
    }

    async fn spent(&self, now: Timestamp) -> Result<u64, JournalError> {
        self.office.read(quota::Spent { now: self.clock(now) }).await
    }

    async fn forget(&self, before: Timestamp) -> Result<Forgotten, JournalError> {
        self.office.write(forgetting::Forget { before }).await
    }

    async fn pauses(&self) -> Result<Vec<Pause>, JournalError> {
        self.office.read(pauses::All).await
    }

    async fn pause(&self, pause: &Pause) -> Result<(), JournalError> {
        self.office.write(pauses::Begin { pause: pause.clone() }).await
    }

    async fn resume(&self, project: Option<&ProjectId>, at: Timestamp) -> Result<(), JournalError> {
        self.office.write(pauses::End { project: project.cloned(), at }).await
    }

    fn was_new(&self) -> bool {
        self.claim.was_new
    }

    async fn tidy(&self) -> Result<(), JournalError> {
        self.office.vacuum().await.map_err(|failure| failure.into_error("clear up after erased bodies"))
    }
}
