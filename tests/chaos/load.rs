//! What upstream systems do meanwhile: requests of every kind, published with confirms and again where no confirm came;
//! and operations, who read every outcome.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use migma_eraser::sandbox::Faults;
use serde_json::Value;

use crate::support::Request;
use crate::support::requests::Numbers;

/// Requests in a minute: with the pace of the kills, 100 SIGKILLs meet more than 20,000.
pub const PER_MINUTE: usize = 1500;
/// The project that the API refuses now and then.
pub const LOCKED: &str = "locked";
/// The project that the API does not know.
const GONE: &str = "gone";
const POISONED: usize = 50;

/// The faults that are always there.
pub fn always() -> Faults {
    Faults {
        unknown_projects: [GONE.to_owned()].into(),
        poison_emails: (0..POISONED).map(|n| format!("poison{n}@example.org")).collect(),
        poison_status: Some(400),
        ..Faults::default()
    }
}

/// Everything that was published and confirmed.
#[derive(Default)]
pub struct Published {
    /// The sound ones, each once.
    pub sound: Vec<Request>,
    /// Ids of those that cannot be read.
    pub broken: Vec<String>,
    /// Messages, repeats too.
    pub messages: usize,
}

/// Makes requests and publishes them.
pub struct Publisher {
    url: String,
    dice: Numbers,
    pub published: Published,
}

enum Made {
    Sound(Request),
    Broken(Request),
    Twin(Request),
}

impl Publisher {
    pub fn new(url: String, seed: u64) -> Self {
        Self { url, dice: Numbers(seed), published: Published::default() }
    }

    /// Publishes at an even pace until so many are out; after an outage it catches up.
    pub async fn publish(mut self, total: usize) -> Published {
        let start = Instant::now();
        while self.published.sound.len() < total {
            let due = (start.elapsed().as_millis() as usize * PER_MINUTE / 60_000 + 1).min(total);
            let group: Vec<Made> = (self.published.sound.len()..due).map(|n| self.make(n)).collect();
            self.confirmed(&group).await;
            for made in group {
                self.published.messages += 1;
                match made {
                    Made::Sound(request) => self.published.sound.push(request),
                    Made::Broken(request) => self.published.broken.push(request.id),
                    Made::Twin(_) => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(100 + self.dice.below(1500) as u64)).await;
        }
        self.published
    }

    fn make(&mut self, n: usize) -> Made {
        let id = format!("chaos-{n}-{}", self.published.messages);
        match self.dice.below(100) {
            0 => return Made::Broken(Request::raw(&id, "{\"emails\": [\"broken@example.org\"")),
            1..=4 if !self.published.sound.is_empty() => {
                let known = self.dice.below(self.published.sound.len());
                return Made::Twin(self.published.sound[known].clone());
            }
            _ => {}
        }
        let project = match self.dice.below(100) {
            0 => GONE,
            1..=8 => LOCKED,
            9..=50 => "q",
            _ => "p",
        };
        let count = if self.dice.below(400) == 0 { 2500 } else { 1 + self.dice.below(5) };
        let mut emails: Vec<String> = (0..count)
            .map(|_| {
                let name = if self.dice.below(10) == 0 { "unknown" } else { "user" };
                format!("{name}{}@example.org", self.dice.below(200_000))
            })
            .collect();
        if self.dice.below(200) == 0 {
            emails.push(format!("poison{}@example.org", self.dice.below(POISONED)));
        }
        if self.dice.below(50) == 0 {
            emails.push("not an address".to_owned());
        }
        Made::Sound(Request::of(&id, project, emails))
    }

    /// All over again until the broker has confirmed every one: repeats are what the worker must bear.
    async fn confirmed(&self, group: &[Made]) {
        while self.attempt(group).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn attempt(&self, group: &[Made]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut confirms = Vec::new();
        for made in group {
            let (Made::Sound(request) | Made::Broken(request) | Made::Twin(request)) = made;
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let key = "request.gdpr".into();
            let properties = request.properties.clone();
            let exchange = "contacts.deletion".into();
            confirms.push(channel.basic_publish(exchange, key, options, &request.body, properties).await?);
        }
        for confirm in confirms {
            let confirmed = tokio::time::timeout(Duration::from_secs(20), confirm).await??;
            if !confirmed.is_ack() || confirmed.take_message().is_some() {
                return Err("refused".into());
            }
        }
        connection.close(200, "OK".into()).await?;
        Ok(())
    }
}

/// Every outcome that was ever read.
#[derive(Clone, Default)]
pub struct Outcomes(Arc<Mutex<Vec<Value>>>);

impl Outcomes {
    /// Reads them until the end of the run.
    pub fn read(url: String) -> Self {
        let outcomes = Self::default();
        let kept = outcomes.clone();
        tokio::spawn(async move {
            loop {
                let _ = kept.consume(&url).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        outcomes
    }

    async fn consume(&self, url: &str) -> lapin::Result<()> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(1000, BasicQosOptions::default()).await?;
        let queue = "contacts.deletion.outcomes".into();
        let options = BasicConsumeOptions::default();
        let mut consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
        while let Some(message) = consumer.next().await {
            let message = message?;
            self.0.lock().unwrap().push(serde_json::from_slice(&message.data).expect("an outcome is JSON"));
            channel.basic_ack(message.delivery_tag, BasicAckOptions::default()).await?;
        }
        Ok(())
    }

    pub fn all(&self) -> Vec<Value> {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// How many of these have none yet.
    pub fn missing(&self, published: &Published) -> usize {
        let outcomes = self.0.lock().unwrap();
        let told: HashSet<&str> = outcomes.iter().filter_map(|outcome| outcome["messageId"].as_str()).collect();
        let ids = published.sound.iter().map(|request| &request.id).chain(&published.broken);
        ids.filter(|id| !told.contains(id.as_str())).count()
    }

    /// The ids of outcomes that come with a dead letter, and the outcomes' own.
    pub fn with_dead_letter(&self) -> HashMap<String, String> {
        let outcomes = self.0.lock().unwrap();
        let bad = outcomes.iter().filter(|outcome| outcome["status"] != "succeeded");
        bad.filter_map(|outcome| {
            Some((outcome["messageId"].as_str()?.to_owned(), outcome["status"].as_str()?.to_owned()))
        })
        .collect()
    }
}
