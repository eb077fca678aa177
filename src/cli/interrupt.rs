//! Ctrl-C and SIGTERM, for commands that may be cut short anywhere.

use tokio::signal::unix::{SignalKind, signal};

/// Returns when somebody wants an end. Never, where signals cannot be listened to: they end the process then.
pub(super) async fn interrupted() {
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}
