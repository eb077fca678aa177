//! `pause` and `resume`: stop a worker's calls, and let them go on, over its admin address.
//!
//! Never the token in an argument, and never to an address over plain HTTP that is not the one asked for: no redirect is
//! followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, redirect, retry};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::Usage;
use crate::config::{ADMIN_TOKEN_VARIABLE, AdminToken, Config};
use crate::domain::pauses::Pause;

pub(super) const PAUSE_EXAMPLES: &str = "\
Examples:
  migma-eraser pause --reason 'wrong list in DSR-4711'
      no call leaves any more, of any project, before `migma-eraser resume`: not after a restart either
  migma-eraser pause --project proj_8f2
      the same for one project; its requests wait aside, others go on
  MIGMA_ERASER_ADMIN_TOKEN=... migma-eraser pause --admin http://eraser.internal:9464
      another machine's worker, which needs its token

Calls that have left already end, and are answered. Nothing is lost and nothing is given up for a pause.";

pub(super) const RESUME_EXAMPLES: &str = "\
Examples:
  migma-eraser resume
      ends the pause of everything; projects that are paused by themselves stay so
  migma-eraser resume --project proj_8f2
      ends the pause of one project";

/// How long the worker may take to answer: its journal may be slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which worker, and what of it.
#[derive(Debug, Args)]
pub(super) struct Whom {
    /// One project alone.
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// The worker's admin address, such as `http://127.0.0.1:9464`; by default that of `admin.listen`.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Print the pauses in force as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    whom: Whom,
    /// Why: shown wherever the pause is. One line; addresses in it are masked.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    whom: Whom,
}

/// The pauses in force, as the worker tells them.
#[derive(Debug, Deserialize)]
pub(super) struct InForce {
    pub(super) pauses: Vec<Paused>,
}

/// One of them.
#[derive(Debug, Deserialize)]
pub(super) struct Paused {
    project: Option<String>,
    since: String,
    reason: Option<String>,
}

impl From<&Pause> for Paused {
    fn from(pause: &Pause) -> Self {
        let reason = pause.reason.clone();
        Self { project: pause.shown_project(), since: pause.since.to_string(), reason }
    }
}

impl Paused {
    /// In one line.
    pub(super) fn told(&self) -> String {
        let what = self.project.as_ref().map_or_else(|| "everything".to_owned(), |name| format!("project {name}"));
        let why = self.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("{what} is paused since {}{why}", self.since)
    }
}

/// Orders a pause.
///
/// # Errors
/// The worker cannot be reached, or does not obey: why, and the cure.
pub(super) async fn pause(args: PauseArgs, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let order = json!({"project": args.whom.project, "reason": args.reason});
    order_and_tell(&args.whom, "/pause", &order, file).await
}

/// Orders its end.
///
/// # Errors
/// The worker cannot be reached, or does not obey: why, and the cure.
pub(super) async fn resume(args: ResumeArgs, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let order = json!({"project": args.whom.project});
    order_and_tell(&args.whom, "/resume", &order, file).await
}

