//! What the worker says about itself: logs ([`init`]), and for each event a log line and a count ([`Telemetry`]).
//!
//! Never here: an address, an API key, a password, a payload; and no decision.

mod history;
mod logging;
mod measured;
mod metrics;
mod observer;
mod readings;
mod traces;

pub use self::history::{Class, Failure, History, MINUTES, Minute};
pub use self::logging::{LogStyle, init};
pub use self::measured::Measured;
pub use self::metrics::Metrics;
pub use self::observer::{Recent, Telemetry};
pub use self::readings::{Gauges, Readings, register};
pub use self::traces::{TraceError, TraceSettings, Traces};
