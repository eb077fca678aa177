//! Connections, and what each of them is told first.
//!
//! Never here: a connection on which a commit could be told before it is durable, or that waits for ever.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

use super::failure::{Failure, Unusable};

/// The longest that anything is waited for before it counts as failed; above all of the server's own limits, so that
/// what was given up here is over there too, or was committed.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);

/// What a connection is told. A transaction that was left behind ends by itself, and so does a connection whose other
/// end is gone; `synchronous_commit` is put right where somebody took it off, for then a commit could be lost.
const SETTINGS: &str = "SELECT set_config(name, value, false) FROM (VALUES
        ('statement_timeout', '20s'), ('lock_timeout', '10s'), ('idle_in_transaction_session_timeout', '10s'),
        ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'),
        ('client_min_messages', 'warning'), ('default_transaction_isolation', 'read committed'),
        ('default_transaction_read_only', 'off'),
        ('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
                               THEN 'on' ELSE current_setting('synchronous_commit') END)
    ) AS settings (name, value)";

/// Ends a session that is silent for so long, where the server can (from version 14 on).
const SILENCE: &str = "SELECT set_config(name, '30s', false) FROM pg_settings WHERE name = 'idle_session_timeout'";

/// Reads the URL, with what the environment adds (`PGPASSWORD`, `PGSSLROOTCERT`, the password file).
pub(super) fn options(url: &str) -> Result<PgConnectOptions, Failure> {
    // The error may quote the URL.
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| Unusable::Url("it is no URL that PostgreSQL's client understands"))?;
    let named = options.get_application_name().is_some();
    let options = if named { options } else { options.application_name("migma-eraser") };
    Ok(options.disable_statement_logging())
}

/// [`PATIENCE`] with work.
pub(super) async fn patient<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(Failure::Slow))
}

/// Connects, for one who will have something to say every few seconds: a process that stands still loses what it holds,
/// as one that is dead does at once.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Failure> {
    patient(async {
        let mut db = options.connect().await?;
        prepare(&mut db).await?;
        sqlx::query(SILENCE).fetch_all(&mut db).await?;
        Ok(db)
    })
    .await
}

/// Tells a new connection what it must know.
pub(super) async fn prepare(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(SETTINGS).fetch_all(db).await.map(drop)
}
