//! Who moves messages from the request queue to the outcome queue.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::Failed;
use crate::broker::{Broker, OUTCOMES, REQUESTS};
use crate::process::Process;
use crate::sandbox::{API_KEY, Sandbox};

/// What a worker is started with beside the addresses: the rate out of the way, so that speed is what is measured.
const UNBOUNDED: [(&str, &str); 2] = [("RATE_LIMIT__REQUESTS_PER_MINUTE", "1000000"), ("RATE_LIMIT__BURST", "100000")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Worker,
    Forwarder,
    Shovel,
    Python,
}

impl Contender {
    pub const ALL: [Self; 4] = [Self::Worker, Self::Forwarder, Self::Shovel, Self::Python];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "migma-eraser, journal FULL",
            Self::Forwarder => "bare forwarder (lapin)",
            Self::Shovel => "RabbitMQ shovel",
            Self::Python => "aio-pika worker, no journal",
        }
    }

    /// The slow one is given fewer, so that a run ends.
    pub const fn share(self, requests: u32) -> u32 {
        match self {
            Self::Python => requests / 8,
            _ => requests,
        }
    }
}

/// A contender at work.
pub enum Running {
    Program(Process),
    /// It lives within the broker.
    Shovel,
}

pub struct World {
    pub broker: Broker,
    pub sandbox: Sandbox,
    pub folder: tempfile::TempDir,
    lives: std::cell::Cell<u32>,
}

impl World {
    pub fn new(broker: Broker, sandbox: Sandbox) -> Result<Self, Failed> {
        Ok(Self { broker, sandbox, folder: tempfile::tempdir()?, lives: std::cell::Cell::new(0) })
    }

    /// A name for a journal or a series of requests that was not there before.
    pub fn fresh(&self) -> String {
        self.lives.set(self.lives.get() + 1);
        format!("s{}", self.lives.get())
    }

    /// The worker, with the journal of this name.
    pub fn worker(&self, journal: &str, settings: &[(&str, &str)]) -> Result<Process, Failed> {
        let journal: PathBuf = self.folder.path().join(journal).join("journal.db");
        let log = std::fs::File::create(self.folder.path().join("worker.log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_migma-eraser"));
        command
            .env("MIGMA_API_KEY", API_KEY)
            .env("MIGMA_ERASER__AMQP__URL", &self.broker.url)
            .env("MIGMA_ERASER__MIGMA__BASE_URL", self.sandbox.url())
            .env("MIGMA_ERASER__JOURNAL__URL", format!("sqlite://{}", journal.display()))
            .env("MIGMA_ERASER__ADMIN__LISTEN", "127.0.0.1:0")
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(log);
        for (key, value) in UNBOUNDED.iter().chain(settings) {
            command.env(format!("MIGMA_ERASER__{key}"), value);
        }
        Process::start(command.arg("run"))
    }

    /// Lets a worker make the queues that everybody uses.
    pub async fn make_queues(&self) -> Result<(), Failed> {
        let worker = self.worker(&self.fresh(), &[])?;
        while !(self.broker.has(OUTCOMES).await && self.broker.has(REQUESTS).await) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The last of them is parked; its binding comes with it.
        while !self.broker.has("contacts.deletion.parked").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        worker.stop().await;
        Ok(())
    }

    pub async fn start(&self, contender: Contender) -> Result<Running, Failed> {
        Ok(match contender {
            Contender::Worker => Running::Program(self.worker(&self.fresh(), &[])?),
            Contender::Forwarder => {
                let mut command = Command::new(std::env::current_exe()?);
                Running::Program(Process::start(command.args(["forward", &self.broker.url]))?)
            }
            Contender::Python => {
                let python = std::env::var("BENCH_PYTHON")?;
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/python/worker.py");
                let url = &self.broker.url;
                Running::Program(Process::start(Command::new(python).args([script, url, &self.sandbox.url()]))?)
            }
            Contender::Shovel => {
                let uri = &self.broker.url;
                let shovel = json!({"value": {
                    "src-protocol": "amqp091", "src-uri": uri, "src-queue": REQUESTS, "src-prefetch-count": 5000,
                    "dest-protocol": "amqp091", "dest-uri": uri, "dest-exchange": OUTCOMES,
                    "dest-exchange-key": "outcome.succeeded", "ack-mode": "on-confirm",
                }});
                self.broker.manage(reqwest::Method::PUT, &self.shovel(), Some(shovel)).await?;
                Running::Shovel
            }
        })
    }

    fn shovel(&self) -> String {
        format!("parameters/shovel/{}/bench", self.broker.vhost)
    }

    pub async fn stop(&self, running: Running) -> Result<(), Failed> {
        match running {
            Running::Program(process) => process.stop().await,
            Running::Shovel => self.broker.manage(reqwest::Method::DELETE, &self.shovel(), None).await?,
        }
        Ok(())
    }
}
