//! The journal's stand-ins and its conformance suite; any test binary may take it in with `#[path]`.
//!
//! Never here: anything but the public API of the crate.

// Each test binary uses its own part of this.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod conformance;
pub mod fake;
pub mod sample;
