//! Requests on their way to the request exchange, for the commands: one channel, one task, confirms awaited in bulk.
//!
//! Never more unconfirmed than the window holds, never a request believed sent that no queue took. Nothing is declared.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ExchangeKind, PublisherConfirm};

use super::connection::{COMMAND_TIMEOUT, Connector, close, within};
use super::message::{APP_ID, PERSISTENT, short};
use super::{AmqpError, AmqpSettings, topology};
use crate::domain::ids::MessageId;
use crate::domain::moment::Timestamp;
use crate::ports::Original;

/// The most messages, and the most of their bytes, that may be unconfirmed.
const WINDOW: usize = 1000;
const WINDOW_BYTES: usize = 16 << 20;
/// How many confirms are waited for once the window is full.
const BULK: usize = WINDOW / 4;

/// A request to be published.
pub struct Submission {
    pub(super) original: Original,
    pub(super) payload: Bytes,
}

impl Submission {
    /// One that nobody has published before.
    #[must_use]
    pub fn new(id: &MessageId, payload: Bytes, at: Timestamp) -> Self {
        let properties = BasicProperties::default()
            .with_message_id(short(id.as_str()))
            .with_content_type(short("application/json"))
            .with_app_id(short(APP_ID))
            .with_timestamp(at.as_seconds())
            .with_delivery_mode(PERSISTENT);
        Self { original: Original { properties: properties.into() }, payload }
    }
}

/// Where a submission goes.
#[derive(Clone, Debug)]
struct Target {
    exchange: String,
    routing_key: String,
}

/// Publishes requests, all under one routing key.
pub struct Submitter {
    connection: Connection,
    channel: Channel,
    target: Target,
    window: VecDeque<(PublisherConfirm, usize)>,
    bytes: usize,
    confirmed: u64,
}

impl Submitter {
    /// Connects, and looks whether the request exchange is there.
    ///
    /// # Errors
    /// Where it is not, or the broker cannot be reached.
    pub async fn connect(settings: AmqpSettings, routing_key: &str) -> Result<Self, AmqpError> {
        let exchange = settings.names.request_exchange.clone();
        Self::to(settings, exchange, routing_key).await
    }

    pub(super) async fn to(settings: AmqpSettings, exchange: String, key: &str) -> Result<Self, AmqpError> {
        let connection = Connector::new(Arc::new(settings))?.connect("submitting").await?;
        let channel = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
        if !exchange.is_empty() {
            let options = ExchangeDeclareOptions { durable: true, passive: true, ..ExchangeDeclareOptions::default() };
            let looking =
                channel.exchange_declare(short(&exchange), ExchangeKind::Topic, options, FieldTable::default());
            let looked = within(COMMAND_TIMEOUT, "looking for the exchange", looking).await;
            topology::explain(looked, "exchange", &exchange)?;
        }
        let selecting = channel.confirm_select(ConfirmSelectOptions::default());
        within(COMMAND_TIMEOUT, "asking for confirms", selecting).await?;
        let target = Target { exchange, routing_key: key.to_owned() };
        Ok(Self { connection, channel, target, window: VecDeque::new(), bytes: 0, confirmed: 0 })
    }

    /// Publishes one, and waits for confirms only where too many are missing.
    ///
    /// # Errors
    /// This one, or an earlier one, did not reach a queue; or the connection is gone. What was not confirmed may have
    /// arrived or not.
    pub async fn send(&mut self, submission: Submission) -> Result<(), AmqpError> {
        let Submission { original, payload } = submission;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = (short(&self.target.exchange), short(&self.target.routing_key));
        let publishing = self.channel.basic_publish(exchange, key, options, &payload, *original.properties);
        let confirm = within(COMMAND_TIMEOUT, "publishing", publishing).await?;
        self.bytes += payload.len();
        self.window.push_back((confirm, payload.len()));
        if self.window.len() >= WINDOW || self.bytes >= WINDOW_BYTES {
            self.settle(WINDOW - BULK, WINDOW_BYTES / 2).await?;
        }
        Ok(())
    }

    /// Waits until everything is confirmed.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn flush(&mut self) -> Result<(), AmqpError> {
        self.settle(0, 0).await
    }

    /// How many requests the broker has in a queue, for certain.
    #[must_use]
    pub const fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Closes the connection in order.
    pub async fn close(self) {
        close(&self.connection).await;
    }

    /// Waits until no more than so many, and so many bytes, are unconfirmed.
    async fn settle(&mut self, messages: usize, bytes: usize) -> Result<(), AmqpError> {
        while self.window.len() > messages || self.bytes > bytes {
            let Some((confirm, size)) = self.window.pop_front() else { break };
            self.bytes -= size;
            // A returned message can be handed to another's confirm; here each of them ends it all.
            match wait(&self.connection, confirm).await? {
                Confirmation::Ack(None) => self.confirmed += 1,
                Confirmation::Ack(Some(_)) => {
                    return Err(AmqpError::Unroutable { key: self.target.routing_key.clone() });
                }
                Confirmation::Nack(_) | Confirmation::NotRequested => return Err(AmqpError::Refused),
            }
        }
        Ok(())
    }
}

/// Waits for a confirm; without end while the broker takes nothing and says so, for its word comes when it does again.
async fn wait(connection: &Connection, mut confirm: PublisherConfirm) -> Result<Confirmation, AmqpError> {
    loop {
        match within(COMMAND_TIMEOUT, "confirming", &mut confirm).await {
            Err(AmqpError::Timeout(_)) if connection.status().connected() && connection.status().blocked() => {}
            ended => return ended,
        }
    }
}
