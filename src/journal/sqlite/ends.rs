//! Ends: with each, the body is gone.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::Failure;
use super::clerk::Work;
use super::rows::{bind_conclusion, bytes, get};
use crate::domain::fate::Fate;
use crate::domain::ids::ManifestId;
use crate::domain::key::KeyBase;
use crate::domain::manifest::{Conclusion, Draft, End, Manifest};
use crate::journal::planned::{Line, Planned, split_before};

/// Ends a manifest and erases its body. Whether it was open.
async fn end(db: &mut SqliteConnection, manifest: ManifestId, conclusion: &Conclusion) -> Result<bool, Failure> {
    // What was split is forgotten with its children.
    let due = (conclusion.end != End::Split).then_some(conclusion.at.as_millis());
    let query = sqlx::query(
        "UPDATE manifests SET ended_as = ?, ended_at = ?, ended_generation = ?, http_status = ?, attempts = ?,
             replayed = ?, request_id = ?, not_found = ?, uncertain = ?, count_mismatch = ?,
             fail_code = ?, api_code = ?, may_have_taken_effect = ?, due = ?
         WHERE id = ? AND ended_as IS NULL",
    );
    let ended = bind_conclusion(query, conclusion).bind(due).bind(manifest.0).execute(&mut *db).await?;
    if ended.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query("DELETE FROM bodies WHERE manifest = ?").bind(manifest.0).execute(db).await?;
    Ok(true)
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

    async fn work(&self, db: &mut SqliteConnection) -> Result<(), Failure> {
        if end(db, self.manifest, &self.conclusion).await? {
            return Ok(());
        }
        let ended_before =
            sqlx::query("SELECT 1 FROM manifests WHERE id = ?").bind(self.manifest.0).fetch_optional(db).await?;
        ended_before.map(drop).ok_or(Failure::Refused("the manifest is unknown"))
    }
}

/// [`crate::ports::Journal::split`].
pub(super) struct Split {
    manifest: ManifestId,
    root: ManifestId,
    conclusion: Conclusion,
    /// What the children begin with.
    fate: Fate,
    children: Vec<Planned>,
}

impl Split {
    pub(super) fn new(manifest: &Manifest, conclusion: &Conclusion, fate: Fate, children: &[Draft]) -> Self {
        Self {
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
    async fn again(&self, db: &mut SqliteConnection) -> Result<Vec<Manifest>, Failure> {
        let rows = sqlx::query("SELECT id, key_base FROM manifests WHERE parent = ? ORDER BY id")
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

    async fn work(&self, db: &mut SqliteConnection) -> Result<Vec<Manifest>, Failure> {
        if !end(db, self.manifest, &self.conclusion).await? {
            return self.again(db).await;
        }
        let mut children = Vec::with_capacity(self.children.len());
        for planned in &self.children {
            children.push(planned.write(db, &self.line(), self.fate).await?);
        }
        Ok(children)
    }
}
