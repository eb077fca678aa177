//! The pure core: every decision that the worker makes, as values in and values out.
//!
//! Never here: a clock, a socket, a file, dice, an `async fn`. Time comes in as [`moment::Moment`], chance as a
//! number; what to do goes out as an enum that the pipeline obeys. So every rule can be tested without a world.
//!
//! In the order in which a message meets them:
//! [`envelope`] → [`request`] → [`registry`] → [`planner`] → [`manifest`] and [`key`] → [`fate`] and [`attempt`] →
//! [`attribution`] → [`outcome`]; [`gates`] says when a call may leave, [`pauses`] what somebody stopped, [`acks`] which tags are settled; [`traceparent`] goes along.

pub mod acks;
pub mod answer;
pub mod attempt;
pub mod attribution;
pub mod email;
pub mod envelope;
pub mod fate;
pub mod gates;
pub mod ids;
pub mod key;
pub mod leaps;
pub mod lease;
pub mod manifest;
pub mod masking;
pub mod moment;
pub mod outcome;
pub mod pace;
pub mod pauses;
pub mod planner;
pub mod registry;
pub mod rejection;
pub mod replay;
pub mod request;
pub mod submission;
pub mod traceparent;
