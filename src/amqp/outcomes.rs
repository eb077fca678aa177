//! Outcomes as they are published, read from a queue of our own: nothing is taken from anybody.
//!
//! The queue is exclusive and goes with its connection. Never declared: anything that outlives it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::connection::{COMMAND_TIMEOUT, Connector, close, pause, within};
use super::message::short;
use super::{AmqpError, AmqpSettings, topology};

/// The most outcomes that are on their way here at a time; one may be as large as a request.
const PREFETCH: u16 = 50;

/// An outcome, or a batch event, as it was published.
#[derive(Clone)]
pub struct Heard {
    /// The routing key, such as `outcome.failed`.
    pub key: String,
    /// The request's correlation id, or else its message id.
    pub correlation_id: Option<String>,
    /// The body, JSON.
    pub body: Vec<u8>,
}

/// Addresses stay out of logs.
impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Heard {{ {} bytes }}", self.body.len())
    }
}

/// A queue of our own, bound to the outcome exchange before anybody is told that it is.
pub struct Listener {
    heard: mpsc::Receiver<Result<Heard, AmqpError>>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Hears of everything from here on that is published with one of these keys. With `at_most`, the oldest outcomes
    /// are dropped where so many wait: for those who may miss some, and must not fill a broker.
    ///
    /// # Errors
    /// The broker cannot be reached, or there is no outcome exchange.
    pub async fn open(settings: AmqpSettings, keys: &[String], at_most: Option<u32>) -> Result<Self, AmqpError> {
        let exchange = settings.names.outcome_exchange.clone();
        let connection = Connector::new(Arc::new(settings))?.connect("listening").await?;
        let channel = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        if let Some(most) = at_most {
            arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(most.into()));
        }
        let declaring = channel.queue_declare(short(""), options, arguments);
        let queue = within(COMMAND_TIMEOUT, "declaring a queue", declaring).await?.name().clone();
        for key in keys {
            let options = QueueBindOptions::default();
            let binding =
                channel.queue_bind(queue.clone(), short(&exchange), short(key), options, FieldTable::default());
            let bound = within(COMMAND_TIMEOUT, "binding a queue", binding).await;
            topology::explain(bound, "exchange", &exchange)?;
        }
        let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
        within(COMMAND_TIMEOUT, "setting the prefetch", qos).await?;
        let consuming = channel.basic_consume(queue, short(""), BasicConsumeOptions::default(), FieldTable::default());
        let consumer = within(COMMAND_TIMEOUT, "consuming", consuming).await?;
        let (tell, heard) = mpsc::channel(PREFETCH.into());
        let task = tokio::spawn(listen(connection, channel, consumer, tell));
        Ok(Self { heard, task })
    }

    /// The next outcome. Cancel safe. After an error nothing more comes.
    ///
    /// # Errors
    /// The connection is gone, and the queue with it: what is published meanwhile is not heard.
    pub async fn next(&mut self) -> Result<Heard, AmqpError> {
        self.heard.recv().await.unwrap_or(Err(AmqpError::Cancelled))
    }

    /// The next outcome, if one is here.
    pub fn try_next(&mut self) -> Option<Result<Heard, AmqpError>> {
        self.heard.try_recv().ok()
    }

    /// Closes the connection in order.
    pub async fn close(self) {
        drop(self.heard);
        let _ = self.task.await;
    }
}

async fn listen(
    connection: Connection,
    channel: Channel,
    mut consumer: Consumer,
    tell: mpsc::Sender<Result<Heard, AmqpError>>,
) {
    loop {
        let next = tokio::select! {
            () = tell.closed() => break,
            next = consumer.next() => next,
        };
        let delivery = match next {
            Some(Ok(delivery)) => delivery,
            Some(Err(source)) => {
                let _ = tell.send(Err(AmqpError::Broker { action: "listening", source })).await;
                break;
            }
            None => {
                let _ = tell.send(Err(AmqpError::Cancelled)).await;
                break;
            }
        };
        // The queue is ours alone: an ack here only makes room for the next.
        let acking = channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default());
        if let Err(error) = within(COMMAND_TIMEOUT, "acking", acking).await {
            let _ = tell.send(Err(error)).await;
            break;
        }
        let correlation_id = delivery.properties.correlation_id().as_ref().map(ToString::to_string);
        let key = delivery.routing_key.to_string();
        if tell.send(Ok(Heard { key, correlation_id, body: delivery.data })).await.is_err() {
            break;
        }
    }
    close(&connection).await;
}

/// How long to wait before the `failures`-th try to listen again.
#[must_use]
pub fn patience(failures: u32) -> Duration {
    pause(failures)
}
