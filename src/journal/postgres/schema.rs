//! The tables, and how an older journal comes to have them: the one place for both.
//!
//! All are named `migma_eraser_*` and stand in the schema that comes first in the search path. As in the SQLite file, a
//! request that stands in one batch alone takes one row, and an open manifest is one that has a row in
//! `migma_eraser_bodies`. Text that others wrote is kept as bytes: `PostgreSQL`'s text cannot hold every string.
//!
//! Workers that share a journal come up to date one by one: from version 3 on, those of the version before are at work
//! while a newer one migrates, and what they do has to stay sound.

use sqlx::{Connection as _, PgConnection};

use super::failure::{Failure, Unusable};
use super::rows::get;

/// Tells our advisory locks from those of others (`Migm`, `Migo`); with the schema's number, for each schema its own.
const MIGRATING: i32 = 0x4d69_676d;
const OWNING: i32 = 0x4d69_676f;

/// The oldest server that serves.
const OLDEST: i64 = 130_000;

/// The first version that knows pauses.
pub(super) const WITH_PAUSES: i64 = 2;

/// The first version that knows workers.
pub(super) const WITH_WORKERS: i64 = 3;

/// What makes each version of the schema out of the one before.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE migma_eraser_journal (
        sole boolean PRIMARY KEY DEFAULT true CHECK (sole),
        version bigint NOT NULL,
        epoch bigint NOT NULL                 -- whose the journal is; of no use since version 3
    );
    INSERT INTO migma_eraser_journal (version, epoch) VALUES (0, 0);

    CREATE TABLE migma_eraser_manifests (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- never used twice
        parent bigint,                        -- what it was split from
        root bigint,                          -- NULL: itself
        since bigint NOT NULL,                -- when it was recorded
        project bytea NOT NULL,
        key_base bytea NOT NULL,
        emails bigint NOT NULL,
        generation bigint NOT NULL,
        first_call_at bigint,
        first_call_fingerprint bytea,
        lost boolean NOT NULL,
        troubled_since bigint,
        due bigint,                           -- when to look again whether its requests can be forgotten
        ended_as bigint,                      -- NULL: open; 0 split, 1 answered, 2 failed
        ended_at bigint,
        ended_generation bigint,
        http_status bigint,
        attempts bigint,
        replayed boolean,
        request_id bytea,
        not_found bytea,
        uncertain boolean,
        count_mismatch boolean,
        fail_code text,
        api_code bytea,
        may_have_taken_effect boolean
    );
    CREATE INDEX migma_eraser_manifests_due ON migma_eraser_manifests (due) WHERE due IS NOT NULL;
    CREATE UNIQUE INDEX migma_eraser_manifests_open_key ON migma_eraser_manifests (key_base) WHERE ended_as IS NULL;
    CREATE INDEX migma_eraser_manifests_parent ON migma_eraser_manifests (parent) WHERE parent IS NOT NULL;

    CREATE TABLE migma_eraser_bodies (
        manifest bigint PRIMARY KEY,
        body bytea NOT NULL
    );

    CREATE TABLE migma_eraser_requests (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        digest bytea NOT NULL,
        content bytea NOT NULL,
        project bytea NOT NULL,
        emails bigint NOT NULL,
        correlation_id bytea,
        metadata bytea,
        manifest bigint NOT NULL,             -- the first that carried it
        ordinal bigint NOT NULL,              -- its place among that manifest's members
        spans bytea NOT NULL
    );
    CREATE UNIQUE INDEX migma_eraser_requests_digest ON migma_eraser_requests (digest);
    CREATE INDEX migma_eraser_requests_manifest ON migma_eraser_requests (manifest);

    CREATE TABLE migma_eraser_members (
        request bigint NOT NULL,
        manifest bigint NOT NULL,
        ordinal bigint NOT NULL,
        spans bytea NOT NULL,
        PRIMARY KEY (request, manifest)
    );
    CREATE INDEX migma_eraser_members_manifest ON migma_eraser_members (manifest);

    CREATE TABLE migma_eraser_calls (
        minute bigint PRIMARY KEY,            -- since the epoch
        calls bigint NOT NULL
    );
",
    "
    CREATE TABLE migma_eraser_pauses (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        project bytea,                        -- NULL: everything
        since bigint NOT NULL,
        until bigint,                         -- NULL: in force
        reason bytea
    );
    CREATE UNIQUE INDEX migma_eraser_pauses_in_force ON migma_eraser_pauses (COALESCE(project, '')) WHERE until IS NULL;
",
    WORKERS,
    RATE,
];

/// Several workers. Who wrote by the schema before writes no more.
const WORKERS: &str = "
    CREATE TABLE migma_eraser_workers (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- never used twice
        until timestamptz NOT NULL,           -- when its lease runs out; infinity: it has the journal alone
        afterglow bigint NOT NULL,            -- how long its calls may last after that, in milliseconds
        home text,                            -- from where its process can be seen; NULL: that is not known
        process text
    );
    ALTER TABLE migma_eraser_manifests
        ADD COLUMN owner bigint,              -- whose it is while it is open
        ADD COLUMN inherited boolean NOT NULL DEFAULT false; -- whether from a worker that is gone
    UPDATE migma_eraser_journal SET epoch = epoch + 1;
