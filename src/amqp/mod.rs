//! RabbitMQ by way of lapin: topology, two connections with a reconnect loop of our own, prefetch, confirms.
//!
//! Two connections, for a publisher that the broker blocks must not hang acks; replies have a third, made when the first
//! is due. lapin's own recovery stays off: after one, an old delivery tag could ack another message. Never here: what a
//! message means, when to ack, or a payload, an address or a password in a log.

mod confirms;
mod connection;
mod consumer;
mod consumers;
mod dead_letters;
mod letter;
mod message;
mod outcomes;
mod prefetch;
mod publisher;
mod replies;
mod submitter;
mod topology;
mod unreadable;
mod unsettled;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

pub use self::connection::Connector;
use self::consumer::{Command, Item};
pub use self::dead_letters::{DeadLetters, discard_unreadable, hold_unreadable};
pub use self::letter::{Letter, Receipt};
pub use self::message::{delivery, properties};
pub use self::outcomes::{Heard, Listener, patience};
use self::publisher::Job;
pub use self::submitter::{Submission, Submitter};
pub use self::topology::Names;
pub use self::unreadable::{Held, look};
use crate::domain::acks::Ack;
use crate::ports::{Broker, Confirm, Epoch, Inbound, Publication};

/// How long the end of the publishing connection is waited for.
const CLOSING: Duration = Duration::from_secs(5);

/// After so many deliveries no further ones are handed over with them.
const BURST: usize = 1000;

/// What the adapter goes by; checked by `config`.
#[derive(Clone)]
pub struct AmqpSettings {
    /// `amqp.url`, one for each node; they hold passwords, so they are never printed.
    pub urls: Vec<String>,
    /// `amqp.ca_file`.
    pub ca_file: Option<PathBuf>,
    /// The names of exchanges and queues.
    pub names: Names,
    /// `amqp.declare_topology`.
    pub declare_topology: bool,
    /// `amqp.heartbeat`.
    pub heartbeat: Duration,
    /// `amqp.connect_timeout`.
    pub connect_timeout: Duration,
    /// `amqp.buffer_bytes`.
    pub buffer_bytes: usize,
    /// `amqp.max_message_bytes`.
    pub max_message_bytes: usize,
    /// The most deliveries that can be sent on in half the consumer timeout.
    pub max_prefetch: u16,
}

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AmqpError {
    /// The URL cannot be read. The text does not quote it, for it holds a password.
    #[error("amqp.url cannot be read; it looks like amqp://user:password@host:5672/vhost")]
    Url,
    /// The file of `amqp.ca_file` cannot be read.
    #[error("amqp.ca_file {path} cannot be read")]
    CaFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file of `amqp.ca_file` holds something else.
    #[error("amqp.ca_file {path} holds no certificate (PEM)")]
    CaContents {
        /// Which.
        path: PathBuf,
    },
    /// No answer in time.
    #[error("the broker did not answer in time while {0}")]
    Timeout(&'static str),
    /// The broker's certificate is not to be trusted, so it was told nothing.
    #[error(
        "the broker's certificate is not trusted; amqp.ca_file must name its authority, and amqp.url the host that it \
         is made out to"
    )]
    Certificate {
        /// What is wrong with it.
        #[source]
        source: lapin::Error,
    },
    /// The broker cannot be reached, or says no.
    #[error("the broker failed while {action}")]
    Broker {
        /// What was tried.
        action: &'static str,
        /// What came of it.
        #[source]
        source: lapin::Error,
    },
    /// A letter of the dead queue cannot be read, and those behind it cannot be reached.
    #[error(
        "a letter has a property or a header name that is no UTF-8, and cannot be read; look at it on the broker's \
         management page; `migma-eraser dead discard --unreadable` takes it away for good"
    )]
    Unreadable,
    /// The broker ended the consumer: its queue is gone, or its node goes down.
    #[error("the broker cancelled the consumer")]
    Cancelled,
    /// A mandatory message came back: no queue takes it.
    #[error(
        "no queue takes messages with the key '{key}': the queue or its binding is missing; `migma-eraser check` tells \
         which, and `migma-eraser run` declares it"
    )]
    Unroutable {
        /// The routing key.
        key: String,
    },
    /// The broker said no to a message without ending the connection.
    #[error("the broker does not take the message now: its queue is full, or has no leader")]
    Refused,
    /// Something stands there with other arguments.
    #[error("the broker has {what} with other arguments: {difference}; delete it or rename it (amqp.prefix)")]
    Topology {
        /// Which exchange or queue.
        what: String,
        /// The broker's words.
        difference: String,
    },
    /// Something is missing that `amqp.declare_topology = false` forbids to declare.
    #[error("the broker has no {what}; declare it, or set amqp.declare_topology = true")]
    Missing {
        /// Which exchange or queue.
        what: String,
    },
}

