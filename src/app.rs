//! The composition root: the one place where concrete types meet, where the clock and the dice are made, and where the
//! order of start and stop is laid down.
//!
//! Start: API, admin address, journal (which a standby waits for), broker, then the pipeline: what was under way goes out
//! again before anything is consumed. Stop: no new work, calls end, outcomes are confirmed and acked, the broker closes,
//! the journal last.

mod brakes;
mod gauges;
mod health;
mod overview;
mod store;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use self::brakes::WorkerBrakes;
use self::gauges::WorkerGauges;
use self::health::WorkerHealth;
use self::overview::WorkerOverview;
pub use self::store::Store;
use crate::admin::{AdminError, Bound, Doors};
use crate::amqp::{AmqpError, AmqpSettings, Connector, Names, RabbitMq};
use crate::api::{ApiError, ApiSettings, MigmaApi};
use crate::config::{AdminToken, ApiKeySource, Config, ConfigError};
use crate::domain::moment::{Moment, Timestamp};
use crate::domain::request::Policy;
use crate::pipeline::{self, BackoffSettings, Desk, Ports, Settings};
use crate::ports::{ApiKey, Broker as _, JournalError, World};
use crate::shutdown::{self, Phase, Shutdown, Trigger};
use crate::telemetry::{self, Measured, Metrics, Recent, Telemetry, TraceError, TraceSettings, Traces};

/// How often the file of the API key is looked at.
const KEY_WATCH: Duration = Duration::from_secs(2);

/// How long the journal may take over its end. What it has told of as durable is so without one.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long the collector may take over the last spans.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Why the worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The API key cannot be read.
    #[error(transparent)]
    Key(#[from] ConfigError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Another worker took the journal over, or succeeded this one, while this one could not reach it.
    #[error("another worker has taken over what was this one's in the journal; start again, as a new one")]
    JournalTaken,
    /// The API's client cannot be made.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The admin address cannot be had.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The broker will not do.
    #[error(transparent)]
    Broker(#[from] AmqpError),
    /// Traces cannot be exported.
    #[error(transparent)]
    Traces(#[from] TraceError),
    /// Signals cannot be listened to.
    #[error("cannot listen to signals")]
    Signals(#[source] std::io::Error),
}

impl StartError {
    /// Whether the configuration is to blame.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        match self {
            Self::Key(_) | Self::Traces(_) => true,
            Self::Api(error) => error.is_configuration(),
            Self::Broker(error) => error.is_configuration(),
            Self::Journal(_) | Self::JournalTaken | Self::Admin(_) | Self::Signals(_) => false,
        }
    }
}

/// The real clock and the real dice.
#[derive(Debug)]
struct RealWorld {
    start: tokio::time::Instant,
}

impl World for RealWorld {
    fn now(&self) -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        Moment { wall, steady: self.start.elapsed() }
    }

    fn dice(&self) -> f64 {
        rand::random()
    }
}

