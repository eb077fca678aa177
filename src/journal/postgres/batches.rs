//! Batches: recorded, restated, and found open.

use async_trait::async_trait;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::failure::Failure;
use super::members;
use super::office::Work;
use super::rows::{bytes, fit, get, moment, project};
use crate::domain::fate::{Fate, FirstCall};
use crate::domain::ids::{Fingerprint, ManifestId};
use crate::domain::key::KeyBase;
use crate::domain::manifest::{Draft, Journaled, Manifest, Member};
use crate::domain::moment::Timestamp;
use crate::journal::planned::{Line, Planned};
use crate::ports::Recorded;

/// Manifest and body at once. Where another open manifest has the key, or is just being given it, nothing.
const WRITE: &str = "WITH manifest AS (
        INSERT INTO migma_eraser_manifests (parent, root, since, project, key_base, emails,
            generation, first_call_at, first_call_fingerprint, lost, troubled_since, owner)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $13)
        ON CONFLICT (key_base) WHERE ended_as IS NULL DO NOTHING
        RETURNING id
    ), body AS (
        INSERT INTO migma_eraser_bodies (manifest, body) SELECT id, $12 FROM manifest
    )
    SELECT id FROM manifest";

/// Writes a manifest of this worker's, open and without its members; `None` where its key has an open one.
pub(super) async fn write(
    db: &mut PgConnection,
    worker: i64,
    planned: &Planned,
    line: &Line,
    fate: Fate,
) -> Result<Option<Manifest>, Failure> {
    let first = fate.first_call;
    let row = sqlx::query(WRITE)
        .bind(line.parent.map(|id| id.0))
        .bind(line.root.map(|id| id.0))
        .bind(line.recorded_at.as_millis())
        .bind(planned.project.as_str().as_bytes())
        .bind(&KeyBase::derive(&planned.members).0[..])
        .bind(i64::from(planned.emails))
        .bind(i64::from(fate.generation))
        .bind(first.map(|first| first.at.as_millis()))
        .bind(first.map(|first| first.fingerprint.0.to_vec()))
        .bind(fate.lost)
        .bind(fate.troubled_since.map(Timestamp::as_millis))
        .bind(&planned.body[..])
        .bind(worker)
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(planned.manifest(ManifestId(get(&row, 0)?), line, fate)))
}

/// [`crate::ports::Journal::record`].
pub(super) struct Record {
    worker: i64,
    planned: Planned,
    fate: Fate,
    now: Timestamp,
}

impl Record {
    pub(super) fn new(worker: i64, draft: &Draft, fate: Fate, now: Timestamp) -> Self {
        Self { worker, planned: Planned::new(draft), fate, now }
    }
}

#[async_trait]
impl Work for Record {
    const ACTION: &'static str = "record a batch";
    type Answer = Recorded;

    async fn work(&self, db: &mut PgConnection) -> Result<Recorded, Failure> {
        let line = Line { parent: None, root: None, recorded_at: self.now };
        let Planned { members, requests, .. } = &self.planned;
        if let Some(manifest) = write(db, self.worker, &self.planned, &line, self.fate).await? {
            let lost = members::claim(db, manifest.id, members, requests).await?;
            let recorded = || Recorded::Manifest(Journaled::attest(manifest));
            return Ok(if lost.is_empty() { recorded() } else { Recorded::Lost(lost) });
        }
        // Asked again after a commit whose success was not heard of: a key names its batch. Or another has the same batch,
        // or had it.
        let row = sqlx::query(
            "SELECT id, owner = $2 AND NOT inherited FROM migma_eraser_manifests
             WHERE key_base = $1 AND ended_as IS NULL",
        )
        .bind(&KeyBase::derive(members).0[..])
        .bind(self.worker)
        .fetch_optional(db)
        .await?;
        // None by now: another had it, and ended it meanwhile.
        if let Some(row) = row
            && get::<Option<bool>>(&row, 1)? == Some(true)
        {
            let manifest = self.planned.manifest(ManifestId(get(&row, 0)?), &line, self.fate);
            return Ok(Recorded::Manifest(Journaled::attest(manifest)));
        }
        Ok(Recorded::Lost(members.iter().map(|member| member.request).collect()))
    }

