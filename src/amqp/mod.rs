//! RabbitMQ by way of lapin: topology, two connections with a reconnect loop of our own, prefetch, confirms.
//!
//! Two connections, for a publisher that the broker blocks must not hang acks. lapin's own recovery stays off: after
//! one, an old delivery tag could ack another message. Never here: what a message means, when to ack, or a payload,
//! an address or a password in a log.

mod connection;
mod consumer;
mod message;
mod prefetch;
mod publisher;
mod topology;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

pub use self::connection::Connector;
use self::consumer::{Command, Item};
use self::publisher::Job;
pub use self::topology::Names;
use crate::domain::acks::Ack;
use crate::ports::{Broker, Confirm, Epoch, Inbound, Publication};

/// The most deliveries that are handed over at once.
const BURST: usize = 1000;

/// What the adapter goes by; checked by `config`.
#[derive(Clone)]
pub struct AmqpSettings {
    /// `amqp.url`; holds a password, so it is never printed.
    pub url: String,
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
    /// The broker cannot be reached, or says no.
    #[error("the broker failed while {action}")]
    Broker {
        /// What was tried.
        action: &'static str,
        /// What came of it.
        #[source]
        source: lapin::Error,
    },
    /// The broker ended the consumer: its queue is gone, or its node goes down.
    #[error("the broker cancelled the consumer")]
    Cancelled,
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

    /// Whether trying again can help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Broker { .. } | Self::Cancelled)
    }
}

/// How the connections stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerState {
    /// Whether the consuming connection stands.
    pub consuming: bool,
    /// Whether the publishing connection stands.
    pub publishing: bool,
    /// Connections made after the first two.
    pub reconnects: u64,
    /// What deliveries that are not settled cost in memory, in bytes.
    pub held_bytes: usize,
    /// Deliveries that are not settled.
    pub unsettled: usize,
    /// The prefetch in use.
    pub prefetch: u16,
}

/// RabbitMQ.
pub struct RabbitMq {
    commands: mpsc::UnboundedSender<Command>,
    inbound: Mutex<Inbox>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Exchanges and queues that are not there.
    pub missing: Vec<String>,
}

/// Connects, looks, and changes nothing.
///
/// # Errors
/// Where the broker cannot be reached or does not let us look.
pub async fn inspect(settings: AmqpSettings) -> Result<Inspection, AmqpError> {
    let settings = Arc::new(settings);
    let connection = Connector::new(Arc::clone(&settings))?.connect("check").await?;
    let missing = topology::examine(&connection, &settings.names).await;
    connection::close(&connection).await;
    Ok(Inspection { missing: missing? })
}

impl RabbitMq {
    /// Connects, and declares or verifies the topology; from then on it reconnects by itself.
    ///
    /// # Errors
    /// Where the broker cannot be reached, or the topology is not what it ought to be.
    pub async fn connect(settings: AmqpSettings) -> Result<Self, AmqpError> {
        let settings = Arc::new(settings);
        let connector = Arc::new(Connector::new(Arc::clone(&settings))?);
        let first = connector.connect("consuming").await?;
        topology::establish(&first, &settings.names, settings.declare_topology).await?;
        let (commands, ordered) = mpsc::unbounded_channel();
        let (deliver, items) = mpsc::unbounded_channel();
        let (jobs, publish) = mpsc::unbounded_channel();
        let (replies, reply_orders) = mpsc::channel(1000);
        let (tell, state) = watch::channel(BrokerState::default());
        let (tell_heard, heard) = watch::channel(0);
        let tell = Arc::new(tell);
        tokio::spawn(consumer::run(Arc::clone(&connector), first, ordered, deliver, heard, Arc::clone(&tell)));
        tokio::spawn(publisher::run(Arc::clone(&connector), publish, tell));
        tokio::spawn(publisher::run_replies(connector, reply_orders));
        Ok(Self { commands, inbound: Mutex::new(Inbox { items, heard: tell_heard, next: None }), jobs, replies, state })
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
            Item::Delivery(delivery) => vec![*delivery],
        };
        while deliveries.len() < BURST {
            match inbox.items.try_recv() {
                Ok(Item::Delivery(delivery)) => deliveries.push(*delivery),
                Ok(lost) => {
                    inbox.next = Some(lost);
                    break;
                }
                Err(_) => break,
            }
        }
        Inbound::Deliveries(deliveries)
    }

    fn consume(&self, on: bool) {
        let _ = self.commands.send(Command::Consume(on));
    }

    fn limit(&self, deliveries: u16) {
        let _ = self.commands.send(Command::Limit(deliveries));
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
            let _ = closed.await;
        }
    }
}
