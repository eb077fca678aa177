//! Forgetting, in small steps.
//!
//! Nobody scans for what is old: each manifest falls due at its end, and its requests are looked at then. Of a request
//! that is spread over several, the manifest that ends last finds it complete.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::Failure;
use super::clerk::Work;
use super::lookup::by_number;
use super::quota;
use super::rows::{delete, get};
use crate::domain::moment::Timestamp;
use crate::journal::retention;
use crate::ports::Forgotten;

/// The most requests that one step forgets: those who wait to write wait for tens of milliseconds.
const STEP: usize = 1000;

/// The most manifests that one step looks at.
const LOOKS: usize = 64;

const WITHOUT_MEMBERS: &str = "AND ended_as IS NOT NULL
     AND NOT EXISTS (SELECT 1 FROM requests WHERE manifest = manifests.id)
     AND NOT EXISTS (SELECT 1 FROM members WHERE manifest = manifests.id)";

/// [`crate::ports::Journal::forget`].
pub(super) struct Forget {
    pub before: Timestamp,
}

#[async_trait]
impl Work for Forget {
    const ACTION: &'static str = "forget what is old";
    type Answer = Forgotten;

    async fn work(&self, db: &mut SqliteConnection) -> Result<Forgotten, Failure> {
        quota::forget(db, self.before).await?;
        let mut forgotten = 0;
        for _ in 0..LOOKS {
            let Some(manifest) = self.due(db).await? else {
                return Ok(Forgotten { requests: forgotten as u64, more: false });
            };
            if forgotten == STEP {
                break;
            }
            forgotten += self.look(db, manifest, STEP - forgotten).await?;
        }
        Ok(Forgotten { requests: forgotten as u64, more: self.due(db).await?.is_some() })
    }
}

impl Forget {
    /// The manifest that has been due for longest.
    async fn due(&self, db: &mut SqliteConnection) -> Result<Option<i64>, Failure> {
        let row = sqlx::query("SELECT id FROM manifests WHERE due < ? ORDER BY due LIMIT 1")
            .bind(self.before.as_millis())
            .fetch_optional(db)
            .await?;
        row.map(|row| get(&row, 0)).transpose()
    }

    /// Forgets what can be forgotten of a manifest's requests, at most so many.
    async fn look(&self, db: &mut SqliteConnection, manifest: i64, most: usize) -> Result<usize, Failure> {
        let rows = sqlx::query(
            "SELECT id FROM requests WHERE manifest = ? UNION ALL SELECT request FROM members WHERE manifest = ?",
        )
        .bind(manifest)
        .bind(manifest)
        .fetch_all(&mut *db)
        .await?;
        let numbers = rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<i64>, Failure>>()?;
        let mut old = Vec::new();
        let mut touched = vec![manifest];
        let mut old_remain = false;
        // When to look here again; never, where another manifest's end will find what is left.
        let mut again: Option<i64> = None;
        for (number, known) in by_number(db, &numbers).await? {
            match retention::ended(&known) {
                None => {}
                Some(at) if at >= self.before => {
                    again = Some(again.map_or(at.as_millis(), |sooner| sooner.min(at.as_millis())));
                }
                Some(_) if old.len() == most => old_remain = true,
                Some(_) => {
                    old.push(number);
                    touched.extend(known.parts.iter().map(|part| part.manifest.0));
                }
            }
        }
        old.sort_unstable();
        delete(db, "DELETE FROM members WHERE request", &old, "").await?;
        delete(db, "DELETE FROM requests WHERE id", &old, "").await?;
        if !old_remain {
            sqlx::query("UPDATE manifests SET due = ? WHERE id = ?")
                .bind(again)
                .bind(manifest)
                .execute(&mut *db)
                .await?;
        }
        touched.sort_unstable();
        touched.dedup();
        delete(db, "DELETE FROM manifests WHERE id", &touched, WITHOUT_MEMBERS).await?;
        Ok(old.len())
    }
}
