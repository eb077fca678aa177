//! The command line: one file for each command; what they share stands here.
//!
//! Never a secret in an argument, where every user of the machine could read it.

pub mod check;
pub mod config;
pub mod run;
pub mod sandbox;
pub mod schema;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::StartError;
use crate::config::{API_KEY_VARIABLE, ApiKeySource, Config, ConfigError};

/// Something went wrong.
const FAILED: u8 = 1;
/// The configuration is wrong (`EX_CONFIG`). 2, for a wrong command line, is clap's own.
const WRONG_CONFIGURATION: u8 = 78;

/// What stands on the command line.
#[derive(Debug, Parser)]
#[command(name = "migma-eraser", version, about = env!("CARGO_PKG_DESCRIPTION"), after_help = EXIT_CODES, after_long_help = EXAMPLES)]
pub struct Cli {
    /// A TOML file with what differs from the defaults.
    ///
    /// Every setting, its range and its reason stand in config/default.toml. Environment variables override the file:
    /// `batch.linger` is `MIGMA_ERASER__BATCH__LINGER`. The API key comes from `MIGMA_API_KEY` or from the file
    /// `migma.api_key_file`.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Do the work, until SIGTERM or SIGINT.
    #[command(after_long_help = run::EXAMPLES)]
    Run,
    /// Tell whether `run` would work, and how to mend what would not.
    #[command(after_long_help = check::EXAMPLES)]
    Check,
    /// Print every setting in force, and where its value comes from.
    #[command(after_long_help = config::EXAMPLES)]
    Config(config::ConfigArgs),
    /// Print the JSON Schema of a message.
    #[command(after_long_help = schema::EXAMPLES)]
    Schema(schema::SchemaArgs),
    /// Stand in for the API, with faults that can be set and a ledger that can be asked.
    #[command(after_long_help = sandbox::EXAMPLES)]
    Sandbox(sandbox::SandboxArgs),
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.";

const EXAMPLES: &str = "\
Examples:
  migma-eraser config
      every setting, its value and where it comes from
  migma-eraser check --config /etc/migma-eraser/config.toml
      whether the broker, the API and the journal can be worked with
  MIGMA_API_KEY=... migma-eraser run --config /etc/migma-eraser/config.toml
      do the work
  MIGMA_ERASER__RATE_LIMIT__REQUESTS_PER_MINUTE=600 migma-eraser run
      override one setting for one run

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.";

impl Cli {
    /// Does what the command line asks for.
    ///
    /// # Errors
    /// Whatever kept it from being done; [`exit_code`] says how the process ends then.
    pub async fn execute(self) -> anyhow::Result<ExitCode> {
        // TLS needs to know who does its arithmetic. An error says that somebody has told it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = self.config.as_deref();
        match self.command {
            Command::Run => {
                let config = load(file)?;
                let keys = api_key(&config)?;
                keys.read()?;
                run::run(config, keys).await
            }
            Command::Check => check::run(file).await,
            Command::Config(args) => config::run(&args, file),
            Command::Schema(args) => schema::run(&args),
            Command::Sandbox(args) => sandbox::run(args).await,
        }
    }
}

/// How the process ends after this error.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let wrong = error.is::<ConfigError>() || error.downcast_ref().is_some_and(StartError::is_configuration);
    ExitCode::from(if wrong { WRONG_CONFIGURATION } else { FAILED })
}

fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    Config::load(file, std::env::vars_os())
}

fn api_key(config: &Config) -> Result<ApiKeySource, ConfigError> {
    ApiKeySource::find(config, std::env::var_os(API_KEY_VARIABLE))
}

/// Writes to standard output; a reader that has gone (`| head`) has seen what it wanted.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_teaches() {
        Cli::command().debug_assert();
        let mut cli = Cli::command();
        for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }

    #[test]
    fn the_file_may_stand_before_or_after_the_command() {
        for line in [["migma-eraser", "--config", "a.toml", "run"], ["migma-eraser", "run", "--config", "a.toml"]] {
            assert_eq!(Cli::try_parse_from(line).unwrap().config.as_deref(), Some(Path::new("a.toml")));
        }
        for wrong in
            [&["migma-eraser"][..], &["migma-eraser", "run", "--api-key", "k"], &["migma-eraser", "schema", "x"]]
        {
            assert_eq!(Cli::try_parse_from(wrong).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn a_wrong_configuration_has_an_exit_code_of_its_own() {
        let wrong = anyhow::Error::from(Config::from_toml("t.toml", "x = 1").unwrap_err());
        assert_eq!(exit_code(&wrong), ExitCode::from(78));
        assert_eq!(exit_code(&wrong.context("at the start")), ExitCode::from(78));
        let wrong = StartError::Broker(crate::amqp::AmqpError::CaContents { path: "ca.pem".into() });
        assert_eq!(exit_code(&wrong.into()), ExitCode::from(78));
        let down = StartError::Broker(crate::amqp::AmqpError::Timeout("connecting"));
        assert_eq!(exit_code(&down.into()), ExitCode::from(1));
        assert_eq!(exit_code(&anyhow::anyhow!("other")), ExitCode::from(1));
    }
}
