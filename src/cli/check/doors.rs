//! What is asked of the broker and of the journal.
//!
//! Never declares, consumes or writes: what is missing is told, not made.

use std::path::Path;

use super::super::pausing;
use super::{Verdict, arithmetic, chain};
use crate::amqp::{AmqpError, inspect};
use crate::app;
use crate::config::{Config, DatabaseUrl, JournalUrl};
use crate::domain::pauses::Pause;
use crate::journal::{PostgresJournal, Standing, Unfit};
use crate::ports::JournalError;

/// Whether the broker can be reached and lets us in; and whether exchanges and queues are there with the right
/// arguments, or can be declared.
pub(super) async fn broker(config: &Config) -> [(&'static str, Verdict); 2] {
    let url = &config.amqp.url;
    let inspected = inspect(app::amqp_settings(config)).await;
    let reached = Verdict::Ok(url.to_string());
    let (broker, topology) = match inspected {
        Ok(inspection) => {
            let unreachable = inspection.unreachable.iter().map(|(node, error)| format!("{node}: {}", chain(error)));
            let unreachable: Vec<_> = unreachable.collect();
            let broker = match &unreachable[..] {
                [] => reached,
                nodes => Verdict::warn(nodes.join("; "), "start it, or mend its URL in amqp.url; other nodes answer"),
            };
            (broker, missing(config, &inspection.missing))
        }
        Err(error @ (AmqpError::Topology { .. } | AmqpError::Missing { .. })) => {
            let cure = "delete what stands there, or take other names (amqp.prefix)";
            (reached, Verdict::fail(chain(&error), cure))
        }
        Err(error) => {
            let cure = match error {
                AmqpError::Certificate { .. } => "mend amqp.ca_file or amqp.url",
                AmqpError::CaFile { .. } | AmqpError::CaContents { .. } => "mend amqp.ca_file",
                _ => "start it, or mend amqp.url: host, port, user, password and vhost",
            };
            let broker = Verdict::fail(format!("{url}: {}", chain(&error)), cure);
            (broker, Verdict::Skip("the broker cannot be asked".to_owned()))
        }
    };
    [("broker", broker), ("topology", topology)]
}

fn missing(config: &Config, missing: &[String]) -> Verdict {
    match (missing, config.amqp.declare_topology) {
        ([], _) => Verdict::Ok("everything is there, as it ought to be".to_owned()),
        (_, true) => Verdict::Ok(format!("`run` will declare {}", missing.join(", "))),
        (_, false) => Verdict::fail(
            format!("there is no {}", missing.join(", ")),
            "declare it, or set amqp.declare_topology = true",
        ),
    }
}

/// The journal, as far as a look tells.
pub(super) enum Journal<'a> {
    /// A file, which each check opens for itself, if it can.
    File(&'a Path),
    /// A database, which is asked once.
    Database {
        /// Where.
        url: &'a DatabaseUrl,
        /// What is there.
        looked: Result<Standing, JournalError>,
    },
}

impl<'a> Journal<'a> {
    /// Looks at it.
    pub(super) async fn look(config: &'a Config) -> Self {
        match &config.journal.url {
            JournalUrl::Sqlite(path) => Self::File(path),
            JournalUrl::Postgres(url) => {
                Self::Database { url, looked: PostgresJournal::inspect(url.expose(), config.journal.shared).await }
            }
        }
    }

    /// Whether it can be opened and written: by us alone, or beside those who share it.
    pub(super) async fn verdict(&self, config: &Config) -> Verdict {
        match self {
            Self::File(path) if !path.exists() => folder(path),
            Self::File(path) => file(path, config).await,
            Self::Database { url, looked } => database(url, config.journal.shared, looked),
        }
    }

    /// What is paused, by what the journal says, or the worker that has it; `None` where there is neither.
    pub(super) async fn pauses(&self, config: &Config) -> Option<Verdict> {
        let pauses = match self {
            Self::File(path) if !path.exists() => return None,
            Self::File(_) => match app::Store::open(config).await {
                Ok(store) => {
                    let all = store.journal().pauses().await;
                    // Its verdict was told of before.
                    let _ = store.close().await;
                    told(&all.ok()?)
                }
                Err(_) => pausing::ask(config).await.ok()?.pauses.iter().map(pausing::Paused::told).collect(),
            },
            Self::Database { looked: Ok(standing), .. } if standing.has_tables => told(&standing.pauses),
            Self::Database { .. } => return None,
        };
        Some(match &pauses[..] {
            [] => Verdict::Ok("nothing is paused".to_owned()),
            _ => Verdict::warn(pauses.join("; "), "nothing to mend if that is meant; `migma-eraser resume` ends it"),
        })
    }

    /// How many workers are of use on it; `None` where it is one worker's.
    pub(super) fn workers(&self, config: &Config) -> Option<Verdict> {
        match self {
            Self::Database { looked, .. } if config.journal.shared => {
                let live = looked.as_ref().ok().and_then(|standing| standing.live_workers);
                Some(arithmetic::workers(config, live))
            }
            _ => None,
        }
    }
}

/// Whether a file that is there can be opened and written, by us alone.
async fn file(path: &Path, config: &Config) -> Verdict {
    let error = match app::Store::open(config).await {
        Ok(journal) => {
            let closed = journal.close().await;
            return match closed {
                Ok(()) => Verdict::Ok(path.display().to_string()),
                Err(error) => Verdict::fail(chain(&error), "look at the disk"),
            };
        }
        Err(error) => error,
    };
    let unfit = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Unfit>());
    if let Some(Unfit::InUse(_)) = unfit {
        return Verdict::warn(
            format!("{} is in use by a worker", path.display()),
            "nothing to mend if that is the worker which this is about; two workers need a journal each",
        );
    }
    Verdict::fail(chain(&error), "mend the file or its folder, or name another in journal.url")
}

