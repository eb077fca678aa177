//! RabbitMQ in memory: request, returned and parking queue, whose unsettled messages come back, and logs of what was
//! published.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use migma_eraser::domain::acks::Ack;
use migma_eraser::domain::envelope::Envelope;
use migma_eraser::domain::moment::Timestamp;
use migma_eraser::ports::{Broker, Confirm, Delivery, Epoch, Exchange, Head, Inbound, Original, Publication, Source};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::coverage;
use super::fault::Faults;

/// How long a parked request stays aside: longer than on a real broker, for a hold of a day takes as many rounds.
const PARKED_FOR: std::time::Duration = std::time::Duration::from_mins(10);

fn properties(envelope: &Envelope) -> lapin::BasicProperties {
    match &envelope.message_id {
        Some(id) => lapin::BasicProperties::default().with_message_id(id.as_str().into()),
        None => lapin::BasicProperties::default(),
    }
}

/// As in the worker's settings.
const CONSUMER_TIMEOUT: Duration = Duration::from_mins(30);

/// How often the returned queue delivers one message, less those deliveries that the worker died of.
const RETURNED_LIMIT: u32 = 5;

/// A message in the request queue.
#[derive(Clone)]
pub struct Message {
    pub number: u64,
    pub envelope: Envelope,
    pub redelivered: bool,
    pub source: Source,
    /// How often its channel ended without the worker's death.
    cuts: u32,
    /// When it was delivered last.
    delivered: Option<Instant>,
}

impl Message {
    /// What is wrong where it was held for longer than the broker waits.
    fn overdue(&self) -> Option<String> {
        let held = self.delivered.is_some_and(|at| at.elapsed() > CONSUMER_TIMEOUT);
        held.then(|| "a delivery was held past the consumer timeout".to_owned())
    }
}

/// An outcome as the broker confirmed it.
#[derive(Clone)]
pub struct Published {
    pub exchange: Exchange,
    pub message_id: Option<String>,
    pub payload: Bytes,
    /// Whether it is a request that stepped aside.
    pub aside: bool,
}

/// What outlives connections and workers.
#[derive(Default)]
pub struct Store {
    queue: VecDeque<Message>,
    returned: VecDeque<Message>,
    /// With the time at which each goes back to the request queue.
    parked: VecDeque<(Instant, Message)>,
    unsettled: BTreeMap<(u64, u64), Message>,
    next_number: u64,
    epoch: u64,
    pub log: Vec<Published>,
    /// Acked messages, each with the length of the log when it was acked.
    pub acked: Vec<(Message, usize)>,
    pub violations: Vec<String>,
}

impl Store {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.returned.is_empty() && self.parked.is_empty() && self.unsettled.is_empty()
    }

    /// Whether everything that came has been taken, though perhaps not settled.
    pub fn is_taken(&self) -> bool {
        self.queue.is_empty()
    }

    /// What is where, for a world that does not come to rest.
    pub fn describe(&self) -> String {
        format!(
            "{} queued, {} returned, {} parked, {} unsettled {:?}, epoch {}",
            self.queue.len(),
            self.returned.len(),
            self.parked.len(),
            self.unsettled.len(),
            self.unsettled.keys(),
            self.epoch
        )
    }

    /// Everything unsettled on this channel goes back to the front, in its order, each with so many cuts more.
    fn requeue(&mut self, epoch: u64, cuts: u32) {
        let mut unsettled = self.unsettled.split_off(&(epoch, 0));
        self.unsettled.extend(unsettled.split_off(&(epoch + 1, 0)));
        for (_, mut message) in unsettled.into_iter().rev() {
            self.violations.extend(message.overdue());
            message.redelivered = true;
            message.cuts += cuts;
            if message.source == Source::Returned && message.cuts >= RETURNED_LIMIT {
                self.violations.push("a returned request is counted out, though nothing died of it".to_owned());
            }
            match message.source {
                Source::Requests => self.queue.push_front(message),
                Source::Returned => self.returned.push_front(message),
            }
        }
    }

    /// What is unsettled on this channel.
    fn held(&self, epoch: u64) -> impl Iterator<Item = &Message> {
        self.unsettled.range((epoch, 0)..(epoch + 1, 0)).map(|(_, message)| message)
    }

    fn arrive(&mut self, envelope: Envelope, source: Source) -> Message {
        self.next_number += 1;
        Message { number: self.next_number, envelope, redelivered: false, source, cuts: 0, delivered: None }
    }

    /// What has been parked for long enough comes back.
    fn unpark(&mut self) {
        while self.parked.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            self.queue.extend(self.parked.pop_front().map(|(_, message)| message));
        }
    }
}

