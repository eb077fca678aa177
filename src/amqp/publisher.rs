//! The publishing connection: one task, one channel, confirms awaited in bulk.
//!
//! One task, for publishing from several on one channel mixes up the confirms. A returned message can be handed to
//! another message's confirm, so what was returned is decided over the whole group.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, PublisherConfirm};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::connection::{COMMAND_TIMEOUT, Connector, close, in_a_burst, pause, within};
use super::message::{properties, short};
use super::{AmqpError, BrokerState, Names, topology};
use crate::ports::{Confirm, Exchange, Publication};

/// How long the broker may be silent while confirms are waited for, unless it has said that it takes nothing now.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// Until when a group waits for another try to connect; then it is told that there is no connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a group waits on a connection that the broker has blocked, before it is told so.
const BLOCKED_PAUSE: Duration = Duration::from_secs(1);
/// The most messages that go out before their confirms are awaited.
const GROUP: usize = 5000;
/// The most messages, and after how many bytes no further one, that are handed to lapin at a time.
const BURST: usize = 256;
const BURST_BYTES: usize = 256 * 1024;

/// What the publisher is told.
pub(super) enum Job {
    Publish { group: Vec<Publication>, done: oneshot::Sender<Vec<Confirm>> },
    Tell(Publication),
    Close(oneshot::Sender<()>),
}

struct Link {
    connection: Connection,
    channel: Channel,
}

struct Publisher {
    connector: Arc<Connector>,
    state: Arc<watch::Sender<BrokerState>>,
    link: Option<Link>,
    connected_before: bool,
    failures: u32,
}

pub(super) async fn run(
    connector: Arc<Connector>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    state: Arc<watch::Sender<BrokerState>>,
) {
    let mut publisher = Publisher { connector, state, link: None, connected_before: false, failures: 0 };
    let _ = publisher.connect().await;
    let mut queue = Vec::new();
    while jobs.recv_many(&mut queue, 256).await > 0 {
        let mut close_orders = Vec::new();
        let mut pending = Vec::new();
        let mut count = 0;
        for job in queue.drain(..) {
            match job {
                Job::Publish { group, done } => {
                    count += group.len();
                    pending.push((group, Some(done)));
                }
                Job::Tell(publication) => pending.push((vec![publication], None)),
                Job::Close(done) => close_orders.push(done),
            }
            if count >= GROUP {
                publisher.publish(std::mem::take(&mut pending)).await;
                count = 0;
            }
        }
        publisher.publish(pending).await;
        if !close_orders.is_empty() {
            if let Some(link) = publisher.link.take() {
                close(&link.connection).await;
            }
            for done in close_orders {
                let _ = done.send(());
            }
            return;
        }
    }
}

/// What came of one try to publish a group.
struct Attempt {
    confirms: Vec<Confirm>,
    /// Whether the broker ended the channel or the connection, and said why.
    refused: bool,
}

type Group = (Vec<Publication>, Option<oneshot::Sender<Vec<Confirm>>>);

impl Publisher {
    /// Publishes groups as one, and tells each its confirms.
    async fn publish(&mut self, groups: Vec<Group>) {
        if groups.is_empty() {
            return;
        }
        let all: Vec<&Publication> = groups.iter().flat_map(|(group, _)| group).collect();
        let Attempt { mut confirms, refused } = self.attempt(&all).await;
        if refused && all.len() > 1 {
            // One message may be to blame for the end of the channel, so each tries by itself.
            for (publication, confirm) in all.iter().zip(&mut confirms) {
                if *confirm == Confirm::Unconfirmed && publication.mandatory {
                    let alone = self.attempt(std::slice::from_ref(publication)).await;
                    *confirm = alone.confirms.first().copied().unwrap_or(Confirm::Unconfirmed);
                    if *confirm == Confirm::Unconfirmed && !alone.refused {
                        // No message's fault: there is no connection, or the broker takes nothing now.
                        break;
                    }
                }
            }
        }
        let mut confirms = confirms.into_iter();
        for (group, done) in groups {
            let mine = confirms.by_ref().take(group.len()).collect();
            if let Some(done) = done {
                let _ = done.send(mine);
            }
        }
    }

