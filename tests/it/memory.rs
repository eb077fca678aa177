//! Memory is bounded by `amqp.buffer_bytes`, whatever the sizes of messages, and what is held by what can be sent in time.
//! The peaks are printed; `tests/large.sh` does the same with a million.

use crate::support::{PATIENCE, Request, World, truth};

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

/// Ten calls a minute of ten emails: a hundred emails in half of two minutes.
const SLOW: [(&str, &str); 4] = [
    ("RATE_LIMIT__REQUESTS_PER_MINUTE", "10"),
    ("RATE_LIMIT__BURST", "1"),
    ("BATCH__MAX_EMAILS", "10"),
    ("AMQP__CONSUMER_TIMEOUT", "2m"),
];

/// The most deliveries that the worker held while it made a few calls, where each request has so many emails.
async fn most_held_at_ten_calls_a_minute(emails: usize) -> usize {
    let world = World::new().await;
    world.vhost.declare().await;
    let addresses = |id: usize| (0..emails).map(|n| format!("u{id}.{n}@example.org")).collect();
    let requests: Vec<Request> = (0..1000).map(|id| Request::of(&format!("slow-{id}"), "p", addresses(id))).collect();
    world.vhost.publish(&requests).await;
    let worker = world.worker_with(&SLOW).await;
    let mut most = 0;
    let start = std::time::Instant::now();
    while world.api.lock().ledger.summary.calls < 3 {
        assert!(start.elapsed() < PATIENCE, "no calls");
        let ready = world.vhost.ready("contacts.deletion.requests").await as usize;
        // Looked at after the first, so that what was acked in between counts as never held rather than twice.
        let answered = world.vhost.ready("contacts.deletion.outcomes").await as usize;
        most = most.max(requests.len().saturating_sub(ready + answered));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    worker.stop().await;
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_held_than_can_be_sent_in_half_the_consumer_timeout() {
    let held = most_held_at_ten_calls_a_minute(1).await;
    println!("10 calls a minute, 100 emails in half the consumer timeout: {held} requests of one email held");
    assert!((10..=100).contains(&held), "{held}");
    let held = most_held_at_ten_calls_a_minute(5).await;
    println!("10 calls a minute, 100 emails in half the consumer timeout: {held} requests of five emails held");
    // Sizes are known once some are here: what came before is held beside what may be.
    assert!((2..=40).contains(&held), "{held}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_longer_than_a_delivery_may_be_held_is_given_back_and_done_once() {
    let world = World::new().await;
    let settings = [
        ("RATE_LIMIT__REQUESTS_PER_MINUTE", "60"),
        ("RATE_LIMIT__BURST", "1"),
        ("BATCH__MAX_EMAILS", "10"),
        ("AMQP__CONSUMER_TIMEOUT", "8s"),
        ("MIGMA__REQUEST_TIMEOUT", "2s"),
    ];
    let worker = world.worker_with(&settings).await;
    let long = Request::of("long", "p", (0..200).map(|n| format!("u{n}@example.org")).collect());
    world.vhost.publish(std::slice::from_ref(&long)).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(1).await;
    let summary = world.api.lock().ledger.summary.clone();
    assert_eq!((summary.performed, summary.calls), (20, 20), "each email was sent once");
    let metrics = worker.metrics().await;
    let given_back = metrics
        .lines()
        .find_map(|line| line.strip_prefix("migma_eraser_given_back_total{reason=\"consumer_timeout\"} "))
        .map(|count| count.parse::<u64>().unwrap());
    println!("a request of 20 calls at one a second was given back {given_back:?} times");
    assert!(given_back > Some(0));
    truth::check(&[long], outcomes.drain().await, &world.api.lock());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_of_400_000_emails_is_one_outcome_of_400_calls() {
    let world = World::new().await;
    let worker = world.worker().await;
    let huge = Request::of("huge", "p", (0..400_000).map(|n| format!("u{n:06}@example.org")).collect());
    world.vhost.publish(std::slice::from_ref(&huge)).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let outcome = outcomes.wait_for(1).await[0].json();
    let peak = worker.peak_mib();
    println!("one request of 400,000 emails ({} MiB): peak {peak} MiB", huge.body.len() >> 20);
    assert_eq!((&outcome["deleted"], &outcome["status"]), (&400_000.into(), &"succeeded".into()));
    assert_eq!(world.api.lock().ledger.summary.calls, 400);
    assert!(peak <= BUFFER + BESIDE, "{peak} MiB");
    worker.stop().await;
}
