//! The command line: one file for each command; what they share stands here.
//!
//! Never a secret in an argument, where every user of the machine could read it.

mod answer;
pub mod check;
pub mod config;
pub mod dead;
pub mod guides;
mod interrupt;
mod paint;
mod pausing;
pub mod run;
pub mod sandbox;
pub mod schema;
pub mod submit;
mod table;
pub mod watch;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::amqp::AmqpError;
use crate::app::StartError;
use crate::config::{ADMIN_TOKEN_VARIABLE, API_KEY_VARIABLE, AdminToken, ApiKeySource, Config, ConfigError};

/// The command line is sound, but not what it asks for; as clap's own.
const WRONG_USAGE: u8 = 2;
/// Something went wrong.
const FAILED: u8 = 1;
/// The configuration is wrong (`EX_CONFIG`).
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
    /// Publish a list of addresses as deletion requests, and tell what became of them.
    #[command(after_long_help = submit::EXAMPLES)]
    Submit(submit::SubmitArgs),
    /// Show outcomes as they are published, without taking them from anybody.
    #[command(after_long_help = watch::EXAMPLES)]
    Watch(watch::WatchArgs),
    /// List, show, replay or discard what could not be done.
    #[command(after_long_help = dead::EXAMPLES)]
    Dead(dead::DeadArgs),
    /// Stop a worker's calls, of everything or of one project, until somebody resumes.
    #[command(after_long_help = pausing::PAUSE_EXAMPLES)]
    Pause(pausing::PauseArgs),
    /// Let a worker's calls go on.
    #[command(after_long_help = pausing::RESUME_EXAMPLES)]
    Resume(pausing::ResumeArgs),
    /// Print every setting in force, and where its value comes from.
    #[command(after_long_help = config::EXAMPLES)]
    Config(config::ConfigArgs),
    /// Print the JSON Schema of a message.
    #[command(after_long_help = schema::EXAMPLES)]
    Schema(schema::SchemaArgs),
    /// Stand in for the API, with faults that can be set and a ledger that can be asked.
    #[command(after_long_help = sandbox::EXAMPLES)]
    Sandbox(sandbox::SandboxArgs),
    /// Print a script that completes these commands in a shell.
    #[command(after_long_help = guides::COMPLETIONS_EXAMPLES)]
    Completions(guides::CompletionsArgs),
    /// Print the manual page, or write all of them.
    #[command(after_long_help = guides::MAN_EXAMPLES)]
    Man(guides::ManArgs),
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
                let token = AdminToken::find(&config, std::env::var_os(ADMIN_TOKEN_VARIABLE))?;
                run::run(config, keys, token).await
            }
            Command::Check => check::run(file).await,
            Command::Submit(args) => submit::run(args, file).await,
            Command::Watch(args) => watch::run(args, file).await,
            Command::Dead(args) => Box::pin(dead::run(args, file)).await,
            Command::Pause(args) => pausing::pause(args, file).await,
            Command::Resume(args) => pausing::resume(args, file).await,
            Command::Config(args) => config::run(&args, file),
            Command::Schema(args) => schema::run(&args),
            Command::Sandbox(args) => sandbox::run(args).await,
            Command::Completions(args) => guides::completions(&args),
            Command::Man(args) => guides::man(&args),
        }
    }
}

/// How the process ends after this error.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let wrong = error.is::<ConfigError>()
        || error.downcast_ref().is_some_and(StartError::is_configuration)
        || error.downcast_ref().is_some_and(AmqpError::is_configuration);
    ExitCode::from(match () {
        () if wrong => WRONG_CONFIGURATION,
        () if error.is::<Usage>() => WRONG_USAGE,
        () => FAILED,
    })
}

/// What is asked for cannot be meant: which argument, and the cure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

impl Usage {
    #[allow(clippy::new_ret_no_self, reason = "always returned as an error")]
    fn new(text: impl Into<String>) -> anyhow::Error {
        Self(text.into()).into()
    }
}

/// What the broker said, with the cure where its own words name none.
fn from_broker(error: anyhow::Error, command: &str) -> anyhow::Error {
    let of_broker = error.downcast_ref::<AmqpError>();
    let denied = of_broker.is_some_and(AmqpError::is_denied);
    let transient = of_broker.is_some_and(AmqpError::is_transient);
    match () {
        () if denied => error.context(format!(
            "the user of amqp.url may not do this; give it what README.md says that `{command}` needs"
        )),
        () if transient => {
            error.context("the broker cannot be worked with now; `migma-eraser check` tells what is wrong")
        }
        () => error,
    }
}

/// A count with its noun.
fn counted(count: u64, one: &str) -> String {
    format!("{} {one}{}", indicatif::HumanCount(count), if count == 1 { "" } else { "s" })
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
        let mut open: Vec<_> = cli.get_subcommands_mut().collect();
        while let Some(command) = open.pop() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
            // Of clap's own making, and only there once it was rendered.
            open.extend(command.get_subcommands_mut().filter(|below| below.get_name() != "help"));
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
