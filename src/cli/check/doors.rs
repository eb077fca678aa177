//! What is asked of the broker and of the journal.
//!
//! Never declares, consumes or writes: what is missing is told, not made.

use super::Verdict;
use crate::config::Config;

/// Whether the broker can be reached and lets us in.
#[allow(clippy::unused_async)]
pub(super) async fn broker(config: &Config) -> Verdict {
    Verdict::Skip(format!("{} is not asked in this build", config.amqp.url))
}

/// Whether exchanges and queues are there with the right arguments, or can be declared.
#[allow(clippy::unused_async)]
pub(super) async fn topology(config: &Config) -> Verdict {
    Verdict::Skip(format!("{} is not looked at in this build", config.amqp.names().request_queue))
}

/// Whether the journal can be opened and written, by us alone.
#[allow(clippy::unused_async)]
pub(super) async fn journal(config: &Config) -> Verdict {
    Verdict::Skip(format!("{} is not opened in this build", config.journal.url))
}
