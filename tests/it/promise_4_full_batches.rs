//! Promise 4: full batches; a backlog takes the fewest calls.

use crate::support::requests::mixed;
use crate::support::{Request, World, truth};

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_2000_requests_takes_the_fewest_calls() {
    let world = World::new().await;
    world.vhost.declare().await;
    let requests = mixed(2000, &["p1", "p2"], 4000, 21);
    world.vhost.publish(&requests).await;
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let seen = outcomes.wait_for(2000).await.to_vec();
    worker.stop().await;
    truth::check(&requests, &seen, &world.api.lock());
    assert_eq!(world.api.lock().ledger.summary.calls, truth::fewest_calls(&requests));
    assert_eq!(world.vhost.ready("contacts.deletion.requests").await, 0);
    assert_eq!(seen.len(), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_100_000_emails_is_100_calls_and_one_outcome_in_bounded_memory() {
    let world = World::new().await;
    let worker = world.worker_with(&[("MIGMA__MAX_IN_FLIGHT", "8")]).await;
    let emails: Vec<String> = (0..100_000).map(|n| format!("customer-number-{n:06}@example.org")).collect();
    let request = Request::of("large", "p", emails);
    world.vhost.publish(std::slice::from_ref(&request)).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let seen = outcomes.wait_for(1).await.to_vec();
    let outcome = seen[0].json();
    assert_eq!((outcome["status"].as_str(), outcome["deleted"].as_u64()), (Some("succeeded"), Some(100_000)));
    assert_eq!(world.api.lock().ledger.summary.calls, 100);
    let peak = worker.peak_mib();
    println!("peak memory: {peak} MiB");
    assert!(peak < 200, "{peak} MiB");
    worker.stop().await;
    truth::check(&[request], &seen, &world.api.lock());
}
