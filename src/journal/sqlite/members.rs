//! The members of a manifest, and what is remembered of each.

use std::collections::HashMap;

use sqlx::SqliteConnection;

use super::Failure;
use super::rows::{bytes, get, insert, select};
use crate::domain::ids::{ManifestId, RequestDigest};
use crate::domain::manifest::{Member, RequestRecord};
use crate::journal::spans;

/// One row of either table.
struct Entry<'a> {
    ordinal: i64,
    member: &'a Member,
}

/// Writes a manifest's members, and of their requests those that are new.
pub(super) async fn write(
    db: &mut SqliteConnection,
    manifest: ManifestId,
    members: &[Member],
    requests: &[RequestRecord],
) -> Result<(), Failure> {
    let given: HashMap<RequestDigest, &RequestRecord> = requests.iter().map(|record| (record.digest, record)).collect();
    let entries = || (0i64..).zip(members).map(|(ordinal, member)| Entry { ordinal, member });
    let new: Vec<(Entry<'_>, &RequestRecord)> = entries()
        .filter_map(|entry| Some((given.get(&entry.member.request).copied()?, entry)))
        .map(|(r, e)| (e, r))
        .collect();
    let inserted = insert(
        db,
        (
            "requests (digest, content, project, emails, correlation_id, metadata, manifest, ordinal, spans)",
            "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
            "ON CONFLICT (digest) DO NOTHING",
        ),
        &new,
        |query, (entry, record)| {
            query
                .bind(record.digest.0.to_vec())
                .bind(record.content.0.to_vec())
                .bind(record.project.as_str().to_owned())
                .bind(record.emails)
                .bind(record.correlation_id.clone())
                .bind(record.metadata.clone())
                .bind(manifest.0)
                .bind(entry.ordinal)
                .bind(spans::encode(&entry.member.spans))
        },
    )
    .await?;
    if inserted == members.len() as u64 {
        return Ok(());
    }

    // Some are remembered from before: theirs is a further part.
    let digests: Vec<&[u8]> = members.iter().map(|member| &member.request.0[..]).collect();
    let mut remembered = HashMap::new();
    for row in select(db, "SELECT digest, id, manifest FROM requests WHERE digest", &digests).await? {
        remembered.insert(RequestDigest(bytes(&row, 0)?), (get::<i64>(&row, 1)?, get::<i64>(&row, 2)?));
    }
    let mut further = Vec::new();
    for entry in entries() {
        match remembered.get(&entry.member.request) {
            None => return Err(Failure::Refused("a batch names a request that is neither remembered nor given")),
            Some((_, first)) if *first == manifest.0 => {}
            Some((request, _)) => further.push((entry, *request)),
        }
    }
    if inserted + further.len() as u64 != members.len() as u64 {
        return Err(Failure::Refused("a batch names a request twice"));
    }
    insert(
        db,
        ("members (request, manifest, ordinal, spans)", "(?, ?, ?, ?)", ""),
        &further,
        |query, (entry, request)| {
            query.bind(*request).bind(manifest.0).bind(entry.ordinal).bind(spans::encode(&entry.member.spans))
        },
    )
    .await?;
    Ok(())
}

/// Reads a manifest's members, in the order in which they were written.
pub(super) async fn read(db: &mut SqliteConnection, manifest: ManifestId) -> Result<Vec<Member>, Failure> {
    let rows = sqlx::query(
        "SELECT digest, spans, ordinal FROM requests WHERE manifest = ?
         UNION ALL
         SELECT requests.digest, members.spans, members.ordinal
         FROM members JOIN requests ON requests.id = members.request WHERE members.manifest = ?
         ORDER BY ordinal",
    )
    .bind(manifest.0)
    .bind(manifest.0)
    .fetch_all(db)
    .await?;
    let member = |row| {
        let spans = spans::decode(get(row, 1)?).ok_or(Failure::Damaged("spans that cannot be read"))?;
        Ok(Member { request: RequestDigest(bytes(row, 0)?), spans })
    };
    rows.iter().map(member).collect()
}
