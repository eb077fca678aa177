//! Forgetting, in small steps.
//!
//! Nobody scans for what is old: each manifest falls due at its end, and its requests are looked at then. Of a request
//! that is spread over several, the manifest that ends last finds it complete.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use sqlx::PgConnection;

use super::failure::Failure;
use super::lookup::by_number;
use super::office::Work;
use super::quota;
use super::rows::get;
use crate::domain::moment::Timestamp;
use crate::journal::retention;
use crate::ports::Forgotten;

/// Tells our advisory lock from those of others (`Migf`); with the table's number, for each journal its own.
const FORGETTING: i32 = 0x4d69_6766;

/// One worker forgets at a time.
const ALONE: &str = "SELECT pg_advisory_xact_lock($1, 'migma_eraser_manifests'::regclass::oid::int4)";

/// The most requests that one step forgets.
const STEP: usize = 1000;

/// The most manifests that one step looks at, and about how many emails they may have together.
const LOOKS: i64 = 64;

/// The manifests that have been due for longest, until they have a full call's emails together; at least one.
const DUE: &str = "SELECT id FROM (
        SELECT id, due, SUM(emails) OVER (ORDER BY due, id) - emails AS before FROM (
            SELECT id, due, emails FROM migma_eraser_manifests WHERE due < $1 ORDER BY due, id LIMIT $2
        ) AS oldest
    ) AS counted
    WHERE before < $3 ORDER BY due, id";

/// [`crate::ports::Journal::forget`].
pub(super) struct Forget {
    pub before: Timestamp,
}

#[async_trait]
impl Work for Forget {
    const ACTION: &'static str = "forget what is old";
    type Answer = Forgotten;

    async fn work(&self, db: &mut PgConnection) -> Result<Forgotten, Failure> {
        sqlx::query(ALONE).bind(FORGETTING).execute(&mut *db).await?;
        quota::forget(db, self.before).await?;
        let rows = sqlx::query(DUE)
            .bind(self.before.as_millis())
            .bind(LOOKS)
            .bind(i64::try_from(STEP).unwrap_or(i64::MAX))
            .fetch_all(&mut *db)
            .await?;
        let manifests = rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<i64>, Failure>>()?;
        if manifests.is_empty() {
            return Ok(Forgotten { requests: 0, more: false });
        }
        let forgotten = self.look(db, &manifests).await?;
        let more = sqlx::query("SELECT EXISTS (SELECT FROM migma_eraser_manifests WHERE due < $1)")
            .bind(self.before.as_millis())
            .fetch_one(db)
            .await?;
        Ok(Forgotten { requests: forgotten as u64, more: get(&more, 0)? })
    }
}

/// What is to be done about a manifest that was due.
#[derive(Default)]
struct Look {
    /// When to look here again; never, where another manifest's end will find what is left.
    again: Option<i64>,
    /// Whether old requests of it remain for the next step.
    old_remain: bool,
}

impl Forget {
    /// Forgets what can be forgotten of the manifests' requests.
    async fn look(&self, db: &mut PgConnection, manifests: &[i64]) -> Result<usize, Failure> {
        let members = sqlx::query(
            "SELECT manifest, id FROM migma_eraser_requests WHERE manifest = ANY ($1)
             UNION ALL
             SELECT manifest, request FROM migma_eraser_members WHERE manifest = ANY ($1)
             ORDER BY 1, 2",
        )
        .bind(manifests)
        .fetch_all(&mut *db)
        .await?;
        let members =
            members.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect::<Result<Vec<(i64, i64)>, Failure>>()?;
        let numbers: BTreeSet<i64> = members.iter().map(|(_, request)| *request).collect();
        let known = by_number(db, &numbers.into_iter().collect::<Vec<_>>()).await?;

        let mut looks: BTreeMap<i64, Look> = manifests.iter().map(|manifest| (*manifest, Look::default())).collect();
        let mut old = BTreeSet::new();
        let mut touched: BTreeSet<i64> = manifests.iter().copied().collect();
        for (manifest, request) in members {
            let (Some(known), Some(look)) = (known.get(&request), looks.get_mut(&manifest)) else { continue };
            match retention::ended(known) {
                None => {}
                Some(at) if at >= self.before => {
                    let at = at.as_millis();
                    look.again = Some(look.again.map_or(at, |sooner| sooner.min(at)));
                }
                Some(_) if old.len() == STEP && !old.contains(&request) => look.old_remain = true,
                Some(_) => {
                    old.insert(request);
                    touched.extend(known.parts.iter().map(|part| part.manifest.0));
                }
            }
        }
        looks.retain(|_, look| !look.old_remain);
        erase(db, &old.into_iter().collect::<Vec<_>>(), &looks, &touched.into_iter().collect::<Vec<_>>()).await
    }
}

/// Deletes the requests, notes when to look again, and deletes of the manifests those that have no request left.
async fn erase(
    db: &mut PgConnection,
    old: &[i64],
    looks: &BTreeMap<i64, Look>,
    touched: &[i64],
) -> Result<usize, Failure> {
    sqlx::query("DELETE FROM migma_eraser_members WHERE request = ANY ($1)").bind(old).execute(&mut *db).await?;
    sqlx::query("DELETE FROM migma_eraser_requests WHERE id = ANY ($1)").bind(old).execute(&mut *db).await?;
    sqlx::query(
        "UPDATE migma_eraser_manifests AS manifests SET due = looks.again
         FROM UNNEST($1::bigint[], $2::bigint[]) AS looks (id, again) WHERE manifests.id = looks.id",
    )
    .bind(looks.keys().copied().collect::<Vec<i64>>())
    .bind(looks.values().map(|look| look.again).collect::<Vec<_>>())
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "DELETE FROM migma_eraser_manifests AS manifests WHERE id = ANY ($1) AND ended_as IS NOT NULL
             AND NOT EXISTS (SELECT FROM migma_eraser_requests WHERE manifest = manifests.id)
             AND NOT EXISTS (SELECT FROM migma_eraser_members WHERE manifest = manifests.id)",
    )
    .bind(touched)
    .execute(db)
    .await?;
    Ok(old.len())
}