async fn order_and_tell(whom: &Whom, path: &str, order: &Value, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    if whom.project.as_deref() == Some("") {
        return Err(Usage::new("--project: is empty; name a project, or leave it out for all"));
    }
    let config = super::load(file)?;
    let base = match &whom.admin {
        Some(text) => parse(text)?,
        None => address_of(config.admin.listen)?,
    };
    let token = AdminToken::find(&config, std::env::var_os(ADMIN_TOKEN_VARIABLE))?.read()?;
    let mut request = client()?.post(at(&base, path)).header(CONTENT_TYPE, "application/json").body(order.to_string());
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let text = send(request, &base).await?;
    if whom.json {
        super::print(&format!("{}\n", text.trim()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let told: InForce = serde_json::from_str(&text).map_err(|_| not_a_worker(&base))?;
    super::print(&lines(&told))?;
    Ok(ExitCode::SUCCESS)
}

fn lines(told: &InForce) -> String {
    match &told.pauses[..] {
        [] => "nothing is paused\n".to_owned(),
        pauses => pauses.iter().flat_map(|pause| [pause.told(), "\n".to_owned()]).collect(),
    }
}

/// Asks the worker of this configuration for its pauses.
///
/// # Errors
/// It cannot be asked.
pub(super) async fn ask(config: &Config) -> anyhow::Result<InForce> {
    let base = address_of(config.admin.listen)?;
    let text = send(client()?.get(at(&base, "/pauses")), &base).await?;
    serde_json::from_str(&text).map_err(|_| not_a_worker(&base))
}

/// Why a worker does not obey.
#[derive(Deserialize)]
struct Trouble {
    error: String,
    cure: String,
}

async fn send(request: reqwest::RequestBuilder, base: &Url) -> anyhow::Result<String> {
    let unreachable = |error: reqwest::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        anyhow!("no worker answers at {base}{cause}; start it, or name its admin address with --admin")
    };
    let answer = request.header(ACCEPT, "application/json").send().await.map_err(|e| unreachable(e.without_url()))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|e| unreachable(e.without_url()))?;
    if status.is_success() {
        return Ok(text);
    }
    match serde_json::from_str::<Trouble>(&text) {
        Ok(Trouble { error, cure }) => Err(anyhow!("{base}: {error}; {cure} (HTTP {})", status.as_u16())),
        Err(_) => Err(not_a_worker(base)),
    }
}

fn not_a_worker(base: &Url) -> anyhow::Error {
    anyhow!("{base} is no admin address of a worker of this version; name it with --admin")
}

fn client() -> anyhow::Result<Client> {
    let builder = Client::builder().redirect(redirect::Policy::none()).retry(retry::never()).no_proxy();
    Ok(builder.timeout(PATIENCE).build()?)
}

fn parse(text: &str) -> anyhow::Result<Url> {
    let wrong = || Usage::new(format!("--admin: {text:?} is no such address; give one like http://127.0.0.1:9464"));
    let url = Url::parse(text).map_err(|_| wrong())?;
    let sound = ["http", "https"].contains(&url.scheme()) && url.has_host() && url.query().is_none();
    if sound && url.username().is_empty() && url.password().is_none() { Ok(url) } else { Err(wrong()) }
}

fn at(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

/// Where a worker is reached from this machine that listens there.
fn address_of(listen: SocketAddr) -> anyhow::Result<Url> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    if listen.port() == 0 {
        return Err(Usage::new("admin.listen takes any free port; name the worker's address with --admin"));
    }
    Ok(Url::parse(&format!("http://{}", SocketAddr::new(ip, listen.port())))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_from_where_the_worker_listens() {
        let of = |text: &str| address_of(text.parse().unwrap()).map(String::from).ok();
        assert_eq!(of("127.0.0.1:9464").as_deref(), Some("http://127.0.0.1:9464/"));
        assert_eq!(of("0.0.0.0:1").as_deref(), Some("http://127.0.0.1:1/"));
        assert_eq!(of("[::]:1").as_deref(), Some("http://[::1]:1/"));
        assert_eq!(of("127.0.0.1:0"), None);
    }

    #[test]
    fn an_address_that_is_given_is_one_and_holds_no_secret() {
        assert_eq!(at(&parse("https://eraser.example/admin/").unwrap(), "/pause").path(), "/admin/pause");
        for wrong in ["", "127.0.0.1:9464", "ftp://x", "http://u:p@x", "http://x?token=1", "unix:/x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_paused_is_told_in_a_line_each() {
        let text =
            r#"{"pauses":[{"project":null,"since":"2026","reason":null},{"project":"p","since":"2027","reason":"r"}]}"#;
        let told = lines(&serde_json::from_str(text).unwrap());
        assert_eq!(told, "everything is paused since 2026\nproject p is paused since 2027 (r)\n");
        assert_eq!(lines(&InForce { pauses: Vec::new() }), "nothing is paused\n");
    }
}
