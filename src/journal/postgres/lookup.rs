//! What is remembered of a request: all of it in one statement, as of one moment.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::failure::Failure;
use super::office::Work;
use super::rows::{bytes, conclusion, fit, get, project, spans, text};
use crate::domain::ids::{ContentDigest, ManifestId, RequestDigest};
use crate::domain::key::KeyBase;
use crate::domain::manifest::{KnownPart, KnownRequest, RequestRecord};

/// A row for each part; what is remembered of the request itself stands with its first part alone.
macro_rules! parts_of {
    ($which:literal) => {
        concat!(
            "SELECT requests.id, parts.manifest, parts.spans, manifests.key_base,
                 ended_as, ended_at, ended_generation, http_status, attempts, replayed, request_id,
                 not_found, uncertain, count_mismatch, fail_code, api_code, may_have_taken_effect,
                 parts.first, requests.digest, requests.content, requests.project, requests.emails,
                 CASE WHEN parts.first THEN requests.correlation_id END, CASE WHEN parts.first THEN requests.metadata END
             FROM migma_eraser_requests AS requests
             CROSS JOIN LATERAL (
                 SELECT requests.manifest, requests.spans, true AS first
                 UNION ALL
                 SELECT members.manifest, members.spans, false
                 FROM migma_eraser_members AS members WHERE members.request = requests.id
             ) AS parts
             JOIN migma_eraser_manifests AS manifests ON manifests.id = parts.manifest
             WHERE requests.",
            $which,
            " = ANY ($1) ORDER BY requests.id, parts.manifest"
        )
    };
}

/// [`crate::ports::Journal::lookup`].
pub(super) struct Lookup {
    /// Each once.
    digests: Vec<Vec<u8>>,
}

impl Lookup {
    pub(super) fn new(requests: &[RequestDigest]) -> Self {
        let mut digests: Vec<_> = requests.iter().map(|digest| digest.0.to_vec()).collect();
        digests.sort_unstable();
        digests.dedup();
        Self { digests }
    }
}

#[async_trait]
impl Work for Lookup {
    const ACTION: &'static str = "look requests up";
    type Answer = HashMap<RequestDigest, KnownRequest>;

    async fn work(&self, db: &mut PgConnection) -> Result<Self::Answer, Failure> {
        let rows = sqlx::query(parts_of!("digest")).bind(&self.digests).fetch_all(db).await?;
        Ok(known(&rows)?.into_values().map(|known| (known.record.digest, known)).collect())
    }
}

/// What is remembered of requests, by their numbers in the database.
pub(super) async fn by_number(db: &mut PgConnection, numbers: &[i64]) -> Result<HashMap<i64, KnownRequest>, Failure> {
    let rows = sqlx::query(parts_of!("id")).bind(numbers).fetch_all(db).await?;
    known(&rows)
}

fn known(rows: &[PgRow]) -> Result<HashMap<i64, KnownRequest>, Failure> {
    let mut parts: HashMap<i64, Vec<KnownPart>> = HashMap::with_capacity(rows.len());
    let mut records = HashMap::with_capacity(rows.len());
    for row in rows {
        let number: i64 = get(row, 0)?;
        parts.entry(number).or_default().push(KnownPart {
            manifest: ManifestId(get(row, 1)?),
            spans: spans(row, 2)?,
            key: KeyBase(bytes(row, 3)?),
            conclusion: conclusion(row, 4)?,
        });
        if get(row, 17)? {
            records.insert(number, record(row)?);
        }
    }
    let request = |(number, record)| {
        let parts = parts.remove(&number).unwrap_or_default();
        (number, KnownRequest { record, parts })
    };
    Ok(records.into_iter().map(request).collect())
}

fn record(row: &PgRow) -> Result<RequestRecord, Failure> {
    Ok(RequestRecord {
        digest: RequestDigest(bytes(row, 18)?),
        content: ContentDigest(bytes(row, 19)?),
        project: project(row, 20)?,
        emails: fit(row, 21)?,
        correlation_id: text(row, 22)?,
        metadata: text(row, 23)?,
    })
}