impl AmqpError {
    /// Whether the configuration is to blame.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Url | Self::CaFile { .. } | Self::CaContents { .. })
    }

    /// Whether the broker forbids it to this user.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        let Self::Broker { source, .. } = self else { return false };
        matches!(source.kind(), lapin::ErrorKind::ProtocolError(error) if error.get_id() == 403)
    }

    /// Whether trying again can help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Timeout(_) | Self::Certificate { .. } | Self::Broker { .. } | Self::Cancelled | Self::Refused
        )
    }
}

/// How the connections stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerState {
    /// Whether the consuming connection stands.
    pub consuming: bool,
    /// Whether the publishing connection stands.
    pub publishing: bool,
    /// Consuming connections made after the first.
    pub consuming_reconnects: u64,
    /// Publishing connections made after the first.
    pub publishing_reconnects: u64,
    /// What deliveries that are not settled cost in memory, in bytes.
    pub held_bytes: usize,
    /// Deliveries that are not settled.
    pub unsettled: usize,
    /// The prefetch in use.
    pub prefetch: u16,
    /// Whether the prefetch is used up: nothing more comes before something that is here is settled.
    pub used_up: bool,
}

/// RabbitMQ.
pub struct RabbitMq {
    commands: mpsc::UnboundedSender<Command>,
    inbound: Mutex<Inbox>,
    /// Deliveries that the pipeline was told of.
    told: AtomicU64,
    jobs: mpsc::UnboundedSender<Job>,
    replies: mpsc::Sender<(String, Publication)>,
    state: watch::Receiver<BrokerState>,
}

struct Inbox {
    items: mpsc::UnboundedReceiver<Item>,
    /// Where it is told which epochs' losses were heard of.
    heard: watch::Sender<u64>,
    /// What ended the last burst.
    next: Option<Item>,
}

/// What a look at the broker gave.
#[derive(Debug)]
pub struct Inspection {
    /// Nodes that cannot be reached while others can, as `host:port`, and why.
    pub unreachable: Vec<(String, AmqpError)>,
    /// Exchanges and queues that are not there.
    pub missing: Vec<String>,
}

/// Connects, looks, and changes nothing.
///
/// # Errors
/// Where the broker cannot be reached or does not let us look.
pub async fn inspect(settings: AmqpSettings) -> Result<Inspection, AmqpError> {
    let settings = Arc::new(settings);
    let connector = Connector::new(Arc::clone(&settings))?;
    let connection = connector.connect("check").await?;
    let unreachable = if settings.urls.len() > 1 { connector.unreachable("check").await } else { Vec::new() };
    let missing = topology::examine(&connection, &settings.names).await;
    connection::close(&connection).await;
    Ok(Inspection { unreachable, missing: missing? })
}

impl RabbitMq {
    /// Connects, and declares or verifies the topology; from then on it reconnects by itself.
    ///
    /// # Errors
    /// Where the broker cannot be reached, or the topology is not what it ought to be.
    pub async fn connect(settings: AmqpSettings) -> Result<Self, AmqpError> {
        Self::connect_by(&Arc::new(Connector::new(Arc::new(settings))?)).await
    }

