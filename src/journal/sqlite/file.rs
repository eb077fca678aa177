//! The file: made where it is missing, readable by its owner alone, and in the hands of one worker.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqliteConnection};

use super::Failure;

/// Why a journal's file does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Another worker has it.
    #[error("another worker is at work on {}; stop it, or give each worker a journal of its own (journal.url)", .0.display())]
    InUse(PathBuf),
    /// It cannot be made or opened for writing.
    #[error("{} cannot be written; let the worker's user own the folder and the file, on a disk that is not read-only", .0.display())]
    NotWritable(PathBuf, #[source] io::Error),
    /// `SQLite` cannot read it.
    #[error("{} is damaged or no SQLite file; put it aside, and restore it or start with an empty one", .0.display())]
    Damaged(PathBuf, #[source] sqlx::Error),
    /// It belongs to another program.
    #[error("the file is a SQLite database of another program; name a file of its own in journal.url")]
    Foreign,
    /// A later version of the worker wrote it.
    #[error(
        "the file has schema {found}, this worker knows up to {known}; run the version that wrote it, or a later one"
    )]
    Newer {
        /// The version in the file.
        found: i64,
        /// The last one known here.
        known: usize,
    },
    /// It cannot have a write-ahead log where it lies.
    #[error("{} lies on a file system without shared memory for SQLite's write-ahead log; use a local disk", .0.display())]
    NoWal(PathBuf),
}

/// A file of ours, for as long as this lives.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    /// Locked.
    _lock: File,
}

impl Claim {
    /// Makes folder and file where they are missing, and takes the lock.
    pub(super) fn take(path: &Path) -> Result<Self, Failure> {
        let not_writable = |path: &Path| {
            let path = path.to_owned();
            move |error| Failure::from(Unfit::NotWritable(path, error))
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(not_writable(folder))?;
        }
        let lock_path = beside(path, ".lock");
        let lock = private(&lock_path).map_err(not_writable(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Unfit::InUse(path.to_owned()).into()),
            Err(TryLockError::Error(error)) => return Err(not_writable(&lock_path)(error)),
        }
        // Before SQLite opens it, and only under the lock; the side files take their permissions from it.
        private(path).map_err(not_writable(path))?;
        for side in ["-wal", "-shm"].map(|suffix| beside(path, suffix)) {
            if side.exists() {
                private(&side).map_err(not_writable(&side))?;
            }
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<SqliteConnection, Failure> {
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(2))
            .foreign_keys(false)
            .pragma("secure_delete", "ON")
            // No page of ours in a temporary file elsewhere.
            .pragma("temp_store", "MEMORY")
            // In KiB. Clean pages that are not in it are in the system's own cache; more of ours would hold them twice.
            .pragma("cache_size", "-8192")
            .pragma("wal_autocheckpoint", "16000")
            .row_buffer_size(512)
            // Each statement over many rows stands there in nine lengths.
            .statement_cache_capacity(256)
            .thread_name(|_| "journal".into())
            .disable_statement_logging();
        let mut db = options.connect().await.map_err(|error| self.explain(error))?;
        let mode: (String,) =
            sqlx::query_as("PRAGMA journal_mode").fetch_one(&mut db).await.map_err(|error| self.explain(error))?;
        if mode.0 == "wal" { Ok(db) } else { Err(Unfit::NoWal(self.path.clone()).into()) }
    }

    /// [`Self::explain`], for what `SQLite` says and for that alone.
    pub(super) fn explain_failure(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Sql(error) => self.explain(error),
            other => other,
        }
    }

    /// What a first look at the file can fail of.
    fn explain(&self, error: sqlx::Error) -> Failure {
        const CORRUPT: i32 = 11;
        const NOT_A_DATABASE: i32 = 26;
        let code = error.as_database_error().and_then(|e| e.code()?.parse::<i32>().ok());
        match code.map(|extended| extended & 0xff) {
            Some(CORRUPT | NOT_A_DATABASE) => Unfit::Damaged(self.path.clone(), error).into(),
            _ => error.into(),
        }
    }
}

/// `path` with its name made longer, as `SQLite` names its side files.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens a file for writing, made where it is missing, for its owner alone.
fn private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}
