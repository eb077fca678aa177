//! The API's stand-in as a process of its own, so that its CPU time is not the contenders', and how fast it is.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Failed;

pub const API_KEY: &str = "sandbox-key";
/// What the worker has by default.
const CALLS_AT_A_TIME: usize = 8;

pub struct Sandbox {
    child: Child,
    address: String,
    client: reqwest::Client,
}

impl Sandbox {
    pub fn start() -> Result<Self, Failed> {
        Self::listen("127.0.0.1:0")
    }

    fn listen(address: &str) -> Result<Self, Failed> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migma-eraser"));
        command.args(["sandbox", "--open-world", "--listen", address]).env("MIGMA_API_KEY", API_KEY);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().rsplit("http://").next().unwrap_or_default().to_owned();
        Ok(Self { child, address, client: reqwest::Client::new() })
    }

    /// Another in its place, that knows nothing.
    pub fn replace(&mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        let address = self.address.clone();
        *self = Self::listen(&address)?;
        Ok(())
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn set_latency(&self, latency: Duration) -> Result<(), Failed> {
        let faults = format!(r#"{{"latencyMs": {}}}"#, latency.as_millis());
        let put = self.client.put(format!("{}/_sandbox/faults", self.url()));
        put.header("content-type", "application/json").body(faults).send().await?.error_for_status()?;
        Ok(())
    }

    /// Calls that came in since the ledger was cleared.
    pub async fn calls(&self) -> Result<u64, Failed> {
        let response = self.client.get(format!("{}/_sandbox/summary", self.url())).send().await?.error_for_status()?;
        let summary: Value = serde_json::from_slice(&response.bytes().await?)?;
        summary["calls"].as_u64().ok_or_else(|| "no calls in the summary".into())
    }

    /// When calls did their work since the ledger was cleared, in milliseconds.
    pub async fn times(&self) -> Result<Vec<u64>, Failed> {
        #[derive(serde::Deserialize)]
        struct Entry {
            at: u64,
        }
        let response = self.client.get(format!("{}/_sandbox/ledger", self.url())).send().await?.error_for_status()?;
        let lines = response.text().await?;
        let times: Result<Vec<u64>, _> =
            lines.lines().map(|line| Ok(serde_json::from_str::<Entry>(line)?.at)).collect();
        let mut times = times.map_err(|error: serde_json::Error| error.to_string())?;
        times.sort_unstable();
        Ok(times)
    }

    pub async fn forget(&self) -> Result<(), Failed> {
        self.client.delete(format!("{}/_sandbox/ledger", self.url())).send().await?.error_for_status()?;
        Ok(())
    }

    /// Emails a second that it takes from a client that does nothing else, 1000 to a call.
    pub async fn emails_a_second(&self) -> Result<f64, Failed> {
        let begun = Instant::now();
        let mut calling = tokio::task::JoinSet::new();
        for client in 0..CALLS_AT_A_TIME {
            let (http, url) = (self.client.clone(), format!("{}/v1/contacts/bulk-delete", self.url()));
            calling.spawn(async move {
                let mut calls = 0u32;
                while begun.elapsed() < Duration::from_secs(3) {
                    let emails: Vec<String> =
                        (0..1000).map(|n| format!("\"c{client}-{calls}-{n}@example.org\"")).collect();
                    let body = format!(r#"{{"projectId":"own","emails":[{}]}}"#, emails.join(","));
                    let call = http.post(&url).bearer_auth(API_KEY).header("content-type", "application/json");
                    let call = call.header("idempotency-key", format!("own-{client}-{calls}")).body(body);
                    call.send().await?.error_for_status()?.bytes().await?;
                    calls += 1;
                }
                Ok::<_, reqwest::Error>(calls)
            });
        }
        let mut calls = 0;
        while let Some(client) = calling.join_next().await {
            calls += client??;
        }
        Ok(f64::from(calls) * 1000.0 / begun.elapsed().as_secs_f64())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
