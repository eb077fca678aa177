//! The program: reads the command line, runs the command, tells by its exit code how that went.

use std::process::ExitCode;

use clap::Parser as _;
use migma_eraser::cli::{self, Cli};

fn main() -> ExitCode {
    // A panic is a bug, wherever it happens: the process ends, and its successor recovers. Where it happened is told,
    // its message is not, for that may quote what was worked on.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("migma-eraser: a bug at {place}: please report it; nothing is lost");
        std::process::abort();
    }));
    let cli = Cli::parse();
    let ended = match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let ended = runtime.block_on(cli.execute());
            // Not waited for: a name that does not resolve, or a file on a disk that does not answer.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(error.into()),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("migma-eraser: {error:#}");
        cli::exit_code(&error)
    })
}
