//! The three doors to the world: [`Broker`], [`Api`], [`Journal`]. The pipeline knows nothing else of it.
//!
//! Each has its real adapter ([`crate::amqp`], [`crate::api`], [`crate::journal`]) and an in-memory fake under `tests/`;
//! one conformance suite holds both to the same words. No policy here: no retries, no waiting for better times but
//! where a method says so.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::acks::Ack;
use crate::domain::answer::Reply;
use crate::domain::envelope::Envelope;
use crate::domain::fate::Fate;
use crate::domain::gates::Change;
use crate::domain::ids::{Fingerprint, ManifestId, ProjectId, RequestDigest};
use crate::domain::key::IdempotencyKey;
use crate::domain::manifest::{Conclusion, Draft, Journaled, KnownRequest, Manifest};
use crate::domain::moment::{Moment, Timestamp};
use crate::domain::outcome::{Counts, Status};

// ---- Broker ------------------------------------------------------------------------------------------------------

/// One life of the consuming channel; delivery tags mean nothing outside theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// Where a delivery came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The request queue.
    Requests,
    /// The returned queue: it travels alone in its batches.
    Returned,
}

/// A message as its sender published it, carried to the dead exchange whole and unchanged; never read on the way.
#[derive(Clone)]
pub struct Original {
    /// The sender's properties and headers.
    pub properties: lapin::BasicProperties,
}

/// What a sender wrote stays out of logs.
impl std::fmt::Debug for Original {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Original")
    }
}

/// A message in our hands. It must be settled ([`Broker::ack`]) or it comes again.
#[must_use = "a delivery that is dropped is neither answered nor given back before the channel ends"]
pub struct Delivery {
    /// The channel's life that it belongs to.
    pub epoch: Epoch,
    /// Its delivery tag.
    pub tag: u64,
    /// Where it came from.
    pub source: Source,
    /// Whether the broker has delivered it before.
    pub redelivered: bool,
    /// What the worker reads of it.
    pub envelope: Envelope,
    /// What it carries on.
    pub original: Original,
    /// The queue named in `reply_to`, if any.
    pub reply_to: Option<String>,
}

/// What a sender wrote stays out of logs.
impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Delivery {{ {:?}, tag: {}, {:?} }}", self.epoch, self.tag, self.envelope)
    }
}

/// What comes in.
#[derive(Debug)]
#[must_use]
pub enum Inbound {
    /// Deliveries, in the order of their tags; at least one.
    Deliveries(Vec<Delivery>),
    /// The channel is gone: no delivery of this epoch or an earlier one can be settled any more; all that were not
    /// settled come again.
    Lost(Epoch),
}

/// The exchange to publish to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// `contacts.deletion.outcomes`.
    Outcomes,
    /// `contacts.deletion.dead`.
    Dead,
    /// None: straight to the parking queue, whatever the routing key.
    Parking,
}

/// The properties of a message to be published.
#[derive(Clone)]
pub enum Head {
    /// One of our own messages.
    Own {
        /// `message_id`.
        message_id: String,
        /// `correlation_id`.
        correlation_id: Option<String>,
        /// `type`.
        kind: &'static str,
        /// `timestamp`.
        at: Timestamp,
        /// The header `traceparent`.
        traceparent: Option<String>,
    },
    /// A sender's message on its way elsewhere: its own properties, and ours as headers. Headers that no longer fit a
    /// frame are left out by the adapter: first the sender's, then ours.
    Forwarded {
        /// The sender's properties.
        original: Original,
        /// `x-eraser-*`.
        headers: Vec<(&'static str, String)>,
    },
}

/// A message to be published, persistent.
#[derive(Clone)]
pub struct Publication {
    /// Where to.
    pub exchange: Exchange,
    /// The routing key.
    pub routing_key: String,
    /// Its properties.
    pub head: Head,
    /// Its body.
    pub payload: bytes::Bytes,
    /// Whether it must reach a queue.
    pub mandatory: bool,
}

/// What a sender wrote stays out of logs.
impl std::fmt::Debug for Publication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publication {{ {:?}, {}, {} bytes }}", self.exchange, self.routing_key, self.payload.len())
    }
}

