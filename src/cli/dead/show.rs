//! `dead show`: one letter, whole; its addresses masked unless they are asked for.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use indicatif::HumanCount;
use serde_json::{Map, Value, json};

use super::super::counted;
use super::choice::{Known, now, told};
use crate::amqp::{DeadLetters, Letter};
use crate::app;
use crate::config::Config;
use crate::domain::masking::{mask_request, mask_words};

/// What `dead show` takes.
#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// The message id, or how `dead list` shows it: sha256:… or letter:….
    #[arg(value_name = "ID")]
    id: String,

    /// Show addresses as they are.
    #[arg(long)]
    show_addresses: bool,

    /// Print a JSON object, one a line where several letters have this id.
    #[arg(long)]
    json: bool,
}

/// Shows every letter of that name.
pub(super) async fn run(args: &ShowArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let mut letters = DeadLetters::open(app::amqp_settings(config)).await?;
    let (mut place, mut found, now) = (0, Vec::new(), now());
    while let Some(letter) = letters.next().await? {
        place += 1;
        let known = Known::of(place, &letter, config, now);
        if known.is_called(&args.id) {
            let told = letter.seen(|letter| letter.replay(&super::policy(config)));
            let replay = match told {
                Ok(replay) => json!({"messageId": super::named(Some(replay.id.as_str()), args.show_addresses),
                    "emails": replay.emails}),
                Err(refused) => json!({"refused": refused}),
            };
            found.push(if args.json {
                as_json(args, &known, &letter, &replay)
            } else {
                as_text(args, &known, &letter, &replay)
            });
        }
    }
    letters.release().await?;
    anyhow::ensure!(
        !found.is_empty(),
        "none of {} has this id; `migma-eraser dead list` tells their ids, and another command may hold it",
        counted(place, "dead letter")
    );
    super::super::print(&found.join(if args.json { "" } else { "\n" }))?;
    Ok(ExitCode::SUCCESS)
}

fn as_json(args: &ShowArgs, known: &Known, letter: &Letter, replay: &Value) -> String {
    let properties: Map<String, Value> = properties(args, letter).into_iter().collect();
    let object = json!({
        "place": known.place,
        "key": letter.key,
        "code": known.code,
        "reason": letter.reason(),
        "diedAt": letter.died_at.map(|at| at.to_string()),
        "letter": known.mark,
        "project": known.summary.project.as_deref().map(|text| super::named(Some(text), args.show_addresses)),
        "undone": known.summary.undone,
        "replay": replay,
        "properties": properties,
        "headers": headers(args, letter),
        "body": body(args, letter).unwrap_or(Value::Null),
        "bytes": letter.envelope.payload.len(),
    });
    format!("{object}\n")
}

fn as_text(args: &ShowArgs, known: &Known, letter: &Letter, replay: &Value) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<16} {}", super::clean(value));
    };
    line("place", &HumanCount(known.place).to_string());
    line("code", &known.code);
    line("reason", letter.reason().as_deref().unwrap_or("-"));
    let since = letter.died_at.map_or_else(|| "not known".to_owned(), |at| format!("{at}, {} ago", told(known.age)));
    line("dead since", &since);
    line("project", &super::named(known.summary.project.as_deref(), args.show_addresses));
    let undone = known.summary.undone.map_or_else(|| "not known".to_owned(), |count| HumanCount(count).to_string());
    line("emails undone", &undone);
    line(
        "replay",
        &match (replay["refused"].as_str(), replay["emails"].as_u64()) {
            (None, Some(emails)) => {
                format!("{}, as {}", counted(emails, "email"), replay["messageId"].as_str().unwrap_or_default())
            }
            (refused, _) => format!("refused: {}", refused.unwrap_or_default()),
        },
    );
    line("letter", &known.mark);
    for (name, value) in properties(args, letter) {
        line(&name, value.as_str().unwrap_or_default());
    }
    text.push_str("headers\n");
    for (name, value) in headers(args, letter) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = writeln!(text, "  {}: {}", super::clean(&name), super::clean(&value));
    }
    text.push_str("body\n");
    let _ = match body(args, letter) {
        Some(Value::String(raw)) => writeln!(text, "{}", super::clean(&raw)),
        Some(body) => writeln!(text, "{}", serde_json::to_string_pretty(&body).unwrap_or_default()),
        None => {
            writeln!(text, "({} bytes that are no JSON; --show-addresses prints them)", letter.envelope.payload.len())
        }
    };
    text
}

fn properties(args: &ShowArgs, letter: &Letter) -> Vec<(String, Value)> {
    let shown = |text: String| super::named(Some(&text), args.show_addresses);
    letter.properties().into_iter().map(|(name, value)| (name.to_owned(), Value::from(shown(value)))).collect()
}

fn headers(args: &ShowArgs, letter: &Letter) -> Map<String, Value> {
    let headers = letter.headers();
    if args.show_addresses {
        return headers;
    }
    headers.into_iter().map(|(name, value)| (mask_words(&name).into_owned(), masked(value))).collect()
}

fn masked(value: Value) -> Value {
    match value {
        Value::String(text) => Value::from(mask_words(&text)),
        Value::Array(list) => list.into_iter().map(masked).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (mask_words(&name).into_owned(), masked(value))).collect()
        }
        other => other,
    }
}

/// The body: JSON, or as a text where addresses may be shown; `None` where it can be shown in neither way.
fn body(args: &ShowArgs, letter: &Letter) -> Option<Value> {
    let bytes = &letter.envelope.payload;
    match serde_json::from_slice(bytes) {
        Ok(mut body) => {
            if !args.show_addresses {
                mask_request(&mut body);
            }
            Some(body)
        }
        Err(_) if args.show_addresses => Some(Value::from(String::from_utf8_lossy(bytes))),
        Err(_) => None,
    }
}
