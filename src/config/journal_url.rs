//! Where the journal is: a file, or a database.
//!
//! Never quotes an address in a fault: it may hold a password, and most of all when it is mistyped.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;
use url::Url;

use super::given::{Given, Wrong};
use super::kinds::Kind;
use super::secret::Secret;

/// Where the journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalUrl {
    /// In a file of its own; a relative path starts from the working directory. Taken as it stands, with no `%` codes.
    Sqlite(PathBuf),
    /// In a `PostgreSQL` database.
    Postgres(DatabaseUrl),
}

/// As `sqlite://path`, or as `postgres://user:***@host/database`.
impl fmt::Display for JournalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// A database's URL, which holds a password; printed with `***` in its place.
#[derive(Clone)]
pub struct DatabaseUrl {
    url: Secret,
    masked: String,
    verified: bool,
    local: bool,
}

impl DatabaseUrl {
    /// The URL with its password, for the connection alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.url.expose()
    }

    /// Whether it asks for TLS with a certificate that is checked against the host (`sslmode=verify-full`).
    #[must_use]
    pub const fn is_verified(&self) -> bool {
        self.verified
    }

    /// Whether the server is on this machine.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.local
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let mut url = Url::parse(text).map_err(|fault| Wrong::new(format!("is not a URL ({fault})")))?;
        if url.fragment().is_some() {
            return Err(Wrong::with_cure("holds a #", "write it %23 in a password"));
        }
        // With a bare slash in the password, the rest of it looks like a database.
        if url.path().contains('@') {
            return Err(Wrong::new("holds an @ after the host"));
        }
        let mut host = url.host_str().unwrap_or_default().to_owned();
        let mut verified = false;
        for (name, value) in url.query_pairs() {
            match &*name {
                "sslmode" => {
                    if !MODES.contains(&&*value) {
                        return Err(Wrong::with_cure(
                            "has an sslmode that there is not",
                            format!("give {}", MODES.join(", ")),
                        ));
                    }
                    verified = value == "verify-full";
                }
                "host" | "hostaddr" => host = value.into_owned(),
                "port" if value.parse::<u16>().is_err() => return Err(Wrong::new("has a port that is no number")),
                "password" => {
                    return Err(Wrong::with_cure(
                        "holds the password behind the ?",
                        "put it before the @, or into the environment as PGPASSWORD",
                    ));
                }
                "port" | "dbname" | "user" | "sslrootcert" | "sslcert" | "sslkey" | "application_name" | "options" => {}
                name if name.starts_with("options[") && name.ends_with(']') => {}
                // Its name may be the rest of a password with a bare question mark.
                _ => {
                    return Err(Wrong::with_cure(
                        "has a parameter that there is not",
                        format!("take it out; there are {PARAMETERS}"),
                    ));
                }
            }
        }
        if host.is_empty() {
            return Err(Wrong::new("names no host"));
        }
        let name = host.trim_matches(['[', ']']);
        let local = name == "localhost"
            // A folder with the server's socket.
            || name.starts_with('/')
            || name.to_ascii_lowercase().starts_with("%2f")
            || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let secret = Secret::new(text);
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return Err(Wrong::new("holds a password where none can be"));
        }
        Ok(Self { url: secret, masked: url.into(), verified, local })
    }
}

const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

const PARAMETERS: &str =
    "sslmode, sslrootcert, sslcert, sslkey, options, application_name, host, port, user and dbname";

/// As `postgres://user:***@host/database`.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked)
    }
}

impl PartialEq for DatabaseUrl {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for DatabaseUrl {}

/// The kind of `journal.url`.
pub(super) struct JournalUrls;

impl Kind for JournalUrls {
    type Value = JournalUrl;

    fn wants(&self) -> String {
        "sqlite:// and the path of a file, such as sqlite://data/journal.db or sqlite:///var/lib/journal.db, or \
         postgres://user:password@host/database (% and / and @ in its parts are written %25, %2f, %40)"
            .to_owned()
    }

    fn read(&self, given: &Given) -> Result<JournalUrl, Wrong> {
        let text = given.text()?;
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return DatabaseUrl::parse(text).map(JournalUrl::Postgres);
        }
        let Some(path) = text.strip_prefix("sqlite://") else {
            return Err(Wrong::new("does not start with sqlite:// or postgres://"));
        };
        if path.is_empty() || path.ends_with('/') {
            return Err(Wrong::new("names no file"));
        }
        if path.contains(":memory:") {
            return Err(Wrong::new("is in memory, where a crash would lose what was sent"));
        }
        if path.contains(['?', '#', '\0']) {
            return Err(Wrong::new("holds options, which are the worker's own affair"));
        }
        Ok(JournalUrl::Sqlite(path.into()))
    }

    fn show(&self, value: &JournalUrl) -> Value {
        value.to_string().into()
    }
}