    async fn attempt(&mut self, group: &[&Publication]) -> Attempt {
        let nothing = Attempt { confirms: vec![Confirm::Unconfirmed; group.len()], refused: false };
        if !self.ensure_connected().await {
            return nothing;
        }
        let Some(link) = &self.link else { return nothing };
        if link.connection.status().blocked() {
            // An alarm: what is sent now would lie in buffers, and be there as often as it is tried. The link is kept,
            // for the end of the alarm is told on it.
            tokio::time::sleep(BLOCKED_PAUSE).await;
            return nothing;
        }
        let names = &self.connector.settings.names;
        let sending = async {
            let mut waiting = Vec::with_capacity(group.len());
            for burst in bursts(group) {
                waiting.extend(send(&link.channel, names, burst).await?);
            }
            Ok::<_, lapin::Error>(waiting)
        };
        match within(CONFIRM_TIMEOUT, "publishing", sending).await {
            Ok(waiting) => {
                let (confirmations, complete) = confirmations(&link.connection, waiting).await;
                let failure = confirmations.iter().find_map(|c| c.as_ref().err());
                let (refused, failed) = (failure.is_some_and(lapin::Error::is_amqp_error), failure.is_some());
                if let Some(error) = failure {
                    warn!(error = %error, "publishing ended; connecting again");
                } else if !complete {
                    warn!("the broker did not confirm in time; connecting again");
                }
                let confirms = decide(names, group, confirmations);
                if failed || !complete {
                    self.drop_link();
                }
                Attempt { confirms, refused }
            }
            Err(error) => {
                let refused = matches!(&error, AmqpError::Broker { source, .. } if source.is_amqp_error());
                warn!(error = %error, cause = ?std::error::Error::source(&error).map(ToString::to_string), "publishing ended; connecting again");
                self.drop_link();
                Attempt { refused, ..nothing }
            }
        }
    }

    fn drop_link(&mut self) {
        self.state.send_modify(|state| state.publishing = false);
        if let Some(link) = self.link.take() {
            // Not waited for: a blocked connection would hang here.
            tokio::spawn(async move { close(&link.connection).await });
        }
    }

    async fn ensure_connected(&mut self) -> bool {
        if let Some(link) = &self.link
            && link.connection.status().connected()
            && link.channel.status().connected()
        {
            return true;
        }
        self.drop_link();
        let patience = tokio::time::Instant::now() + CONNECT_PATIENCE;
        loop {
            if self.connect().await {
                return true;
            }
            let pause = pause(self.failures);
            if tokio::time::Instant::now() + pause > patience {
                return false;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn connect(&mut self) -> bool {
        let settings = Arc::clone(&self.connector.settings);
        let attempt = async {
            let connection = self.connector.connect("publishing").await?;
            topology::establish(&connection, &settings.names, settings.declare_topology).await?;
            let channel = confirming_channel(&connection).await?;
            Ok::<_, AmqpError>(Link { connection, channel })
        };
        match attempt.await {
            Ok(link) => {
                self.link = Some(link);
                self.failures = 0;
                let again = std::mem::replace(&mut self.connected_before, true);
                self.state.send_modify(|state| {
                    state.publishing = true;
                    state.publishing_reconnects += u64::from(again);
                });
                true
            }
            Err(error) => {
                if self.failures == 0 || !error.is_transient() {
                    warn!(error = %error, "cannot publish; trying again");
                }
                self.failures = self.failures.saturating_add(1);
                false
            }
        }
    }
}

/// Parts a group so that what lapin copies of it at a time is bounded.
fn bursts<'a, 'p>(mut group: &'a [&'p Publication]) -> impl Iterator<Item = &'a [&'p Publication]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = group.iter().take(BURST).take_while(|publication| {
            let fits = bytes < BURST_BYTES;
            bytes += publication.payload.len();
            fits
        });
        let (burst, rest) = group.split_at(fit.count());
        group = rest;
        (!burst.is_empty()).then_some(burst)
    })
}

async fn send(channel: &Channel, names: &Names, burst: &[&Publication]) -> lapin::Result<Vec<PublisherConfirm>> {
    let publish = |publication: &&Publication| {
        let (exchange, key) = target(names, publication);
        let options = BasicPublishOptions { mandatory: publication.mandatory, ..BasicPublishOptions::default() };
        let (exchange, key, properties) = (short(exchange), short(key), properties(publication));
        let payload = publication.payload.clone();
        async move { channel.basic_publish(exchange, key, options, &payload, properties).await }
    };
    in_a_burst(burst.iter().map(publish)).await
}