/// Whether the database can be reached, lets us in beside who is there, and has our tables or room for them.
fn database(url: &DatabaseUrl, shared: bool, looked: &Result<Standing, JournalError>) -> Verdict {
    match looked {
        Ok(Standing { in_use: true, .. }) if shared => Verdict::warn(
            format!("{url} is in use by a worker that has it alone"),
            "set journal.shared = true there too; until that worker ends, `run` stands by",
        ),
        Ok(Standing { in_use: true, .. }) => Verdict::warn(
            format!("{url} is in use by a worker"),
            "nothing to mend: `run` stands by until that worker ends; or name another database or schema in journal.url",
        ),
        Ok(Standing { .. }) if !url.is_local() && !url.is_verified() => Verdict::warn(
            format!("{url}: its password and all addresses may cross the network in the clear, or to a stranger"),
            "add sslmode=verify-full (and sslrootcert=... for a private authority), unless something else encrypts the way",
        ),
        Ok(Standing { has_tables: true, .. }) => Verdict::Ok(url.to_string()),
        Ok(Standing { .. }) => Verdict::Ok(format!("`run` will make its tables in {url}")),
        Err(error) => Verdict::fail(
            format!("{url}: {}", chain(error)),
            "start it, or mend journal.url: host, port, user, password and database",
        ),
    }
}

fn told(pauses: &[Pause]) -> Vec<String> {
    pauses.iter().filter(|pause| pause.is_in_force()).map(|pause| pausing::Paused::from(pause).told()).collect()
}

/// Where the file is not there yet: whether it could be made.
fn folder(path: &Path) -> Verdict {
    let existing = path.ancestors().skip(1).find(|folder| folder.exists() || folder.as_os_str().is_empty());
    let folder = match existing {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let writable = std::fs::metadata(folder).is_ok_and(|found| found.is_dir() && !found.permissions().readonly());
    if writable {
        Verdict::Ok(format!("`run` will make {}", path.display()))
    } else {
        Verdict::fail(
            format!("{} cannot be made in {}", path.display(), folder.display()),
            "let the worker's user write there, or name another place in journal.url",
        )
    }
}
