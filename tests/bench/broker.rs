//! The broker of a run: a vhost of its own, the worker's own queues for every contender, and a look at how full they are.

use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};

use crate::Failed;

pub const REQUESTS: &str = "contacts.deletion.requests";
pub const OUTCOMES: &str = "contacts.deletion.outcomes";
/// How long anything may take that ought to happen.
const PATIENCE: Duration = Duration::from_mins(10);
/// Between two looks at a queue.
const LOOK: Duration = Duration::from_millis(10);

pub struct Broker {
    management: String,
    pub vhost: String,
    pub url: String,
    channel: Channel,
    connection: Connection,
}

/// How many messages had come out when.
#[derive(Clone, Copy)]
pub struct Passage {
    pub first: (Instant, u32),
    pub last: (Instant, u32),
}

impl Passage {
    pub fn time(&self) -> Duration {
        self.last.0 - self.first.0
    }

    pub fn messages(&self) -> f64 {
        f64::from(self.last.1 - self.first.1)
    }

    pub fn rate(&self) -> f64 {
        self.messages() / self.time().as_secs_f64()
    }
}

impl Broker {
    /// A new vhost on the broker of `TEST_AMQP_URL` and `TEST_MANAGEMENT_URL`.
    pub async fn new() -> Result<Self, Failed> {
        let amqp = std::env::var("TEST_AMQP_URL")?;
        let management = std::env::var("TEST_MANAGEMENT_URL")?;
        let vhost = format!("bench-{}", std::process::id());
        manage(&management, reqwest::Method::PUT, &format!("vhosts/{vhost}"), None).await?;
        let grant = json!({"configure": ".*", "write": ".*", "read": ".*"});
        manage(&management, reqwest::Method::PUT, &format!("permissions/{vhost}/guest"), Some(grant)).await?;
        let url = format!("{amqp}/{vhost}");
        let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { management, vhost, url, channel, connection })
    }

    pub async fn delete(&self) -> Result<(), Failed> {
        self.manage(reqwest::Method::DELETE, &format!("vhosts/{}", self.vhost), None).await
    }

    pub async fn manage(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Result<(), Failed> {
        manage(&self.management, method, path, body).await
    }

    /// Messages that wait in a queue; fails where the queue is not there.
    pub async fn depth(&self, queue: &str) -> Result<u32, Failed> {
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        Ok(self.channel.queue_declare(queue.into(), look, FieldTable::default()).await?.message_count())
    }

    /// Whether a queue is there; asked on a channel of its own, for a no ends the channel.
    pub async fn has(&self, queue: &str) -> bool {
        let Ok(channel) = self.connection.create_channel().await else { return false };
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), look, FieldTable::default()).await.is_ok()
    }

    pub async fn purge(&self) -> Result<(), Failed> {
        for queue in [REQUESTS, OUTCOMES] {
            self.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
        }
        Ok(())
    }

    /// Publishes one-email requests and waits until the broker has confirmed them all.
    pub async fn preload(&self, series: &str, count: u32) -> Result<(), Failed> {
        let mut waiting = Vec::with_capacity(10_000);
        for n in 0..count {
            let body = format!(r#"{{"projectId":"p","emails":["{series}-{n}@example.org"]}}"#);
            let properties =
                BasicProperties::default().with_message_id(format!("{series}-{n}").into()).with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            let publish = self.channel.basic_publish("".into(), REQUESTS.into(), options, body.as_bytes(), properties);
            waiting.push(publish.await?);
            if waiting.len() == 10_000 {
                for confirm in waiting.drain(..) {
                    confirm.await?;
                }
            }
        }
        for confirm in waiting {
            confirm.await?;
        }
        Ok(())
    }

    /// Looks until so many outcomes have come; `at_first` is called when the first ones are seen.
    pub async fn watch(&self, count: u32, mut at_first: impl FnMut()) -> Result<Passage, Failed> {
        let begun = Instant::now();
        let mut first = None;
        loop {
            let depth = self.depth(OUTCOMES).await?;
            let now = Instant::now();
            if depth > 0 && first.is_none() {
                at_first();
                first = Some((now, depth));
            }
            if depth >= count {
                let first = first.unwrap_or((begun, 0));
                return Ok(Passage { first, last: (now, depth) });
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("only {depth} of {count} outcomes have come").into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn manage(base: &str, method: reqwest::Method, path: &str, body: Option<Value>) -> Result<(), Failed> {
    let url = format!("{base}/api/{path}");
    let mut request = reqwest::Client::new().request(method, url).basic_auth("guest", Some("guest"));
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let response = request.send().await?;
    if !response.status().is_success() {
        return Err(format!("the broker's management says {} to {path}", response.status()).into());
    }
    Ok(())
}
