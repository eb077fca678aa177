//! Publishes outcomes, dead letters and what steps aside, and acks what the broker has confirmed. The sole caller of ack.
//!
//! Never here: an ack before every publication of its delivery is confirmed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::desk::Waiter;
use super::{Desk, aside};
use crate::domain::acks::{AckWindow, Acks};
use crate::domain::outcome::{OUTCOME_TYPE, Outcome};
use crate::domain::registry::Completed;
use crate::ports::{Confirm, Delivery, Epoch, Event, Exchange, Head, Publication, Source};

/// The most deliveries whose publications go out as one group, and the most groups that wait for their confirms: while
/// the broker writes one down, others are on their way to it.
const GROUP: usize = 1000;
const GROUPS: usize = 4;

/// How long an ack waits for deliveries that came before while none of them moves: longer than a group is on its way to a broker with much to do.
const ACK_PATIENCE: Duration = Duration::from_millis(250);

/// A delivery that is to leave us, and how.
#[derive(Debug)]
struct Leaving {
    waiter: Waiter,
    how: How,
    /// What is not confirmed yet.
    publish_outcome: bool,
    forward: bool,
    /// Whether some of it found no queue when it was tried last.
    unroutable: bool,
}

impl Leaving {
    fn is_done(&self) -> bool {
        !self.publish_outcome && !self.forward
    }

    /// What was returned does not wait here for the broker to count its deliveries up to the limit: it steps aside.
    fn grows_old(&mut self, now: Duration) {
        let here = now.saturating_sub(self.waiter.since);
        if self.waiter.delivery.source == Source::Returned && self.publish_outcome && here >= aside::TURN {
            (self.how, self.publish_outcome, self.forward) = (How::Aside { held: false }, false, true);
        }
    }
}

/// How a delivery leaves us.
#[derive(Debug)]
enum How {
    /// Its request is answered.
    Answered(Arc<Outcome>),
    /// It waits elsewhere; whether that is for its project's hold.
    Aside { held: bool },
}

/// The side that hands over answers.
pub(super) struct Settler {
    queue: mpsc::UnboundedSender<Leaving>,
    shared: Arc<Shared>,
}

/// What both sides know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// How many deliveries are handed over and not settled, by when they came (steady) and in which epoch.
    open: Mutex<BTreeMap<(Duration, Epoch), usize>>,
    idle: Notify,
    /// Epochs below this one are over.
    first_live: AtomicU64,
}

/// The side that settles.
pub(super) struct Settled {
    queue: mpsc::UnboundedReceiver<Leaving>,
    shared: Arc<Shared>,
}

pub(super) fn channel(shared: Arc<Shared>) -> (Settler, Settled) {
    let (send, receive) = mpsc::unbounded_channel();
    (Settler { queue: send, shared: Arc::clone(&shared) }, Settled { queue: receive, shared })
}

impl Settler {
    /// Every delivery of these requests gets its outcome.
    pub(super) fn complete(&self, completed: Vec<Completed<Waiter>>) {
        for done in completed {
            let outcome = Arc::new(Outcome::of(&done.request, &done.record, &done.progress));
            for waiter in done.deliveries {
                self.answer(waiter, Arc::clone(&outcome));
            }
        }
    }

    /// This delivery gets this outcome.
    pub(super) fn answer(&self, waiter: Waiter, outcome: Arc<Outcome>) {
        let forward = outcome.dead.is_some();
        self.hand_over(waiter, How::Answered(outcome), true, forward);
    }

    /// This delivery waits elsewhere: in the parking queue, or at the tail of the returned queue.
    pub(super) fn step_aside(&self, waiter: Waiter, held: bool) {
        self.hand_over(waiter, How::Aside { held }, false, true);
    }

    fn hand_over(&self, waiter: Waiter, how: How, publish_outcome: bool, forward: bool) {
        *self.shared.open().entry((waiter.since, waiter.delivery.epoch)).or_default() += 1;
        // Without a receiver the pipeline has ended: the delivery comes again.
        let _ = self.queue.send(Leaving { waiter, how, publish_outcome, forward, unroutable: false });
    }

    /// The latest epoch of a delivery that came by then (steady) and is still not settled.
    pub(super) fn epoch_of_older(&self, came_by: Duration) -> Option<Epoch> {
        self.shared.open().keys().take_while(|(since, _)| *since <= came_by).map(|(_, epoch)| *epoch).max()
    }

    /// No delivery of this epoch or an earlier one can be acked any more.
    pub(super) fn lost(&self, epoch: Epoch) {
        self.shared.first_live.fetch_max(epoch.0.saturating_add(1), Ordering::AcqRel);
    }

    /// Returns once everything handed over is settled.
    pub(super) async fn drained(&self) {
        loop {
            let idle = self.shared.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.shared.open().is_empty() {
                return;
            }
            idle.await;
        }
    }
}

