//! Claims: no email of a request is in two batches, whichever workers plan them.
//!
//! A request that is new is claimed by its row, which one transaction alone can insert. One that is remembered already, a
//! long request or a twin's, is held until the commit, and what of it stands in batches is compared with what is to join.
//! A batch is claimed whole or not at all.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;

use super::failure::Failure;
use super::rows::{bytes, get, spans};
use crate::domain::ids::{ContentDigest, ManifestId, RequestDigest};
use crate::domain::manifest::{Member, RequestRecord, Span};

/// In the order of their index, as they are inserted: two batches with requests in common never wait in a circle.
const HOLD: &str = "SELECT id, digest, content, project FROM migma_eraser_requests
     WHERE digest = ANY ($1) AND manifest <> $2 ORDER BY digest FOR UPDATE";

/// What of them stands in batches: asked once they are held, so that nothing joins in between.
const PARTS: &str = "SELECT id, spans FROM migma_eraser_requests WHERE id = ANY ($1)
     UNION ALL
     SELECT request, spans FROM migma_eraser_members WHERE request = ANY ($1)";

/// Which of the members that this manifest did not bring in itself cannot join it, for others have had their emails, or
/// their name. The rest are held until the commit.
pub(super) async fn lost(
    db: &mut PgConnection,
    manifest: ManifestId,
    members: &[Member],
    given: &HashMap<RequestDigest, &RequestRecord>,
) -> Result<Vec<RequestDigest>, Failure> {
    let rows = sqlx::query(HOLD)
        .bind(members.iter().map(|member| member.request.0.to_vec()).collect::<Vec<_>>())
        .bind(manifest.0)
        .fetch_all(&mut *db)
        .await?;
    let mut numbers = HashMap::with_capacity(rows.len());
    let mut lost = HashSet::new();
    for row in &rows {
        let digest = RequestDigest(bytes(row, 1)?);
        numbers.insert(get::<i64>(row, 0)?, digest);
        let is_another = |record: &&RequestRecord| -> Result<bool, Failure> {
            Ok(record.content != ContentDigest(bytes(row, 2)?)
                || record.project.as_str().as_bytes() != get::<&[u8]>(row, 3)?)
        };
        if given.get(&digest).map(is_another).transpose()?.unwrap_or(false) {
            lost.insert(digest);
        }
    }
    let wanted: HashMap<RequestDigest, &[Span]> =
        members.iter().map(|member| (member.request, &member.spans[..])).collect();
    let parts = sqlx::query(PARTS).bind(numbers.keys().copied().collect::<Vec<i64>>()).fetch_all(db).await?;
    for row in &parts {
        let Some(digest) = numbers.get(&get(row, 0)?) else { continue };
        let taken = spans(row, 1)?;
        if wanted.get(digest).is_some_and(|wanted| overlap(wanted, &taken)) {
            lost.insert(*digest);
        }
    }
    Ok(lost.into_iter().collect())
}

/// Whether some email of the request is in both; each is in order of `request_at`.
fn overlap(a: &[Span], b: &[Span]) -> bool {
    let end = |span: &Span| u64::from(span.request_at) + u64::from(span.len);
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        if end(x) <= u64::from(y.request_at) {
            a.next();
        } else if end(y) <= u64::from(x.request_at) {
            b.next();
        } else {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(parts: &[(u32, u16)]) -> Vec<Span> {
        parts.iter().map(|(request_at, len)| Span { request_at: *request_at, body_at: 0, len: *len }).collect()
    }

    #[test]
    fn emails_overlap_only_where_one_is_in_both() {
        let a = spans(&[(0, 2), (10, 5)]);
        assert!(!overlap(&a, &spans(&[(2, 8), (15, 1)])));
        assert!(!overlap(&a, &[]));
        assert!(overlap(&a, &spans(&[(1, 1)])));
        assert!(overlap(&a, &spans(&[(2, 1), (14, 100)])));
        assert!(overlap(&spans(&[(u32::MAX, 1)]), &spans(&[(0, 1), (u32::MAX, 1)])));
    }
}