#[derive(Clone)]
pub struct FakeBroker {
    pub store: Arc<Mutex<Store>>,
    faults: Arc<Faults>,
    bell: Arc<Notify>,
    life: Arc<Mutex<Life>>,
    prefetch: usize,
}

/// One worker's connection.
struct Life {
    consuming: bool,
    epoch: u64,
    tag: u64,
    lost: Option<u64>,
    limit: usize,
}

impl FakeBroker {
    pub fn new(faults: Arc<Faults>, prefetch: usize) -> Self {
        let life = Life { consuming: false, epoch: 1, tag: 0, lost: None, limit: usize::MAX };
        let store = Arc::new(Mutex::new(Store { epoch: life.epoch, ..Store::default() }));
        Self { store, faults, bell: Arc::default(), life: Arc::new(Mutex::new(life)), prefetch }
    }

    /// The same broker for another worker, that has faults of its own.
    pub fn beside(&self, faults: Arc<Faults>) -> Self {
        let mut beside = Self {
            faults,
            life: Arc::new(Mutex::new(Life { epoch: 0, ..*self.life.lock().unwrap() })),
            ..self.clone()
        };
        beside.reconnect();
        beside
    }

    /// A message arrives.
    pub fn send(&self, envelope: Envelope) {
        let mut store = self.store.lock().unwrap();
        let message = store.arrive(envelope, Source::Requests);
        store.queue.push_back(message);
        drop(store);
        self.bell.notify_waiters();
    }

    /// Whether the worker takes messages.
    pub fn consumes(&self) -> bool {
        self.life.lock().unwrap().consuming
    }

    /// A message that the broker took off the request queue.
    pub fn send_returned(&self, envelope: Envelope) {
        let mut store = self.store.lock().unwrap();
        let message = store.arrive(envelope, Source::Returned);
        store.returned.push_back(message);
        drop(store);
        self.bell.notify_waiters();
    }

    /// The worker is gone; the next one connects.
    pub fn reconnect(&mut self) {
        let mut store = self.store.lock().unwrap();
        store.requeue(self.life.lock().unwrap().epoch, 0);
        store.epoch += 1;
        let life = Life { consuming: false, epoch: store.epoch, tag: 0, lost: None, limit: usize::MAX };
        // Whatever is left of the dead worker holds the old one.
        self.life = Arc::new(Mutex::new(life));
    }

    /// What the worker puts aside waits in its queue.
    fn step_aside(&self, publication: &Publication) {
        let Head::Forwarded { original, headers } = &publication.head else { return };
        let text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(ToString::to_string);
        let since = headers.iter().find(|(name, _)| *name == "x-eraser-aside-since");
        let envelope = Envelope {
            message_id: text(original.properties.message_id()),
            aside_since: since.map(|(_, millis)| Timestamp::from_millis(millis.parse().unwrap())),
            payload: publication.payload.clone(),
            ..Envelope::default()
        };
        let mut store = self.store.lock().unwrap();
        match publication.exchange {
            Exchange::Parking => {
                coverage::hit("aside", "parked", "-");
                let message = store.arrive(envelope, Source::Requests);
                store.parked.push_back((Instant::now() + PARKED_FOR, message));
            }
            Exchange::Dead if publication.routing_key == "returned" => {
                coverage::hit("aside", "returned", "-");
                let message = store.arrive(envelope, Source::Returned);
                store.returned.push_back(message);
            }
            Exchange::Dead | Exchange::Outcomes => {}
        }
    }

    /// The channel ends; a new one follows.
    pub fn cut(&self) {
        let mut store = self.store.lock().unwrap();
        let mut life = self.life.lock().unwrap();
        store.requeue(life.epoch, 1);
        life.lost = Some(life.epoch);
        store.epoch += 1;
        life.epoch = store.epoch;
        life.tag = 0;
        drop(life);
        drop(store);
        self.bell.notify_waiters();
    }

    fn poll(&self) -> Option<Inbound> {
        let mut store = self.store.lock().unwrap();
        let mut life = self.life.lock().unwrap();
        if let Some(epoch) = life.lost.take() {
            return Some(Inbound::Lost(Epoch(epoch)));
        }
        if !life.consuming {
            return None;
        }
        store.unpark();
        let room = self.prefetch.min(life.limit).saturating_sub(store.held(life.epoch).count());
        let burst = room.min(1 + self.faults.dice.below(8)).min(store.queue.len());
        let mut messages: Vec<Message> = store.queue.drain(..burst).collect();
        if store.held(life.epoch).all(|message| message.source == Source::Requests) {
            messages.extend(store.returned.pop_front());
        }
        if messages.is_empty() {
            return None;
        }
        let deliveries = messages
            .into_iter()
            .map(|message| {
                life.tag += 1;
                let taken = Message { delivered: Some(Instant::now()), ..message.clone() };
                store.unsettled.insert((life.epoch, life.tag), taken);
                Delivery {
                    epoch: Epoch(life.epoch),
                    tag: life.tag,
                    source: message.source,
                    redelivered: message.redelivered,
                    original: Original { properties: properties(&message.envelope).into() },
                    envelope: message.envelope,
                    reply_to: None,
                }
            })
            .collect();
        Some(Inbound::Deliveries(deliveries))
    }
}

