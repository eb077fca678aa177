//! The consuming connection: deliveries in, acks out, and a new channel whenever one ends.
//!
//! Any end of a consumer's stream means: build the channel anew. Each channel is an epoch; when it ends, that is told
//! before anything of the next one.

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
use super::prefetch::Prefetch;
use super::{AmqpError, BrokerState, topology};
use crate::domain::acks::Ack;
use crate::ports::{Delivery, Epoch, Source};

/// What the consumer is told.
pub(super) enum Command {
    Consume(bool),
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
    /// By order: no new one before it is asked for.
    Paused,
    /// By order: a new one at once.
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
    epoch: Epoch,
}

pub(super) async fn run(
    connector: Arc<Connector>,
    first: Connection,
    commands: mpsc::UnboundedReceiver<Command>,
    deliver: mpsc::UnboundedSender<Item>,
    state: Arc<watch::Sender<BrokerState>>,
) {
    let mut task = Task { connector, commands, deliver, state, wanted: false, epoch: Epoch(0) };
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
            End::Paused | End::GivenBack => standing = Some(connection),
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
    sizes: BTreeMap<u64, usize>,
    bytes: usize,
}

impl Unsettled {
    fn add(&mut self, tag: u64, bytes: usize) {
        self.sizes.insert(tag, bytes);
        self.bytes += bytes;
    }

    fn settle(&mut self, ack: Ack) {
        if ack.multiple {
            let rest = self.sizes.split_off(&(ack.tag + 1));
            self.bytes -= std::mem::replace(&mut self.sizes, rest).values().sum::<usize>();
        } else if let Some(bytes) = self.sizes.remove(&ack.tag) {
            self.bytes -= bytes;
        }
    }
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
        let mut prefetch = Prefetch::new(settings.buffer_bytes, settings.max_message_bytes, settings.max_prefetch);
        let opened = async {
            let channel = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
            let returned = consume(&channel, &settings.names.returned_queue, 1).await?;
            let requests = consume(&channel, &settings.names.request_queue, prefetch.window()).await?;
            Ok::<_, AmqpError>((channel, returned, requests))
        };
        let (channel, mut returned, mut requests) = match opened.await {
            Ok(opened) => opened,
            Err(error) => return End::Failed(error),
        };
        info!(epoch = self.epoch.0, after_failures = *failures, "consuming");
        *failures = 0;
        self.state.send_modify(|state| state.consuming = true);
        let mut unsettled = Unsettled::default();
        loop {
            let (next, source) = tokio::select! {
                biased;
                command = self.commands.recv() => match self.obey(&channel, command, &mut unsettled).await {
                    Ok(None) => {
                        self.tell(&unsettled, &prefetch);
                        continue;
                    }
                    Ok(Some(end)) | Err(end) => {
                        let closing = channel.close(200, "OK".into());
                        let _ = tokio::time::timeout(Duration::from_secs(3), closing).await;
                        return end;
                    }
                },
                next = returned.next() => (next, Source::Returned),
                next = requests.next() => (next, Source::Requests),
            };
            match next {
                Some(Ok(message)) => self.take(message, source, &mut unsettled, &mut prefetch),
                Some(Err(source)) => return End::Failed(AmqpError::Broker { action: "consuming", source }),
                None => return End::Failed(AmqpError::Timeout("consuming: the broker cancelled the consumer")),
            }
            if let Some(window) = prefetch.change(unsettled.sizes.len(), unsettled.bytes) {
                match self.resize(&channel, requests, window, &mut unsettled, &mut prefetch).await {
                    Ok(consumer) => requests = consumer,
                    Err(error) => return End::Failed(error),
                }
            }
            self.tell(&unsettled, &prefetch);
        }
    }

    fn tell(&self, unsettled: &Unsettled, prefetch: &Prefetch) {
        self.state.send_modify(|state| {
            state.unsettled = unsettled.sizes.len();
            state.held_bytes = unsettled.bytes;
            state.prefetch = prefetch.window();
        });
    }

    fn take(
        &self,
        message: lapin::message::Delivery,
        source: Source,
        unsettled: &mut Unsettled,
        prefetch: &mut Prefetch,
    ) {
        prefetch.saw(message.data.len());
        unsettled.add(message.delivery_tag, message.data.len());
        let _ = self.deliver.send(Item::Delivery(Box::new(delivery(message, source, self.epoch))));
    }

    /// Cancels the consumer of requests, takes what was on its way, and consumes anew with another window.
    async fn resize(
        &self,
        channel: &Channel,
        mut old: Consumer,
        window: u16,
        unsettled: &mut Unsettled,
        prefetch: &mut Prefetch,
    ) -> Result<Consumer, AmqpError> {
        let cancelling = channel.basic_cancel(old.tag(), BasicCancelOptions::default());
        within(COMMAND_TIMEOUT, "cancelling a consumer", cancelling).await?;
        while let Ok(Some(next)) = tokio::time::timeout(COMMAND_TIMEOUT, old.next()).await {
            let message = next.map_err(|source| AmqpError::Broker { action: "consuming", source })?;
            self.take(message, Source::Requests, unsettled, prefetch);
        }
        // What is unsettled already counts: together they must fit the window.
        let room = usize::from(window).saturating_sub(unsettled.sizes.len()).max(1);
        consume(channel, &self.connector.settings.names.request_queue, u16::try_from(room).unwrap_or(u16::MAX)).await
    }

    async fn obey(
        &mut self,
        channel: &Channel,
        command: Option<Command>,
        unsettled: &mut Unsettled,
    ) -> Result<Option<End>, End> {
        match command {
            Some(Command::Ack(epoch, acks)) if epoch == self.epoch => {
                for ack in acks {
                    let acking = channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple });
                    within(COMMAND_TIMEOUT, "acking", acking).await.map_err(End::Failed)?;
                    unsettled.settle(ack);
                }
                Ok(None)
            }
            Some(Command::GiveBack(epoch)) if epoch >= self.epoch => Ok(Some(End::GivenBack)),
            Some(Command::Consume(false)) => {
                self.wanted = false;
                Ok(Some(End::Paused))
            }
            Some(Command::Close(done)) => Ok(Some(End::Closed(done))),
            Some(Command::Ack(..) | Command::GiveBack(_) | Command::Consume(true)) => Ok(None),
            None => std::future::pending().await,
        }
    }
}

async fn consume(channel: &Channel, queue: &str, prefetch: u16) -> Result<Consumer, AmqpError> {
    within(COMMAND_TIMEOUT, "setting the prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let consuming =
        channel.basic_consume(short(queue), short(""), BasicConsumeOptions::default(), FieldTable::default());
    within(COMMAND_TIMEOUT, "consuming", consuming).await
}
