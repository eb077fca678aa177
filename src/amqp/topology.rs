//! What stands on the broker: the contract's table, as code. Declared where it is missing, compared where it stands.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use super::AmqpError;
use super::connection::{COMMAND_TIMEOUT, within};

/// How often a request may be delivered before the broker puts it aside.
const DELIVERY_LIMIT: i64 = 1000;
/// The same for one that was put aside and travels alone.
const RETURNED_DELIVERY_LIMIT: i64 = 5;
/// The key under which the broker, and the worker, put a request into the returned queue.
pub(super) const RETURNED: &str = "returned";
/// How long a parked request stays aside, in milliseconds.
const PARKED_FOR_MS: i64 = 15_000;

/// The names of exchanges and queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Where upstream systems publish requests.
    pub request_exchange: String,
    /// Where the worker takes requests from.
    pub request_queue: String,
    /// Where outcomes and batch events go.
    pub outcome_exchange: String,
    /// Where outcomes wait for operations.
    pub outcome_queue: String,
    /// Where messages go whose outcome is not `succeeded`.
    pub dead_exchange: String,
    /// Where they wait.
    pub dead_queue: String,
    /// What the broker took off the request queue.
    pub returned_queue: String,
    /// Where requests of a held project step aside.
    pub parking_queue: String,
}

impl Names {
    /// The contract's names under a common prefix; `contacts.deletion` gives the defaults.
    #[must_use]
    pub fn with_prefix(prefix: &str) -> Self {
        Self {
            request_exchange: prefix.to_owned(),
            request_queue: format!("{prefix}.requests"),
            outcome_exchange: format!("{prefix}.outcomes"),
            outcome_queue: format!("{prefix}.outcomes"),
            dead_exchange: format!("{prefix}.dead"),
            dead_queue: format!("{prefix}.dead"),
            returned_queue: format!("{prefix}.returned"),
            parking_queue: format!("{prefix}.parked"),
        }
    }
}

/// A queue with its binding.
struct Queue<'a> {
    name: &'a str,
    arguments: Vec<(&'static str, AMQPValue)>,
    binding: Option<(&'a str, &'static str)>,
}

impl Queue<'_> {
    fn arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        for (key, value) in &self.arguments {
            arguments.insert((*key).into(), value.clone());
        }
        arguments
    }
}

impl Names {
    fn exchanges(&self) -> [&str; 3] {
        [&self.request_exchange, &self.outcome_exchange, &self.dead_exchange]
    }

    fn queues(&self) -> Vec<Queue<'_>> {
        vec![
            // Bound targets of dead-lettering first: nothing may be dead-lettered into the void.
            Queue {
                name: &self.outcome_queue,
                arguments: vec![],
                binding: Some((&self.outcome_exchange, "outcome.#")),
            },
            Queue { name: &self.dead_queue, arguments: vec![], binding: Some((&self.dead_exchange, "dead.#")) },
            Queue {
                name: &self.returned_queue,
                arguments: dead_letters(&self.dead_exchange, "dead.returned", Some(RETURNED_DELIVERY_LIMIT)),
                binding: Some((&self.dead_exchange, RETURNED)),
            },
            Queue {
                name: &self.request_queue,
                arguments: dead_letters(&self.dead_exchange, RETURNED, Some(DELIVERY_LIMIT)),
                binding: Some((&self.request_exchange, "request.#")),
            },
            Queue {
                name: &self.parking_queue,
                arguments: {
                    let mut arguments = dead_letters(&self.request_exchange, "request.parked", None);
                    arguments.push(("x-message-ttl", AMQPValue::LongLongInt(PARKED_FOR_MS)));
                    arguments
                },
                binding: None,
            },
        ]
    }
}