";

/// One rate for all workers.
const RATE: &str = "
    CREATE TABLE migma_eraser_rate (
        sole boolean PRIMARY KEY DEFAULT true CHECK (sole),
        next bigint NOT NULL                  -- the next turn that nobody has: microseconds since the epoch
    );
    INSERT INTO migma_eraser_rate (next) VALUES (0);
";

/// The schema that the tables stand in: its number, as `PostgreSQL` knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(i32);

/// Looks at the server, and where in it the tables belong.
pub(super) async fn place(db: &mut PgConnection) -> Result<Place, Failure> {
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::bigint, current_setting('server_version'), pg_is_in_recovery(),
             (SELECT oid::int4 FROM pg_namespace WHERE nspname = current_schema())",
    )
    .fetch_one(db)
    .await?;
    if get::<i64>(&row, 0)? < OLDEST {
        return Err(Unusable::TooOld(get(&row, 1)?).into());
    }
    if get(&row, 2)? {
        return Err(Failure::Standby);
    }
    get::<Option<i32>>(&row, 3)?.map(Place).ok_or_else(|| Unusable::NoSchema.into())
}

/// With whom a journal is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// Nobody.
    Alone,
    /// Others who have it so too.
    Others,
}

/// Takes the journal for as long as the connection lives; whether it was free.
pub(super) async fn take(db: &mut PgConnection, place: Place, company: Company) -> Result<bool, Failure> {
    let take = match company {
        Company::Alone => "SELECT pg_try_advisory_lock($1, $2)",
        Company::Others => "SELECT pg_try_advisory_lock_shared($1, $2)",
    };
    let row = sqlx::query(take).bind(OWNING).bind(place.0).fetch_one(db).await?;
    get(&row, 0)
}

/// [`take`], for a connection that may have it already: it is never taken twice by one.
pub(super) async fn hold(db: &mut PgConnection, place: Place, company: Company) -> Result<bool, Failure> {
    let row = sqlx::query(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()
             AND classid::int4 = $1 AND objid::int4 = $2 AND objsubid = 2)",
    )
    .bind(OWNING)
    .bind(place.0)
    .fetch_one(&mut *db)
    .await?;
    if get(&row, 0)? { Ok(true) } else { take(db, place, company).await }
}

/// Whether tables could be made.
pub(super) async fn may_create(db: &mut PgConnection) -> Result<(), Failure> {
    let row = sqlx::query("SELECT has_schema_privilege(current_schema(), 'CREATE')").fetch_one(db).await?;
    if get(&row, 0)? {
        return Ok(());
    }
    let message = "the user may not make tables in the schema".to_owned();
    Err(Unusable::Refused { code: "42501".to_owned(), message }.into())
}

/// The version of the tables that are there; `None` where there are none.
pub(super) async fn version(db: &mut PgConnection) -> Result<Option<i64>, Failure> {
    const NAMES: &str = "SELECT COUNT(*), COUNT(*) FILTER (WHERE relname = 'migma_eraser_journal') FROM pg_class
         WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
             AND relkind = 'r' AND starts_with(relname::text, 'migma_eraser_')";
    let row = sqlx::query(NAMES).fetch_one(&mut *db).await?;
    match (get::<i64>(&row, 0)?, get::<i64>(&row, 1)?) {
        (0, _) => Ok(None),
        (_, 0) => Err(Unusable::Foreign.into()),
        _ => {
            let known = MIGRATIONS.len();
            let row = sqlx::query("SELECT version FROM migma_eraser_journal").fetch_one(db).await?;
            let found = get::<i64>(&row, 0)?;
            let fits = usize::try_from(found).is_ok_and(|found| found <= known);
            if fits { Ok(Some(found)) } else { Err(Unusable::Newer { found, known }.into()) }
        }
    }
}

/// Brings the schema up to date, one worker at a time.
pub(super) async fn migrate(db: &mut PgConnection, place: Place) -> Result<(), Failure> {
    let mut transaction = db.begin().await?;
    // A table that has grown may take long to change.
    sqlx::raw_sql("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").execute(&mut *transaction).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
        .bind(MIGRATING)
        .bind(place.0)
        .execute(&mut *transaction)
        .await?;
    let done = version(&mut transaction).await?.and_then(|done| usize::try_from(done).ok()).unwrap_or(0);
    for migration in &MIGRATIONS[done..] {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
    }
    let version = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    sqlx::query("UPDATE migma_eraser_journal SET version = $1 WHERE version < $1")
        .bind(version)
        .execute(&mut *transaction)
        .await?;
    Ok(transaction.commit().await?)
}
