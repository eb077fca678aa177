//! What can go wrong with a database, in words that carry no value out of it.
//!
//! A server's error can quote the row that it refused: only its code and its message go on, never its detail, and never
//! in a `Debug` form of its own.

use crate::ports::JournalError;

/// Why a database does not serve as a journal. It stays so until somebody does something about it, but for
/// [`Unusable::InUse`].
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Another worker has it.
    #[error(
        "another worker is at work on this journal; it can be had once that one has stopped or lost its connection"
    )]
    InUse,
    /// Another worker took it while this one could not be heard.
    #[error("another worker has taken the journal over; this one writes no more, and has to start anew")]
    Taken,
    /// The server does not let us in, or not do what must be done.
    #[error("the server refuses ({code}): {message}; mend user, password, database or rights (journal.url)")]
    Refused {
        /// Its code (`SQLSTATE`).
        code: String,
        /// Its message.
        message: String,
    },
    /// The URL does not say enough.
    #[error("{0}; mend journal.url")]
    Url(&'static str),
    /// The server is too old.
    #[error("the server has version {0}; a journal takes PostgreSQL 13 or later")]
    TooOld(String),
    /// Nowhere to put tables.
    #[error("there is no schema for the tables; create one of the search path, or name one by options in journal.url")]
    NoSchema,
    /// Tables of these names are there, and no worker made them.
    #[error("tables named migma_eraser_* are there that no worker made; take another schema or database (journal.url)")]
    Foreign,
    /// A later version of the worker wrote it.
    #[error(
        "the journal has schema {found}, this worker knows up to {known}; run the version that wrote it, or a later one"
    )]
    Newer {
        /// The version in the database.
        found: i64,
        /// The last one known here.
        known: usize,
    },
}

/// What went wrong, before it is known what was being done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The server said no.
    #[error("the database failed ({code}): {message}")]
    Server { code: String, message: String },
    /// It could not be asked, or its answer not be understood.
    #[error(transparent)]
    Client(sqlx::Error),
    #[error("the database did not answer in time")]
    Slow,
    #[error("the database is a standby, which takes no writes")]
    Standby,
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("{0}")]
    Refused(&'static str),
    #[error("the database holds what no worker wrote: {0}")]
    Damaged(&'static str),
    #[error("the journal is closed")]
    Closed,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => Self::Server {
                code: error.code().unwrap_or_default().into_owned(),
                message: error.message().to_owned(),
            },
            sqlx::Error::PoolClosed => Self::Closed,
            sqlx::Error::PoolTimedOut => Self::Slow,
            other => Self::Client(other),
        }
    }
}

/// Serialization failure, deadlock.
const COLLISIONS: [&str; 2] = ["40001", "40P01"];

impl Failure {
    /// Whether doing the same again, at once, is likely to succeed: a collision with another transaction, or a
    /// connection that had died while it was idle.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Server { code, .. } => COLLISIONS.contains(&code.as_str()) || is_farewell(code),
            Self::Client(error) => matches!(error, sqlx::Error::Io(_)),
            _ => false,
        }
    }

    /// Whether the connection may go on to be used.
    pub(super) fn spares_connection(&self) -> bool {
        match self {
            Self::Server { code, .. } => COLLISIONS.contains(&code.as_str()),
            Self::Unusable(_) | Self::Refused(_) | Self::Damaged(_) => true,
            Self::Client(_) | Self::Slow | Self::Standby | Self::Closed => false,
        }
    }

    /// The same, where it was met while the journal was being opened: what somebody must mend is told as such.
    pub(super) fn at_the_door(self) -> Self {
        match self {
            // Authorization, database or schema that is missing, a right that is missing.
            Self::Server { code, message }
                if code.starts_with("28") || ["3D000", "3F000", "42501"].contains(&code.as_str()) =>
            {
                Unusable::Refused { code, message }.into()
            }
            Self::Client(sqlx::Error::Configuration(_)) => {
                Unusable::Url("the server cannot be asked as it is told to (TLS files, parameters)").into()
            }
            other => other,
        }
    }

    pub(super) fn into_error(self, action: &'static str) -> JournalError {
        let source: Box<dyn std::error::Error + Send + Sync> = match self {
            Self::Client(error) => Box::new(error),
            Self::Unusable(unusable) => Box::new(unusable),
            other => Box::new(other),
        };
        JournalError { action, source }
    }
}

/// The server ends the connection: it is stopped, it restarts, or somebody asked it to.
fn is_farewell(code: &str) -> bool {
    ["57P01", "57P02", "57P03"].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str) -> Failure {
        Failure::Server { code: code.to_owned(), message: "no".to_owned() }
    }

    #[test]
    fn a_collision_is_tried_again_on_the_same_connection_and_a_farewell_on_another() {
        assert!(server("40001").is_passing() && server("40001").spares_connection());
        assert!(server("40P01").is_passing());
        assert!(server("57P01").is_passing() && !server("57P01").spares_connection());
        assert!(!server("53100").is_passing(), "a full disk is a hold");
        assert!(!Failure::Slow.is_passing() && !Failure::Slow.spares_connection());
    }

    #[test]
    fn what_somebody_must_mend_is_told_apart_from_what_passes() {
        for code in ["28P01", "28000", "3D000", "42501"] {
            assert!(matches!(server(code).at_the_door(), Failure::Unusable(Unusable::Refused { .. })), "{code}");
        }
        for code in ["57P03", "53300", "08006"] {
            assert!(matches!(server(code).at_the_door(), Failure::Server { .. }), "{code}");
        }
    }
}