/// What the broker said of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Confirm {
    /// It has it, in a queue where the publication is mandatory.
    Confirmed,
    /// No queue takes it; try again later.
    Unroutable,
    /// It refused, or the connection ended first: it may have it or not.
    Unconfirmed,
}

/// RabbitMQ, by its requests, outcomes and dead letters.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Waits for what comes next. Reconnects by itself, for ever; after the end of a channel the first thing told is
    /// [`Inbound::Lost`]. One caller at a time. Cancel safe.
    async fn next(&self) -> Inbound;

    /// Whether to consume. Off: nothing more comes; what is unsettled stays here, to be acked or given back. Returns at
    /// once.
    fn consume(&self, on: bool);

    /// The most deliveries that are of use here at a time; the adapter may hold fewer, for memory's sake. Returns at
    /// once.
    fn limit(&self, deliveries: u16);

    /// Ends this epoch: everything unsettled goes back to its queue, which is told as [`Inbound::Lost`], and a new
    /// channel consumes, where that is on. Returns at once.
    fn give_back(&self, epoch: Epoch);

    /// Publishes a group and waits for what the broker says of each, in their order. While there is no connection it
    /// waits for one, for some seconds at most, then says [`Confirm::Unconfirmed`].
    async fn publish(&self, group: Vec<Publication>) -> Vec<Confirm>;

    /// Publishes a message that nobody waits for. It may be dropped.
    fn tell(&self, publication: Publication);

    /// Publishes straight to the queue that a request's `reply_to` names. Best effort, on a connection of its own: a
    /// name that the broker takes offence at must harm nothing else.
    fn reply(&self, queue: String, publication: Publication);

    /// Acks deliveries. Where the epoch is over, or ends meanwhile, nothing happens: they come again.
    async fn ack(&self, epoch: Epoch, acks: Vec<Ack>);

    /// Ends all connections in order, once acks and publications under way are out. What is unsettled goes back.
    async fn close(&self);
}

// ---- Api ---------------------------------------------------------------------------------------------------------

/// The API key in use: its owner shows the fingerprint and keeps the secret.
#[derive(Clone)]
pub struct ApiKey {
    secret: std::sync::Arc<str>,
    fingerprint: Fingerprint,
}

impl ApiKey {
    /// Wraps a key.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self { fingerprint: Fingerprint::of(secret), secret: secret.into() }
    }

    /// What the journal may know of it.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The key itself, for the request header alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.secret
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKey({:?})", self.fingerprint)
    }
}

/// Migma's bulk-delete endpoint: one call, one attempt, no policy.
#[async_trait]
pub trait Api: Send + Sync {
    /// Sends the manifest's body under its idempotency key and sorts what comes of it.
    async fn delete(&self, manifest: &Journaled<Manifest>, key: &ApiKey) -> Reply;
}

// ---- Journal -----------------------------------------------------------------------------------------------------

/// Why a journal could not do its work. Nothing that it was asked to keep may be believed kept.
#[derive(Debug, thiserror::Error)]
#[error("journal: cannot {action}")]
pub struct JournalError {
    /// What it was doing.
    pub action: &'static str,
    /// Why not.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// How much was forgotten in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Requests forgotten.
    pub requests: u64,
    /// Whether more is old enough.
    pub more: bool,
}

