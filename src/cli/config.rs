//! `config`: every setting in force, and where its value comes from.
//!
//! Never a secret: values are printed as [`crate::config::Setting`] holds them, masked.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::config::Setting;

pub(super) const EXAMPLES: &str = "\
Examples:
  migma-eraser config
      the defaults, and what environment variables change
  migma-eraser config --config /etc/migma-eraser/config.toml | grep -v '# default'
      what this worker does otherwise than by default
  migma-eraser config --json | jq -r '.[] | select(.key == \"batch.linger\").value'
      one value, for scripts

The text is TOML, one setting a line, with its source as a comment; passwords are replaced by ***. The API key is no
setting, and is not needed here.";

/// What `config` takes.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Print a JSON array of {key, value, source} instead of text.
    #[arg(long)]
    json: bool,
}

/// Prints the settings.
///
/// # Errors
/// The configuration is wrong, or standard output cannot be written.
pub fn run(args: &ConfigArgs, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = super::load(file)?;
    let text = if args.json { json(config.settings())? } else { toml(config.settings()) };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn json(settings: &[Setting]) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(settings).map(|text| text + "\n")
}

/// The settings as text: TOML, which can be read again where no secret is masked.
#[must_use]
pub fn toml(settings: &[Setting]) -> String {
    // JSON's texts, numbers, booleans and arrays of texts are TOML's as well, once a delete is written as its code.
    let line = |set: &Setting| format!("{} = {}", set.key, set.value).replace('\u{7f}', "\\u007f");
    let lines: Vec<_> = settings.iter().map(|set| (line(set), &set.source)).collect();
    // One long value does not push all sources off the screen.
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(60);
    lines.iter().fold(String::new(), |text, (line, source)| format!("{text}{line:width$}  # {source}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_printed_is_a_configuration_again() {
        let text = "[amqp]\nurl = 'amqp://u:hunter2@h'\n[migma]\nallowed_projects = ['a\"b', 'c']\nbase_url = 'https://h/p//'\nca_file = \"d\\u007fl\"\n[journal]\nurl = 'sqlite://d\\e'";
        let config = Config::from_toml("t.toml", text).unwrap();
        let printed = toml(config.settings());
        assert!(printed.contains("amqp.url = \"amqp://u:***@h\"") && printed.contains("  # t.toml\n"), "{printed}");
        assert!(printed.contains("# from amqp.prefix\n") && printed.contains("rate_limit.requests_per_day = \"none\""));
        let again = Config::from_toml("t.toml", &printed).unwrap();
        for (one, other) in config.settings().iter().zip(again.settings()) {
            assert_eq!((one.key, &one.value), (other.key, &other.value));
        }
        assert_eq!(config.migma.base_url, again.migma.base_url);
        assert_eq!(config.migma.ca_file, again.migma.ca_file);
    }

    #[test]
    fn json_names_the_layer_of_each_value() {
        let config = Config::from_toml("t.toml", "[batch]\nmax_emails = 5").unwrap();
        let json: serde_json::Value = serde_json::from_str(&json(config.settings()).unwrap()).unwrap();
        let of = |key: &str| json.as_array().unwrap().iter().find(|setting| setting["key"] == key).unwrap();
        assert_eq!(of("batch.max_emails")["value"], 5);
        assert_eq!(of("batch.max_emails")["source"], serde_json::json!({"layer": "file", "name": "t.toml"}));
        assert_eq!(of("batch.linger")["source"], serde_json::json!({"layer": "default"}));
        assert_eq!(of("amqp.dead_queue")["source"], serde_json::json!({"layer": "setting", "name": "amqp.prefix"}));
    }
}
