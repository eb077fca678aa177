//! The worker as a process against a real broker and the sandbox: one file for each promise of the contract.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::match_wild_err_arm,
    clippy::default_trait_access
)]

mod broker_faults;
mod cluster;
mod conformance_journal;
mod dead;
mod deploy_asyncapi;
mod deploy_definitions;
mod deploy_telemetry;
mod fates;
mod guides;
mod hostile;
mod hostile_api;
mod hostile_nesting;
#[path = "../support/journal/mod.rs"]
mod journal;
mod journal_faults;
mod journal_postgres;
mod journal_shared;
mod logs;
mod memory;
mod metrics;
mod pausing;
mod promise_1_answered;
mod promise_2_true;
mod promise_3_once;
mod promise_4_full_batches;
mod promise_5_keys;
mod promise_6_bystanders;
mod promise_7_waiting;
mod promise_8_silent;
mod publishing;
mod rejections;
mod several_workers;
mod starting_and_stopping;
mod submit;
mod support;
mod tls;
mod traces;
#[path = "../support/truth.rs"]
mod truth;
mod watch;
