//! The consuming connection: deliveries in, acks out, and a new channel whenever one ends.
//!
//! Any end of a consumer's stream means: build the channel anew. Each channel is an epoch; when it ends, that is told
//! before anything of the next one. To stop consuming cancels the consumers and keeps the channel, so that what is here
//! can still be acked; to give back ends the channel.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::BasicAckOptions;
use lapin::{Channel, Connection};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::connection::{COMMAND_TIMEOUT, Connector, close, in_a_burst, pause, within};
use super::consumers::{Consumers, Next};
use super::message::delivery;
use super::prefetch::{Change, Prefetch, cost, in_bursts};
use super::unsettled::Unsettled;
use super::{AmqpError, BrokerState, topology, unreadable};
use crate::domain::acks::Ack;
use crate::ports::{Delivery, Epoch, Source};

/// What the consumer is told.
pub(super) enum Command {
    Consume(bool),
    /// The pipeline has looked at so many deliveries since the start, and has use for so many at a time, where it knows.
    Looked {
        at: u64,
        at_most: Option<u16>,
    },
    GiveBack(Epoch),
    Ack(Epoch, Vec<Ack>),
    Close(oneshot::Sender<()>),
}

/// What it tells.
pub(super) enum Item {
    /// At least one, in the order of their tags.
    Deliveries(Vec<Delivery>),
    Lost(Epoch),
}

/// How a channel's life ended.
enum End {
    /// By order, or after a pause: a new one once it is wanted.
    GivenBack,
    /// By itself.
    Failed(AmqpError),
    /// For good.
    Closed(oneshot::Sender<()>),
}

struct Task {
    connector: Arc<Connector>,
    commands: mpsc::UnboundedReceiver<Command>,
    deliver: mpsc::UnboundedSender<Item>,
    state: Arc<watch::Sender<BrokerState>>,
    wanted: bool,
    prefetch: Prefetch,
    /// Deliveries handed over since the start, and those of them that the pipeline has looked at.
    handed_over: u64,
    looked_at: u64,
    /// The last epoch whose loss was heard of: until then no other begins, so that no more is here than one may hold.
    heard: watch::Receiver<u64>,
    epoch: Epoch,
}

pub(super) async fn run(
    connector: Arc<Connector>,
    first: Connection,
    commands: mpsc::UnboundedReceiver<Command>,
    deliver: mpsc::UnboundedSender<Item>,
    heard: watch::Receiver<u64>,
    state: Arc<watch::Sender<BrokerState>>,
) {
    let settings = &connector.settings;
    let prefetch = Prefetch::new(settings.buffer_bytes, settings.max_message_bytes, settings.max_prefetch);
    let mut task = Task {
        connector,
        commands,
        deliver,
        state,
        wanted: false,
        prefetch,
        handed_over: 0,
        looked_at: 0,
        heard,
        epoch: Epoch(0),
    };
    let mut standing = Some(first);
    let mut failures = 0;
    loop {
        if let Some(done) = task.wait_until_wanted().await {
            if let Some(connection) = &standing {
                close(connection).await;
            }
            let _ = done.send(());
            return;
        }
        let connection = match standing.take() {
            Some(connection) if connection.status().connected() => connection,
            _ => match task.reconnect(&mut failures).await {
                Ok(connection) => connection,
                Err(done) => {
                    let _ = done.send(());
                    return;
                }
            },
        };
        task.epoch = Epoch(task.epoch.0 + 1);
        let end = task.live(&connection, &mut failures).await;
        let reach = task.reach();
        task.state.send_modify(|state| {
            *state = BrokerState { consuming: false, unsettled: 0, held_bytes: 0, used_up: false, ..*state };
        });
        let _ = task.deliver.send(Item::Lost(task.epoch));
        match end {
            End::GivenBack => standing = Some(connection),
            End::Failed(error) => {
                if failures == 0 {
                    warn!(error = %error, cause = cause(&error), "consuming ended; connecting again");
                }
                failures += 1;
                close(&connection).await;
                if !unreadable::put_aside(&task.connector, &error, reach).await {
                    tokio::time::sleep(pause(failures)).await;
                }
            }
            End::Closed(done) => {
                close(&connection).await;
                let _ = done.send(());
                return;
            }
        }
    }
}

