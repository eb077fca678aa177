//! What is asked of the broker and of the journal.
//!
//! Never declares, consumes or writes: what is missing is told, not made.

use super::{Verdict, chain};
use crate::amqp::{AmqpError, inspect};
use crate::app;
use crate::config::{Config, JournalUrl};
use crate::journal::Unfit;

/// Whether the broker can be reached and lets us in; and whether exchanges and queues are there with the right
/// arguments, or can be declared.
pub(super) async fn broker(config: &Config) -> [(&'static str, Verdict); 2] {
    let url = &config.amqp.url;
    let inspected = inspect(app::amqp_settings(config)).await;
    let reached = Verdict::Ok(url.to_string());
    let (broker, topology) = match inspected {
        Ok(inspection) => (reached, missing(config, &inspection.missing)),
        Err(error @ (AmqpError::Topology { .. } | AmqpError::Missing { .. })) => {
            let cure = "delete what stands there, or take other names (amqp.prefix)";
            (reached, Verdict::fail(chain(&error), cure))
        }
        Err(error) => {
            let cure = "start it, or mend amqp.url: host, port, user, password and vhost";
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
    let JournalUrl::Sqlite(path) = &config.journal.url;
    if !path.exists() {
        return folder(path);
    }
    let error = match app::open_journal(config).await {
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
