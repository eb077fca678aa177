//! `dead list`: a table of what is in the dead queue, which stays as it was.

use std::process::ExitCode;

use clap::Args;
use indicatif::HumanCount;
use serde_json::json;

use super::super::table::table;
use super::choice::{Filters, Known, now, told};
use crate::amqp::{AmqpError, DeadLetters};
use crate::app;
use crate::config::Config;

/// What `dead list` takes.
#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filters: Filters,

    /// Show message ids and projects that could be addresses as they are.
    #[arg(long)]
    show_addresses: bool,

    /// Print each as a JSON object on a line of its own.
    #[arg(long)]
    json: bool,
}

/// Lists.
pub(super) async fn run(args: &ListArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let mut letters = DeadLetters::open(app::amqp_settings(config)).await?;
    let (mut count, mut rows, mut lines) = (0, Vec::new(), String::new());
    let (now, show) = (now(), args.show_addresses);
    let ended = loop {
        match letters.next().await {
            Ok(Some(letter)) => {
                count += 1;
                let known = Known::of(count, &letter, config, now);
                if !args.filters.pass(&known) {
                    continue;
                }
                if args.json {
                    let died_at = letter.died_at.map(|at| at.to_string());
                    let object = json!({
                        "place": known.place,
                        "code": known.code,
                        "project": known.summary.project.as_deref().map(|text| super::named(Some(text), show)),
                        "diedAt": died_at,
                        "ageSeconds": known.age.map(|age| age.as_secs()),
                        "messageId": known.summary.id.as_ref().map(|id| super::named(Some(id.as_str()), show)),
                        "letter": known.mark,
                        "undone": known.summary.undone,
                        "reason": letter.reason(),
                    });
                    lines = lines + &object.to_string() + "\n";
                } else {
                    rows.push(row(&known, show));
                }
            }
            Ok(None) => break letters.release().await,
            // Nothing is shown yet: whoever can mend it lists again.
            Err(error @ AmqpError::Unreadable) => return Err(error.into()),
            Err(error) => break Err(error),
        }
    };
    // Nothing is held any more, however long somebody reads.
    let shown = rows.len();
    if !rows.is_empty() {
        let header = ["#", "code", "project", "age", "message id", "undone"];
        super::super::print(&table(&header, rows, &[0, 3, 5]))?;
    }
    super::super::print(&lines)?;
    if !args.json && ended.is_ok() {
        let all = HumanCount(count);
        super::super::print(&match (shown, count) {
            (_, 0) => "there are no dead letters, or another command holds them\n".to_owned(),
            (0, _) => format!("no dead letter matches, of {all}\n"),
            (shown, count) if shown as u64 == count => format!("{all} in all\n"),
            (shown, _) => format!("{} of {all}\n", HumanCount(shown as u64)),
        })?;
    }
    ended?;
    Ok(ExitCode::SUCCESS)
}

fn row(known: &Known, show_addresses: bool) -> Vec<String> {
    vec![
        HumanCount(known.place).to_string(),
        super::clean(&known.code),
        super::named(known.summary.project.as_deref(), show_addresses),
        told(known.age),
        known.name(show_addresses),
        known.summary.undone.map_or_else(|| "-".to_owned(), |count| HumanCount(count).to_string()),
    ]
}