async fn confirming_channel(connection: &Connection) -> Result<Channel, AmqpError> {
    let channel = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
    let selecting = channel.confirm_select(ConfirmSelectOptions::default());
    within(COMMAND_TIMEOUT, "asking for confirms", selecting).await?;
    Ok(channel)
}

/// Waits for the confirms of a group, and whether all came: one after the other, so that each that comes is time won.
/// Those that are missing stand at the end, and are not in the list.
async fn confirmations(
    connection: &Connection,
    waiting: Vec<PublisherConfirm>,
) -> (Vec<lapin::Result<Confirmation>>, bool) {
    let mut confirmations = Vec::with_capacity(waiting.len());
    for mut confirm in waiting {
        loop {
            match tokio::time::timeout(CONFIRM_TIMEOUT, &mut confirm).await {
                Ok(confirmation) => break confirmations.push(confirmation),
                // The broker takes nothing now and has said so: its word comes when it does again.
                Err(_) if connection.status().connected() && connection.status().blocked() => {}
                Err(_) => return (confirmations, false),
            }
        }
    }
    (confirmations, true)
}

/// What a returned message is known by.
type Mark = (String, String, Option<String>);

fn mark(exchange: &str, routing_key: &str, properties: &BasicProperties) -> Mark {
    (exchange.to_owned(), routing_key.to_owned(), properties.message_id().as_ref().map(ToString::to_string))
}

/// The exchange and the routing key to publish with.
fn target<'a>(names: &'a Names, publication: &'a Publication) -> (&'a str, &'a str) {
    match publication.exchange {
        Exchange::Outcomes => (&names.outcome_exchange, &publication.routing_key),
        Exchange::Dead => (&names.dead_exchange, &publication.routing_key),
        Exchange::Parking => ("", &names.parking_queue),
    }
}

/// What the broker said of each; of those at the end that have no confirmation it has not said anything.
fn decide(names: &Names, group: &[&Publication], confirmations: Vec<lapin::Result<Confirmation>>) -> Vec<Confirm> {
    let mut returned: HashSet<Mark> = HashSet::new();
    let mut confirms = Vec::with_capacity(group.len());
    let note = |message: Option<Box<BasicReturnMessage>>, returned: &mut HashSet<Mark>| {
        if let Some(message) = message {
            let delivery = &message.delivery;
            returned.insert(mark(delivery.exchange.as_str(), delivery.routing_key.as_str(), &delivery.properties));
        }
    };
    for confirmation in confirmations {
        confirms.push(match confirmation {
            Ok(Confirmation::Ack(message)) => {
                note(message.map(Box::new), &mut returned);
                Confirm::Confirmed
            }
            Ok(Confirmation::Nack(message)) => {
                note(message.map(Box::new), &mut returned);
                Confirm::Unconfirmed
            }
            Ok(Confirmation::NotRequested) | Err(_) => Confirm::Unconfirmed,
        });
    }
    confirms.resize(group.len(), Confirm::Unconfirmed);
    if !returned.is_empty() {
        for (publication, confirm) in group.iter().zip(&mut confirms) {
            let (exchange, key) = target(names, publication);
            let mark = mark(exchange, key, &properties(publication));
            if publication.mandatory && returned.contains(&mark) {
                *confirm = Confirm::Unroutable;
            }
        }
    }
    confirms
}

/// Replies to the queues that requests name, on a connection of their own, made when the first is due: a name that the
/// broker takes offence at (541) closes this connection and no other.
pub(super) async fn run_replies(connector: Arc<Connector>, mut replies: mpsc::Receiver<(String, Publication)>) {
    let mut link: Option<Link> = None;
    while let Some((queue, publication)) = replies.recv().await {
        if !link.as_ref().is_some_and(|l| l.connection.status().connected() && l.channel.status().connected()) {
            let attempt = async {
                let connection = connector.connect("replying").await?;
                let channel = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
                Ok::<_, AmqpError>(Link { connection, channel })
            };
            link = match attempt.await {
                Ok(link) => Some(link),
                Err(error) => {
                    debug!(error = %error, "a reply was not sent");
                    continue;
                }
            };
        }
        if let Some(Link { channel, .. }) = &link {
            let sending = channel.basic_publish(
                short(""),
                short(&queue),
                BasicPublishOptions::default(),
                &publication.payload,
                properties(&publication),
            );
            if let Err(error) = within(COMMAND_TIMEOUT, "replying", sending).await {
                debug!(error = %error, "a reply was not sent");
            }
        }
    }
}
