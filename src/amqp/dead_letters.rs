//! The dead queue, as operations go through it: each letter once, in order; what nobody decided about goes back.
//!
//! Letters are held while they are gone through, a portion on each channel, so that little of them is on its way here at a
//! time. They return to where they stood when those channels close, one after the other, for a quorum queue puts what comes
//! back in the order in which it comes. On RabbitMQ 4.x a policy must see to it that no number of returns drives one out
//! (README). Never acked: a letter whose replay is not confirmed, or that nobody named.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::SelectAll;
use futures_util::{Stream, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ErrorKind};

use super::connection::{COMMAND_TIMEOUT, Connector, close, within};
use super::letter::{Letter, Receipt};
use super::message::short;
use super::unreadable::{self, Held};
use super::{AmqpError, AmqpSettings, topology};
use crate::domain::acks::{Ack, AckWindow};

/// The most letters that one channel holds.
const PORTION: u16 = 500;
/// How long nothing may come before it is asked whether anything is left.
const SILENCE: Duration = Duration::from_secs(1);
/// How often that is asked before it is called a failure.
const SILENCES: u32 = 20;
/// How long letters may take to be back in their queue.
const RETURN: Duration = Duration::from_secs(5);

type Deliveries = Pin<Box<dyn Stream<Item = (usize, lapin::Result<Delivery>)> + Send>>;

/// One way through the dead queue.
pub struct DeadLetters {
    connection: Connection,
    /// Where it is asked how many there are.
    control: Channel,
    queue: String,
    portions: Vec<Portion>,
    deliveries: SelectAll<Deliveries>,
    /// How many are still to come, as it was at the start.
    left: u32,
}

/// What one channel holds.
struct Portion {
    channel: Channel,
    settled: AckWindow<()>,
    /// How many are here, and not acked.
    held: u32,
}

impl DeadLetters {
    /// Takes up the queue as it is now.
    ///
    /// # Errors
    /// The broker cannot be reached, or has no such queue.
    pub async fn open(settings: AmqpSettings) -> Result<Self, AmqpError> {
        let queue = settings.names.dead_queue.clone();
        let connection = Connector::new(Arc::new(settings))?.connect("dead letters").await?;
        let control = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
        let left = ready(&control, &queue).await?;
        let deliveries = SelectAll::new();
        Ok(Self { connection, control, queue, portions: Vec::new(), deliveries, left })
    }

