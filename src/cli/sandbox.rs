//! `sandbox`: the stand-in of the API, for trying things out. Never used by the worker itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::config::API_KEY_VARIABLE;
use crate::sandbox::{self, Data, State};

pub(super) const EXAMPLES: &str = "\
Examples:
  migma-eraser sandbox --open-world
      an API in which every contact exists but those that begin with `unknown`
  migma-eraser sandbox --data contacts.json
      with {\"projects\": {\"PROJECT_ID\": [\"ann@example.com\"]}}
  curl -X PUT -H 'content-type: application/json' http://127.0.0.1:8090/_sandbox/faults -d '{\"dropAfterEvery\": 6}'
      every sixth call loses its answer after the work is done
  curl http://127.0.0.1:8090/_sandbox/summary
      what it did; /_sandbox/ledger has each call

Then run the worker with MIGMA_ERASER__MIGMA__BASE_URL=http://127.0.0.1:8090 and MIGMA_API_KEY=sandbox-key.";

/// Where it listens and what it knows.
#[derive(Args, Debug)]
pub struct SandboxArgs {
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,

    /// A JSON file with projects and their contacts.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,

    /// Every project exists, and every contact but those that begin with `unknown`.
    #[arg(long)]
    open_world: bool,

    /// The seed of its faults' dice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the stand-in until it is killed. It takes the API key of `MIGMA_API_KEY`, or `sandbox-key`.
///
/// # Errors
/// The file cannot be read, or the address is taken.
pub async fn run(args: SandboxArgs) -> anyhow::Result<ExitCode> {
    let mut data = match &args.data {
        None => Data::default(),
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("--data: cannot read {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("--data: {} is no such JSON", path.display()))?
        }
    };
    data.open_world |= args.open_world;
    let key = std::env::var(API_KEY_VARIABLE).unwrap_or_else(|_| "sandbox-key".to_owned());
    let state = State::new(&key, data, args.seed);
    let running = sandbox::start(args.listen, state)
        .await
        .with_context(|| format!("--listen: cannot listen on {}", args.listen))?;
    println!("sandbox listening on {}", running.url());
    running.join().await;
    Ok(ExitCode::SUCCESS)
}
