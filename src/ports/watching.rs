//! Those who watch the pipeline: what they are told. They decide nothing, and nobody waits for them.

use std::time::Duration;

use super::JournalError;
use crate::domain::answer::Reply;
use crate::domain::gates::Change;
use crate::domain::ids::ProjectId;
use crate::domain::key::IdempotencyKey;
use crate::domain::manifest::{Conclusion, Manifest};
use crate::domain::outcome::{Counts, Status};
use crate::domain::pauses::Pause;
use crate::domain::traceparent::TraceParent;

/// Something that operations may want to know; never an address in it.
#[derive(Debug)]
pub enum Event<'a> {
    /// Deliveries came in.
    Received {
        /// How many from the request queue.
        requests: u64,
        /// How many from the returned queue.
        returned: u64,
    },
    /// A new batch was packed.
    Packed {
        /// Its emails.
        emails: u16,
        /// The most that it may have.
        max_emails: usize,
        /// For each of its requests, the time since its delivery.
        waits: &'a [Duration],
    },
    /// The broker has a request's outcome.
    Published {
        /// What it comes to.
        status: Status,
        /// Emails by result.
        counts: Counts,
        /// The code of its dead letter, which the broker has as well; `None` where there is none.
        dead: Option<&'static str>,
        /// From its delivery to here.
        took: Duration,
    },
    /// An outcome or a dead letter did not reach a queue; it is tried again.
    Unpublished {
        /// How many no queue takes.
        unroutable: u64,
        /// How many the broker did not confirm.
        unconfirmed: u64,
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
    /// Somebody stopped calls: now, or before this process began.
    Paused(&'a Pause),
    /// Somebody let them go on.
    Resumed(&'a Pause),
    /// The journal failed, for the first time since it worked; it is tried again, and everything waits for it.
    JournalFailed(&'a JournalError),
    /// The journal does not answer; it is waited for, and so is everything else.
    JournalSilent,
    /// The journal did not do what is done now and then; that is tried again at its next time, and nothing waits for it.
    ChoreFailed(&'a JournalError),
    /// The journal works again.
    JournalWorks,
    /// Manifests of an earlier life go out again.
    Recovered {
        /// How many.
        manifests: usize,
    },
    /// Another worker had recorded requests of a batch first: it is planned again without them.
    Overtaken {
        /// How many.
        requests: u64,
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

/// Who follows batches from system to system. It decides nothing, and nobody waits for it.
pub trait Tracer: Send + Sync {
    /// A manifest sets out, for requests that stand at these places; within the batch that it was split from, if any.
    fn follow(&self, manifest: &Manifest, requests: &[TraceParent], parent: Option<TraceParent>) -> Box<dyn Trace>;
}

/// One manifest's way. Dropped, it ends where it stands.
pub trait Trace: Send {
    /// Its place.
    fn here(&self) -> Option<TraceParent>;
    /// A call is about to leave: the place that goes with it.
    fn call(&mut self, manifest: &Manifest) -> Option<TraceParent>;
    /// The call came back.
    fn called(&mut self, reply: &Reply);
    /// The manifest has ended; these are the places of its requests, as far as they are known by now.
    fn ended(&mut self, conclusion: &Conclusion, requests: &[TraceParent]);
}

/// Nobody follows.
impl Trace for () {
    fn here(&self) -> Option<TraceParent> {
        None
    }
    fn call(&mut self, _: &Manifest) -> Option<TraceParent> {
        None
    }
    fn called(&mut self, _: &Reply) {}
    fn ended(&mut self, _: &Conclusion, _: &[TraceParent]) {}
}