    /// The next letter; `None` once all were here that stood there at the start and that nobody else holds.
    ///
    /// # Errors
    /// The connection is gone, and every letter back in its queue; [`AmqpError::Unreadable`] where one letter is to blame.
    pub async fn next(&mut self) -> Result<Option<Letter>, AmqpError> {
        let mut silences = 0;
        while self.left > 0 {
            if self.portions.iter().all(|portion| portion.held >= u32::from(PORTION)) {
                self.consume().await?;
            }
            match tokio::time::timeout(SILENCE, self.deliveries.next()).await {
                Ok(Some((number, Ok(delivery)))) => {
                    self.left -= 1;
                    if let Some(portion) = self.portions.get_mut(number) {
                        portion.held += 1;
                    }
                    return Ok(Some(Letter::of(delivery, number)));
                }
                Ok(Some((_, Err(source)))) if matches!(source.kind(), ErrorKind::ParsingError(_)) => {
                    return Err(AmqpError::Unreadable);
                }
                Ok(Some((_, Err(source)))) => {
                    return Err(AmqpError::Broker { action: "reading the dead queue", source });
                }
                Ok(None) => return Err(AmqpError::Cancelled),
                Err(_) if silences >= SILENCES => return Err(AmqpError::Timeout("reading the dead queue")),
                Err(_) => {
                    silences += 1;
                    if ready(&self.control, &self.queue).await? == 0 {
                        self.left = 0;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes letters away, for they are done with. Nothing confirms an ack, and a busy broker may lose some that the end
    /// of their channel overtakes: who must be certain looks again after [`Self::release`].
    ///
    /// # Errors
    /// The connection is gone: some may be away, the others are back in their queue.
    pub async fn take_away(&mut self, receipts: &[Receipt]) -> Result<(), AmqpError> {
        let mut by_channel: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for receipt in receipts {
            by_channel.entry(receipt.channel).or_default().push(receipt.tag);
        }
        for (number, tags) in by_channel {
            let Some(portion) = self.portions.get_mut(number) else { continue };
            portion.held = portion.held.saturating_sub(u32::try_from(tags.len()).unwrap_or(u32::MAX));
            for tag in tags {
                portion.settled.settle(tag, (), Duration::ZERO);
            }
            for Ack { tag, multiple } in portion.settled.acks(Duration::ZERO).acks {
                let acking = portion.channel.basic_ack(tag, BasicAckOptions { multiple });
                within(COMMAND_TIMEOUT, "taking dead letters away", acking).await?;
            }
        }
        Ok(())
    }

    /// Gives back what was not taken away, in order, and waits until it is there.
    ///
    /// # Errors
    /// The connection is gone; the broker gives back by itself what was held.
    pub async fn release(self) -> Result<(), AmqpError> {
        // First all of them stop: what one gives back must not go to another that has room.
        for (number, portion) in self.portions.iter().enumerate() {
            let cancelling = portion.channel.basic_cancel(short(&tag(number)), BasicCancelOptions::default());
            within(COMMAND_TIMEOUT, "cancelling", cancelling).await?;
        }
        let mut undisturbed = true;
        for Portion { channel, held, .. } in &self.portions {
            let before = ready(&self.control, &self.queue).await?;
            within(COMMAND_TIMEOUT, "giving back", channel.close(200, "OK".into())).await?;
            // The broker says that the channel is closed before what it held is back. Where others take letters meanwhile
            // that cannot be seen, and is waited for once.
            undisturbed = undisturbed && wait_for(&self.control, &self.queue, before.saturating_add(*held)).await?;
        }
        close(&self.connection).await;
        Ok(())
    }

    /// One more channel, for one more portion.
    async fn consume(&mut self) -> Result<(), AmqpError> {
        let channel = within(COMMAND_TIMEOUT, "opening a channel", self.connection.create_channel()).await?;
        let qos = channel.basic_qos(PORTION, BasicQosOptions::default());
        within(COMMAND_TIMEOUT, "setting the prefetch", qos).await?;
        let number = self.portions.len();
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(short(&self.queue), short(&tag(number)), options, FieldTable::default());
        let consumer = within(COMMAND_TIMEOUT, "consuming", consuming).await?;
        self.deliveries.push(Box::pin(consumer.map(move |delivery| (number, delivery))));
        self.portions.push(Portion { channel, settled: AckWindow::new(Duration::ZERO), held: 0 });
        Ok(())
    }
}

/// What the consumer of this channel is called. Should all channels end at once, the broker goes by these names.
fn tag(number: usize) -> String {
    format!("dead-letters-{number:05}")
}

async fn ready(channel: &Channel, queue: &str) -> Result<u32, AmqpError> {
    let options = QueueDeclareOptions { durable: true, passive: true, ..QueueDeclareOptions::default() };
    let asking = channel.queue_declare(short(queue), options, FieldTable::default());
    let mut count = 0;
    let found =
        within(COMMAND_TIMEOUT, "looking for the dead queue", asking).await.map(|found| count = found.message_count());
    topology::explain(found, "queue", queue)?;
    Ok(count)
}

/// Holds the letters that cannot be read, so that those behind them can be reached. The order of the others may suffer.
///
/// # Errors
/// The broker cannot be reached.
pub async fn hold_unreadable(settings: AmqpSettings) -> Result<Held, AmqpError> {
    let queue = settings.names.dead_queue.clone();
    let connector = Connector::new(Arc::new(settings))?;
    let held = unreadable::hold(&connector, &queue).await?;
    let connection = connector.connect("dead letters").await?;
    let control = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
    let _ = wait_for(&control, &queue, u32::try_from(held.given_back).unwrap_or(u32::MAX)).await?;
    close(&connection).await;
    Ok(held)
}

/// Waits until so many letters stand there. Others may take some at once, so this is no condition, only a courtesy to who
/// looks next. Whether they were seen there.
async fn wait_for(channel: &Channel, queue: &str, count: u32) -> Result<bool, AmqpError> {
    let back = async {
        while ready(channel, queue).await? < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(true)
    };
    tokio::time::timeout(RETURN, back).await.unwrap_or(Ok(false))
}

/// Takes away the letters that cannot be read, at most one for each look; how many those were.
///
/// # Errors
/// The broker cannot be reached.
pub async fn discard_unreadable(settings: AmqpSettings) -> Result<usize, AmqpError> {
    let queue = settings.names.dead_queue.clone();
    unreadable::take_away(&Connector::new(Arc::new(settings))?, &queue).await
}
