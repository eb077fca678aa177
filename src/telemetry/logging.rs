//! Logs on standard error: text for a terminal, JSON for everything else, as `RUST_LOG` asks for.
//!
//! Libraries that could print what they carry are capped: no `RUST_LOG` makes them say more than warnings, nor lapin more
//! than errors, for it prints a message that the broker returns whole, as a warning.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStyle {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// JSON, one object a line.
    Json,
}

/// Everything but our own lines: whatever a library knows, it may know an address.
struct Capped;

impl<S: Subscriber> Filter<S> for Capped {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        *metadata.level() <= cap(metadata.target())
    }
}

/// The most that a target may say.
fn cap(target: &str) -> LevelFilter {
    let within = |name: &str| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    match () {
        () if within("migma_eraser") => LevelFilter::TRACE,
        () if within("lapin::returned_messages") => LevelFilter::OFF,
        () if within("lapin") => LevelFilter::ERROR,
        () => LevelFilter::WARN,
    }
}

/// Starts to log. Called once, by `main`; a second call does nothing. Text has colours on a terminal, unless `NO_COLOR`
/// is set to something.
pub fn init(style: LogStyle) {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let look = Look::of(style, std::io::stderr().is_terminal(), no_color);
    let _ = tracing_subscriber::registry().with(layer(look, std::io::stderr, filter())).try_init();
}

/// A style, where it is known who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Colours,
    Plain,
    Json,
}

impl Look {
    const fn of(style: LogStyle, terminal: bool, no_color: bool) -> Self {
        match (style, terminal) {
            (LogStyle::Json, _) | (LogStyle::Auto, false) => Self::Json,
            (LogStyle::Auto | LogStyle::Text, true) if !no_color => Self::Colours,
            (LogStyle::Auto | LogStyle::Text, _) => Self::Plain,
        }
    }
}

/// `RUST_LOG`, or `info`.
fn filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"))
}

fn layer<S, W>(look: Look, writer: W, filter: EnvFilter) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<S> + Send + Sync> = match look {
        Look::Json => Box::new(lines.json().flatten_event(true)),
        Look::Colours | Look::Plain => Box::new(lines.with_ansi(look == Look::Colours)),
    };
    Box::new(lines.with_filter(tracing_subscriber::filter::FilterExt::and(filter, Capped)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_gets_text_in_colour_unless_that_is_not_wanted_and_all_else_json() {
        use LogStyle::{Auto, Json, Text};
        for (style, terminal, no_color, look) in [
            (Auto, true, false, Look::Colours),
            (Auto, true, true, Look::Plain),
            (Auto, false, false, Look::Json),
            (Text, true, false, Look::Colours),
            (Text, false, false, Look::Plain),
            (Json, true, false, Look::Json),
        ] {
            assert_eq!(Look::of(style, terminal, no_color), look, "{style:?} {terminal} {no_color}");
        }
    }

    #[test]
    fn a_library_says_no_more_than_warnings_whatever_is_asked_for() {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = layer(Look::Json, move || writer.clone(), EnvFilter::new("trace"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::trace!(target: "lapin::channel", "ann@example.com");
            tracing::info!(target: "sqlx::query", "ann@example.com");
            tracing::warn!(target: "lapin::returned_messages", "a returned message of ann@example.com");
            tracing::warn!(target: "hyper", "a warning");
            tracing::trace!(target: "migma_eraser::pipeline", "our own");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("ann@"), "{text}");
        assert!(text.contains("a warning") && text.contains("our own"), "{text}");
    }
}