/// The broker's own words, which never hold a payload.
fn cause(error: &AmqpError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// One channel, from its opening to its end.
struct Life {
    channel: Channel,
    consumers: Option<Consumers>,
    unsettled: Unsettled,
    /// Whether nothing is consumed for want of memory.
    paused: bool,
}

impl Life {
    /// Both consumers, where anything is consumed.
    async fn cancel(&mut self) -> Result<(), AmqpError> {
        let Some(consumers) = self.consumers.take() else { return Ok(()) };
        consumers.cancel(&self.channel).await
    }
}

impl Task {
    /// Returns once another epoch may begin, or the order to close, if that comes instead.
    async fn wait_until_wanted(&mut self) -> Option<oneshot::Sender<()>> {
        let last = self.epoch.0;
        loop {
            if self.wanted && *self.heard.borrow() >= last {
                return None;
            }
            let mut heard = self.heard.clone();
            let command = tokio::select! {
                command = self.commands.recv() => command,
                Ok(_) = heard.wait_for(|heard| *heard >= last), if self.wanted => continue,
            };
            match command {
                Some(Command::Consume(on)) => self.wanted = on,
                Some(Command::Close(done)) => return Some(done),
                Some(Command::Looked { at, at_most }) => self.note(at, at_most),
                Some(Command::GiveBack(_) | Command::Ack(..)) => {}
                // Nobody can order anything any more: wait to be dropped with the runtime.
                None => std::future::pending().await,
            }
        }
    }

    /// Heeds orders meanwhile: with several nodes that do not answer, one try takes long.
    async fn reconnect(&mut self, failures: &mut u32) -> Result<Connection, oneshot::Sender<()>> {
        let connector = Arc::clone(&self.connector);
        let settings = &connector.settings;
        let mut last = None;
        let mut before = Duration::ZERO;
        loop {
            let wait = tokio::time::sleep(before);
            let attempt = async {
                wait.await;
                let connection = connector.connect("consuming").await?;
                topology::establish(&connection, &settings.names, settings.declare_topology).await?;
                Ok::<_, AmqpError>(connection)
            };
            tokio::pin!(attempt);
            let connected = loop {
                tokio::select! {
                    connected = &mut attempt => break connected,
                    command = self.commands.recv() => match command {
                        Some(Command::Close(done)) => return Err(done),
                        Some(Command::Consume(on)) => self.wanted = on,
                        Some(Command::Looked { at, at_most }) => self.note(at, at_most),
                        Some(Command::GiveBack(_) | Command::Ack(..)) => {}
                        None => std::future::pending().await,
                    }
                }
            };
            match connected {
                Ok(connection) => {
                    self.state.send_modify(|state| state.consuming_reconnects += 1);
                    return Ok(connection);
                }
                Err(error) => {
                    // Once for each cause: behind one that goes away another may stand.
                    let told = (error.to_string(), cause(&error));
                    if last.as_ref() != Some(&told) {
                        warn!(error = told.0, cause = told.1, "cannot consume; trying again");
                        last = Some(told);
                    }
                    *failures += 1;
                    before = pause(*failures);
                }
            }
        }
    }

    /// One channel from its opening to its end.
    async fn live(&mut self, connection: &Connection, failures: &mut u32) -> End {
        let settings = Arc::clone(&self.connector.settings);
        self.prefetch.restart();
        let window = self.prefetch.window();
        let opened = async {
            let channel = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
            let consumers = Some(Consumers::start(&channel, &settings.names, window).await?);
            Ok::<_, AmqpError>(Life { channel, consumers, unsettled: Unsettled::default(), paused: false })
        };
        let mut life = match opened.await {
            Ok(opened) => opened,
            Err(error) => return End::Failed(error),
        };
        info!(epoch = self.epoch.0, after_failures = *failures, "consuming");
        *failures = 0;
        loop {
            self.tell(&life);
            let step = tokio::select! {
                biased;
                command = self.commands.recv() => self.obey(&mut life, command).await,
                (next, source) = Consumers::next(&mut life.consumers) => self.take(&mut life, next, source).await,
            };
            if let Err(end) = step {
                let closing = life.channel.close(200, "OK".into());
                let _ = tokio::time::timeout(Duration::from_secs(3), closing).await;
                return end;
            }
        }
    }

    /// How many deliveries can have been on their way: what the broker gives again stands so far up in its queue.
    fn reach(&self) -> usize {
        let state = self.state.borrow();
        state.unsettled + usize::from(state.prefetch)
    }

    fn tell(&self, life: &Life) {
        self.state.send_modify(|state| {
            state.consuming = life.consumers.is_some() || life.paused;
            state.unsettled = life.unsettled.load.unsettled;
            state.held_bytes = life.unsettled.load.cost;
            state.prefetch = self.prefetch.window();
            state.used_up = life.paused || self.prefetch.is_used_up(life.unsettled.load);
        });
    }

    /// Hands over this delivery, and requests that are here behind it.
    async fn take(&mut self, life: &mut Life, mut next: Next, source: Source) -> Result<(), End> {
        let (mut burst, mut bytes) = (Vec::new(), 0);
        let end = loop {
            match next {
                Some(Ok(message)) => {
                    bytes += message.data.len();
                    burst.push(self.accept(life, message, source));
                }
                Some(Err(source)) => break Err(End::Failed(AmqpError::Broker { action: "consuming", source })),
                None => break Err(End::Failed(AmqpError::Cancelled)),
            }
            let Some(consumers) = &mut life.consumers else { break Ok(()) };
            if source == Source::Returned || !self.prefetch.takes_another(life.unsettled.load, burst.len(), bytes) {
                break Ok(());
            }
            match consumers.another_request() {
                Some(another) => next = another,
                None => break Ok(()),
            }
        };
        // Whoever takes them is to know whether they are the last for now.
        self.tell(life);
        self.hand_over(burst);
        end?;
        self.fit(life).await
    }

    /// What the pipeline says of what it was handed.
    fn note(&mut self, looked_at: u64, at_most: Option<u16>) {
        self.looked_at = looked_at;
        if let Some(max) = at_most {
            self.prefetch.limit(max);
        }
    }

    /// Keeps the window at its right size.
    async fn fit(&mut self, life: &mut Life) -> Result<(), End> {
        if life.consumers.is_none() {
            return Ok(());
        }
        let unseen = usize::try_from(self.handed_over.saturating_sub(self.looked_at)).unwrap_or(usize::MAX);
        match self.prefetch.change(life.unsettled.load, unseen) {
            Change::Keep => Ok(()),
            Change::Consume(window) => self.resize(life, window).await.map_err(End::Failed),
            Change::Pause => {
                life.paused = true;
                life.cancel().await.map_err(End::Failed)
            }
        }
    }

    /// Counts a delivery as ours.
    fn accept(&mut self, life: &mut Life, message: lapin::message::Delivery, source: Source) -> Delivery {
        let cost = cost(message.data.len());
        self.prefetch.saw(cost);
        life.unsettled.add(message.delivery_tag, cost, source);
        delivery(message, source, self.epoch)
    }

    fn hand_over(&mut self, deliveries: Vec<Delivery>) {
        for burst in in_bursts(deliveries) {
            self.handed_over += burst.len() as u64;
            let _ = self.deliver.send(Item::Deliveries(burst));
        }
    }

    /// Takes what was on its way to the consumer of requests, which goes on with another window.
    async fn resize(&mut self, life: &mut Life, window: u16) -> Result<(), AmqpError> {
        let Some(consumers) = &mut life.consumers else { return Ok(()) };
        let on_its_way = consumers.resize(&life.channel, &self.connector.settings.names, window).await?;
        let accept = |message| self.accept(life, message, Source::Requests);
        let deliveries = on_its_way.into_iter().map(accept).collect();
        self.hand_over(deliveries);
        life.unsettled.hand_over();
        Ok(())
    }

    /// An order ends the channel, or it does not.
    async fn obey(&mut self, life: &mut Life, command: Option<Command>) -> Result<(), End> {
        match command {
            Some(Command::Ack(epoch, acks)) if epoch == self.epoch => {
                let each = |ack: &Ack| life.channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple });
                let acking = in_a_burst(acks.iter().map(each));
                within(COMMAND_TIMEOUT, "acking", acking).await.map_err(End::Failed)?;
                for ack in acks {
                    life.unsettled.settle(ack);
                }
                if life.paused && self.prefetch.may_go_on(life.unsettled.load) {
                    return Err(End::GivenBack);
                }
            }
            Some(Command::GiveBack(epoch)) if epoch >= self.epoch => return Err(End::GivenBack),
            Some(Command::Consume(on)) => {
                self.wanted = on;
                if !on {
                    life.cancel().await.map_err(End::Failed)?;
                } else if life.consumers.is_none() && !life.paused {
                    // What was on its way to the last consumers when they were cancelled is not in our hands, and comes
                    // again only when the channel ends.
                    return Err(End::GivenBack);
                }
            }
            Some(Command::Looked { at, at_most }) => {
                self.note(at, at_most);
                return self.fit(life).await;
            }
            Some(Command::Close(done)) => return Err(End::Closed(done)),
            Some(Command::Ack(..) | Command::GiveBack(_)) => {}
            None => std::future::pending().await,
        }
        Ok(())
    }
}
