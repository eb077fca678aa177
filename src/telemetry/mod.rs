//! What the worker says about itself: logs ([`init`]), and for each event a log line and a count ([`Telemetry`]).
//!
//! Never here: an address, an API key, a password, a payload; and no decision.

mod logging;
mod metrics;
mod observer;

pub use self::logging::{LogStyle, init};
pub use self::metrics::Metrics;
pub use self::observer::Telemetry;
