//! Effects in order, decisions none: what [`crate::domain`] decides is done here, through [`crate::ports`].
//!
//! ```text
//! intake ── parse ── known? ── queue ─┐                        ┌─ settle: publish the outcome, then ack
//!                                     batching ── dispatch ────┤
//! recovery ── open manifests ─────────────────────┘            └─ again, or in halves
//! ```
//!
//! Never here: a rule of the contract (that is `domain`), a type of an adapter, an ack outside `settle`.

mod aside;
mod backoff;
mod batching;
mod chores;
mod desk;
mod dispatch;
mod elsewhere;
mod housekeeping;
mod intake;
mod pausing;
mod permits;
mod settle;
mod turns;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use self::backoff::BackoffSettings;
pub use self::desk::{Desk, Snapshot};
use crate::domain::request::Policy;
use crate::ports::{Api, ApiKey, Broker, Journal, Observer, Tracer, World};
use crate::shutdown::{Phase, Shutdown};

/// The doors that the pipeline works through.
#[derive(Clone)]
pub struct Ports {
    /// RabbitMQ.
    pub broker: Arc<dyn Broker>,
    /// Migma.
    pub api: Arc<dyn Api>,
    /// The memory.
    pub journal: Arc<dyn Journal>,
    /// Clock and dice.
    pub world: Arc<dyn World>,
    /// Who is told what happens.
    pub observer: Arc<dyn Observer>,
    /// Who follows batches, if anyone.
    pub tracer: Option<Arc<dyn Tracer>>,
}

/// What the pipeline goes by; checked by `config`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What requests are taken.
    pub policy: Policy,
    /// `batch.max_emails`, 1 to 1000.
    pub max_emails: usize,
    /// `batch.linger`.
    pub linger: Duration,
    /// `migma.max_in_flight`.
    pub max_in_flight: u32,
    /// `rate_limit.requests_per_minute`.
    pub requests_per_minute: NonZeroU32,
    /// `rate_limit.burst`.
    pub burst: NonZeroU32,
    /// `rate_limit.requests_per_day`.
    pub requests_per_day: Option<u64>,
    /// `retry.*`.
    pub backoff: BackoffSettings,
    /// `retry.give_up_after`.
    pub give_up_after: Duration,
    /// `amqp.consumer_timeout`.
    pub consumer_timeout: Duration,
    /// `journal.retention`.
    pub retention: Duration,
    /// `outcome.reply_to`.
    pub reply_to: bool,
}

impl Settings {
    /// How many calls may be made in this time, by rate and quota; at least 1.
    #[must_use]
    pub fn calls_in(&self, time: Duration) -> u64 {
        let by_rate = u128::from(self.requests_per_minute.get()) * time.as_millis() / 60_000;
        let by_rate = u64::try_from(by_rate).unwrap_or(u64::MAX);
        by_rate.min(self.requests_per_day.unwrap_or(u64::MAX)).max(1)
    }

    /// The most deliveries that can be sent on in half the consumer timeout, were each of one email.
    #[must_use]
    pub fn most_deliveries(&self) -> u16 {
        let calls = self.calls_in(self.consumer_timeout / 2);
        u16::try_from(calls.saturating_mul(self.max_emails as u64)).unwrap_or(u16::MAX)
    }
}

/// Runs until shutdown has drained, or for ever. Dropping the future is a crash: everything stops where it stands.
pub async fn run(desk: Arc<Desk>, shutdown: Shutdown) {
    let (crew, mut hired) = mpsc::unbounded_channel();
    let (settle, settled) = settle::channel(Arc::clone(&desk.settling));
    let context = Arc::new(Context { desk: Arc::clone(&desk), crew: Crew(crew), settle, shutdown: shutdown.clone() });

    let mut tasks = JoinSet::new();
    let recover = async {
        pausing::take_up(&desk).await;
        dispatch::recover(&context).await
    };
    let taken_up = tokio::select! {
        biased;
        () = shutdown.reached(Phase::Draining) => return,
        taken_up = recover => taken_up,
    };
    tasks.spawn(settle::run(Arc::clone(&desk), settled));
    let mut sources = JoinSet::new();
    sources.spawn(housekeeping::run(Arc::clone(&context)));
    sources.spawn(chores::run(Arc::clone(&context)));
    sources.spawn(pausing::run(Arc::clone(&context)));
    sources.spawn(elsewhere::run(Arc::clone(&context), taken_up));
    sources.spawn(turns::supply(Arc::clone(&context)));
    sources.spawn(intake::run(Arc::clone(&context)));
    sources.spawn(batching::run(Arc::clone(&context)));

    let mut calls = JoinSet::new();
    let draining = shutdown.reached(Phase::Draining);
    tokio::pin!(draining);
    loop {
        tokio::select! {
            biased;
            () = &mut draining => break,
            Some(call) = hired.recv() => drop(calls.spawn(call)),
            Some(ended) = calls.join_next() => finished(ended),
            Some(ended) = sources.join_next() => finished(ended),
            Some(ended) = tasks.join_next() => finished(ended),
        }
    }
    // 1. No new request, no new batch. 2. Calls under way end, and their ends are journaled; a manifest that waits for
    // its next try stays open, for the next start. 3. What is complete is settled, and what was returned
    // before steps aside. The rest goes back with the channel.
    sources.shutdown().await;
    desk.ports.broker.consume(false);
    loop {
        tokio::select! {
            biased;
            () = shutdown.reached(Phase::Aborting) => return,
            Some(call) = hired.recv(), if !hired.is_empty() => drop(calls.spawn(call)),
            ended = calls.join_next() => match ended {
                Some(ended) => finished(ended),
                None if hired.is_empty() => break,
                None => {}
            },
        }
    }
    let _ = aside::the_returned(&context, aside::Because::OfTheEnd);
    tokio::select! {
        biased;
        () = shutdown.reached(Phase::Aborting) => {}
        () = context.settle.drained() => {}
    }
}

/// A task of ours ends by itself or with a panic, which is a bug: the worker stops, and its successor recovers.
fn finished(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// What the tasks share.
struct Context {
    desk: Arc<Desk>,
    crew: Crew,
    settle: settle::Settler,
    shutdown: Shutdown,
}

/// Takes on tasks that end with the pipeline.
struct Crew(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

impl Crew {
    fn hire(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Without a receiver the pipeline has ended, and the task with it.
        let _ = self.0.send(Box::pin(task));
    }
}

/// The API key in use, as `app` changes it.
pub type KeyInUse = watch::Receiver<ApiKey>;