    fn is_to_stay(answer: &Recorded) -> bool {
        matches!(answer, Recorded::Manifest(_))
    }
}

/// [`crate::ports::Journal::restate`].
pub(super) struct Restate {
    pub manifest: ManifestId,
    pub fate: Fate,
}

#[async_trait]
impl Work for Restate {
    const ACTION: &'static str = "restate a manifest";
    type Answer = ();

    async fn work(&self, db: &mut PgConnection) -> Result<(), Failure> {
        let first = self.fate.first_call;
        let restated = sqlx::query(
            "UPDATE migma_eraser_manifests SET generation = $1, first_call_at = $2, first_call_fingerprint = $3,
                 lost = $4, troubled_since = $5
             WHERE id = $6 AND ended_as IS NULL",
        )
        .bind(i64::from(self.fate.generation))
        .bind(first.map(|first| first.at.as_millis()))
        .bind(first.map(|first| first.fingerprint.0.to_vec()))
        .bind(self.fate.lost)
        .bind(self.fate.troubled_since.map(Timestamp::as_millis))
        .bind(self.manifest.0)
        .execute(db)
        .await?;
        if restated.rows_affected() == 1 { Ok(()) } else { Err(Failure::Refused("the manifest is not open")) }
    }
}

/// Which of a worker's open manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those that it has from workers that are gone.
    Inherited,
}

/// [`crate::ports::Journal::open_manifests`].
pub(super) struct Open {
    pub worker: i64,
    pub which: Which,
}

#[async_trait]
impl Work for Open {
    const ACTION: &'static str = "read what is open";
    type Answer = Vec<Journaled<Manifest>>;

    async fn work(&self, db: &mut PgConnection) -> Result<Self::Answer, Failure> {
        let rows = sqlx::query(
            "SELECT manifests.id, root, project, body, emails, key_base,
                 generation, first_call_at, first_call_fingerprint, lost, troubled_since
             FROM migma_eraser_bodies AS bodies
             JOIN migma_eraser_manifests AS manifests ON manifests.id = bodies.manifest
             WHERE owner = $1 AND (inherited OR NOT $2)
             ORDER BY manifests.id",
        )
        .bind(self.worker)
        .bind(self.which == Which::Inherited)
        .fetch_all(&mut *db)
        .await?;
        let numbers = rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<i64>, Failure>>()?;
        // Members of an open manifest do not change.
        let mut members = members::read(db, &numbers).await?;
        let manifest = |(row, number): (&PgRow, &i64)| {
            let id = ManifestId(*number);
            Ok(Journaled::attest(manifest(row, id, members.remove(&id).unwrap_or_default())?))
        };
        rows.iter().zip(&numbers).map(manifest).collect()
    }
}

fn manifest(row: &PgRow, id: ManifestId, members: Vec<Member>) -> Result<Manifest, Failure> {
    let first_call = match moment(row, 7)? {
        None => None,
        Some(at) => Some(FirstCall { at, fingerprint: Fingerprint(bytes(row, 8)?), steady: None }),
    };
    let fate = Fate {
        generation: fit(row, 6)?,
        first_call,
        unknown: false,
        lost: get(row, 9)?,
        troubled_since: moment(row, 10)?,
    };
    Ok(Manifest {
        id,
        root: get::<Option<i64>>(row, 1)?.map_or(id, ManifestId),
        project: project(row, 2)?,
        body: get::<Vec<u8>>(row, 3)?.into(),
        emails: fit(row, 4)?,
        members,
        key: KeyBase(bytes(row, 5)?),
        fate: fate.recovered(),
    })
}
