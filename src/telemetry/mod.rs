//! What operations see: log lines and metrics.
//!
//! Never here, whatever `RUST_LOG` says: an email address, an API key, a broker password. Our own lines carry none by
//! their types; those of libraries are capped ([`cap`]), for some print what passes through them: lapin the whole of a
//! message that came back, already as a warning, and its frames at `trace`; the broker's client its URI with the
//! password; HTTP and TLS their headers and bytes.

pub mod metrics;

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text where standard error is a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For eyes.
    Text,
    /// One object a line.
    Json,
}

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` is set, and cannot be understood.
    #[error("RUST_LOG cannot be understood")]
    Filter(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another log is set up already.
    #[error("cannot set up the log")]
    Init(#[source] TryInitError),
}

/// Sets up the log of this process, to standard error, filtered by `RUST_LOG` (`info` where it is not set).
///
/// # Errors
///
/// Where `RUST_LOG` cannot be understood, or the process has a log already.
pub fn init(format: LogFormat) -> Result<(), TelemetryError> {
    let directives = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.trim().is_empty() => directives,
        Ok(_) | Err(std::env::VarError::NotPresent) => "info".to_owned(),
        Err(error) => return Err(TelemetryError::Filter(error.into())),
    };
    let filter = EnvFilter::try_new(directives).map_err(|error| TelemetryError::Filter(error.into()))?;
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    subscriber(filter, json, std::io::stderr).try_init().map_err(TelemetryError::Init)
}

/// What listens to all events of the process.
fn subscriber<W>(filter: EnvFilter, json: bool, writer: W) -> impl Subscriber + Send + Sync + for<'a> LookupSpan<'a>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).boxed()
    };
    // Both are asked for every event, of `tracing` and of `log` alike: neither can let through what the other holds.
    tracing_subscriber::registry().with(cap()).with(filter).with(lines)
}

/// The most that anybody may say. Whoever is not us says nothing below `info`, so that no library that is added one
/// day has to be thought of; who prints payloads even above, less.
fn cap() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("migma_eraser", LevelFilter::TRACE)
        // Its connections' ends are told by `amqp`, which knows more. A message that was returned it prints whole.
        .with_target("lapin", LevelFilter::ERROR)
        .with_target("lapin::returned_messages", LevelFilter::OFF)
        .with_target("amq_protocol", LevelFilter::WARN)
        .with_target("async_rs", LevelFilter::WARN)
        // A statement that is slow is logged with its text.
        .with_target("sqlx", LevelFilter::WARN)
        .with_target("hyper", LevelFilter::WARN)
        .with_target("h2", LevelFilter::WARN)
        .with_target("reqwest", LevelFilter::WARN)
        .with_target("rustls", LevelFilter::WARN)
        .with_target("tower", LevelFilter::WARN)
        .with_target("axum", LevelFilter::WARN)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn logged(directives: &str, json: bool, events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let subscriber = subscriber(EnvFilter::new(directives), json, lines.clone());
        tracing::subscriber::with_default(subscriber, events);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_rust_log_lifts_the_cap_on_libraries() {
        let all = "trace,lapin=trace,lapin::returned_messages=trace,amq_protocol_tcp=trace,hyper_util=trace,rustls=trace,\
                   sqlx::query=trace,somebody_new=trace";
        let log = logged(all, false, || {
            tracing::trace!(target: "lapin::channel", "payload");
            tracing::info!(target: "lapin::channel", "payload");
            tracing::warn!(target: "lapin::returned_messages", "payload");
            tracing::error!(target: "lapin::returned_messages", "payload");
            tracing::trace!(target: "amq_protocol_tcp", "payload");
            tracing::debug!(target: "hyper_util::client::legacy::pool", "payload");
            tracing::debug!(target: "rustls::client::hs", "payload");
            tracing::info!(target: "sqlx::query", "payload");
            tracing::debug!(target: "somebody_new", "payload");
            let span = tracing::trace_span!(target: "h2::proto", "payload");
            span.in_scope(|| tracing::trace!("ours"));
            tracing::error!(target: "lapin::channel", "theirs");
            tracing::info!(target: "somebody_new", "theirs");
        });
        assert!(!log.contains("payload"), "{log}");
        assert_eq!(log.matches("ours").count(), 1, "{log}");
        assert_eq!(log.matches("theirs").count(), 2, "{log}");
    }

    #[test]
    fn rust_log_is_honoured_below_the_cap() {
        let log = logged("error,migma_eraser::telemetry=debug", false, || {
            tracing::trace!("deep");
            tracing::debug!("ours");
            tracing::warn!(target: "lapin", "theirs");
            tracing::info!(target: "migma_eraser::pipeline", "elsewhere");
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("ours"), "{log}");
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let log = logged("info", true, || tracing::info!(emails = 7, "a batch has ended"));
        let line: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!((&line["message"], &line["emails"]), (&"a batch has ended".into(), &7.into()));
        assert_eq!(line["level"], "INFO");
    }
}
