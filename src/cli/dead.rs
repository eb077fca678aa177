//! `dead`: what could not be done, looked at, sent again, or thrown away.
//!
//! Never a letter gone that was neither confirmed elsewhere nor named by somebody who said yes.

mod change;
mod choice;
mod list;
mod show;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use self::change::{DiscardArgs, ReplayArgs};
use self::list::ListArgs;
use self::show::ShowArgs;
use super::counted;
use super::interrupt::interrupted;
use crate::amqp::{AmqpError, hold_unreadable};
use crate::app;
use crate::config::Config;
use crate::domain::ids::redacted;
use crate::domain::request::Policy;

pub(super) const EXAMPLES: &str = "\
Examples:
  migma-eraser dead list
      what is in the dead queue, and why
  migma-eraser dead show dsr-4711
      one letter: headers, reason, body
  migma-eraser dead replay --code FORBIDDEN --project proj_8f2 --dry-run
      what would be sent again, now that the key may delete there
  migma-eraser dead discard --older-than 90d
      throw away what nobody wants any more, after a question

A letter is in one place at any time: it leaves the dead queue once the broker has confirmed its replay, or once somebody
has said that it is to be discarded. Each command may be killed anywhere, and run again.";

const LIST_EXAMPLES: &str = "\
Examples:
  migma-eraser dead list
      place, code, project, age, message id and how many emails were not done
  migma-eraser dead list --code GAVE_UP,FORBIDDEN --newer-than 24h
      what went wrong today
  migma-eraser dead list --json | jq -s 'group_by(.code) | map({code: .[0].code, letters: length})'
      one JSON object a line, for scripts

The queue stays as it was, order included. While it is read, another command finds fewer letters, or none. An age tells
how long ago a letter came; where that is not known, it is '-', and no age filter matches.

Exit codes: 0, also where there are none; 1 where the queue cannot be read, 2 wrong usage, 78 wrong configuration.";

const SHOW_EXAMPLES: &str = "\
Examples:
  migma-eraser dead show dsr-4711
      by message id
  migma-eraser dead show sha256:9f86d081884c7d65
      as `dead list` shows an id that could be an address
  migma-eraser dead show letter:0d1f6c1e6b8a4c55 --show-addresses
      a letter without a message id; its body as it is
  migma-eraser dead show dsr-4711 --json | jq .replay
      what a replay would ask for, or why it would be refused";

const REPLAY_EXAMPLES: &str = "\
Examples:
  migma-eraser dead replay dsr-4711
      one letter, after a question
  migma-eraser dead replay --code FORBIDDEN --project proj_8f2 --dry-run
      what would be sent
  migma-eraser dead replay --all --yes
      everything, without a question, for scripts

Only what was not done is sent (the header x-eraser-undone), under a new message id that names the old one and is always the
same for the same letter: so a second replay, after the first one was killed, is answered without a call. A letter that
the broker put there (dead.returned) was never answered, and keeps its id. The letter leaves the dead queue once the
broker has confirmed the request. What this configuration would only reject again is refused with the reason, and stays.

Exit codes: 0 where all was sent, 1 where something was refused, not found or failed, 2 wrong usage, 78 wrong
configuration.";

const DISCARD_EXAMPLES: &str = "\
Examples:
  migma-eraser dead discard dsr-4711
      one letter, after a question
  migma-eraser dead discard --code INVALID_EMAIL --older-than 30d --dry-run
      what would be thrown away
  migma-eraser dead discard --older-than 90d --yes
      without a question, for scripts
  migma-eraser dead discard --unreadable
      what cannot even be listed, for it is no AMQP that anybody can read

What is discarded is gone: its emails are not deleted by anybody, and no outcome tells more than the one that was sent.";

/// What `dead` takes.
#[derive(Args, Debug)]
pub struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// List dead letters, and leave them as they are.
    #[command(after_long_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show a dead letter: headers, reason, body.
    #[command(after_long_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Send again what was not done.
    #[command(after_long_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Throw dead letters away.
    #[command(after_long_help = DISCARD_EXAMPLES)]
    Discard(DiscardArgs),
}

/// Does one of them.
///
/// # Errors
/// Wrong usage or configuration; the broker cannot be reached, or has no dead queue.
pub async fn run(args: DeadArgs, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = super::load(file)?;
    let work = async {
        match command(&args.command, &config).await {
            Err(error) if matches!(error.downcast_ref(), Some(AmqpError::Unreadable)) => {
                // It would take the connection down again: so it is held elsewhere meanwhile.
                let held = hold_unreadable(app::amqp_settings(&config)).await?;
                let letters = counted(held.messages as u64, "letter");
                let _ = writeln!(
                    io::stderr(),
                    "migma-eraser: {letters} passed over that cannot be read, for a property or a header name is no \
                     UTF-8; look on the broker's management page; `migma-eraser dead discard --unreadable` takes away"
                );
                command(&args.command, &config).await
            }
            done => done,
        }
    };
    tokio::select! {
        done = work => done.map_err(|error| super::from_broker(error, "dead")),
        () = interrupted() => anyhow::bail!(
            "interrupted; whatever was not done is in the dead queue. Run the same command again to go on"
        ),
    }
}

async fn command(command: &DeadCommand, config: &Config) -> anyhow::Result<ExitCode> {
    match command {
        DeadCommand::List(args) => list::run(args, config).await,
        DeadCommand::Show(args) => show::run(args, config).await,
        DeadCommand::Replay(args) => change::replay(args, config).await,
        DeadCommand::Discard(args) => change::discard(args, config).await,
    }
}

/// What a worker of this configuration takes.
fn policy(config: &Config) -> Policy {
    Policy {
        default_project: config.migma.default_project_id.clone(),
        allowed_projects: config.migma.allowed_projects.iter().cloned().collect(),
        max_message_bytes: config.amqp.max_message_bytes,
    }
}

/// A name that somebody else gave, as a terminal may show it.
fn named(text: Option<&str>, show_addresses: bool) -> String {
    match text {
        None => "-".to_owned(),
        Some(text) if show_addresses => clean(text),
        Some(text) => redacted(text).into_owned(),
    }
}

/// Without what could draw on a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}
