//! Batches: recorded, restated, and found open.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::clerk::Work;
use super::rows::{bytes, fit, get};
use super::{Failure, members};
use crate::domain::fate::{Fate, FirstCall};
use crate::domain::ids::{Fingerprint, ManifestId, ProjectId};
use crate::domain::key::KeyBase;
use crate::domain::manifest::{Draft, Journaled, Manifest, Member};
use crate::domain::moment::Timestamp;
use crate::journal::planned::{Line, Planned};

impl Planned {
    /// Writes it, open.
    pub(super) async fn write(&self, db: &mut SqliteConnection, line: &Line, fate: Fate) -> Result<Manifest, Failure> {
        let first = fate.first_call;
        let written = sqlx::query(
            "INSERT INTO manifests (parent, root, since, project, key_base, emails,
                 generation, first_call_at, first_call_fingerprint, lost, troubled_since)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(line.parent.map(|id| id.0))
        .bind(line.root.map(|id| id.0))
        .bind(line.recorded_at.as_millis())
        .bind(self.project.as_str())
        .bind(&KeyBase::derive(&self.members).0[..])
        .bind(self.emails)
        .bind(fate.generation)
        .bind(first.map(|first| first.at.as_millis()))
        .bind(first.map(|first| first.fingerprint.0.to_vec()))
        .bind(fate.lost)
        .bind(fate.troubled_since.map(Timestamp::as_millis))
        .execute(&mut *db)
        .await?;
        let id = ManifestId(written.last_insert_rowid());
        sqlx::query("INSERT INTO bodies (manifest, body) VALUES (?, ?)")
            .bind(id.0)
            .bind(&self.body[..])
            .execute(&mut *db)
            .await?;
        members::write(db, id, &self.members, &self.requests).await?;
        Ok(self.manifest(id, line, fate))
    }
}

/// [`crate::ports::Journal::record`].
pub(super) struct Record {
    planned: Planned,
    fate: Fate,
    now: Timestamp,
}

impl Record {
    pub(super) fn new(draft: &Draft, fate: Fate, now: Timestamp) -> Self {
        Self { planned: Planned::new(draft), fate, now }
    }
}

#[async_trait]
impl Work for Record {
    const ACTION: &'static str = "record a batch";
    type Answer = Manifest;

    async fn work(&self, db: &mut SqliteConnection) -> Result<Manifest, Failure> {
        let line = Line { parent: None, root: None, recorded_at: self.now };
        // Asked again after a commit whose success was not heard of, it must not be there twice: a key names its batch.
        let known = sqlx::query(
            "SELECT id FROM manifests INDEXED BY manifests_open_key WHERE key_base = ? AND ended_as IS NULL",
        )
        .bind(&KeyBase::derive(&self.planned.members).0[..])
        .fetch_optional(&mut *db)
        .await?;
        match known {
            Some(row) => Ok(self.planned.manifest(ManifestId(get(&row, 0)?), &line, self.fate)),
            None => self.planned.write(db, &line, self.fate).await,
        }
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

    async fn work(&self, db: &mut SqliteConnection) -> Result<(), Failure> {
        let first = self.fate.first_call;
        let restated = sqlx::query(
            "UPDATE manifests SET generation = ?, first_call_at = ?, first_call_fingerprint = ?, lost = ?,
                 troubled_since = ?
             WHERE id = ? AND ended_as IS NULL",
        )
        .bind(self.fate.generation)
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

/// [`crate::ports::Journal::open_manifests`].
pub(super) struct Open;

#[async_trait]
impl Work for Open {
    const ACTION: &'static str = "read what is open";
    type Answer = Vec<Journaled<Manifest>>;

    async fn work(&self, db: &mut SqliteConnection) -> Result<Self::Answer, Failure> {
        let rows = sqlx::query(
            "SELECT id, root, project, body, emails, key_base,
                 generation, first_call_at, first_call_fingerprint, lost, troubled_since
             FROM bodies JOIN manifests ON manifests.id = bodies.manifest
             ORDER BY bodies.manifest",
        )
        .fetch_all(&mut *db)
        .await?;
        let mut open = Vec::with_capacity(rows.len());
        for row in rows {
            let id = ManifestId(get(&row, 0)?);
            let members = members::read(db, id).await?;
            open.push(Journaled::attest(manifest(&row, id, members)?));
        }
        Ok(open)
    }
}

fn manifest(row: &SqliteRow, id: ManifestId, members: Vec<Member>) -> Result<Manifest, Failure> {
    let first_call = match get::<Option<i64>>(row, 7)? {
        None => None,
        Some(at) => {
            let fingerprint = Fingerprint(bytes(row, 8)?);
            Some(FirstCall { at: Timestamp::from_millis(at), fingerprint, steady: None })
        }
    };
    let fate = Fate {
        generation: fit(get(row, 6)?)?,
        first_call,
        unknown: false,
        lost: get(row, 9)?,
        troubled_since: get::<Option<i64>>(row, 10)?.map(Timestamp::from_millis),
    };
    Ok(Manifest {
        id,
        root: get::<Option<i64>>(row, 1)?.map_or(id, ManifestId),
        project: ProjectId::parse(get(row, 2)?).ok_or(Failure::Damaged("a project without a name"))?,
        body: get::<Vec<u8>>(row, 3)?.into(),
        emails: fit(get(row, 4)?)?,
        members,
        key: KeyBase(bytes(row, 5)?),
        fate: fate.recovered(),
    })
}
