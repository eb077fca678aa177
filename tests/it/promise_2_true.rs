//! Promise 2: the outcome is true, though the call that did the work was never heard of.

use migma_eraser::sandbox::faults::Next;
use migma_eraser::sandbox::{Data, Faults};

use crate::support::{Request, World, truth};

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_deleted_by_a_call_whose_answer_was_lost_is_reported_deleted() {
    let world = World::new().await;
    world.set_faults(Faults {
        next: [Next::DropAfter, Next::StatusAfter(502), Next::Garbage].into(),
        ..Faults::default()
    });
    let worker = world.worker().await;
    let request = Request::new("lost-1", "p", &["ann@example.org", "unknown1@example.org"]);
    world.vhost.publish(std::slice::from_ref(&request)).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let seen = outcomes.wait_for(1).await.to_vec();
    let outcome = seen[0].json();
    assert_eq!((outcome["status"].as_str(), outcome["deleted"].as_u64()), (Some("succeeded"), Some(1)));
    assert_eq!(outcome["notFound"], serde_json::json!(["unknown1@example.org"]));
    assert_eq!(outcome["uncertain"], serde_json::json!([]));
    assert_eq!(outcome["requests"][0]["attempts"], 2);
    assert_eq!(outcome["requests"][0]["replayed"], true);
    truth::check(&[request], &seen, &world.api.lock());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_deleted_for_a_worker_that_was_killed_is_reported_deleted_by_the_next() {
    let world = World::new().await;
    // The work is done while the worker waits, and the worker dies waiting.
    world.set_faults(Faults { latency_ms: 1500, ..Faults::default() });
    let worker = world.worker().await;
    let request = Request::new("killed-1", "p", &["ann@example.org"]);
    world.vhost.publish(std::slice::from_ref(&request)).await;
    let start = std::time::Instant::now();
    while world.api.lock().ledger.summary.calls == 0 {
        assert!(start.elapsed() < crate::support::PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    worker.kill9();
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let seen = outcomes.wait_for(1).await.to_vec();
    assert_eq!(seen[0].json()["deleted"], 1);
    assert_eq!(world.api.lock().ledger.entries.len(), 1, "the work was done once");
    truth::check(&[request], &seen, &world.api.lock());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_api_key_finds_missing_after_a_lost_answer_is_uncertain() {
    let world = World::with(Data { open_world: true, ..Data::default() }).await;
    let key_file = world.folder.path().join("key");
    std::fs::write(&key_file, crate::support::API_KEY).unwrap();
    let key_path = key_file.display().to_string();
    let with_file = [("MIGMA__API_KEY_FILE", key_path.as_str())];
    world.set_faults(Faults { drop_after: 1.0, ..Faults::default() });
    let worker = crate::support::Worker::start_without_key(&world, &with_file).await;
    let request = Request::new("rotated-1", "p", &["ann@example.org", "unknown1@example.org"]);
    world.vhost.publish(std::slice::from_ref(&request)).await;
    let start = std::time::Instant::now();
    while world.api.lock().ledger.summary.performed == 0 {
        assert!(start.elapsed() < crate::support::PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // The old key is refused from now on, the new one is taken, and answers arrive again.
    world.api.lock().set_api_key("sk_another");
    std::fs::write(&key_file, "sk_another").unwrap();
    worker.signal("HUP");
    world.set_faults(Faults::default());
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let outcome = outcomes.wait_for(1).await[0].json();
    assert_eq!(outcome["status"], "succeeded");
    assert_eq!(outcome["deleted"], 0);
    assert_eq!(outcome["notFound"], serde_json::json!([]));
    assert_eq!(outcome["uncertain"], serde_json::json!(["ann@example.org", "unknown1@example.org"]));
    worker.stop().await;
}
