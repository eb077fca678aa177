//! Memory at sizes that take minutes: the peaks are printed, and held against `amqp.buffer_bytes` and against each other.
//!
//!     tests/large.sh

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::match_wild_err_arm,
    clippy::default_trait_access
)]

#[path = "../it/support/mod.rs"]
mod support;
#[path = "../support/truth.rs"]
mod truth;

use std::collections::HashSet;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use migma_eraser::sandbox::Data;

use support::{PATIENCE, Request, World};

const OUTCOMES: &str = "contacts.deletion.outcomes";
/// What the worker takes with nothing to do, and what calls, journal and telemetry take beside deliveries, in MiB.
const BESIDE: u64 = 96;
/// The default of `amqp.buffer_bytes`, in MiB.
const BUFFER: u64 = 64;
/// Published at a time, so that the test itself stays small.
const CHUNK: usize = 10_000;

/// Takes the outcomes of requests that are named by their number until each has one; all must have succeeded.
async fn all_succeed(world: &World, count: usize, prefix: &str) {
    let connection = world.vhost.connect().await;
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(5000, BasicQosOptions::default()).await.unwrap();
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(OUTCOMES.into(), "".into(), options, table).await.unwrap();
    let mut answered = HashSet::new();
    let mut repeats = 0;
    while answered.len() < count {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await;
        let message = next.unwrap_or_else(|_| panic!("{} of {count} answered", answered.len())).unwrap().unwrap();
        assert_eq!(message.routing_key.as_str(), "outcome.succeeded");
        let id = message.properties.correlation_id().as_ref().unwrap().as_str().to_owned();
        let number: usize = id.strip_prefix(prefix).unwrap().parse().unwrap();
        assert!(number < count);
        repeats += usize::from(!answered.insert(number));
        channel.basic_ack(message.delivery_tag, BasicAckOptions::default()).await.unwrap();
    }
    assert_eq!(repeats, 0, "nothing crashed, so nothing is repeated");
    let _ = connection.close(200, "OK".into()).await;
}

/// The peak of a worker that meets a backlog of so many requests of one email.
async fn peak_of_small_ones(count: usize) -> u64 {
    // Nothing is kept of what is deleted: every address is unknown, for the API remembers those that it deleted.
    let world = World::with(Data { open_world: true, ..Data::default() }).await;
    world.vhost.declare().await;
    for from in (0..count).step_by(CHUNK) {
        let requests: Vec<Request> = (from..(from + CHUNK).min(count))
            .map(|n| Request::of(&format!("small-{n}"), "p", vec![format!("unknown{n}@example.org")]))
            .collect();
        world.vhost.publish(&requests).await;
    }
    let worker = world.worker().await;
    all_succeed(&world, count, "small-").await;
    let summary = world.api.lock().ledger.summary.clone();
    let peak = worker.peak_mib();
    println!("{count} requests of one email: peak {peak} MiB, {} calls", summary.calls);
    assert!(peak <= BUFFER + BESIDE, "{peak} MiB");
    worker.stop().await;
    peak
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_small_requests_take_no_more_memory_than_a_hundred_thousand() {
    let (some, many) = (peak_of_small_ones(100_000).await, peak_of_small_ones(1_000_000).await);
    // A quarter more for chance: ten times the backlog must not show.
    assert!(many * 4 <= some * 5, "{some} MiB, then {many} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_of_a_mebibyte_are_held_no_further_than_the_buffer_goes() {
    const COUNT: usize = 1000;
    let world = World::new().await;
    world.vhost.declare().await;
    for from in (0..COUNT).step_by(50) {
        let requests: Vec<Request> = (from..from + 50)
            .map(|id| {
                // A few sets of addresses, so that the API's memory of them stays small.
                let emails = (0..(1 << 20) / 27).map(|n| format!("unknown{:03}.{n:06}@a.org", id % 8)).collect();
                Request::of(&format!("large-{id}"), "p", emails)
            })
            .collect();
        world.vhost.publish(&requests).await;
    }
    let worker = world.worker().await;
    all_succeed(&world, COUNT, "large-").await;
    let peak = worker.peak_mib();
    println!("{COUNT} requests of 1 MiB: peak {peak} MiB, {} calls", world.api.lock().ledger.summary.calls);
    assert!(peak <= BUFFER + BESIDE, "{peak} MiB");
    worker.stop().await;
}
