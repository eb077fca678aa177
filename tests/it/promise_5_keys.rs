//! Promise 5: idempotency keys: short, the same after a crash, and left behind once an answer may be cached.

use migma_eraser::sandbox::Faults;
use migma_eraser::sandbox::faults::Next;

use crate::support::{Request, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_403_does_not_outlive_its_cause() {
    let world = World::new().await;
    world.set_faults(Faults { forbidden_projects: ["p".to_owned()].into(), ..Faults::default() });
    let worker = world.worker().await;
    world.vhost.publish(&[Request::new("m", "p", &["ann@example.org", "unknown1@example.org"])]).await;
    let start = std::time::Instant::now();
    while world.api.lock().ledger.summary.by_status.get(&403).is_none_or(|count| *count < 2) {
        assert!(start.elapsed() < crate::support::PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.set_faults(Faults::default());
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let outcome = outcomes.wait_for(1).await[0].json();
    assert_eq!((outcome["status"].as_str(), outcome["deleted"].as_u64()), (Some("succeeded"), Some(1)));
    // A 403 says that nothing was done: there is nothing to be uncertain about.
    assert_eq!(outcome["notFound"], serde_json::json!(["unknown1@example.org"]));
    let key = outcome["requests"][0]["idempotencyKey"].as_str().unwrap().to_owned();
    assert!(key.len() <= 100);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_transient_is_tried_again_under_the_same_key() {
    let world = World::new().await;
    let faults = [Next::Status(500), Next::RetryAfter(1), Next::DropBefore, Next::RetryAfterDate(1)];
    world.set_faults(Faults { next: faults.into(), ..Faults::default() });
    let worker = world.worker().await;
    world.vhost.publish(&[Request::new("m", "p", &["ann@example.org"])]).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let outcome = outcomes.wait_for(1).await[0].json();
    assert_eq!(outcome["requests"][0]["attempts"], 5);
    assert!(outcome["requests"][0]["idempotencyKey"].as_str().unwrap().ends_with("-0"));
    assert_eq!(outcome["deleted"], 1);
    worker.stop().await;
}
