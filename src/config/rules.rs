//! What settings must be to each other. Only what cannot work is a fault; what merely works badly is for `check` to tell.
//!
//! Never a rule about one setting alone: that is its kind's.

use std::time::Duration;

use super::Config;
use super::units::{show_duration, show_size};

/// Settings that contradict each other.
pub(super) struct Broken {
    /// The settings, the one to change first.
    pub(super) keys: Vec<&'static str>,
    /// How they do.
    pub(super) problem: String,
    /// Which way out.
    pub(super) cure: String,
}

impl Broken {
    fn new(keys: &[&'static str], problem: String, cure: &str) -> Self {
        Self { keys: keys.to_vec(), problem, cure: cure.to_owned() }
    }
}

impl Config {
    /// The longest that a delivery may be held before it goes back to the broker: half the consumer timeout.
    #[must_use]
    pub fn holding_time(&self) -> Duration {
        self.amqp.consumer_timeout / 2
    }
}

/// All of them.
pub(super) fn broken(config: &Config) -> Vec<Broken> {
    let mut broken = Vec::new();
    let Config { amqp, migma, batch, retry, .. } = config;
    if retry.max_interval < retry.initial_interval {
        broken.push(Broken::new(
            &["retry.max_interval", "retry.initial_interval"],
            format!(
                "the longest interval, {}, is shorter than the first, {}",
                show_duration(retry.max_interval),
                show_duration(retry.initial_interval)
            ),
            "raise retry.max_interval or lower retry.initial_interval",
        ));
    }
    if amqp.max_message_bytes > amqp.buffer_bytes {
        broken.push(Broken::new(
            &["amqp.buffer_bytes", "amqp.max_message_bytes"],
            format!(
                "a message of {} would be taken and does not fit a buffer of {}",
                show_size(amqp.max_message_bytes as u64),
                show_size(amqp.buffer_bytes as u64)
            ),
            "raise amqp.buffer_bytes or lower amqp.max_message_bytes",
        ));
    }
    if batch.linger + migma.request_timeout >= config.holding_time() {
        broken.push(Broken::new(
            &["amqp.consumer_timeout", "migma.request_timeout", "batch.linger"],
            format!(
                "deliveries go back after half the consumer timeout, {}, before a first attempt could end ({} + {})",
                show_duration(config.holding_time()),
                show_duration(batch.linger),
                show_duration(migma.request_timeout)
            ),
            "raise amqp.consumer_timeout (and the broker's own), or lower migma.request_timeout or batch.linger",
        ));
    }
    if let Some(default) = &migma.default_project_id
        && !migma.allowed_projects.is_empty()
        && !migma.allowed_projects.contains(default)
    {
        broken.push(Broken::new(
            &["migma.default_project_id", "migma.allowed_projects"],
            "the default project is not among the allowed ones".to_owned(),
            "add it to migma.allowed_projects, or leave migma.default_project_id empty",
        ));
    }
    let names = amqp.names();
    broken.extend(twins(&names.exchanges(), "exchanges"));
    broken.extend(twins(&names.queues(), "queues"));
    broken
}

fn twins(named: &[(&'static str, &str)], what: &str) -> Vec<Broken> {
    let mut found = Vec::new();
    for (n, (key, name)) in named.iter().enumerate() {
        for (twin, _) in named[..n].iter().filter(|(_, other)| other == name) {
            found.push(Broken::new(
                &[key, twin],
                format!("both {what} are called {name:?}"),
                "give each a name of its own, or leave it empty to take it from amqp.prefix",
            ));
        }
    }
    found
}