    /// The same for whoever tries again: each try begins at the next node.
    ///
    /// # Errors
    /// As for [`Self::connect`].
    pub async fn connect_by(connector: &Arc<Connector>) -> Result<Self, AmqpError> {
        let settings = &connector.settings;
        let first = connector.connect("consuming").await?;
        topology::establish(&first, &settings.names, settings.declare_topology).await?;
        let (commands, ordered) = mpsc::unbounded_channel();
        let (deliver, items) = mpsc::unbounded_channel();
        let (jobs, publish) = mpsc::unbounded_channel();
        let (replies, reply_orders) = mpsc::channel(1000);
        let (tell, state) = watch::channel(BrokerState::default());
        let (tell_heard, heard) = watch::channel(0);
        let tell = Arc::new(tell);
        tokio::spawn(consumer::run(Arc::clone(connector), first, ordered, deliver, heard, Arc::clone(&tell)));
        tokio::spawn(publisher::run(Arc::clone(connector), publish, tell));
        tokio::spawn(replies::run(Arc::clone(connector), reply_orders));
        let inbound = Mutex::new(Inbox { items, heard: tell_heard, next: None });
        Ok(Self { commands, inbound, told: AtomicU64::new(0), jobs, replies, state })
    }

    /// How the connections stand, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<BrokerState> {
        self.state.clone()
    }
}

#[async_trait]
impl Broker for RabbitMq {
    async fn next(&self) -> Inbound {
        let mut inbox = self.inbound.lock().await;
        let first = match inbox.next.take() {
            Some(item) => item,
            None => match inbox.items.recv().await {
                Some(item) => item,
                // The consumer task ends with `close` alone; after that nothing comes.
                None => std::future::pending().await,
            },
        };
        let mut deliveries = match first {
            Item::Lost(epoch) => {
                inbox.heard.send_replace(epoch.0);
                return Inbound::Lost(epoch);
            }
            Item::Deliveries(deliveries) => deliveries,
        };
        while deliveries.len() < BURST {
            match inbox.items.try_recv() {
                Ok(Item::Deliveries(more)) => deliveries.extend(more),
                Ok(lost) => {
                    inbox.next = Some(lost);
                    break;
                }
                Err(_) => break,
            }
        }
        self.told.fetch_add(deliveries.len() as u64, Ordering::Relaxed);
        Inbound::Deliveries(deliveries)
    }

    fn consume(&self, on: bool) {
        let _ = self.commands.send(Command::Consume(on));
    }

    fn looked(&self, at_most: Option<u16>) {
        let _ = self.commands.send(Command::Looked { at: self.told.load(Ordering::Relaxed), at_most });
    }

    fn is_used_up(&self) -> bool {
        // Whoever takes deliveries asks; what has come and is not taken yet is to come.
        let taken = self.inbound.try_lock().is_ok_and(|inbox| inbox.next.is_none() && inbox.items.is_empty());
        taken && self.state.borrow().used_up
    }

    fn give_back(&self, epoch: Epoch) {
        let _ = self.commands.send(Command::GiveBack(epoch));
    }

    async fn publish(&self, group: Vec<Publication>) -> Vec<Confirm> {
        let count = group.len();
        let (done, confirms) = oneshot::channel();
        if self.jobs.send(Job::Publish { group, done }).is_err() {
            return vec![Confirm::Unconfirmed; count];
        }
        confirms.await.unwrap_or_else(|_| vec![Confirm::Unconfirmed; count])
    }

    fn tell(&self, publication: Publication) {
        let _ = self.jobs.send(Job::Tell(publication));
    }

    fn reply(&self, queue: String, publication: Publication) {
        // Best effort: a full queue drops it.
        let _ = self.replies.try_send((queue, publication));
    }

    async fn ack(&self, epoch: Epoch, acks: Vec<Ack>) {
        let _ = self.commands.send(Command::Ack(epoch, acks));
    }

    async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).is_ok() {
            let _ = closed.await;
        }
        let (done, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(done)).is_ok() {
            // It may be connecting, for long; and whoever closes has nothing more to publish.
            let _ = tokio::time::timeout(CLOSING, closed).await;
        }
    }
}
