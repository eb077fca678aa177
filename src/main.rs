//! The program: reads the command line, runs the command, tells by its exit code how that went.

use std::process::ExitCode;

use clap::Parser as _;
use migma_eraser::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(cli.execute()),
        Err(error) => Err(error.into()),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("migma-eraser: {error:#}");
        cli::exit_code(&error)
    })
}
