//! The tables, and how an older file comes to have them: the one place for both.
//!
//! A request that stands in one batch alone, which is nearly every one, takes one row: `requests` carries its first part
//! itself, and `members` only what came after. Rows of both come in rising order, so that a batch fills neighbouring
//! pages; the index by digest alone is hit at random. An open manifest is one that has a row in `bodies`.

use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::clerk::execute;
use super::{Failure, Unfit};

/// Marks the file as ours (`Migm`).
const APPLICATION_ID: i64 = 0x4d69_676d;

/// What makes each version of the schema out of the one before.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE manifests (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice
        parent INTEGER,                       -- what it was split from
        root INTEGER,                         -- NULL: itself
        since INTEGER NOT NULL,               -- when it was recorded
        project TEXT NOT NULL,
        key_base BLOB NOT NULL,
        emails INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        first_call_at INTEGER,
        first_call_fingerprint BLOB,
        lost INTEGER NOT NULL,
        due INTEGER,                          -- when to look again whether its requests can be forgotten
        ended_as INTEGER,                     -- NULL: open; 0 split, 1 answered, 2 failed
        ended_at INTEGER,
        ended_generation INTEGER,
        http_status INTEGER,
        attempts INTEGER,
        replayed INTEGER,
        request_id TEXT,
        not_found BLOB,
        uncertain INTEGER,
        count_mismatch INTEGER,
        fail_code TEXT,
        api_code TEXT,
        may_have_taken_effect INTEGER
    ) STRICT;
    CREATE INDEX manifests_due ON manifests (due) WHERE due IS NOT NULL;
    CREATE INDEX manifests_open_key ON manifests (key_base) WHERE ended_as IS NULL;
    CREATE INDEX manifests_parent ON manifests (parent) WHERE parent IS NOT NULL;

    CREATE TABLE bodies (
        manifest INTEGER PRIMARY KEY,
        body BLOB NOT NULL
    ) STRICT;

    CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL,
        content BLOB NOT NULL,
        project TEXT NOT NULL,
        emails INTEGER NOT NULL,
        correlation_id TEXT,
        metadata TEXT,
        manifest INTEGER NOT NULL,            -- the first that carries it
        ordinal INTEGER NOT NULL,             -- its place among that manifest's members
        spans BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX requests_digest ON requests (digest);
    CREATE INDEX requests_manifest ON requests (manifest);

    CREATE TABLE members (
        request INTEGER NOT NULL,
        manifest INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        spans BLOB NOT NULL,
        PRIMARY KEY (request, manifest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX members_manifest ON members (manifest);

    CREATE TABLE calls (
        minute INTEGER PRIMARY KEY,           -- since the epoch
        calls INTEGER NOT NULL
    ) STRICT;
",
    "
    ALTER TABLE manifests ADD COLUMN troubled_since INTEGER;
",
    "
    CREATE TABLE pauses (
        id INTEGER PRIMARY KEY,
        project TEXT,                         -- NULL: everything
        since INTEGER NOT NULL,
        until INTEGER,                        -- NULL: in force
        reason TEXT
    ) STRICT;
    CREATE UNIQUE INDEX pauses_in_force ON pauses (COALESCE(project, '')) WHERE until IS NULL;
",
];

/// Brings the schema up to date.
pub(super) async fn prepare(db: &mut SqliteConnection) -> Result<(), Failure> {
    execute(db, "BEGIN IMMEDIATE").await?;
    let prepared = migrate(db).await;
    execute(db, if prepared.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    prepared
}

async fn migrate(db: &mut SqliteConnection) -> Result<(), Failure> {
    let application = number(db, "PRAGMA application_id").await?;
    let version = number(db, "PRAGMA user_version").await?;
    let empty = number(db, "SELECT COUNT(*) FROM sqlite_schema").await? == 0;
    if !(application == APPLICATION_ID || (empty && application == 0 && version == 0)) {
        return Err(Unfit::Foreign.into());
    }
    let known = MIGRATIONS.len();
    let done = usize::try_from(version).ok().filter(|done| *done <= known);
    let Some(done) = done else { return Err(Unfit::Newer { found: version, known }.into()) };
    for migration in &MIGRATIONS[done..] {
        sqlx::raw_sql(*migration).execute(&mut *db).await?;
    }
    if done < known {
        let marks = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {known}");
        sqlx::raw_sql(AssertSqlSafe(marks)).execute(&mut *db).await?;
    }
    Ok(())
}

/// The one number that a query gives.
pub(super) async fn number(db: &mut SqliteConnection, query: &'static str) -> Result<i64, Failure> {
    Ok(sqlx::query(query).fetch_one(db).await?.try_get(0)?)
}