#[async_trait]
impl Broker for FakeBroker {
    async fn next(&self) -> Inbound {
        loop {
            self.faults.goes_on().await;
            let bell = self.bell.notified();
            tokio::pin!(bell);
            bell.as_mut().enable();
            if let Some(inbound) = self.poll() {
                return inbound;
            }
            let due = self.store.lock().unwrap().parked.front().map(|(due, _)| *due);
            let due = due.filter(|due| *due > Instant::now());
            tokio::select! {
                biased;
                () = bell => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn consume(&self, on: bool) {
        let (was, cancelled) = {
            let mut life = self.life.lock().unwrap();
            (std::mem::replace(&mut life.consuming, on), life.epoch)
        };
        if on && !was && cancelled > 1 {
            self.give_back(Epoch(cancelled));
        }
        self.bell.notify_waiters();
    }

    fn looked(&self, at_most: Option<u16>) {
        let Some(at_most) = at_most else { return };
        self.life.lock().unwrap().limit = at_most.into();
        self.bell.notify_waiters();
    }

    fn is_used_up(&self) -> bool {
        let (store, life) = (self.store.lock().unwrap(), self.life.lock().unwrap());
        store.held(life.epoch).count() >= self.prefetch.min(life.limit)
    }

    fn give_back(&self, epoch: Epoch) {
        if self.life.lock().unwrap().epoch <= epoch.0 {
            self.cut();
        }
    }

    async fn publish(&self, group: Vec<Publication>) -> Vec<Confirm> {
        self.faults.crash("publish", "before", "-").await;
        if self.faults.strikes_within_bounds(0.02) {
            coverage::hit("publish", "connection cut", "-");
            self.cut();
        }
        let mut confirms = Vec::new();
        for publication in group {
            if self.faults.error("publish", "before", "-") {
                confirms.push(Confirm::Unconfirmed);
                continue;
            }
            if publication.mandatory && self.faults.strikes(0.01) {
                coverage::hit("publish", "unroutable", "-");
                confirms.push(Confirm::Unroutable);
                continue;
            }
            let message_id = match &publication.head {
                Head::Own { message_id, .. } => Some(message_id.clone()),
                Head::Forwarded { original, .. } => original.properties.message_id().as_ref().map(ToString::to_string),
            };
            self.step_aside(&publication);
            self.store.lock().unwrap().log.push(Published {
                exchange: publication.exchange,
                message_id,
                aside: publication.exchange == Exchange::Parking || publication.routing_key == "returned",
                payload: publication.payload,
            });
            let lost = self.faults.error("publish", "after", "-");
            confirms.push(if lost { Confirm::Unconfirmed } else { Confirm::Confirmed });
            self.faults.crash("publish", "amid", "-").await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        self.faults.crash("publish", "after", "-").await;
        confirms
    }

    fn tell(&self, _: Publication) {}

    fn reply(&self, _: String, _: Publication) {}

    async fn ack(&self, epoch: Epoch, acks: Vec<Ack>) {
        self.faults.goes_on().await;
        for ack in acks {
            self.faults.crash("ack", "before", "-").await;
            if self.faults.strikes_within_bounds(0.01) {
                coverage::hit("ack", "connection cut", "-");
                self.cut();
            }
            {
                let mut store = self.store.lock().unwrap();
                if self.life.lock().unwrap().epoch != epoch.0 {
                    continue;
                }
                if !store.unsettled.contains_key(&(epoch.0, ack.tag)) {
                    store.violations.push(format!("ack of tag {} which is not outstanding", ack.tag));
                    continue;
                }
                let from = if ack.multiple { 0 } else { ack.tag };
                let tags: Vec<_> =
                    store.unsettled.range((epoch.0, from)..=(epoch.0, ack.tag)).map(|(tag, _)| *tag).collect();
                for tag in tags {
                    let message = store.unsettled.remove(&tag).unwrap();
                    store.violations.extend(message.overdue());
                    let at = store.log.len();
                    store.acked.push((message, at));
                }
            }
            self.bell.notify_waiters();
            self.faults.crash("ack", "after", "-").await;
        }
    }

    async fn close(&self) {}
}
