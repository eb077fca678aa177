//! The members of a manifest, and what is remembered of each: a whole batch in one statement.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::claims;
use super::failure::Failure;
use super::rows::{bytes, get, spans};
use crate::domain::ids::{ManifestId, RequestDigest};
use crate::domain::manifest::{Member, RequestRecord};
use crate::journal::spans::encode;

/// Requests in the order of their index: two batches with requests in common never wait for each other in a circle.
const REMEMBER: &str = "INSERT INTO migma_eraser_requests
        (digest, content, project, emails, correlation_id, metadata, manifest, ordinal, spans)
    SELECT digest, content, project, emails, correlation_id, metadata, $1, ordinal, spans
    FROM UNNEST($2::bytea[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bigint[], $9::bytea[])
        AS given (digest, content, project, emails, correlation_id, metadata, ordinal, spans)
    ORDER BY digest
    ON CONFLICT (digest) DO NOTHING";

/// Of requests that were remembered before, a further part.
const ADD: &str = "INSERT INTO migma_eraser_members (request, manifest, ordinal, spans)
    SELECT known.id, $1, given.ordinal, given.spans
    FROM UNNEST($2::bytea[], $3::bigint[], $4::bytea[]) AS given (digest, ordinal, spans)
    JOIN migma_eraser_requests AS known ON known.digest = given.digest
    WHERE known.manifest <> $1";

/// Claims a new batch's members, and writes them, and of their requests those that are new. Returns which are lost to
/// others: then nothing may stay of it.
pub(super) async fn claim(
    db: &mut PgConnection,
    manifest: ManifestId,
    members: &[Member],
    requests: &[RequestRecord],
) -> Result<Vec<RequestDigest>, Failure> {
    let given: HashMap<RequestDigest, &RequestRecord> = requests.iter().map(|record| (record.digest, record)).collect();
    let written = remember(db, manifest, members, &given).await?;
    if written < members.len() as u64 {
        let lost = claims::lost(db, manifest, members, &given).await?;
        if !lost.is_empty() {
            return Ok(lost);
        }
        add(db, manifest, members, written).await?;
    }
    Ok(Vec::new())
}

/// Writes the members of a part of a batch: their requests are remembered already, and their emails are the batch's.
pub(super) async fn write(db: &mut PgConnection, manifest: ManifestId, members: &[Member]) -> Result<(), Failure> {
    add(db, manifest, members, 0).await
}

/// Writes those whose requests are new, with these. Returns how many.
async fn remember(
    db: &mut PgConnection,
    manifest: ManifestId,
    members: &[Member],
    given: &HashMap<RequestDigest, &RequestRecord>,
) -> Result<u64, Failure> {
    let new: Vec<(i64, &Member, &RequestRecord)> =
        (0i64..).zip(members).filter_map(|(at, member)| Some((at, member, *given.get(&member.request)?))).collect();
    if new.is_empty() {
        return Ok(0);
    }
    let owned = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().to_vec());
    let column = |of: fn(&RequestRecord) -> Vec<u8>| new.iter().map(|(_, _, r)| of(r)).collect::<Vec<_>>();
    let done = sqlx::query(REMEMBER)
        .bind(manifest.0)
        .bind(column(|record| record.digest.0.to_vec()))
        .bind(column(|record| record.content.0.to_vec()))
        .bind(column(|record| record.project.as_str().as_bytes().to_vec()))
        .bind(new.iter().map(|(_, _, record)| i64::from(record.emails)).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, _, record)| owned(&record.correlation_id)).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, _, record)| owned(&record.metadata)).collect::<Vec<_>>())
        .bind(new.iter().map(|(at, _, _)| *at).collect::<Vec<_>>())
        .bind(new.iter().map(|(_, member, _)| encode(&member.spans)).collect::<Vec<_>>())
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

/// Writes the rest, with which all must be there.
async fn add(db: &mut PgConnection, manifest: ManifestId, members: &[Member], written: u64) -> Result<(), Failure> {
    let added = sqlx::query(ADD)
        .bind(manifest.0)
        .bind(members.iter().map(|member| member.request.0.to_vec()).collect::<Vec<_>>())
        .bind((0i64..).zip(members).map(|(at, _)| at).collect::<Vec<_>>())
        .bind(members.iter().map(|member| encode(&member.spans)).collect::<Vec<_>>())
        .execute(db)
        .await?
        .rows_affected();
    if written + added == members.len() as u64 {
        return Ok(());
    }
    Err(Failure::Refused("a batch names a request twice, or one that is neither remembered nor given"))
}

/// Reads the members of these manifests, each manifest's in the order in which they were written.
pub(super) async fn read(
    db: &mut PgConnection,
    manifests: &[i64],
) -> Result<HashMap<ManifestId, Vec<Member>>, Failure> {
    let rows = sqlx::query(
        "SELECT manifest, digest, spans, ordinal FROM migma_eraser_requests WHERE manifest = ANY ($1)
         UNION ALL
         SELECT members.manifest, requests.digest, members.spans, members.ordinal
         FROM migma_eraser_members AS members
         JOIN migma_eraser_requests AS requests ON requests.id = members.request
         WHERE members.manifest = ANY ($1)
         ORDER BY 1, 4",
    )
    .bind(manifests)
    .fetch_all(db)
    .await?;
    let mut members: HashMap<ManifestId, Vec<Member>> = HashMap::with_capacity(manifests.len());
    for row in &rows {
        let member = Member { request: RequestDigest(bytes(row, 1)?), spans: spans(row, 2)? };
        members.entry(ManifestId(get(row, 0)?)).or_default().push(member);
    }
    Ok(members)
}
