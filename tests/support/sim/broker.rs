//! RabbitMQ in memory: a request queue whose unsettled messages come back, and logs of what was published.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use migma_eraser::domain::acks::Ack;
use migma_eraser::domain::envelope::Envelope;
use migma_eraser::ports::{Broker, Confirm, Delivery, Epoch, Exchange, Head, Inbound, Original, Publication, Source};
use tokio::sync::Notify;

use super::coverage;
use super::fault::Faults;

/// A message in the request queue.
#[derive(Clone)]
pub struct Message {
    pub number: u64,
    pub envelope: Envelope,
    pub redelivered: bool,
}

/// An outcome as the broker confirmed it.
#[derive(Clone)]
pub struct Published {
    pub exchange: Exchange,
    pub message_id: Option<String>,
    pub payload: Bytes,
}

/// What outlives connections and workers.
#[derive(Default)]
pub struct Store {
    queue: VecDeque<Message>,
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
        self.queue.is_empty() && self.unsettled.is_empty()
    }

    /// What is where, for a world that does not come to rest.
    pub fn describe(&self) -> String {
        format!(
            "{} queued, {} unsettled {:?}, epoch {}",
            self.queue.len(),
            self.unsettled.len(),
            self.unsettled.keys(),
            self.epoch
        )
    }

    /// Everything unsettled goes back to the front, in its order.
    fn requeue(&mut self) {
        for (_, mut message) in std::mem::take(&mut self.unsettled).into_iter().rev() {
            message.redelivered = true;
            self.queue.push_front(message);
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
}

impl FakeBroker {
    pub fn new(faults: Arc<Faults>, prefetch: usize) -> Self {
        let life = Life { consuming: false, epoch: 0, tag: 0, lost: None };
        Self { store: Arc::default(), faults, bell: Arc::default(), life: Arc::new(Mutex::new(life)), prefetch }
    }

    /// A message arrives.
    pub fn send(&self, envelope: Envelope) {
        let mut store = self.store.lock().unwrap();
        store.next_number += 1;
        let number = store.next_number;
        store.queue.push_back(Message { number, envelope, redelivered: false });
        drop(store);
        self.bell.notify_waiters();
    }

    /// The worker is gone; the next one connects.
    pub fn reconnect(&mut self) {
        let mut store = self.store.lock().unwrap();
        store.requeue();
        store.epoch += 1;
        let life = Life { consuming: false, epoch: store.epoch, tag: 0, lost: None };
        // Whatever is left of the dead worker holds the old one.
        self.life = Arc::new(Mutex::new(life));
    }

    /// The channel ends; a new one follows.
    fn cut(&self) {
        let mut store = self.store.lock().unwrap();
        let mut life = self.life.lock().unwrap();
        store.requeue();
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
        if !life.consuming || store.queue.is_empty() {
            return None;
        }
        let room = self.prefetch.saturating_sub(store.unsettled.len());
        let burst = room.min(1 + self.faults.dice.below(8)).min(store.queue.len());
        if burst == 0 {
            return None;
        }
        let deliveries = (0..burst)
            .map(|_| {
                let message = store.queue.pop_front().unwrap();
                life.tag += 1;
                store.unsettled.insert((life.epoch, life.tag), message.clone());
                Delivery {
                    epoch: Epoch(life.epoch),
                    tag: life.tag,
                    source: Source::Requests,
                    redelivered: message.redelivered,
                    envelope: message.envelope,
                    original: Original { properties: Default::default() },
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
            let bell = self.bell.notified();
            tokio::pin!(bell);
            bell.as_mut().enable();
            if let Some(inbound) = self.poll() {
                return inbound;
            }
            bell.await;
        }
    }

    fn consume(&self, on: bool) {
        let was = std::mem::replace(&mut self.life.lock().unwrap().consuming, on);
        if was && !on {
            self.cut();
        }
        self.bell.notify_waiters();
    }

    fn give_back(&self, epoch: Epoch) {
        if self.life.lock().unwrap().epoch <= epoch.0 {
            self.cut();
        }
    }

    async fn publish(&self, group: Vec<Publication>) -> Vec<Confirm> {
        self.faults.crash("publish", "before", "-").await;
        if self.faults.strikes(0.02) {
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
            let message_id = match publication.head {
                Head::Own { message_id, .. } => Some(message_id),
                Head::DeadLetter { .. } => None,
            };
            self.store.lock().unwrap().log.push(Published {
                exchange: publication.exchange,
                message_id,
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
        for ack in acks {
            self.faults.crash("ack", "before", "-").await;
            if self.faults.strikes(0.01) {
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
