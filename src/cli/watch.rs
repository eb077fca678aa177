//! `watch`: outcomes as they are published, without taking one from anybody.
//!
//! Never an address on the screen that was not asked for; never a queue that outlives this command, or grows without end.

mod line;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::interrupt::interrupted;
use super::paint::Paint;
use crate::amqp::{AmqpError, AmqpSettings, Heard, Listener, patience};
use crate::app;
use crate::domain::masking::mask_outcome;

pub(super) const EXAMPLES: &str = "\
Examples:
  migma-eraser watch
      every outcome from now on, one line each, until Ctrl-C
  migma-eraser watch --status failed,rejected --project proj_8f2
      what goes wrong in one project
  migma-eraser watch --batches
      the ends of batches as well
  migma-eraser watch --json | jq -r 'select(.status == \"failed\") | .failed[].code'
      one JSON object a line, for scripts
  migma-eraser watch --count 1 --status succeeded && echo 'it works'
      wait for one outcome, then end

Nothing is taken from the outcome queue: this command listens on a queue of its own, which goes with it and holds at most
10,000 messages; where they come faster than they can be shown, the oldest of them are passed over. When the broker is
lost it connects again by itself, and says that outcomes may have been missed. Addresses are masked, in --json too,
unless --show-addresses is given.

Exit codes: 0 after Ctrl-C or --count, 1 where the broker cannot be listened to, 2 wrong usage, 78 wrong configuration.";

/// The most that waits for a slow reader; what is older is dropped, here and nowhere else.
const AT_MOST: u32 = 10_000;

/// What `watch` takes.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// Only outcomes with these statuses.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STATUS")]
    status: Vec<Which>,

    /// Only what concerns these projects.
    #[arg(long, value_name = "ID")]
    project: Vec<String>,

    /// Batch events as well: one for each batch that ended.
    #[arg(long)]
    batches: bool,

    /// End after so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Show addresses, and message ids that could be some, as they are.
    #[arg(long)]
    show_addresses: bool,

    /// Print each as a JSON object on a line of its own.
    #[arg(long)]
    json: bool,
}

/// A status, as one types it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Succeeded,
    Partial,
    Failed,
    Rejected,
}

impl Which {
    const fn key(self) -> &'static str {
        match self {
            Self::Succeeded => "outcome.succeeded",
            Self::Partial => "outcome.partial",
            Self::Failed => "outcome.failed",
            Self::Rejected => "outcome.rejected",
        }
    }
}

/// Watches until somebody has seen enough.
///
/// # Errors
/// Wrong configuration; the broker cannot be reached at first, or has no outcome exchange.
pub async fn run(args: WatchArgs, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = super::load(file)?;
    tokio::select! {
        ended = watch(&args, app::amqp_settings(&config)) => ended?,
        () = interrupted() => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn watch(args: &WatchArgs, settings: AmqpSettings) -> anyhow::Result<()> {
    let keys = keys(args);
    let opening = Listener::open(settings.clone(), &keys, Some(AT_MOST));
    let mut listener = opening.await.map_err(|error| super::from_broker(error.into(), "watch"))?;
    note("watching; Ctrl-C ends it");
    let paint = Paint::of_stdout();
    let mut left = args.count;
    loop {
        match listener.next().await {
            Ok(heard) => {
                let Some(text) = told(args, paint, &heard) else { continue };
                if !show(&text)? {
                    return Ok(());
                }
                left = left.map(|left| left - 1);
                if left == Some(0) {
                    listener.close().await;
                    return Ok(());
                }
            }
            Err(error) => {
                note(&format!("the broker is lost ({error}); connecting again"));
                listener = again(&settings, &keys).await?;
            }
        }
    }
}

/// Listens anew, for as long as trying can help.
async fn again(settings: &AmqpSettings, keys: &[String]) -> Result<Listener, AmqpError> {
    let since = Instant::now();
    let mut failures = 0;
    loop {
        tokio::time::sleep(patience(failures)).await;
        match Listener::open(settings.clone(), keys, Some(AT_MOST)).await {
            Ok(listener) => {
                let away = since.elapsed().as_secs_f32();
                note(&format!("watching again after {away:.1} s; outcomes published meanwhile were missed"));
                return Ok(listener);
            }
            Err(error) if error.is_transient() => failures += 1,
            Err(error) => return Err(error),
        }
    }
}

fn keys(args: &WatchArgs) -> Vec<String> {
    let mut keys: Vec<String> = args.status.iter().map(|status| status.key().to_owned()).collect();
    if keys.is_empty() {
        keys.push("outcome.#".to_owned());
    }
    if args.batches {
        keys.push("batch.#".to_owned());
    }
    keys
}

/// What is printed of it; `None` where it was not asked for, or cannot be read.
fn told(args: &WatchArgs, paint: Paint, heard: &Heard) -> Option<String> {
    let mut body: Value = serde_json::from_slice(&heard.body).ok()?;
    let is_theirs = |id: &str| args.project.iter().any(|project| project == id);
    if !args.project.is_empty() && !body["projectId"].as_str().is_some_and(is_theirs) {
        return None;
    }
    let is_batch = heard.key.starts_with("batch.");
    if !args.show_addresses {
        mask_outcome(&mut body);
    }
    Some(match (args.json, is_batch) {
        (true, _) => format!("{body}\n"),
        (false, true) => line::batch(&body),
        (false, false) => line::outcome(&body, paint, args.show_addresses)?,
    })
}

/// Writes to standard output; whether anybody still reads it.
fn show(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true),
    }
}

/// What is no outcome goes to standard error, where no script reads it.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "migma-eraser: {text}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(arguments: &[&str]) -> WatchArgs {
        use clap::{CommandFactory as _, FromArgMatches as _};
        let line = ["migma-eraser", "watch"].iter().chain(arguments);
        let matches = super::super::Cli::command().get_matches_from(line);
        WatchArgs::from_arg_matches(matches.subcommand().unwrap().1).unwrap()
    }

    fn heard(key: &str, body: &Value) -> Heard {
        Heard { key: key.to_owned(), correlation_id: None, body: body.to_string().into_bytes() }
    }

    #[test]
    fn only_what_is_asked_for_is_bound() {
        assert_eq!(keys(&args(&[])), ["outcome.#"]);
        assert_eq!(
            keys(&args(&["--status", "failed,rejected", "--batches"])),
            ["outcome.failed", "outcome.rejected", "batch.#"]
        );
    }

    #[test]
    fn another_project_s_outcomes_are_passed_over_and_addresses_masked() {
        let outcome = heard(
            "outcome.partial",
            &json!({"messageId": "ann@x.org", "projectId": "p", "status": "partial", "deleted": 1,
                "notFound": ["bob@x.org"], "uncertain": [], "invalid": [], "failed": [], "error": null}),
        );
        let json = args(&["--json", "--project", "p"]);
        let text = told(&json, Paint::of_stdout(), &outcome).unwrap();
        assert!(text.ends_with("}\n") && text.contains("b***@x***") && !text.contains("x.org"), "{text}");
        assert!(told(&args(&["--project", "q"]), Paint::of_stdout(), &outcome).is_none());
        let open = told(&args(&["--json", "--show-addresses"]), Paint::of_stdout(), &outcome).unwrap();
        assert!(open.contains("ann@x.org") && open.contains("bob@x.org"));
    }
}