/// Runs the worker until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting. Once it runs, nothing ends it but a signal, or the loss of its journal to another worker.
pub async fn run(config: Config, keys: ApiKeySource, token: AdminToken) -> Result<(), StartError> {
    let (trigger, told) = shutdown::channel();
    let trigger = Arc::new(trigger);
    listen_to_signals(&trigger, config.shutdown.grace)?;

    let (tell_key, key) = watch::channel(ApiKey::new(keys.read()?.expose()));
    let api = MigmaApi::new(api_settings(&config))?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let traces = match config.telemetry.otlp_endpoint.clone() {
        Some(endpoint) => {
            let sample_ratio = config.telemetry.sample_ratio;
            Some(Arc::new(Traces::export(&TraceSettings { endpoint, sample_ratio }, &metrics)?))
        }
        None => None,
    };
    let world = Arc::new(RealWorld { start: tokio::time::Instant::now() });
    let recent = Arc::new(Recent::new(Arc::clone(&world) as _));
    let health = Arc::new(WorkerHealth::default());
    let opened = Arc::new(OnceLock::new());
    let gauges = WorkerGauges {
        health: Arc::clone(&health),
        journal: Arc::clone(&opened),
        journal_url: config.journal.url.clone(),
        buffer_bytes: config.amqp.buffer_bytes,
        quota: config.rate_limit.requests_per_day,
    };
    telemetry::register(&mut registry, Arc::new(gauges));
    let bound = Bound::take(config.admin.listen).await?;
    info!(admin = ?bound.address(), version = env!("CARGO_PKG_VERSION"), "starting");
    let doors = Doors {
        health: Arc::clone(&health) as _,
        brakes: Arc::new(WorkerBrakes { health: Arc::clone(&health), token }),
        overview: Arc::new(WorkerOverview {
            health: Arc::clone(&health),
            recent: Arc::clone(&recent),
            world: Arc::clone(&world) as _,
            limits: settings(&config),
        }),
        registry: Arc::new(registry),
    };
    let admin = tokio::spawn(bound.serve(doors));

    let Some(journal) = Store::wait_for(&config, &told).await? else { return Ok(()) };
    let _ = opened.set(journal.clone());
    let Some(broker) = connect(&config, &told).await? else {
        let _ = journal.close().await;
        return Ok(());
    };
    let broker = Arc::new(broker);
    let ports = Ports {
        broker: Arc::clone(&broker) as _,
        api: Arc::new(api),
        journal: Arc::new(Measured::new(journal.journal(), metrics.clone())),
        world: Arc::clone(&world) as _,
        observer: Arc::new(Telemetry::new(metrics, Arc::clone(&recent))),
        tracer: traces.clone().map(|traces| traces as _),
    };
    let desk = Desk::new(ports, settings(&config), key);
    health.set(Arc::clone(&desk), broker.state(), told.clone());
    let watcher = tokio::spawn(watch_key(keys, tell_key, Arc::clone(&desk)));

    // Whoever took the journal answers for what is in it; what this process knows of it is worth nothing from then on.
    let is_lost = tokio::select! {
        () = pipeline::run(desk, told.clone()) => false,
        () = journal.taken() => true,
    };
    // Cut short, a call may still be running at the API.
    let calls_have_ended = told.phase() < Phase::Aborting;
    watcher.abort();
    if is_lost {
        admin.abort();
        return Err(StartError::JournalTaken);
    }
    tokio::select! {
        () = broker.close() => {}
        () = told.reached(Phase::Aborting) => {}
    }
    let last = async {
        if let Err(error) = journal.journal().tidy().await {
            warn!(error = %error, "the journal was not tidied");
        }
        if calls_have_ended {
            journal.leave().await;
        }
        if let Err(error) = journal.close().await {
            warn!(error = %error, "the journal was not closed in order");
        }
    };
    let spans = async {
        if let Some(traces) = traces {
            let _ = tokio::task::spawn_blocking(move || traces.close(LAST_SPANS)).await;
        }
    };
    if tokio::join!(tokio::time::timeout(LAST_WORDS, last), spans).0.is_err() {
        warn!("the journal's disk does not answer; it is left as it stands");
    }
    admin.abort();
    info!("stopped");
    Ok(())
}

