//! Rows to values and back.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Decode, Postgres, Row as _, Type};

use super::failure::Failure;
use crate::domain::ids::ProjectId;
use crate::domain::manifest::{Conclusion, End, FailCode, Positions, Span};
use crate::domain::moment::Timestamp;
use crate::journal::spans;

/// A statement with what it takes.
pub(super) type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

const SPLIT: i64 = 0;
const ANSWERED: i64 = 1;
const FAILED: i64 = 2;

/// A column by its place.
pub(super) fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, at: usize) -> Result<T, Failure> {
    Ok(row.try_get(at)?)
}

/// A number that must fit.
pub(super) fn fit<T: TryFrom<i64>>(row: &PgRow, at: usize) -> Result<T, Failure> {
    T::try_from(get::<i64>(row, at)?).map_err(|_| Failure::Damaged("a number that is out of range"))
}

/// A column of so many bytes.
pub(super) fn bytes<const N: usize>(row: &PgRow, at: usize) -> Result<[u8; N], Failure> {
    get::<&[u8]>(row, at)?.try_into().map_err(|_| Failure::Damaged("a digest of the wrong length"))
}

/// A text that is kept as bytes.
pub(super) fn text(row: &PgRow, at: usize) -> Result<Option<String>, Failure> {
    let text = get::<Option<Vec<u8>>>(row, at)?.map(String::from_utf8).transpose();
    text.map_err(|_| Failure::Damaged("a text that is none"))
}

/// A project's name.
pub(super) fn project(row: &PgRow, at: usize) -> Result<ProjectId, Failure> {
    let name = text(row, at)?.as_deref().and_then(ProjectId::parse);
    name.ok_or(Failure::Damaged("a project without a name"))
}

/// A moment, where there is one.
pub(super) fn moment(row: &PgRow, at: usize) -> Result<Option<Timestamp>, Failure> {
    Ok(get::<Option<i64>>(row, at)?.map(Timestamp::from_millis))
}

/// A member's spans.
pub(super) fn spans(row: &PgRow, at: usize) -> Result<Vec<Span>, Failure> {
    spans::decode(get(row, at)?).ok_or(Failure::Damaged("spans that cannot be read"))
}

/// Binds a conclusion: its 13 values, in the order in which [`conclusion`] reads them.
pub(super) fn bind_conclusion<'q>(query: Query<'q>, conclusion: &Conclusion) -> Query<'q> {
    let owned = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().to_vec());
    let ended_as = match conclusion.end {
        End::Split => SPLIT,
        End::Answered { .. } => ANSWERED,
        End::Failed { .. } => FAILED,
    };
    let query = query
        .bind(ended_as)
        .bind(conclusion.at.as_millis())
        .bind(i64::from(conclusion.generation))
        .bind(conclusion.http_status.map(i64::from))
        .bind(i64::from(conclusion.attempts))
        .bind(conclusion.replayed)
        .bind(owned(&conclusion.request_id));
    let (not_found, uncertain, count_mismatch) = match &conclusion.end {
        End::Answered { not_found, uncertain, count_mismatch } => {
            (Some(not_found.as_bytes().to_vec()), Some(*uncertain), Some(*count_mismatch))
        }
        End::Failed { .. } | End::Split => (None, None, None),
    };
    let (code, api_code, may_have_taken_effect) = match &conclusion.end {
        End::Failed { code, api_code, may_have_taken_effect } => {
            (Some(code.as_str()), owned(api_code), Some(*may_have_taken_effect))
        }
        End::Answered { .. } | End::Split => (None, None, None),
    };
    query.bind(not_found).bind(uncertain).bind(count_mismatch).bind(code).bind(api_code).bind(may_have_taken_effect)
}

/// Reads a conclusion, the first of its columns at `at`; `None` for an open manifest.
pub(super) fn conclusion(row: &PgRow, at: usize) -> Result<Option<Conclusion>, Failure> {
    let Some(ended_as) = get::<Option<i64>>(row, at)? else { return Ok(None) };
    let end = match ended_as {
        SPLIT => End::Split,
        ANSWERED => End::Answered {
            not_found: Positions::from_bytes(get(row, at + 7)?),
            uncertain: get(row, at + 8)?,
            count_mismatch: get(row, at + 9)?,
        },
        FAILED => {
            let code: &str = get(row, at + 10)?;
            let code = FailCode::ALL.into_iter().find(|known| known.as_str() == code);
            End::Failed {
                code: code.ok_or(Failure::Damaged("an unknown failure code"))?,
                api_code: text(row, at + 11)?,
                may_have_taken_effect: get(row, at + 12)?,
            }
        }
        _ => return Err(Failure::Damaged("an unknown kind of end")),
    };
    let http_status = if get::<Option<i64>>(row, at + 3)?.is_some() { Some(fit(row, at + 3)?) } else { None };
    Ok(Some(Conclusion {
        end,
        at: Timestamp::from_millis(get(row, at + 1)?),
        generation: fit(row, at + 2)?,
        http_status,
        attempts: fit(row, at + 4)?,
        replayed: get(row, at + 5)?,
        request_id: text(row, at + 6)?,
    }))
}
