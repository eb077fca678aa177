//! Ends: with each, the body is gone.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::batches;
use super::failure::Failure;
use super::members;
use super::office::Work;
use super::rows::{bind_conclusion, bytes, get};
use crate::domain::fate::Fate;
use crate::domain::ids::ManifestId;
use crate::domain::key::KeyBase;
use crate::domain::manifest::{Conclusion, Draft, End, Manifest};
use crate::journal::planned::{Line, Planned, split_before};

/// Ends a manifest and erases its body. Whether it was open.
async fn end(db: &mut PgConnection, manifest: ManifestId, conclusion: &Conclusion) -> Result<bool, Failure> {
    // What was split is forgotten with its children.
    let due = (conclusion.end != End::Split).then_some(conclusion.at.as_millis());
    let query = sqlx::query(
        "WITH ended AS (
             UPDATE migma_eraser_manifests SET ended_as = $1, ended_at = $2, ended_generation = $3, http_status = $4,
                 attempts = $5, replayed = $6, request_id = $7, not_found = $8, uncertain = $9, count_mismatch = $10,
                 fail_code = $11, api_code = $12, may_have_taken_effect = $13, due = $14
             WHERE id = $15 AND ended_as IS NULL
             RETURNING id
         ), erased AS (
             DELETE FROM migma_eraser_bodies WHERE manifest IN (SELECT id FROM ended)
         )
         SELECT id FROM ended",
    );
    let ended = bind_conclusion(query, conclusion).bind(due).bind(manifest.0).fetch_optional(db).await?;
    Ok(ended.is_some())
}

/// [`crate::ports::Journal::conclude`].
pub(super) struct Conclude {
    pub manifest: ManifestId,
    pub conclusion: Conclusion,
}

#[async_trait]
impl Work for Conclude {
    const ACTION: &'static str = "record an end";
    type Answer = ();

    async fn work(&self, db: &mut PgConnection) -> Result<(), Failure> {
        if end(db, self.manifest, &self.conclusion).await? {
            return Ok(());
        }
        let ended_before = sqlx::query("SELECT FROM migma_eraser_manifests WHERE id = $1")
            .bind(self.manifest.0)
            .fetch_optional(db)
            .await?;
        ended_before.map(drop).ok_or(Failure::Refused("the manifest is unknown"))
    }
}

/// [`crate::ports::Journal::split`].
pub(super) struct Split {
    worker: i64,
    manifest: ManifestId,
    root: ManifestId,
    conclusion: Conclusion,
    /// What the children begin with.
    fate: Fate,
    children: Vec<Planned>,
}

impl Split {
    pub(super) fn new(
        worker: i64,
        manifest: &Manifest,
        conclusion: &Conclusion,
        fate: Fate,
        children: &[Draft],
    ) -> Self {
        Self {
            worker,
            manifest: manifest.id,
            root: manifest.root,
            conclusion: conclusion.clone(),
            fate,
            children: children.iter().map(Planned::new).collect(),
        }
    }

    fn line(&self) -> Line {
        Line { parent: Some(self.manifest), root: Some(self.root), recorded_at: self.conclusion.at }
    }

    /// The children of an earlier split, which must be these.
    async fn again(&self, db: &mut PgConnection) -> Result<Vec<Manifest>, Failure> {
        let rows = sqlx::query("SELECT id, key_base FROM migma_eraser_manifests WHERE parent = $1 ORDER BY id")
            .bind(self.manifest.0)
            .fetch_all(db)
            .await?;
        let found = rows.iter().map(|row| Ok((ManifestId(get(row, 0)?), KeyBase(bytes(row, 1)?))));
        let found = found.collect::<Result<Vec<_>, Failure>>()?;
        split_before(&self.children, &found, &self.line(), self.fate)
            .ok_or(Failure::Refused("the manifest has ended otherwise"))
    }
}

#[async_trait]
impl Work for Split {
    const ACTION: &'static str = "record a split";
    type Answer = Vec<Manifest>;

    async fn work(&self, db: &mut PgConnection) -> Result<Vec<Manifest>, Failure> {
        if !end(db, self.manifest, &self.conclusion).await? {
            return self.again(db).await;
        }
        let mut children = Vec::with_capacity(self.children.len());
        for planned in &self.children {
            let child = batches::write(db, self.worker, planned, &self.line(), self.fate).await?;
            let child = child.ok_or(Failure::Refused("another open manifest has the key of a part"))?;
            members::write(db, child.id, &planned.members).await?;
            children.push(child);
        }
        Ok(children)
    }
}