/// The memory that outlives a crash. Every method that writes returns only once its writing is durable.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Manifests without an end, oldest first, as they were before the crash.
    async fn open_manifests(&self) -> Result<Vec<Journaled<Manifest>>, JournalError>;

    /// What is remembered of each request; absent: never seen. Equal ids may be asked twice.
    async fn lookup(&self, requests: &[RequestDigest]) -> Result<HashMap<RequestDigest, KnownRequest>, JournalError>;

    /// Records a planned batch and the requests that it names, in one transaction, with the fate that its first call
    /// gives it (`fate.first_call` is set). A request that is remembered already stays as it was first recorded.
    async fn record(&self, draft: &Draft, fate: Fate, now: Timestamp) -> Result<Journaled<Manifest>, JournalError>;

    /// Records what must be known before the manifest's next call.
    async fn restate(&self, manifest: &Journaled<Manifest>, fate: Fate) -> Result<Journaled<Manifest>, JournalError>;

    /// Records a manifest's end, and erases its body. Ending it twice keeps the first end.
    async fn conclude(&self, manifest: ManifestId, conclusion: &Conclusion) -> Result<(), JournalError>;

    /// Records that a manifest goes on as these children, in one transaction with its end ([`crate::domain::manifest::End::Split`]).
    /// Children have its `root`, and begin with the fate that they inherit.
    async fn split(
        &self,
        manifest: &Journaled<Manifest>,
        conclusion: &Conclusion,
        inherited: Fate,
        children: &[Draft],
    ) -> Result<Vec<Journaled<Manifest>>, JournalError>;

    /// Counts one call against the daily quota: `Ok(None)` where it fits, else when to ask again. A call counts for
    /// 24 hours from the minute in which it was made.
    async fn spend(&self, quota: u64, now: Timestamp) -> Result<Option<Timestamp>, JournalError>;

    /// Forgets requests whose every email came to its end before `before`, a limited number at a time.
    async fn forget(&self, before: Timestamp) -> Result<Forgotten, JournalError>;

    /// Whether it was empty when it was opened.
    fn was_new(&self) -> bool;

    /// Leaves no erased address behind in side files. Called now and then, and before the end.
    async fn tidy(&self) -> Result<(), JournalError>;
}

// ---- Those who watch ---------------------------------------------------------------------------------------------

/// Something that operations may want to know; never an address in it.
#[derive(Debug)]
pub enum Event<'a> {
    /// Deliveries came in.
    Received {
        /// How many.
        deliveries: u64,
    },
    /// The broker has a request's outcome.
    Published {
        /// What it comes to.
        status: Status,
        /// Emails by result.
        counts: Counts,
        /// From its delivery to here.
        took: Duration,
    },
    /// An outcome or a dead letter did not reach a queue; it is tried again.
    Unpublished {
        /// How many.
        messages: u64,
        /// Whether no queue takes them.
        unroutable: bool,
    },
    /// A call came back.
    Called {
        /// Under which key.
        key: &'a IdempotencyKey,
        /// What came of it.
        reply: &'a Reply,
    },
    /// A manifest has ended.
    Concluded {
        /// Which.
        manifest: &'a Manifest,
        /// How.
        conclusion: &'a Conclusion,
    },
    /// A hold began or ended.
    Gate(Change, Option<&'a ProjectId>),
    /// The journal failed; it is tried again.
    JournalFailed(&'a JournalError),
    /// The journal works again.
    JournalWorks,
    /// Manifests of an earlier life go out again.
    Recovered {
        /// How many.
        manifests: usize,
    },
    /// A redelivered request is unknown to a journal that was empty at the start.
    JournalLost,
    /// Deliveries were given back to the broker.
    GivenBack(&'static str),
    /// Deliveries wait elsewhere, in a queue of the broker's, for they cannot be done now.
    SteppedAside {
        /// How many.
        deliveries: u64,
    },
    /// Requests were forgotten.
    Forgot {
        /// How many.
        requests: u64,
    },
}

/// Who is told.
pub trait Observer: Send + Sync {
    /// Logs and counts. Must not block.
    fn see(&self, event: &Event<'_>);
}

// ---- Clock and dice ----------------------------------------------------------------------------------------------

/// Where the pipeline takes its time and its chance from; made in `app` alone.
pub trait World: Send + Sync {
    /// Now. The steady part follows tokio's clock, so that a paused one is obeyed.
    fn now(&self) -> Moment;
    /// A number in `0.0..1.0`.
    fn dice(&self) -> f64;
}
