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
use crate::domain::ids::{Fingerprint, ManifestId, ProjectId, RequestDigest};
use crate::domain::manifest::{Conclusion, Draft, Journaled, KnownRequest, Manifest};
use crate::domain::moment::{Moment, Timestamp};
use crate::domain::pace::{Grant, Rate};
use crate::domain::pauses::Pause;
use crate::domain::traceparent::TraceParent;

// ---- Broker ------------------------------------------------------------------------------------------------------

/// One life of the consuming channel; delivery tags mean nothing outside theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// The sender's properties and headers; boxed, for deliveries are many and are moved about.
    pub properties: Box<lapin::BasicProperties>,
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
        traceparent: Option<TraceParent>,
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

    /// Everything that [`Broker::next`] told so far has been looked at. Tells the most deliveries that are of use here at
    /// a time, where that is known anew; the adapter may hold fewer, for memory's sake, and takes not many more before
    /// it has heard of those that are here. Returns at once.
    fn looked(&self, at_most: Option<u16>);

    /// Whether the prefetch is used up: nothing more comes before something that is here is settled.
    fn is_used_up(&self) -> bool;

    /// Ends this epoch: everything unsettled goes back to its queue, which is told as [`Inbound::Lost`], and a new
    /// channel consumes, where that is on. Returns at once.
    fn give_back(&self, epoch: Epoch);

    /// Publishes a group and waits for what the broker says of each, in their order. Several may be under way at once. While there is no connection it
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
    /// Sends the manifest's body under its idempotency key and sorts what comes of it. `trace` is the call's place in a
    /// trace, for the API to go on from.
    async fn delete(&self, manifest: &Journaled<Manifest>, key: &ApiKey, trace: Option<TraceParent>) -> Reply;
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

/// What came of recording a batch.
#[derive(Debug)]
#[must_use = "a batch that was not recorded has to be planned again"]
pub enum Recorded {
    /// It is in the journal, and this worker's.
    Manifest(Journaled<Manifest>),
    /// Nothing was recorded, for of these requests another worker has recorded some of the same emails, or another
    /// content.
    Lost(Vec<RequestDigest>),
}

impl Recorded {
    /// The manifest, where there is one.
    #[must_use]
    pub fn manifest(self) -> Option<Journaled<Manifest>> {
        match self {
            Self::Manifest(manifest) => Some(manifest),
            Self::Lost(_) => None,
        }
    }
}

/// The memory that outlives a crash. Every method that writes returns only once its writing is durable.
///
/// Several workers may share one (see [`Journal::lease_left`]). Each manifest is then one worker's at a time; who has lost
/// its own to another writes nothing any more.
#[async_trait]
pub trait Journal: Send + Sync {
    /// This worker's manifests without an end, oldest first, as they were before the crash; where several share the
    /// journal, with those of workers that are surely gone.
    async fn open_manifests(&self) -> Result<Vec<Journaled<Manifest>>, JournalError>;

    /// What is remembered of each request; absent: never seen. Equal ids may be asked twice.
    async fn lookup(&self, requests: &[RequestDigest]) -> Result<HashMap<RequestDigest, KnownRequest>, JournalError>;

    /// Records a planned batch and the requests that it names, in one transaction, with the fate that its first call
    /// gives it (`fate.first_call` is set). A request that is remembered already stays as it was first recorded. Where
    /// several workers share the journal, no email of a request is ever in two batches of theirs.
    async fn record(&self, draft: &Draft, fate: Fate, now: Timestamp) -> Result<Recorded, JournalError>;

    /// Open manifests that this worker has from workers that are gone, as those left them; those that are gone by now are
    /// succeeded first. What was told before is told again for as long as it is open.
    async fn succeed(&self) -> Result<Vec<Journaled<Manifest>>, JournalError>;

    /// For how long surely no other worker takes this one's manifests: its calls may leave only within
    /// ([`crate::domain::lease::may_send`]). `None`: nobody else is at work on the journal as long as this one is.
    fn lease_left(&self) -> Option<Duration>;

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

    /// Grants turns to make calls, at most `wanted`, where several workers share the journal and so the rate. Turns that
    /// are not used are lost.
    async fn turns(&self, rate: Rate, wanted: u32) -> Result<Grant, JournalError>;

    /// Grants no turn before `wait` has passed, to any worker.
    async fn postpone(&self, wait: Duration) -> Result<(), JournalError>;

    /// The calls that count against a daily quota now.
    async fn spent(&self, now: Timestamp) -> Result<u64, JournalError>;

    /// Forgets requests whose every email came to its end before `before`, a limited number at a time.
    async fn forget(&self, before: Timestamp) -> Result<Forgotten, JournalError>;

    /// The pauses in force, and those that ended no longer ago than [`crate::domain::pauses::KEPT`]; oldest first. What
    /// another worker on the same journal ordered is among them.
    async fn pauses(&self) -> Result<Vec<Pause>, JournalError>;

    /// Records that calls stop, for everybody or for one project (`pause.until` is `None`). Where they are stopped so
    /// already, that stays as it was.
    async fn pause(&self, pause: &Pause) -> Result<(), JournalError>;

    /// Records that they go on; ends no pause of another scope, and changes nothing where there is none. Pauses that
    /// ended longer ago than [`crate::domain::pauses::KEPT`] are forgotten.
    async fn resume(&self, project: Option<&ProjectId>, at: Timestamp) -> Result<(), JournalError>;

    /// Whether it was empty when it was opened.
    fn was_new(&self) -> bool;

    /// Leaves no erased address behind in side files. Called now and then, and before the end.
    async fn tidy(&self) -> Result<(), JournalError>;
}

// ---- Those who watch ---------------------------------------------------------------------------------------------

mod watching;

pub use watching::{Event, Observer, Trace, Tracer};

// ---- Clock and dice ----------------------------------------------------------------------------------------------

/// Where the pipeline takes its time and its chance from; made in `app` alone.
pub trait World: Send + Sync {
    /// Now. The steady part follows tokio's clock, so that a paused one is obeyed.
    fn now(&self) -> Moment;
    /// A number in `0.0..1.0`.
    fn dice(&self) -> f64;
}
