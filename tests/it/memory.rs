//! Memory is bounded by `amqp.buffer_bytes`, whatever the sizes of messages. The peaks are printed.

use crate::support::{Request, World};

/// What the worker takes with nothing to do, and what calls, journal and telemetry take beside deliveries, in MiB.
const BESIDE: u64 = 96;
/// The default of `amqp.buffer_bytes`, in MiB.
const BUFFER: u64 = 64;

/// A request of about so many bytes in addresses of 24 bytes.
fn request(id: usize, bytes: usize) -> Request {
    let emails = (0..bytes / 27).map(|n| format!("u{id:03}.{n:06}@example.org")).collect();
    Request::of(&format!("large-{id}"), "p", emails)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_are_held_no_further_than_the_buffer_goes() {
    let world = World::new().await;
    world.vhost.declare().await;
    let requests: Vec<Request> = (0..40).map(|id| request(id, 1 << 20)).collect();
    world.vhost.publish(&requests).await;
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(requests.len()).await;
    let peak = worker.peak_mib();
    println!("40 requests of 1 MiB each: peak {peak} MiB");
    assert!(peak <= BUFFER + BESIDE, "{peak} MiB");
    assert_eq!(outcomes.drain().await.len(), requests.len());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_among_small_ones_is_taken_and_small_ones_flow_again() {
    let world = World::new().await;
    world.vhost.declare().await;
    let mut requests: Vec<Request> = (0..3000).map(|id| request(id, 27)).collect();
    requests[1500] = request(1500, 4 << 20);
    world.vhost.publish(&requests).await;
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(requests.len()).await;
    let peak = worker.peak_mib();
    println!("3,000 small requests and one of 4 MiB: peak {peak} MiB");
    assert!(peak <= BUFFER + BESIDE, "{peak} MiB");
    worker.stop().await;
}