/// What the API's client goes by.
#[must_use]
pub fn api_settings(config: &Config) -> ApiSettings {
    ApiSettings {
        base_url: config.migma.base_url.clone(),
        request_timeout: config.migma.request_timeout,
        connect_timeout: config.migma.connect_timeout,
        ca_file: config.migma.ca_file.clone(),
        user_agent: concat!("migma-eraser/", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// What the broker's adapter goes by.
#[must_use]
pub fn amqp_settings(config: &Config) -> AmqpSettings {
    let names = config.amqp.names();
    AmqpSettings {
        urls: config.amqp.url.expose().map(str::to_owned).collect(),
        ca_file: config.amqp.ca_file.clone(),
        names: Names {
            request_exchange: names.request_exchange,
            request_queue: names.request_queue,
            outcome_exchange: names.outcome_exchange,
            outcome_queue: names.outcome_queue,
            dead_exchange: names.dead_exchange,
            dead_queue: names.dead_queue,
            returned_queue: names.returned_queue,
            parking_queue: names.parking_queue,
        },
        declare_topology: config.amqp.declare_topology,
        heartbeat: config.amqp.heartbeat,
        connect_timeout: config.amqp.connect_timeout,
        buffer_bytes: config.amqp.buffer_bytes,
        max_message_bytes: config.amqp.max_message_bytes,
        max_prefetch: settings(config).most_deliveries(),
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        policy: Policy {
            default_project: config.migma.default_project_id.clone(),
            allowed_projects: config.migma.allowed_projects.iter().cloned().collect(),
            max_message_bytes: config.amqp.max_message_bytes,
        },
        max_emails: config.batch.max_emails,
        linger: config.batch.linger,
        max_in_flight: config.migma.max_in_flight,
        requests_per_minute: config.rate_limit.requests_per_minute,
        burst: config.rate_limit.burst,
        requests_per_day: config.rate_limit.requests_per_day,
        backoff: BackoffSettings {
            initial_interval: config.retry.initial_interval,
            multiplier: config.retry.multiplier,
            max_interval: config.retry.max_interval,
        },
        give_up_after: config.retry.give_up_after,
        consumer_timeout: config.amqp.consumer_timeout,
        retention: config.journal.retention,
        reply_to: config.outcome.reply_to,
    }
}

/// Connects to the broker, however long that takes; `None` where the worker is told to stop before.
async fn connect(config: &Config, told: &Shutdown) -> Result<Option<RabbitMq>, AmqpError> {
    let connector = Arc::new(Connector::new(Arc::new(amqp_settings(config)))?);
    let mut failures = 0u32;
    let mut last = None;
    loop {
        let attempt = tokio::select! {
            () = told.reached(Phase::Draining) => return Ok(None),
            attempt = RabbitMq::connect_by(&connector) => attempt,
        };
        match attempt {
            Ok(broker) => return Ok(Some(broker)),
            Err(error) if !error.is_transient() => return Err(error),
            Err(error) => {
                // Once for each cause: behind one that goes away another may stand.
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                if last.as_ref() != Some(&cause) {
                    warn!(error = %error, cause, "the broker cannot be reached; trying again");
                    last = Some(cause);
                }
            }
        }
        failures += 1;
        let pause = Duration::from_millis(250).saturating_mul(1 << failures.min(5));
        tokio::select! {
            () = told.reached(Phase::Draining) => return Ok(None),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// First signal: stop in order, within the grace. Second, or the grace is over: stop at once.
fn listen_to_signals(trigger: &Arc<Trigger>, grace: Duration) -> Result<(), StartError> {
    let mut term = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let trigger = Arc::clone(trigger);
    tokio::spawn(async move {
        let mut next = async || tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} };
        next().await;
        info!(?grace, "stopping");
        trigger.advance(Phase::Draining);
        tokio::select! {
            () = next() => warn!("stopping at once"),
            () = tokio::time::sleep(grace) => warn!("the grace is over; what is not settled comes again"),
        }
        trigger.advance(Phase::Aborting);
    });
    Ok(())
}

/// Reads the key again when its file changes, and on SIGHUP.
async fn watch_key(keys: ApiKeySource, tell: watch::Sender<ApiKey>, desk: Arc<Desk>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        error!("cannot listen to SIGHUP");
        return;
    };
    let mut failing = false;
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            () = tokio::time::sleep(KEY_WATCH), if keys.path().is_some() => {}
        }
        let source = keys.clone();
        match tokio::task::spawn_blocking(move || source.read()).await {
            Ok(Ok(secret)) => {
                failing = false;
                let key = ApiKey::new(secret.expose());
                if key.fingerprint() != tell.borrow().fingerprint() {
                    info!(fingerprint = ?key.fingerprint(), "another API key is in use");
                    tell.send_replace(key);
                    desk.key_changed();
                }
            }
            Ok(Err(error)) if !failing => {
                failing = true;
                warn!(error = %error, "the API key cannot be read again; the old one stays in use");
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
