//! `run`: the worker itself.
//!
//! Never anything but the way to [`crate::app`]: how the parts come together stands there.

use std::process::ExitCode;

use crate::config::{AdminToken, ApiKeySource, Config, LogFormat};
use crate::telemetry::{self, LogStyle};

pub(super) const EXAMPLES: &str = "\
Examples:
  MIGMA_API_KEY=... migma-eraser run
      against a broker on this machine, with the defaults
  migma-eraser run --config /etc/migma-eraser/config.toml
      with a file, and the API key from migma.api_key_file
  RUST_LOG=migma_eraser=debug migma-eraser run
      with more in the log; no level shows an address or a secret

Signals: SIGTERM and SIGINT stop it within shutdown.grace; nothing is lost, whatever was under way. SIGHUP reads
migma.api_key_file again.";

/// Runs the worker until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(config: Config, keys: ApiKeySource, token: AdminToken) -> anyhow::Result<ExitCode> {
    telemetry::init(match config.log.format {
        LogFormat::Auto => LogStyle::Auto,
        LogFormat::Text => LogStyle::Text,
        LogFormat::Json => LogStyle::Json,
    });
    crate::app::run(config, keys, token).await?;
    Ok(ExitCode::SUCCESS)
}
