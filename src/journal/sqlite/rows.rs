//! Rows to values and back; statements that take many values at once.

use sqlx::encode::Encode;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Decode, Row as _, Sqlite, SqliteConnection, Type};

use super::Failure;
use crate::domain::manifest::{Conclusion, End, FailCode, Positions};
use crate::domain::moment::Timestamp;

/// A statement with what it takes.
pub(super) type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// The most rows or keys in one statement; far below `SQLite`'s 32,766 values.
const LARGEST: usize = 256;

/// The columns that [`conclusion`] reads, in its order.
pub(super) const CONCLUSION: &str = "ended_as, ended_at, ended_generation, http_status, attempts, replayed, request_id, \
     not_found, uncertain, count_mismatch, fail_code, api_code, may_have_taken_effect";

const SPLIT: i64 = 0;
const ANSWERED: i64 = 1;
const FAILED: i64 = 2;

/// A column by its place.
pub(super) fn get<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(row: &'r SqliteRow, at: usize) -> Result<T, Failure> {
    Ok(row.try_get(at)?)
}

/// A number that must fit.
pub(super) fn fit<T: TryFrom<i64>>(number: i64) -> Result<T, Failure> {
    T::try_from(number).map_err(|_| Failure::Damaged("a number that is out of range"))
}

/// A column of so many bytes.
pub(super) fn bytes<const N: usize>(row: &SqliteRow, at: usize) -> Result<[u8; N], Failure> {
    get::<&[u8]>(row, at)?.try_into().map_err(|_| Failure::Damaged("a digest of the wrong length"))
}

/// Pieces whose lengths are powers of two, so that few statements serve all lengths and stay prepared.
pub(super) fn pieces<T>(mut items: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let len = LARGEST.min(1 << items.len().checked_ilog2()?);
        let (piece, rest) = items.split_at(len);
        items = rest;
        Some(piece)
    })
}

/// Inserts many rows: `values` stands for one, such as `(?, ?)`, and `bind` gives its values. How many went in.
///
/// `OR FAIL`, for whoever fails takes all that it did back anyway: without it `SQLite` would keep a copy of every page that
/// the statement touches, to take that alone back.
pub(super) async fn insert<T: Sync>(
    db: &mut SqliteConnection,
    (into, values, rest): (&'static str, &'static str, &'static str),
    items: &[T],
    bind: impl for<'q> Fn(Query<'q>, &T) -> Query<'q> + Sync,
) -> Result<u64, Failure> {
    let mut inserted = 0;
    for piece in pieces(items) {
        let rows = vec![values; piece.len()].join(", ");
        let mut query = sqlx::query(AssertSqlSafe(format!("INSERT OR FAIL INTO {into} VALUES {rows} {rest}")));
        for item in piece {
            query = bind(query, item);
        }
        inserted += query.execute(&mut *db).await?.rows_affected();
    }
    Ok(inserted)
}

/// A statement for each piece of the keys: `head` ends before `IN`.
fn with_keys<'q, 'k, K>(head: &str, piece: &[K], tail: &str) -> Query<'q>
where
    K: Copy + Encode<'k, Sqlite> + Type<Sqlite>,
{
    let marks = vec!["?"; piece.len()].join(", ");
    let mut query = sqlx::query(AssertSqlSafe(format!("{head} IN ({marks}) {tail}")));
    for key in piece {
        query = query.bind(*key);
    }
    query
}

/// The rows of a query for many keys.
pub(super) async fn select<'k, K>(db: &mut SqliteConnection, head: &str, keys: &[K]) -> Result<Vec<SqliteRow>, Failure>
where
    K: Copy + Encode<'k, Sqlite> + Type<Sqlite> + Send + Sync,
{
    let mut rows = Vec::with_capacity(keys.len());
    for piece in pieces(keys) {
        rows.extend(with_keys(head, piece, "").fetch_all(&mut *db).await?);
    }
    Ok(rows)
}

/// Deletes by many keys.
pub(super) async fn delete(db: &mut SqliteConnection, head: &str, keys: &[i64], tail: &str) -> Result<(), Failure> {
    for piece in pieces(keys) {
        with_keys(head, piece, tail).execute(&mut *db).await?;
    }
    Ok(())
}

/// Binds a conclusion to the columns of [`CONCLUSION`].
pub(super) fn bind_conclusion<'q>(query: Query<'q>, conclusion: &Conclusion) -> Query<'q> {
    let ended_as = match conclusion.end {
        End::Split => SPLIT,
        End::Answered { .. } => ANSWERED,
        End::Failed { .. } => FAILED,
    };
    let query = query
        .bind(ended_as)
        .bind(conclusion.at.as_millis())
        .bind(conclusion.generation)
        .bind(conclusion.http_status)
        .bind(conclusion.attempts)
        .bind(conclusion.replayed)
        .bind(conclusion.request_id.clone());
    let (not_found, uncertain, count_mismatch) = match &conclusion.end {
        End::Answered { not_found, uncertain, count_mismatch } => {
            (Some(not_found.as_bytes().to_vec()), Some(*uncertain), Some(*count_mismatch))
        }
        End::Failed { .. } | End::Split => (None, None, None),
    };
    let (code, api_code, may_have_taken_effect) = match &conclusion.end {
        End::Failed { code, api_code, may_have_taken_effect } => {
            (Some(code.as_str()), api_code.clone(), Some(*may_have_taken_effect))
        }
        End::Answered { .. } | End::Split => (None, None, None),
    };
    query.bind(not_found).bind(uncertain).bind(count_mismatch).bind(code).bind(api_code).bind(may_have_taken_effect)
}

/// Reads the columns of [`CONCLUSION`], the first of them at `at`; `None` for an open manifest.
pub(super) fn conclusion(row: &SqliteRow, at: usize) -> Result<Option<Conclusion>, Failure> {
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
                api_code: get(row, at + 11)?,
                may_have_taken_effect: get(row, at + 12)?,
            }
        }
        _ => return Err(Failure::Damaged("an unknown kind of end")),
    };
    Ok(Some(Conclusion {
        end,
        at: Timestamp::from_millis(get(row, at + 1)?),
        generation: fit(get(row, at + 2)?)?,
        http_status: get::<Option<i64>>(row, at + 3)?.map(fit).transpose()?,
        attempts: fit(get(row, at + 4)?)?,
        replayed: get(row, at + 5)?,
        request_id: get(row, at + 6)?,
    }))
}