impl Shared {
    /// When the oldest delivery came that is handed over and not settled (steady).
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.open().first_key_value().map(|((since, _), _)| *since)
    }

    fn is_lost(&self, leaving: &Leaving) -> bool {
        leaving.waiter.delivery.epoch < self.first_live()
    }

    fn first_live(&self) -> Epoch {
        Epoch(self.first_live.load(Ordering::Acquire))
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<(Duration, Epoch), usize>> {
        // Poisoned only by a panic, which ends the worker anyway.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deliveries of this epoch are settled, or lost, that came then.
    fn close(&self, epoch: Epoch, came: impl IntoIterator<Item = Duration>) {
        let mut open = self.open();
        for since in came {
            if let Entry::Occupied(mut count) = open.entry((since, epoch)) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        if open.is_empty() {
            self.idle.notify_waiters();
        }
    }
}

/// Settles for ever.
pub(super) async fn run(desk: Arc<Desk>, mut settled: Settled) {
    let mut windows = Windows::default();
    let mut on_their_way = FuturesUnordered::new();
    let mut group = Vec::new();
    // What was not confirmed waits here; at most as much as the broker lets us hold.
    let mut unconfirmed: Vec<Leaving> = Vec::new();
    let mut failures = 0u32;
    let mut retry_at = Instant::now();
    loop {
        // In trouble one after the other: what fails is not to fail several times over.
        let in_trouble = failures > 0 || !unconfirmed.is_empty();
        let may_send = on_their_way.len() < if in_trouble { 1 } else { GROUPS };
        let due = windows.due(desk.ports.world.now().steady);
        tokio::select! {
            biased;
            Some(published) = on_their_way.next() => {
                let (done, open): (Vec<Leaving>, Vec<Leaving>) = published;
                if !open.is_empty() {
                    let now = Instant::now();
                    // Groups that fail together have failed once.
                    if now >= retry_at {
                        retry_at = now + desk.backoff(failures).max(Duration::from_millis(50));
                        failures = failures.saturating_add(1);
                    }
                    unconfirmed.extend(open);
                } else if unconfirmed.is_empty() {
                    failures = 0;
                }
                desk.lock().unroutable = unconfirmed.iter().any(|leaving| leaving.unroutable);
                windows.settle(&desk, done);
                ack(&desk, &mut windows, &settled.shared).await;
                continue;
            }
            () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {
                ack(&desk, &mut windows, &settled.shared).await;
                continue;
            }
            // Before new answers: however many come, those that wait have their turn.
            () = tokio::time::sleep_until(retry_at), if may_send && !unconfirmed.is_empty() => {
                let now = desk.ports.world.now().steady;
                group.extend(unconfirmed.drain(..unconfirmed.len().min(GROUP)));
                for leaving in &mut group {
                    leaving.grows_old(now);
                }
            }
            received = settled.queue.recv_many(&mut group, GROUP), if may_send => if received == 0 { return },
        }
        for Leaving { waiter, .. } in group.extract_if(.., |leaving| settled.shared.is_lost(leaving)) {
            settled.shared.close(waiter.delivery.epoch, [waiter.since]);
        }
        on_their_way.push(publish(&desk, std::mem::take(&mut group)));
    }
}

/// Publishes what is missing of each; returns those that are whole, and those that are not.
async fn publish(desk: &Desk, mut group: Vec<Leaving>) -> (Vec<Leaving>, Vec<Leaving>) {
    if group.is_empty() {
        return (group, Vec::new());
    }
    let mut publications = Vec::with_capacity(group.len());
    let mut owners = Vec::with_capacity(group.len());
    for (at, leaving) in group.iter().enumerate() {
        // The dead letter first: once an outcome is out, nothing of it may be missing for long.
        if leaving.forward {
            owners.push((at, false));
            publications.push(match &leaving.how {
                How::Answered(outcome) => dead_letter(desk, &leaving.waiter, outcome),
                How::Aside { held } => aside(desk, &leaving.waiter, *held),
            });
        }
        if let (true, How::Answered(outcome)) = (leaving.publish_outcome, &leaving.how) {
            owners.push((at, true));
            publications.push(outcome_publication(desk, &leaving.waiter, outcome));
        }
    }
    let confirms = desk.ports.broker.publish(publications).await;
    let (mut unroutable, mut unconfirmed) = (0, 0);
    for leaving in &mut group {
        leaving.unroutable = false;
    }
    for ((at, is_outcome), confirm) in owners.into_iter().zip(confirms) {
        match confirm {
            Confirm::Confirmed if is_outcome => group[at].publish_outcome = false,
            Confirm::Confirmed => group[at].forward = false,
            Confirm::Unroutable => {
                unroutable += 1;
                group[at].unroutable = true;
            }
            Confirm::Unconfirmed => unconfirmed += 1,
        }
    }
    if unroutable + unconfirmed > 0 {
        desk.ports.observer.see(&Event::Unpublished { unroutable, unconfirmed });
    }
    group.into_iter().partition(Leaving::is_done)
}

/// The ack windows of all epochs of which something is left; of each delivery it is noted when it came.
#[derive(Default)]
struct Windows(BTreeMap<Epoch, AckWindow<Duration>>);

impl Windows {
    /// These need no more than their acks.
    fn settle(&mut self, desk: &Desk, done: Vec<Leaving>) {
        let now = desk.ports.world.now();
        let mut stepped_aside = 0;
        for Leaving { waiter, how, .. } in done {
            match how {
                How::Answered(outcome) => tell(desk, &waiter, &outcome, now.steady),
                How::Aside { .. } => stepped_aside += 1,
            }
            let window = self.0.entry(waiter.delivery.epoch).or_insert_with(|| AckWindow::new(ACK_PATIENCE));
            let Delivery { tag, source, .. } = waiter.delivery;
            match source {
                Source::Requests => window.settle(tag, waiter.since, now.steady),
                // Should the channel end first, it would count as delivered once more, and there is a limit to that.
                Source::Returned => window.settle_at_once(tag, waiter.since, now.steady),
            }
        }
        if stepped_aside > 0 {
            desk.ports.observer.see(&Event::SteppedAside { deliveries: stepped_aside });
        }
    }

    /// In how long there is something to ack, though nothing else is settled until then.
    fn due(&self, now: Duration) -> Option<Duration> {
        self.0.values().filter_map(AckWindow::due).min().map(|due| due.saturating_sub(now))
    }
}

async fn ack(desk: &Desk, windows: &mut Windows, shared: &Shared) {
    let now = desk.ports.world.now().steady;
    for (epoch, window) in &mut windows.0 {
        let Acks { acks, gone } = window.acks(now);
        if !acks.is_empty() {
            desk.ports.broker.ack(*epoch, acks).await;
        }
        shared.close(*epoch, gone);
    }
    windows.0.retain(|epoch, window| {
        let live = *epoch >= shared.first_live();
        if !live {
            shared.close(*epoch, window.abandon());
        }
        live
    });
    desk.room.notify_one();
}

/// The broker has the outcome: whoever else wants to hear of it does.
fn tell(desk: &Desk, waiter: &Waiter, outcome: &Outcome, now: Duration) {
    if let (true, Some(queue)) = (desk.settings.reply_to, &waiter.delivery.reply_to) {
        let publication = Publication { mandatory: false, ..outcome_publication(desk, waiter, outcome) };
        desk.ports.broker.reply(queue.clone(), publication);
    }
    let took = now.saturating_sub(waiter.since);
    let dead = outcome.dead.as_ref().map(|dead| dead.code);
    desk.ports.observer.see(&Event::Published { status: outcome.status, counts: outcome.counts, dead, took });
}

fn outcome_publication(desk: &Desk, waiter: &Waiter, outcome: &Outcome) -> Publication {
    let at = desk.ports.world.now().wall;
    Publication {
        exchange: Exchange::Outcomes,
        routing_key: format!("outcome.{}", outcome.status.as_str()),
        head: Head::Own {
            message_id: outcome.id.as_str().to_owned(),
            correlation_id: outcome.correlation_id.clone(),
            kind: OUTCOME_TYPE,
            at,
            traceparent: waiter.delivery.envelope.traceparent,
        },
        payload: outcome.json(at),
        mandatory: true,
    }
}

fn dead_letter(desk: &Desk, waiter: &Waiter, outcome: &Outcome) -> Publication {
    let envelope = &waiter.delivery.envelope;
    let mut headers = Vec::with_capacity(5);
    let mut routing_key = "dead.unknown".to_owned();
    if let Some(dead) = &outcome.dead {
        routing_key = format!("dead.{}", dead.code);
        headers.push(("x-eraser-code", dead.code.to_owned()));
        headers.push(("x-eraser-outcome-id", outcome.id.as_str().to_owned()));
        headers.push(("x-eraser-dead-at", desk.ports.world.now().wall.to_string()));
        headers.push(("x-eraser-reason", dead.reason.clone()));
    }
    if let Some(undone) = outcome.undone(envelope) {
        headers.push(("x-eraser-undone", undone));
    }
    Publication {
        exchange: Exchange::Dead,
        routing_key,
        head: Head::Forwarded { original: waiter.delivery.original.clone(), headers },
        payload: envelope.payload.clone(),
        mandatory: true,
    }
}

/// Where the delivery waits on. How long its project has been held for it goes with it, for that bounds its patience.
fn aside(desk: &Desk, Waiter { delivery, .. }: &Waiter, held: bool) -> Publication {
    let (exchange, routing_key) = match delivery.source {
        Source::Requests => (Exchange::Parking, String::new()),
        Source::Returned => (Exchange::Dead, "returned".to_owned()),
    };
    let since = delivery.envelope.aside_since.or_else(|| held.then(|| desk.ports.world.now().wall));
    let headers = since.map(|since| ("x-eraser-aside-since", since.as_millis().to_string()));
    Publication {
        exchange,
        routing_key,
        head: Head::Forwarded { original: delivery.original.clone(), headers: headers.into_iter().collect() },
        payload: delivery.envelope.payload.clone(),
        mandatory: true,
    }
}
