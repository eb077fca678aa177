//! The demo behind `deploy/demo.sh`: sandbox and worker as processes, the shipped requests through a real broker, a
//! SIGKILL in the middle, and a table that holds every outcome against the sandbox's ledger.

#![allow(missing_docs)]

#[path = "../../tests/support/truth.rs"]
#[allow(unreachable_pub)]
mod truth;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use migma_eraser::sandbox::{Entry, Faults, Summary};
use serde::Deserialize;
use serde_json::Value;
use truth::Asked;

const API_KEY: &str = "demo-key";
const PATIENCE: Duration = Duration::from_mins(3);

/// A line of the shipped file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    id: Option<String>,
    key: String,
    content_type: Option<String>,
    body: Option<Value>,
    raw: Option<String>,
}

/// Processes that end with the demo, unless it is told to keep them.
struct Crew {
    children: Vec<Child>,
    keep: bool,
}

impl Drop for Crew {
    fn drop(&mut self) {
        for child in &mut self.children {
            if !self.keep {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

struct Demo {
    binary: PathBuf,
    files: PathBuf,
    work: PathBuf,
    amqp_url: String,
    prefix: String,
    sandbox: String,
    http: reqwest::Client,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let var = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set; run deploy/demo.sh"));
    let mut crew = Crew { children: Vec::new(), keep: false };
    let mut demo = Demo {
        binary: var("DEMO_BINARY")?.into(),
        files: Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/demo"),
        work: var("DEMO_DIR")?.into(),
        amqp_url: var("DEMO_AMQP_URL")?,
        prefix: var("DEMO_PREFIX")?,
        sandbox: String::new(),
        http: reqwest::Client::new(),
    };
    let verdict = demo.run(&mut crew).await;
    crew.keep = std::env::var("DEMO_KEEP").is_ok_and(|keep| keep == "1");
    if crew.keep {
        println!(
            "\nLeft running: sandbox {}, worker on {}; their logs are in {}",
            demo.sandbox,
            masked(&demo.amqp_url),
            demo.work.display()
        );
    } else {
        drop(crew);
        demo.clean_up().await;
    }
    verdict
}

fn masked(url: &str) -> String {
    url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("amqp://***@{host}"))
}

impl Demo {
    async fn run(&mut self, crew: &mut Crew) -> anyhow::Result<ExitCode> {
        let lines: Vec<Line> = std::fs::read_to_string(self.files.join("requests.ndjson"))?
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;

        step("starting the sandbox: every sixth call loses its answer after the work is done");
        crew.children.push(self.start_sandbox()?);
        let faults = Faults { latency_ms: 120, drop_after_every: 6, ..Faults::default() };
        self.http
            .put(format!("{}/_sandbox/faults", self.sandbox))
            .header("content-type", "application/json")
            .body(serde_json::to_string(&faults)?)
            .send()
            .await?
            .error_for_status()?;

        step("starting the worker");
        let (mut worker, admin) = self.start_worker(1)?;
        let ready = self.wait_ready(&admin).await;
        if let Err(error) = ready {
            let _ = worker.kill();
            return Err(error);
        }

        step(&format!("publishing {} requests", lines.len()));
        let connection = Connection::connect(&self.amqp_url, ConnectionProperties::default()).await?;
        self.publish(&connection, &lines).await?;

        let mut outcomes = Vec::new();
        let channel = connection.create_channel().await?;
        channel.basic_qos(1000, BasicQosOptions::default()).await?;
        let queue = format!("{}.outcomes", self.prefix);
        let mut consumer = channel
            .basic_consume(queue.as_str().into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await?;
        let expected = answers_expected(&lines);
        let mut killed = false;
        let start = Instant::now();
        while answered(&outcomes) < expected {
            match tokio::time::timeout(PATIENCE.saturating_sub(start.elapsed()), consumer.next()).await {
                Ok(Some(message)) => {
                    let message = message?;
                    channel.basic_ack(message.delivery_tag, BasicAckOptions::default()).await?;
                    outcomes.push(serde_json::from_slice::<Value>(&message.data)?);
                }
                Ok(None) | Err(_) => bail!("only {} of {expected} requests were answered", answered(&outcomes)),
            }
            if !killed && outcomes.len() > lines.len() / 4 {
                killed = true;
                step(&format!("SIGKILL after {} outcomes; starting the worker again", outcomes.len()));
                worker.kill()?;
                worker.wait()?;
                let (again, admin) = self.start_worker(2)?;
                worker = again;
                self.wait_ready(&admin).await?;
            }
        }
        // What is published twice shows within a moment.
        while let Ok(Some(Ok(message))) = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await {
            channel.basic_ack(message.delivery_tag, BasicAckOptions::default()).await?;
            outcomes.push(serde_json::from_slice::<Value>(&message.data)?);
        }
        let dead = self.ready(&connection, ".dead").await?;
        let left = self.ready(&connection, ".requests").await?;
        crew.children.push(worker);
        let all_good = self.report(&lines, &outcomes, dead, left, killed).await?;
        Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn log(&self, name: &str) -> anyhow::Result<std::fs::File> {
        std::fs::File::create(self.work.join(name)).context("cannot write into the demo's directory")
    }

    fn start_sandbox(&mut self) -> anyhow::Result<Child> {
        let mut child = Command::new(&self.binary)
            .args(["sandbox", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.files.join("contacts.json"))
            .env("MIGMA_API_KEY", API_KEY)
            .stdout(Stdio::piped())
            .stderr(self.log("sandbox.log")?)
            .spawn()?;
        let line = BufReader::new(child.stdout.take().context("no standard output")?).lines().next();
        let line = line.context("the sandbox did not start")??;
        line.rsplit(' ').next().unwrap_or_default().clone_into(&mut self.sandbox);
        Ok(child)
    }

    /// Starts the worker; its admin address is free for it to take.
    fn start_worker(&self, life: u32) -> anyhow::Result<(Child, String)> {
        let admin = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let child = Command::new(&self.binary)
            .arg("run")
            .env("MIGMA_API_KEY", API_KEY)
            .env("MIGMA_ERASER__AMQP__URL", &self.amqp_url)
            .env("MIGMA_ERASER__AMQP__PREFIX", &self.prefix)
            .env("MIGMA_ERASER__MIGMA__BASE_URL", &self.sandbox)
            .env("MIGMA_ERASER__JOURNAL__URL", format!("sqlite://{}", self.work.join("journal.db").display()))
            .env("MIGMA_ERASER__ADMIN__LISTEN", &admin)
            .env("MIGMA_ERASER__RATE_LIMIT__REQUESTS_PER_MINUTE", "120")
            .stdout(Stdio::null())
            .stderr(self.log(&format!("worker-{life}.log"))?)
            .spawn()?;
        Ok((child, admin))
    }

    async fn wait_ready(&self, admin: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Ok(answer) = self.http.get(format!("http://{admin}/readyz")).send().await
                && answer.status().is_success()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the worker did not get ready; see {}", self.work.display())
    }

    async fn publish(&self, connection: &Connection, lines: &[Line]) -> anyhow::Result<()> {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut confirms = Vec::with_capacity(lines.len());
        for line in lines {
            let mut properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_content_type(line.content_type.as_deref().unwrap_or("application/json").into());
            if let Some(id) = &line.id {
                properties = properties.with_message_id(id.as_str().into());
            }
            let body = match (&line.body, &line.raw) {
                (Some(body), _) => body.to_string(),
                (None, raw) => raw.clone().unwrap_or_default(),
            };
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let exchange = self.prefix.as_str().into();
            let published =
                channel.basic_publish(exchange, line.key.as_str().into(), options, body.as_bytes(), properties);
            confirms.push(published.await?);
        }
        for confirm in confirms {
            if confirm.await?.take_message().is_some() {
                bail!("the broker found no queue for a request");
            }
        }
        Ok(())
    }

    async fn ready(&self, connection: &Connection, end: &str) -> anyhow::Result<u32> {
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        let name = format!("{}{end}", self.prefix);
        Ok(channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await?.message_count())
    }

    async fn report(
        &self,
        lines: &[Line],
        outcomes: &[Value],
        dead: u32,
        left: u32,
        killed: bool,
    ) -> anyhow::Result<bool> {
        let text = self.http.get(format!("{}/_sandbox/ledger", self.sandbox)).send().await?.text().await?;
        let entries: Vec<Entry> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let text = self.http.get(format!("{}/_sandbox/summary", self.sandbox)).send().await?.text().await?;
        let summary: Summary = serde_json::from_str(&text)?;
        let sound: Vec<(String, String, Vec<String>)> = sound(lines);
        let asked: Vec<Asked<'_>> = sound.iter().map(|(id, project, emails)| Asked { id, project, emails }).collect();
        let mut wrong = truth::violations(&asked, outcomes, &entries, &summary);
        if left > 0 {
            wrong.push(format!("{left} messages are left in the request queue"));
        }
        if !killed {
            wrong.push("the worker was never killed".to_owned());
        }
        let mut statuses: BTreeMap<&str, usize> = BTreeMap::new();
        let mut first: BTreeMap<String, &Value> = BTreeMap::new();
        for outcome in outcomes {
            *statuses.entry(outcome["status"].as_str().unwrap_or("?")).or_default() += 1;
            first.insert(meaning(outcome), outcome);
        }
        let sum = |field: &str| -> u64 {
            first
                .values()
                .map(|o| o[field].as_array().map_or_else(|| o[field].as_u64().unwrap_or(0), |a| a.len() as u64))
                .sum()
        };
        let not_done = first.values().filter(|o| o["status"] != "succeeded").count();
        if (dead as usize) < not_done {
            wrong.push(format!("{not_done} requests were not all done, and {dead} dead letters tell of them"));
        }
        let mentions: usize = asked.iter().map(|a| a.emails.len()).sum();
        let distinct: BTreeSet<(&str, String)> =
            asked.iter().flat_map(|a| a.emails.iter().map(|e| (a.project, e.trim().to_lowercase()))).collect();
        let row = |name: &str, value: &dyn std::fmt::Display| println!("  {name:<34} {value}");
        println!("\n  ──────────────────────────────────────────────────────");
        row("requests in", &lines.len());
        for (status, count) in &statuses {
            row(&format!("outcomes {status}"), count);
        }
        row("emails asked for", &mentions);
        row("  distinct", &distinct.len());
        row("deleted, by the ledger", &summary.deleted);
        row("deleted, told to requests", &sum("deleted"));
        row("not found", &sum("notFound"));
        row("uncertain", &sum("uncertain"));
        row("invalid", &sum("invalid"));
        row("dead letters", &dead);
        row("calls that did work", &summary.performed);
        row("  the least possible", &truth::fewest_calls(&asked));
        row("calls with repeats of lost answers", &summary.calls);
        row("answers replayed by the API", &summary.replayed);
        row("idempotency conflicts", &summary.conflicts);
        println!("  ──────────────────────────────────────────────────────");
        for line in wrong.iter().take(10) {
            println!("  WRONG: {line}");
        }
        if wrong.is_empty() {
            println!("  every outcome agrees with the sandbox's ledger");
        } else {
            println!("  {} things disagree; logs are in {}", wrong.len(), self.work.display());
        }
        Ok(wrong.is_empty())
    }

    /// Takes away what the worker declared; with a vhost of its own, demo.sh takes that away as a whole.
    async fn clean_up(&self) {
        let Ok(connection) = Connection::connect(&self.amqp_url, ConnectionProperties::default()).await else { return };
        let Ok(channel) = connection.create_channel().await else { return };
        for end in [".requests", ".outcomes", ".dead", ".returned", ".parked"] {
            let _ = channel
                .queue_delete(
                    format!("{}{end}", self.prefix).as_str().into(),
                    lapin::options::QueueDeleteOptions::default(),
                )
                .await;
        }
        for end in ["", ".outcomes", ".dead"] {
            let _ = channel
                .exchange_delete(
                    format!("{}{end}", self.prefix).as_str().into(),
                    lapin::options::ExchangeDeleteOptions::default(),
                )
                .await;
        }
        let _ = connection.close(200, "OK".into()).await;
    }
}

fn step(text: &str) {
    println!("• {text}");
}

/// What an outcome is about: repeats have one meaning.
fn meaning(outcome: &Value) -> String {
    format!("{} {} {}", outcome["messageId"], outcome["error"]["code"], outcome["correlationId"])
}

fn answered(outcomes: &[Value]) -> usize {
    outcomes.iter().map(meaning).collect::<BTreeSet<_>>().len()
}

/// Distinct meanings: each id has one, but for the one name that is taken twice; repeats have none of their own.
fn answers_expected(lines: &[Line]) -> usize {
    lines.iter().map(|l| (&l.id, l.body.as_ref().map(Value::to_string), &l.raw)).collect::<BTreeSet<_>>().len()
}

/// The sound requests, each once.
fn sound(lines: &[Line]) -> Vec<(String, String, Vec<String>)> {
    let mut seen = BTreeSet::new();
    let mut sound = Vec::new();
    for line in lines {
        let (Some(id), Some(body)) = (&line.id, &line.body) else { continue };
        // Bad ones are told by their name, so that a wrong rejection of a sound one shows.
        if id.starts_with("bad-") || !seen.insert(id.clone()) {
            continue;
        }
        let emails =
            body["emails"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        sound.push((id.clone(), body["projectId"].as_str().unwrap_or_default().to_owned(), emails));
    }
    sound
}
