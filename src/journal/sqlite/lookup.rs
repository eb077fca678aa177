//! What is remembered of a request.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::Failure;
use super::clerk::Work;
use super::rows::{CONCLUSION, bytes, conclusion, fit, get, select};
use crate::domain::ids::{ContentDigest, ManifestId, ProjectId, RequestDigest};
use crate::domain::key::KeyBase;
use crate::domain::manifest::{Conclusion, KnownPart, KnownRequest, RequestRecord};
use crate::journal::spans;

const REQUEST: &str =
    "SELECT id, manifest, spans, digest, content, project, emails, correlation_id, metadata FROM requests WHERE ";

/// [`crate::ports::Journal::lookup`].
pub(super) struct Lookup {
    /// Each once, in the order of the index.
    digests: Vec<RequestDigest>,
}

impl Lookup {
    pub(super) fn new(requests: &[RequestDigest]) -> Self {
        let mut digests = requests.to_vec();
        digests.sort_unstable();
        digests.dedup();
        Self { digests }
    }
}

#[async_trait]
impl Work for Lookup {
    const ACTION: &'static str = "look requests up";
    type Answer = HashMap<RequestDigest, KnownRequest>;

    async fn work(&self, db: &mut SqliteConnection) -> Result<Self::Answer, Failure> {
        let keys: Vec<&[u8]> = self.digests.iter().map(|digest| &digest.0[..]).collect();
        let rows = select(db, &format!("{REQUEST} digest"), &keys).await?;
        let known = with_parts(db, rows).await?;
        Ok(known.into_values().map(|known| (known.record.digest, known)).collect())
    }
}

/// What is remembered of requests, by their numbers in the file.
pub(super) async fn by_number(
    db: &mut SqliteConnection,
    numbers: &[i64],
) -> Result<HashMap<i64, KnownRequest>, Failure> {
    let rows = select(db, &format!("{REQUEST} id"), numbers).await?;
    with_parts(db, rows).await
}

async fn with_parts(db: &mut SqliteConnection, rows: Vec<SqliteRow>) -> Result<HashMap<i64, KnownRequest>, Failure> {
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        found.insert(get::<i64>(row, 0)?, (record(row)?, vec![part(row)?]));
    }
    let mut numbers: Vec<i64> = found.keys().copied().collect();
    numbers.sort_unstable();
    for row in select(db, "SELECT request, manifest, spans FROM members WHERE request", &numbers).await? {
        if let Some((_, parts)) = found.get_mut(&get::<i64>(&row, 0)?) {
            parts.push(part(&row)?);
        }
    }
    let mut manifests: Vec<i64> = found.values().flat_map(|(_, parts)| parts).map(|part| part.0.0).collect();
    manifests.sort_unstable();
    manifests.dedup();
    let ends = ends(db, &manifests).await?;
    let known = |(record, mut parts): (RequestRecord, Vec<Part>)| {
        parts.sort_unstable_by_key(|part| part.0);
        let parts = parts.into_iter().map(|(manifest, spans)| {
            let (key, conclusion) = ends.get(&manifest).ok_or(Failure::Damaged("a part of no manifest"))?.clone();
            Ok(KnownPart { manifest, key, spans, conclusion })
        });
        Ok::<_, Failure>(KnownRequest { record, parts: parts.collect::<Result<_, Failure>>()? })
    };
    found.into_iter().map(|(number, request)| Ok((number, known(request)?))).collect()
}

type Part = (ManifestId, Vec<crate::domain::manifest::Span>);

fn part(row: &SqliteRow) -> Result<Part, Failure> {
    let spans = spans::decode(get(row, 2)?).ok_or(Failure::Damaged("spans that cannot be read"))?;
    Ok((ManifestId(get(row, 1)?), spans))
}

fn record(row: &SqliteRow) -> Result<RequestRecord, Failure> {
    Ok(RequestRecord {
        digest: RequestDigest(bytes(row, 3)?),
        content: ContentDigest(bytes(row, 4)?),
        project: ProjectId::parse(get(row, 5)?).ok_or(Failure::Damaged("a project without a name"))?,
        emails: fit(get(row, 6)?)?,
        correlation_id: get(row, 7)?,
        metadata: get(row, 8)?,
    })
}

async fn ends(
    db: &mut SqliteConnection,
    manifests: &[i64],
) -> Result<HashMap<ManifestId, (KeyBase, Option<Conclusion>)>, Failure> {
    let rows = select(db, &format!("SELECT id, key_base, {CONCLUSION} FROM manifests WHERE id"), manifests).await?;
    rows.iter().map(|row| Ok((ManifestId(get(row, 0)?), (KeyBase(bytes(row, 1)?), conclusion(row, 2)?)))).collect()
}
