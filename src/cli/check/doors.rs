//! What is asked of the broker and of the journal.
//!
//! Never declares, consumes or writes: what is missing is told, not made.

use super::super::pausing;
use super::{Verdict, chain};
use crate::amqp::{AmqpError, inspect};
use crate::app;
use crate::config::{Config, DatabaseUrl, JournalUrl};
use crate::domain::pauses::Pause;
use crate::journal::{PostgresJournal, Standing, Unfit};

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

/// Whether the journal can be opened and written, by us alone.
pub(super) async fn journal(config: &Config) -> Verdict {
    let path = match &config.journal.url {
        JournalUrl::Sqlite(path) => path,
        JournalUrl::Postgres(url) => return database(url, config.journal.shared).await,
    };
    if !path.exists() {
        return folder(path);
    }
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
async fn database(url: &DatabaseUrl, shared: bool) -> Verdict {
    match PostgresJournal::inspect(url.expose(), shared).await {
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
            format!("{url}: {}", chain(&error)),
            "start it, or mend journal.url: host, port, user, password and database",
        ),
    }
}

/// What is paused, by what the journal says, or the worker that has it; `None` where there is neither.
pub(super) async fn pauses(config: &Config) -> Option<Verdict> {
    let pauses = match &config.journal.url {
        JournalUrl::Sqlite(path) if !path.exists() => return None,
        JournalUrl::Sqlite(_) => match app::Store::open(config).await {
            Ok(store) => {
                let all = store.journal().pauses().await;
                // Its verdict was told of before.
                let _ = store.close().await;
                told(&all.ok()?)
            }
            Err(_) => pausing::ask(config).await.ok()?.pauses.iter().map(pausing::Paused::told).collect(),
        },
        JournalUrl::Postgres(url) => {
            let standing = PostgresJournal::inspect(url.expose(), config.journal.shared).await.ok()?;
            if !standing.has_tables {
                return None;
            }
            told(&standing.pauses)
        }
    };
    Some(match &pauses[..] {
        [] => Verdict::Ok("nothing is paused".to_owned()),
        _ => Verdict::warn(pauses.join("; "), "nothing to mend if that is meant; `migma-eraser resume` ends it"),
    })
}

fn told(pauses: &[Pause]) -> Vec<String> {
    pauses.iter().filter(|pause| pause.is_in_force()).map(|pause| pausing::Paused::from(pause).told()).collect()
}

/// Where the file is not there yet: whether it could be made.
fn folder(path: &std::path::Path) -> Verdict {
    let existing = path.ancestors().skip(1).find(|folder| folder.exists() || folder.as_os_str().is_empty());
    let folder = match existing {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => std::path::Path::new("."),
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
