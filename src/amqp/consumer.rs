//! The consuming connection: deliveries in, acks out, and a new channel whenever one ends.
//!
//! Any end of a consumer's stream means: build the channel anew. Each channel is an epoch; when it ends, that is told
//! before anything of the next one. To stop consuming cancels the consumers and keeps the channel, so that what is here
//! can still be acked; to give back ends the channel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::connection::{COMMAND_TIMEOUT, Connector, close, pause, within};
use super::message::{delivery, short};
use super::prefetch::{Change, Load, Prefetch, cost};
use super::{AmqpError, BrokerState, Names, topology};
use crate::domain::acks::Ack;
use crate::ports::{Delivery, Epoch, Source};

/// What the consumer is told.
pub(super) enum Command {
    Consume(bool),
    Limit(u16),
    GiveBack(Epoch),
    Ack(Epoch, Vec<Ack>),
    Close(oneshot::Sender<()>),
}

/// What it tells.
pub(super) enum Item {
    Delivery(Box<Delivery>),
    Lost(Epoch),
}

/// How a channel's life ended.
enum End {
    /// By order, or for want of memory: a new one once it is wanted.
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
    /// The most deliveries that can be sent on in time, as the pipeline knows it.
    limit: u16,
    epoch: Epoch,
}

pub(super) async fn run(
    connector: Arc<Connector>,
    first: Connection,
    commands: mpsc::UnboundedReceiver<Command>,
    deliver: mpsc::UnboundedSender<Item>,
    state: Arc<watch::Sender<BrokerState>>,
) {
    let limit = connector.settings.max_prefetch;
    let mut task = Task { connector, commands, deliver, state, wanted: false, limit, epoch: Epoch(0) };
    let mut standing = Some(first);
    let mut failures = 0;
    loop {
        if !task.wanted
            && let Some(done) = task.wait_until_wanted().await
        {
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
        task.state.send_modify(|state| (state.consuming, state.unsettled, state.held_bytes) = (false, 0, 0));
        let _ = task.deliver.send(Item::Lost(task.epoch));
        match end {
            End::GivenBack => standing = Some(connection),
            End::Failed(error) => {
                if failures == 0 {
                    warn!(error = %error, cause = cause(&error), "consuming ended; connecting again");
                }
                failures += 1;
                close(&connection).await;
                tokio::time::sleep(pause(failures)).await;
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

/// The deliveries of one channel that are not settled.
#[derive(Default)]
struct Unsettled {
    costs: BTreeMap<u64, usize>,
    /// The last tag before the present consumer's first.
    earlier: u64,
    last: u64,
    load: Load,
}

impl Unsettled {
    fn add(&mut self, tag: u64, cost: usize) {
        self.costs.insert(tag, cost);
        self.last = tag;
        self.load.unsettled += 1;
        self.load.own += 1;
        self.load.cost += cost;
    }

    fn settle(&mut self, ack: Ack) {
        if ack.multiple {
            let rest = self.costs.split_off(&(ack.tag + 1));
            for (tag, cost) in std::mem::replace(&mut self.costs, rest) {
                self.forget(tag, cost);
            }
        } else if let Some(cost) = self.costs.remove(&ack.tag) {
            self.forget(ack.tag, cost);
        }
    }

    const fn forget(&mut self, tag: u64, cost: usize) {
        self.load.unsettled -= 1;
        self.load.cost -= cost;
        if tag > self.earlier {
            self.load.own -= 1;
        }
    }

    /// Another consumer takes over: what is here is an earlier one's.
    const fn hand_over(&mut self) {
        self.earlier = self.last;
        self.load.own = 0;
    }
}

/// What is consumed, while anything is.
struct Consumers {
    returned: Consumer,
    requests: Consumer,
}

impl Consumers {
    async fn start(channel: &Channel, names: &Names, window: u16) -> Result<Self, AmqpError> {
        let returned = consume(channel, &names.returned_queue, 1).await?;
        let requests = consume(channel, &names.request_queue, window).await?;
        Ok(Self { returned, requests })
    }

    /// Waits for ever where nothing is consumed.
    async fn next(consumers: &mut Option<Self>) -> (Option<lapin::Result<lapin::message::Delivery>>, Source) {
        let Some(Self { returned, requests }) = consumers else { return std::future::pending().await };
        tokio::select! {
            biased;
            next = returned.next() => (next, Source::Returned),
            next = requests.next() => (next, Source::Requests),
        }
    }
}

/// One channel, from its opening to its end.
struct Life {
    channel: Channel,
    consumers: Option<Consumers>,
    unsettled: Unsettled,
    prefetch: Prefetch,
}

impl Task {
    /// Returns the order to close, if that comes instead.
    async fn wait_until_wanted(&mut self) -> Option<oneshot::Sender<()>> {
        loop {
            match self.commands.recv().await {
                Some(Command::Consume(true)) => {
                    self.wanted = true;
                    return None;
                }
                Some(Command::Close(done)) => return Some(done),
                Some(Command::Limit(max)) => self.limit = max,
                Some(Command::Consume(false) | Command::GiveBack(_) | Command::Ack(..)) => {}
                // Nobody can order anything any more: wait to be dropped with the runtime.
                None => std::future::pending().await,
            }
        }
    }

    async fn reconnect(&mut self, failures: &mut u32) -> Result<Connection, oneshot::Sender<()>> {
        loop {
            let settings = Arc::clone(&self.connector.settings);
            let attempt = async {
                let connection = self.connector.connect("consuming").await?;
                topology::establish(&connection, &settings.names, settings.declare_topology).await?;
                Ok::<_, AmqpError>(connection)
            };
            match attempt.await {
                Ok(connection) => {
                    self.state.send_modify(|state| state.reconnects += 1);
                    return Ok(connection);
                }
                Err(error) => {
                    if *failures == 0 || !error.is_transient() {
                        warn!(error = %error, cause = cause(&error), "cannot consume; trying again");
                    }
                    *failures += 1;
                }
            }
            let wait = tokio::time::sleep(pause(*failures));
            tokio::pin!(wait);
            loop {
                tokio::select! {
                    () = &mut wait => break,
                    command = self.commands.recv() => match command {
                        Some(Command::Close(done)) => return Err(done),
                        Some(Command::Consume(on)) => self.wanted = on,
                        Some(Command::Limit(max)) => self.limit = max,
                        Some(Command::GiveBack(_) | Command::Ack(..)) => {}
                        None => std::future::pending().await,
                    }
                }
            }
        }
    }

    /// One channel from its opening to its end.
    async fn live(&mut self, connection: &Connection, failures: &mut u32) -> End {
        let settings = Arc::clone(&self.connector.settings);
        let prefetch = Prefetch::new(settings.buffer_bytes, settings.max_message_bytes, self.limit);
        let opened = async {
            let channel = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
            let consumers = Some(Consumers::start(&channel, &settings.names, prefetch.window()).await?);
            Ok::<_, AmqpError>(Life { channel, consumers, unsettled: Unsettled::default(), prefetch })
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

    fn tell(&self, life: &Life) {
        self.state.send_modify(|state| {
            state.consuming = life.consumers.is_some();
            state.unsettled = life.unsettled.load.unsettled;
            state.held_bytes = life.unsettled.load.cost;
            state.prefetch = life.prefetch.window();
        });
    }

    /// Hands a delivery over, and keeps the window at its right size.
    async fn take(
        &self,
        life: &mut Life,
        next: Option<lapin::Result<lapin::message::Delivery>>,
        source: Source,
    ) -> Result<(), End> {
        match next {
            Some(Ok(message)) => self.hand_over(life, message, source),
            Some(Err(source)) => return Err(End::Failed(AmqpError::Broker { action: "consuming", source })),
            None => return Err(End::Failed(AmqpError::Cancelled)),
        }
        match life.prefetch.change(life.unsettled.load) {
            Change::Keep => Ok(()),
            Change::Consume(window) => self.resize(life, window).await.map_err(End::Failed),
            Change::GiveBack => {
                let load = life.unsettled.load;
                info!(deliveries = load.unsettled, bytes = load.cost, "more is here than amqp.buffer_bytes; giving it back");
                Err(End::GivenBack)
            }
        }
    }

    fn hand_over(&self, life: &mut Life, message: lapin::message::Delivery, source: Source) {
        let cost = cost(message.data.len());
        life.prefetch.saw(cost);
        life.unsettled.add(message.delivery_tag, cost);
        let _ = self.deliver.send(Item::Delivery(Box::new(delivery(message, source, self.epoch))));
    }

    /// Cancels the consumer of requests, takes what was on its way, and consumes anew with another window.
    async fn resize(&self, life: &mut Life, window: u16) -> Result<(), AmqpError> {
        let Some(Consumers { returned, requests: mut old }) = life.consumers.take() else { return Ok(()) };
        let cancelling = life.channel.basic_cancel(old.tag(), BasicCancelOptions::default());
        within(COMMAND_TIMEOUT, "cancelling a consumer", cancelling).await?;
        while let Ok(Some(next)) = tokio::time::timeout(COMMAND_TIMEOUT, old.next()).await {
            let message = next.map_err(|source| AmqpError::Broker { action: "consuming", source })?;
            self.hand_over(life, message, Source::Requests);
        }
        life.unsettled.hand_over();
        let requests = consume(&life.channel, &self.connector.settings.names.request_queue, window).await?;
        life.consumers = Some(Consumers { returned, requests });
        Ok(())
    }

    /// An order ends the channel, or it does not.
    async fn obey(&mut self, life: &mut Life, command: Option<Command>) -> Result<(), End> {
        match command {
            Some(Command::Ack(epoch, acks)) if epoch == self.epoch => {
                for ack in acks {
                    let acking = life.channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple });
                    within(COMMAND_TIMEOUT, "acking", acking).await.map_err(End::Failed)?;
                    life.unsettled.settle(ack);
                }
            }
            Some(Command::GiveBack(epoch)) if epoch >= self.epoch => return Err(End::GivenBack),
            Some(Command::Consume(on)) => {
                self.wanted = on;
                match (on, life.consumers.take()) {
                    (true, None) => {
                        // Whatever was on its way to the last consumers when they were cancelled is not in our hands,
                        // and comes again only when the channel ends.
                        return Err(End::GivenBack);
                    }
                    (true, standing) => life.consumers = standing,
                    (false, None) => {}
                    (false, Some(Consumers { returned, requests })) => {
                        for consumer in [returned, requests] {
                            let cancelling = life.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
                            within(COMMAND_TIMEOUT, "cancelling a consumer", cancelling).await.map_err(End::Failed)?;
                        }
                    }
                }
            }
            Some(Command::Limit(max)) => {
                self.limit = max;
                life.prefetch.limit(max);
            }
            Some(Command::Close(done)) => return Err(End::Closed(done)),
            Some(Command::Ack(..) | Command::GiveBack(_)) => {}
            None => std::future::pending().await,
        }
        Ok(())
    }
}

async fn consume(channel: &Channel, queue: &str, prefetch: u16) -> Result<Consumer, AmqpError> {
    within(COMMAND_TIMEOUT, "setting the prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let consuming =
        channel.basic_consume(short(queue), short(""), BasicConsumeOptions::default(), FieldTable::default());
    within(COMMAND_TIMEOUT, "consuming", consuming).await
}
