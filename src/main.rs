//! The program: reads the command line, runs the command, tells by its exit code how that went.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use clap::Parser as _;
use migma_eraser::cli::{self, Cli};

/// Each request takes dozens of small allocations, which one thread makes and another frees: with the system's allocator
/// that costs some 3 of 40 microseconds more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where Rust reads what stack threads get that ask for none of their own, such as those of the AMQP library.
const STACK_VARIABLE: &str = "RUST_MIN_STACK";
/// In bytes. The AMQP library reads headers by recursion: as deep as they can be nested in one frame (26,000 tables or
/// arrays in 128 KiB) they take up to 64 MiB of it. Only what is used is ever real memory.
const STACK: &str = "134217728";

fn main() -> ExitCode {
    deepen_stacks();
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

/// Starts this program anew in its own process, with more stack for every thread: one message must not end the worker.
/// Comes back where that is done already, or cannot be.
fn deepen_stacks() {
    if std::env::var_os(STACK_VARIABLE).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    if let (Some(name), Ok(program)) = (arguments.next(), std::env::current_exe()) {
        // Should it fail, the worker does its work all the same, as long as nobody sends such headers.
        let _ = Command::new(program).arg0(name).args(arguments).env(STACK_VARIABLE, STACK).exec();
    }
}
