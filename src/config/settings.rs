//! The table of settings: one line each, with its type and its bounds.
//!
//! Never a default or a reason here: `config/default.toml` holds both, and tests hold the two files together.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::addresses::{ApiUrls, BrokerUrl, BrokerUrls, CollectorUrls};
use super::journal_url::{JournalUrl, JournalUrls};
use super::kinds::{
    Address, Factor, FilePath, LogFormat, LogFormats, Name, OrEmpty, OrNone, Project, Projects, Size, Span, Switch,
    span, whole,
};
use super::table::settings;
use crate::domain::ids::ProjectId;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn mins(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

const fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

settings! {
    /// The broker.
    amqp: Amqp {
        /// Where it is, and who we are there.
        url: BrokerUrl = BrokerUrls;
        /// A private certificate authority (PEM), trusted beside those of the system.
        ca_file: Option<PathBuf> = OrEmpty(FilePath);
        /// How long a connection may take to come up.
        connect_timeout: Duration = span(ms(100), mins(5));
        /// How often each side shows that it is there; whole seconds.
        heartbeat: Duration = Span(secs(1), mins(5), secs(1));
        /// What the broker's own `consumer_timeout` is set to.
        consumer_timeout: Duration = span(secs(5), hours(7 * 24));
        /// Bytes of deliveries held in memory.
        buffer_bytes: usize = Size(64 * KIB, 64 * GIB);
        /// Bytes of the largest request that is taken.
        max_message_bytes: usize = Size(KIB, 512 * MIB);
        /// Whether missing exchanges, queues and bindings are declared at start.
        declare_topology: bool = Switch;
        /// What all names start with that are not given one by one.
        prefix: String = Name(240);
        /// See [`Amqp::names`].
        request_exchange: Option<String> = OrEmpty(Name(255));
        /// See [`Amqp::names`].
        request_queue: Option<String> = OrEmpty(Name(255));
        /// See [`Amqp::names`].
        outcome_exchange: Option<String> = OrEmpty(Name(255));
        /// See [`Amqp::names`].
        outcome_queue: Option<String> = OrEmpty(Name(255));
        /// See [`Amqp::names`].
        dead_exchange: Option<String> = OrEmpty(Name(255));
        /// See [`Amqp::names`].
        dead_queue: Option<String> = OrEmpty(Name(255));
        /// See [`Amqp::names`].
        returned_queue: Option<String> = OrEmpty(Name(255));
        /// See [`Amqp::names`].
        parking_queue: Option<String> = OrEmpty(Name(255));
    }

    /// The API.
    migma: Migma {
        /// Where it is; `https`, or `http` to a loopback host; no user, no query.
        base_url: Url = ApiUrls;
        /// A private certificate authority (PEM), trusted beside those of the system.
        ca_file: Option<PathBuf> = OrEmpty(FilePath);
        /// The file with the API key; see [`super::ApiKeySource`].
        api_key_file: Option<PathBuf> = OrEmpty(FilePath);
        /// The project of a request that names none.
        default_project_id: Option<ProjectId> = OrEmpty(Project);
        /// The projects that requests may name; empty for any.
        allowed_projects: Vec<ProjectId> = Projects;
        /// Calls at a time.
        max_in_flight: u32 = whole(1, 1024);
        /// How long a connection may take to come up.
        connect_timeout: Duration = span(ms(10), mins(5));
        /// How long one attempt may take, connecting and all.
        request_timeout: Duration = span(ms(100), mins(10));
    }

    /// How emails are put together into calls.
    batch: Batch {
        /// Emails in one call.
        max_emails: usize = whole(1, 1000);
        /// How long a first email waits for company.
        linger: Duration = span(Duration::ZERO, mins(1));
    }

    /// How often the API may be called.
    rate_limit: RateLimit {
        /// Attempts a minute.
        requests_per_minute: NonZeroU32 = whole(1, 1_000_000);
        /// Attempts that may leave at once after a quiet time.
        burst: NonZeroU32 = whole(1, 100_000);
        /// Attempts in any 24 hours; `None` for no bound.
        requests_per_day: Option<u64> = OrNone(whole(1, 2_000_000_000));
    }

    /// How a failed call is tried again.
    retry: Retry {
        /// The first interval.
        initial_interval: Duration = span(ms(1), hours(1));
        /// What an interval is multiplied by for the next.
        multiplier: f64 = Factor(1.0, 100.0);
        /// The longest interval.
        max_interval: Duration = span(ms(1), hours(1));
        /// How long a failure of one body or project is waited out.
        give_up_after: Duration = span(secs(1), hours(30 * 24));
    }

    /// The memory that outlives a crash.
    journal: Journal {
        /// Where it is.
        url: JournalUrl = JournalUrls;
        /// Whether several workers are at work on it at once, where it is in `PostgreSQL`.
        shared: bool = Switch;
        /// How long an answered request is remembered.
        retention: Duration = span(hours(24), hours(3650 * 24));
    }

    /// What requests are answered with.
    outcome: Outcome {
        /// Whether an outcome also goes to the request's `reply_to`.
        reply_to: bool = Switch;
    }

    /// Health, metrics and the status page.
    admin: Admin {
        /// Where they are served; port 0 takes a free one.
        listen: SocketAddr = Address;
        /// The file with the token that orders need; see [`super::AdminToken`].
        token_file: Option<PathBuf> = OrEmpty(FilePath);
    }

    /// Traces.
    telemetry: Telemetry {
        /// The OpenTelemetry collector's base URL; `None` for no traces.
        otlp_endpoint: Option<Url> = OrEmpty(CollectorUrls);
        /// The share of batches that are traced.
        sample_ratio: f64 = Factor(0.0, 1.0);
    }

    /// How the worker stops.
    shutdown: Shutdown {
        /// How long it takes at most.
        grace: Duration = span(Duration::ZERO, hours(1));
    }

    /// What it writes about itself.
    log: Log {
        /// How.
        format: LogFormat = LogFormats;
    }
}

/// What exchanges and queues are called: each as it was given, or else made of the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Topic: where requests are published.
    pub request_exchange: String,
    /// Where requests are consumed.
    pub request_queue: String,
    /// Topic: where outcomes and batch events are published.
    pub outcome_exchange: String,
    /// Where outcomes wait for operations.
    pub outcome_queue: String,
    /// Topic: where messages go that are at their end.
    pub dead_exchange: String,
    /// What was not done.
    pub dead_queue: String,
    /// What the broker took off the request queue.
    pub returned_queue: String,
    /// Where requests of a held project step aside.
    pub parking_queue: String,
}

