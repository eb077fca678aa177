//! A journal whose operations are timed and whose failures are counted. It changes nothing of what they do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::Metrics;
use crate::domain::fate::Fate;
use crate::domain::ids::{ManifestId, ProjectId, RequestDigest};
use crate::domain::manifest::{Conclusion, Draft, Journaled, KnownRequest, Manifest};
use crate::domain::moment::Timestamp;
use crate::domain::pace::{Grant, Rate};
use crate::domain::pauses::Pause;
use crate::ports::{Forgotten, Journal, JournalError, Recorded};

/// A journal under observation.
pub struct Measured {
    journal: Arc<dyn Journal>,
    metrics: Metrics,
}

impl Measured {
    /// Observes this one.
    #[must_use]
    pub fn new(journal: Arc<dyn Journal>, metrics: Metrics) -> Self {
        Self { journal, metrics }
    }

    async fn time<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, JournalError>>,
    ) -> Result<T, JournalError> {
        let start = Instant::now();
        let done = work.await;
        self.metrics.journal_seconds.of(operation).observe(start.elapsed().as_secs_f64());
        if done.is_err() {
            self.metrics.journal_failures.of(operation).inc();
        }
        done
    }
}

#[async_trait]
impl Journal for Measured {
    async fn open_manifests(&self) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        self.time("open_manifests", self.journal.open_manifests()).await
    }

    async fn lookup(&self, requests: &[RequestDigest]) -> Result<HashMap<RequestDigest, KnownRequest>, JournalError> {
        self.time("lookup", self.journal.lookup(requests)).await
    }

    async fn record(&self, draft: &Draft, fate: Fate, now: Timestamp) -> Result<Recorded, JournalError> {
        self.time("record", self.journal.record(draft, fate, now)).await
    }

    async fn succeed(&self) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        self.time("succeed", self.journal.succeed()).await
    }

    fn lease_left(&self) -> Option<Duration> {
        self.journal.lease_left()
    }

    async fn restate(&self, manifest: &Journaled<Manifest>, fate: Fate) -> Result<Journaled<Manifest>, JournalError> {
        self.time("restate", self.journal.restate(manifest, fate)).await
    }

    async fn conclude(&self, manifest: ManifestId, conclusion: &Conclusion) -> Result<(), JournalError> {
        self.time("conclude", self.journal.conclude(manifest, conclusion)).await
    }

    async fn split(
        &self,
        manifest: &Journaled<Manifest>,
        conclusion: &Conclusion,
        inherited: Fate,
        children: &[Draft],
    ) -> Result<Vec<Journaled<Manifest>>, JournalError> {
        self.time("split", self.journal.split(manifest, conclusion, inherited, children)).await
    }

    async fn spend(&self, quota: u64, now: Timestamp) -> Result<Option<Timestamp>, JournalError> {
        self.time("spend", self.journal.spend(quota, now)).await
    }

    async fn turns(&self, rate: Rate, wanted: u32) -> Result<Grant, JournalError> {
        self.time("turns", self.journal.turns(rate, wanted)).await
    }

    async fn postpone(&self, wait: Duration) -> Result<(), JournalError> {
        self.time("postpone", self.journal.postpone(wait)).await
    }

    async fn spent(&self, now: Timestamp) -> Result<u64, JournalError> {
        self.time("spent", self.journal.spent(now)).await
    }

    async fn forget(&self, before: Timestamp) -> Result<Forgotten, JournalError> {
        self.time("forget", self.journal.forget(before)).await
    }

    async fn pauses(&self) -> Result<Vec<Pause>, JournalError> {
        self.time("pauses", self.journal.pauses()).await
    }

    async fn pause(&self, pause: &Pause) -> Result<(), JournalError> {
        self.time("pause", self.journal.pause(pause)).await
    }

    async fn resume(&self, project: Option<&ProjectId>, at: Timestamp) -> Result<(), JournalError> {
        self.time("resume", self.journal.resume(project, at)).await
    }

    fn was_new(&self) -> bool {
        self.journal.was_new()
    }

    async fn tidy(&self) -> Result<(), JournalError> {
        self.time("tidy", self.journal.tidy()).await
    }
}
