//! migma-eraser: deletion requests from RabbitMQ to Migma's bulk-delete API, one true outcome each.
//!
//! # The path of a message
//!
//! One way, top to bottom; the types carry it:
//! `Envelope → DeletionRequest → Draft → Journaled<Manifest> → Reply → Conclusion → Outcome`.
//!
//! ```text
//! delivery ─ parse ─ known? ─ lane ─ permit ─ journal ─ call ─ journal the end ─ attribute ─ publish outcome ─ ack
//!              │        └ answered before: the same outcome again                  │
//!              └ unusable: reject                                       split / wait / give up
//! ```
//!
//! | step | decided in | done in |
//! | --- | --- | --- |
//! | parse, reject | [`domain::request`], [`domain::rejection`] | `pipeline::intake` |
//! | known? attach a twin, recall an answer | [`domain::registry`] | `pipeline::intake`, [`ports::Journal::lookup`] |
//! | lane, batch, key | [`domain::planner`], [`domain::key`] | `pipeline::batching` |
//! | permit: holds, slow start, rate, quota | [`domain::gates`] | `pipeline::permits` |
//! | journal, call, again or split or end | [`domain::fate`], [`domain::attempt`] | `pipeline::dispatch` |
//! | who gets which answer | [`domain::attribution`], [`domain::outcome`] | `pipeline::dispatch` |
//! | publish, dead-letter, ack | [`domain::acks`] | `pipeline::settle` |
//! | a held project's requests step aside | [`domain::gates`] | `pipeline::aside`, `pipeline::settle` |
//! | stop, and go on, by somebody's order | [`domain::pauses`], [`domain::gates`] | `pipeline::pausing` |
//! | what another worker has, or left | [`domain::lease`], [`domain::registry`] | `pipeline::elsewhere` |
//! | after a crash: open manifests first | [`domain::fate::Fate::recovered`] | `pipeline::dispatch` |
//!
//! # Layers
//!
//! `main → cli → app → {pipeline, adapters} → ports → domain`. Downward only, and adapters ([`amqp`], [`api`],
//! [`journal`], [`telemetry`], [`admin`]) know neither each other nor the pipeline; `tests/tidy.rs` enforces it.
//! [`sandbox`] stands in for the API and knows nothing of the worker.
//!
//! # What never happens
//!
//! - A call whose manifest is not durable: [`ports::Api`] takes a [`domain::manifest::Journaled`], which a journal alone
//!   attests.
//! - An ack before the broker confirmed the outcome, and the dead letter where there is one: `pipeline::settle` is the
//!   sole caller of ack.
//! - A request in two batches: `pipeline::intake` is the one task that takes requests in, and asks registry and journal
//!   first; of several workers the journal takes the first one's batch.
//! - An address, an API key or a password in a log: types that hold one do not print it, and libraries are capped.

pub mod admin;
pub mod amqp;
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod journal;
pub mod pipeline;
pub mod ports;
pub mod sandbox;
pub mod shutdown;
pub mod telemetry;
