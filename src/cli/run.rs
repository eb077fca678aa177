//! `run`: the worker itself.
//!
//! Never anything but the way to [`crate::app`]: how the parts come together stands there.

use std::process::ExitCode;

use crate::config::{ApiKeySource, Config};

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
#[allow(clippy::unused_async)]
pub async fn run(config: Config, keys: ApiKeySource) -> anyhow::Result<ExitCode> {
    drop((config, keys));
    anyhow::bail!("the worker is not wired to this command in this build")
}
