//! A world in memory: broker, API and journal that outlive the worker, a paused clock, seeded dice, and faults at every
//! effect. The worker under test is the real pipeline; nothing else here is.

pub mod api;
pub mod broker;
pub mod check;
pub mod coverage;
pub mod dice;
pub mod fault;
pub mod journal;
pub mod world;