/// Dead-lettering that loses nothing: at least once, under a key of its own (a message keeps its old one otherwise,
/// and may then match no queue).
fn dead_letters(exchange: &str, key: &str, limit: Option<i64>) -> Vec<(&'static str, AMQPValue)> {
    let mut arguments = vec![
        ("x-dead-letter-exchange", text(exchange)),
        ("x-dead-letter-routing-key", text(key)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ];
    if let Some(limit) = limit {
        arguments.push(("x-delivery-limit", AMQPValue::LongLongInt(limit)));
    }
    arguments
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn short(name: &str) -> ShortString {
    // Configuration holds names to 255 bytes; a longer one would be refused by the broker by whatever name is left.
    ShortString::try_new(name).unwrap_or_default()
}

/// Declares what is missing, or verifies that nothing is.
///
/// # Errors
/// [`AmqpError::Topology`] names what stands with other arguments; [`AmqpError::Missing`] what is not there.
pub(super) async fn establish(connection: &Connection, names: &Names, declare: bool) -> Result<(), AmqpError> {
    let mut channel = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
    for name in names.exchanges() {
        let options = ExchangeDeclareOptions { durable: true, passive: !declare, ..ExchangeDeclareOptions::default() };
        let declaring = channel.exchange_declare(short(name), ExchangeKind::Topic, options, FieldTable::default());
        explain(within(COMMAND_TIMEOUT, "declaring an exchange", declaring).await, "exchange", name)?;
    }
    for queue in names.queues() {
        let arguments = queue.arguments();
        let options = QueueDeclareOptions { durable: true, passive: !declare, ..QueueDeclareOptions::default() };
        let declaring = channel.queue_declare(short(queue.name), options, arguments);
        explain(within(COMMAND_TIMEOUT, "declaring a queue", declaring).await.map(drop), "queue", queue.name)?;
        if let (true, Some((exchange, key))) = (declare, queue.binding) {
            bind(&channel, queue.name, exchange, key).await?;
        }
    }
    let _ = within(COMMAND_TIMEOUT, "closing a channel", channel_close(&mut channel)).await;
    Ok(())
}

/// What is missing, of exchanges and queues. What is there is declared again, which compares it and makes nothing.
///
/// # Errors
/// [`AmqpError::Topology`] names what stands with other arguments.
pub(super) async fn examine(connection: &Connection, names: &Names) -> Result<Vec<String>, AmqpError> {
    let mut missing = Vec::new();
    for name in names.exchanges() {
        for passive in [true, false] {
            let options = ExchangeDeclareOptions { durable: true, passive, ..ExchangeDeclareOptions::default() };
            let looked = look(connection, |channel| async move {
                channel.exchange_declare(short(name), ExchangeKind::Topic, options, FieldTable::default()).await
            });
            match explain(looked.await, "exchange", name) {
                Err(AmqpError::Missing { what }) => {
                    missing.push(what);
                    break;
                }
                other => other?,
            }
        }
    }
    for queue in names.queues() {
        let name = queue.name;
        let arguments = queue.arguments();
        for passive in [true, false] {
            let (options, arguments) =
                (QueueDeclareOptions { durable: true, passive, ..QueueDeclareOptions::default() }, arguments.clone());
            let looked = look(connection, |channel| async move {
                channel.queue_declare(short(name), options, arguments).await.map(drop)
            });
            match explain(looked.await, "queue", name) {
                Err(AmqpError::Missing { what }) => {
                    missing.push(what);
                    break;
                }
                other => other?,
            }
        }
    }
    Ok(missing)
}

/// A look on a channel of its own, for the broker closes it with each refusal.
async fn look<F: Future<Output = lapin::Result<()>>>(
    connection: &Connection,
    ask: impl FnOnce(Channel) -> F,
) -> Result<(), AmqpError> {
    let channel = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
    within(COMMAND_TIMEOUT, "looking at the topology", ask(channel)).await
}

async fn channel_close(channel: &mut Channel) -> lapin::Result<()> {
    channel.close(200, "OK".into()).await
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), AmqpError> {
    let binding = channel.queue_bind(
        short(queue),
        short(exchange),
        short(key),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    within(COMMAND_TIMEOUT, "binding a queue", binding).await
}

/// Turns the broker's refusal into what is wrong and where.
pub(super) fn explain(result: Result<(), AmqpError>, kind: &str, name: &str) -> Result<(), AmqpError> {
    let Err(AmqpError::Broker { source, action }) = result else { return result };
    let what = format!("{kind} '{name}'");
    if let ErrorKind::ProtocolError(error) = source.kind() {
        match error.get_id() {
            406 => return Err(AmqpError::Topology { what, difference: error.get_message().to_string() }),
            404 => return Err(AmqpError::Missing { what }),
            _ => {}
        }
    }
    Err(AmqpError::Broker { action, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_prefix_gives_the_names_of_the_contract() {
        let names = Names::with_prefix("contacts.deletion");
        assert_eq!(names.request_exchange, "contacts.deletion");
        assert_eq!(names.request_queue, "contacts.deletion.requests");
        assert_eq!(names.outcome_queue, "contacts.deletion.outcomes");
        assert_eq!(names.dead_queue, "contacts.deletion.dead");
        assert_eq!(names.returned_queue, "contacts.deletion.returned");
        assert_eq!(names.parking_queue, "contacts.deletion.parked");
    }

    #[test]
    fn every_queue_that_dead_letters_does_so_at_least_once_under_a_key_of_its_own() {
        let names = Names::with_prefix("x");
        let dead_letters = |q: &&Queue<'_>| q.arguments.iter().any(|(key, _)| key.starts_with("x-dead-letter"));
        let queues = names.queues();
        assert_eq!(queues.iter().filter(dead_letters).count(), 3);
        for queue in queues.iter().filter(dead_letters) {
            for wanted in
                ["x-dead-letter-exchange", "x-dead-letter-routing-key", "x-dead-letter-strategy", "x-overflow"]
            {
                assert!(queue.arguments.iter().any(|(key, _)| *key == wanted), "{} lacks {wanted}", queue.name);
            }
        }
    }
}
