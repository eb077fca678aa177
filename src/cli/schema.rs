//! `schema`: the messages as JSON Schemas (draft 2020-12), for those who publish requests and read outcomes.
//!
//! Never stricter than the worker for what it takes, never looser than the contract for what it sends.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

pub(super) const EXAMPLES: &str = "\
Examples:
  migma-eraser schema request > request.schema.json
      what a publisher of requests must send
  migma-eraser schema outcome
      what a consumer of outcomes gets
  migma-eraser schema | jq .batch
      all of them are one object: request, outcome, batch";

/// A deletion request.
pub const REQUEST: &str = include_str!("schema/request.json");
/// An outcome.
pub const OUTCOME: &str = include_str!("schema/outcome.json");
/// A batch event.
pub const BATCH: &str = include_str!("schema/batch.json");

/// What `schema` takes.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Which message; without it, all of them as one JSON object.
    message: Option<Message>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Message {
    /// A deletion request, as upstream systems publish it.
    Request,
    /// The outcome that answers it.
    Outcome,
    /// What one call to the API came to, for operations.
    Batch,
}

/// Prints one schema, or all.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &SchemaArgs) -> anyhow::Result<ExitCode> {
    match args.message {
        Some(Message::Request) => super::print(REQUEST)?,
        Some(Message::Outcome) => super::print(OUTCOME)?,
        Some(Message::Batch) => super::print(BATCH)?,
        None => super::print(&all()?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn all() -> Result<String, serde_json::Error> {
    let mut all = Map::new();
    for (name, text) in [("request", REQUEST), ("outcome", OUTCOME), ("batch", BATCH)] {
        all.insert(name.to_owned(), serde_json::from_str(text)?);
    }
    serde_json::to_string_pretty(&Value::Object(all)).map(|text| text + "\n")
}

#[cfg(test)]
mod tests;