impl Amqp {
    /// The names in force.
    #[must_use]
    pub fn names(&self) -> Names {
        let name = |given: &Option<String>, end: &str| given.clone().unwrap_or_else(|| format!("{}{end}", self.prefix));
        Names {
            request_exchange: name(&self.request_exchange, ""),
            request_queue: name(&self.request_queue, ".requests"),
            outcome_exchange: name(&self.outcome_exchange, ".outcomes"),
            outcome_queue: name(&self.outcome_queue, ".outcomes"),
            dead_exchange: name(&self.dead_exchange, ".dead"),
            dead_queue: name(&self.dead_queue, ".dead"),
            returned_queue: name(&self.returned_queue, ".returned"),
            parking_queue: name(&self.parking_queue, ".parked"),
        }
    }
}

impl Names {
    /// The exchanges, each with the key that names it.
    #[must_use]
    pub fn exchanges(&self) -> [(&'static str, &str); 3] {
        [
            ("amqp.request_exchange", &self.request_exchange),
            ("amqp.outcome_exchange", &self.outcome_exchange),
            ("amqp.dead_exchange", &self.dead_exchange),
        ]
    }

    /// The queues, each with the key that names it.
    #[must_use]
    pub fn queues(&self) -> [(&'static str, &str); 5] {
        [
            ("amqp.request_queue", &self.request_queue),
            ("amqp.outcome_queue", &self.outcome_queue),
            ("amqp.dead_queue", &self.dead_queue),
            ("amqp.returned_queue", &self.returned_queue),
            ("amqp.parking_queue", &self.parking_queue),
        ]
    }
}
