//! The publishing connection: one task, one channel, confirms awaited in bulk while more goes out.
//!
//! One task, for publishing from several on one channel mixes up the confirms. Never here: what the broker's word on a
//! message means for its delivery.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Connection, ErrorKind, PublisherConfirm};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::confirms::{Group, OnTheirWay, Sent, Silence, target};
use super::connection::{COMMAND_TIMEOUT, Connector, close, in_a_burst, pause, within};
use super::message::{properties, short};
use super::{AmqpError, BrokerState, Names, topology};
use crate::ports::{Confirm, Publication};

/// How long the broker may be silent while confirms are waited for, unless it has said that it takes nothing now.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// Until when a group waits for another try to connect; then it is told that there is no connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a group waits on a connection that the broker has blocked, before it is told so.
const BLOCKED_PAUSE: Duration = Duration::from_secs(1);
/// After how many messages no further group goes out with them.
const GROUP: usize = 2500;
/// The most of such that wait for their confirms at a time.
const GROUPS: usize = 4;
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
    on_their_way: OnTheirWay,
}

impl Link {
    fn is_standing(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Whether the broker has said that it takes nothing now.
    fn is_blocked(&self) -> bool {
        self.connection.status().connected() && self.connection.status().blocked()
    }
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
    loop {
        let on_their_way = publisher.on_their_way();
        tokio::select! {
            biased;
            heard = publisher.oldest(), if on_their_way > 0 => publisher.heed(heard).await,
            received = jobs.recv_many(&mut queue, 256), if on_their_way < GROUPS => if received == 0 { return },
        }
        let mut groups: Vec<Group> = Vec::new();
        let mut close_orders = Vec::new();
        let mut count = 0;
        for job in queue.drain(..) {
            match job {
                Job::Publish { group, done } => {
                    count += group.len();
                    groups.push((group, Some(done)));
                }
                Job::Tell(publication) => groups.push((vec![publication], None)),
                Job::Close(done) => close_orders.push(done),
            }
            if count >= GROUP {
                publisher.publish(std::mem::take(&mut groups)).await;
                count = 0;
            }
        }
        publisher.publish(groups).await;
        if !close_orders.is_empty() {
            publisher.hear_all().await;
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

/// Why messages are not confirmed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// There is no connection, or the broker takes nothing now: no message's fault.
    NotNow,
    /// The channel has ended; whether the broker ended it, or the connection, and said why.
    Ended { refused: bool },
}

/// Why groups did not go out.
enum Unsent {
    /// As [`Failure::NotNow`]; here they are.
    NotNow(Vec<Group>),
    /// As [`Failure::Ended`]; they are with those on their way.
    Ended { refused: bool },
}

/// Whether the broker ended channel or connection for what it was sent, and not for a reason of its own (its node goes down).
fn may_blame_a_message(error: &lapin::Error) -> bool {
    const CONNECTION_FORCED: u16 = 320;
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() != CONNECTION_FORCED)
}

impl Publisher {
    /// How many groups wait for their confirms.
    fn on_their_way(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.on_their_way.len())
    }

    /// Waits for the confirms of the group that went out first. Cancel safe.
    async fn oldest(&mut self) -> Result<(), Silence> {
        match &mut self.link {
            Some(link) => link.on_their_way.oldest(CONFIRM_TIMEOUT).await,
            None => Ok(()),
        }
    }

    async fn hear_all(&mut self) {
        while self.on_their_way() > 0 {
            let heard = self.oldest().await;
            self.heed(heard).await;
        }
    }

    /// Tells those who wait what was heard.
    async fn heed(&mut self, heard: Result<(), Silence>) {
        match self.judge(heard) {
            Ok(()) => self.tell_oldest(),
            Err(Failure::NotNow) => {}
            Err(Failure::Ended { refused }) => self.end(refused).await,
        }
    }

    fn judge(&self, heard: Result<(), Silence>) -> Result<(), Failure> {
        match heard {
            Ok(()) => Ok(()),
            Err(Silence::Ended(error)) => {
                warn!(error = %error, "publishing ended; connecting again");
                Err(Failure::Ended { refused: may_blame_a_message(&error) })
            }
            // The broker takes nothing now and has said so: its word comes when it does again.
            Err(Silence::TooLong) if self.link.as_ref().is_some_and(Link::is_blocked) => Err(Failure::NotNow),
            Err(Silence::TooLong) => {
                warn!("the broker did not confirm in time; connecting again");
                Err(Failure::Ended { refused: false })
            }
        }
    }

    fn tell_oldest(&mut self) {
        let names = &self.connector.settings.names;
        if let Some((sent, confirms)) = self.link.as_mut().and_then(|link| link.on_their_way.take(names)) {
            sent.tell(confirms);
        }
    }

    /// Groups go out as one, and wait for their confirms from then on; or they are told that it cannot be done.
    async fn publish(&mut self, groups: Vec<Group>) {
        if groups.is_empty() {
            return;
        }
        while self.on_their_way() >= GROUPS {
            let heard = self.oldest().await;
            self.heed(heard).await;
        }
        if !self.is_connected() {
            // What is known of those that were on their way comes first.
            self.hear_all().await;
        }
        match self.send(groups).await {
            Ok(()) => {}
            Err(Unsent::NotNow(groups)) => Sent::new(groups, Vec::new()).tell(Vec::new()),
            Err(Unsent::Ended { refused }) => self.end(refused).await,
        }
    }

    /// What cannot be sent now is given back; where the channel ends, what was half sent is with what was on its way.
    async fn send(&mut self, groups: Vec<Group>) -> Result<(), Unsent> {
        if !self.ensure_connected().await {
            return Err(Unsent::NotNow(groups));
        }
        let names = &self.connector.settings.names;
        let Some(link) = &mut self.link else { return Err(Unsent::NotNow(groups)) };
        if link.is_blocked() {
            // An alarm: what is sent now would lie in buffers, and be there as often as it is tried. The link is kept,
            // for the end of the alarm is told on it.
            tokio::time::sleep(BLOCKED_PAUSE).await;
            return Err(Unsent::NotNow(groups));
        }
        let publications: Vec<&Publication> = groups.iter().flat_map(|(group, _)| group).collect();
        let sending = async {
            let mut waiting = Vec::with_capacity(publications.len());
            for burst in bursts(&publications) {
                waiting.extend(send(&link.channel, names, burst).await?);
            }
            Ok::<_, lapin::Error>(waiting)
        };
        match within(CONFIRM_TIMEOUT, "publishing", sending).await {
            Ok(waiting) => {
                link.on_their_way.push(Sent::new(groups, waiting));
                Ok(())
            }
            Err(error) => {
                // A channel that ends while the connection stands was ended by the broker.
                let refused = matches!(&error, AmqpError::Broker { source, .. } if may_blame_a_message(source))
                    || (link.connection.status().connected() && !link.channel.status().connected())
                    || link.on_their_way.ended().is_some_and(may_blame_a_message);
                warn!(error = %error, cause = ?std::error::Error::source(&error).map(ToString::to_string), "publishing ended; connecting again");
                link.on_their_way.push(Sent::new(groups, Vec::new()));
                link.on_their_way.distrust();
                Err(Unsent::Ended { refused })
            }
        }
    }

    /// The channel has ended. One message may be to blame for it, so where the broker ended it each that is not confirmed
    /// tries by itself.
    async fn end(&mut self, refused: bool) {
        let names = &self.connector.settings.names;
        let ended = self.link.as_mut().map_or_else(Vec::new, |link| link.on_their_way.abandon(names));
        self.drop_link();
        let mut each_alone = refused && ended.iter().map(|(_, confirms)| confirms.len()).sum::<usize>() > 1;
        let (known, unknown): (Vec<_>, _) =
            ended.into_iter().partition(|(_, confirms)| !confirms.contains(&Confirm::Unconfirmed));
        for (sent, confirms) in known {
            sent.tell(confirms);
        }
        for (sent, mut confirms) in unknown {
            for (publication, confirm) in sent.publications().zip(&mut confirms) {
                if each_alone && *confirm == Confirm::Unconfirmed && publication.mandatory {
                    match self.alone(publication).await {
                        Ok(said) => *confirm = said,
                        Err(Failure::Ended { refused: true }) => {}
                        // No message's fault: there is no connection, or the broker takes nothing now.
                        Err(_) => each_alone = false,
                    }
                }
            }
            sent.tell(confirms);
        }
    }

    /// Sends one message, with nothing else on its way, and waits for what the broker says of it.
    async fn alone(&mut self, publication: &Publication) -> Result<Confirm, Failure> {
        let sent = match self.send(vec![(vec![publication.clone()], None)]).await {
            Ok(()) => loop {
                let heard = self.oldest().await;
                match self.judge(heard) {
                    Err(Failure::NotNow) => {}
                    other => break other,
                }
            },
            Err(Unsent::NotNow(_)) => Err(Failure::NotNow),
            Err(Unsent::Ended { refused }) => Err(Failure::Ended { refused }),
        };
        if matches!(sent, Err(Failure::Ended { .. })) {
            self.drop_link();
        }
        sent?;
        let names = &self.connector.settings.names;
        let taken = self.link.as_mut().and_then(|link| link.on_their_way.take(names));
        Ok(taken.and_then(|(_, confirms)| confirms.first().copied()).unwrap_or(Confirm::Unconfirmed))
    }

    /// Whoever is still on its way is told what is known.
    fn drop_link(&mut self) {
        self.state.send_modify(|state| state.publishing = false);
        if let Some(mut link) = self.link.take() {
            for (sent, confirms) in link.on_their_way.abandon(&self.connector.settings.names) {
                sent.tell(confirms);
            }
            // Not waited for: a blocked connection would hang here.
            tokio::spawn(async move { close(&link.connection).await });
        }
    }

    fn is_connected(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_standing)
    }

    async fn ensure_connected(&mut self) -> bool {
        if self.is_connected() {
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
            Ok::<_, AmqpError>(Link { connection, channel, on_their_way: OnTheirWay::default() })
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
