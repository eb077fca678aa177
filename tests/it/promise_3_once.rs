//! Promise 3: a repeat never joins a new batch; once answered, the same outcome is published again, without a call.

use migma_eraser::sandbox::Faults;

use crate::support::{Request, World};

fn without_time(mut outcome: serde_json::Value) -> serde_json::Value {
    outcome.as_object_mut().unwrap().remove("publishedAt");
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_republished_request_is_answered_with_the_same_outcome_and_without_a_call() {
    let world = World::new().await;
    let worker = world.worker().await;
    let request =
        Request::new("again", "p", &["unknown2@example.org", "Ann@example.org", "unknown1@example.org", "nobody"]);
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    world.vhost.publish(std::slice::from_ref(&request)).await;
    outcomes.wait_for(1).await;
    // Once in the same life, once in another order after a restart.
    world.vhost.publish(std::slice::from_ref(&request)).await;
    outcomes.wait_for(2).await;
    worker.stop().await;
    let worker = world.worker().await;
    let mut shuffled = request.clone();
    shuffled.body = serde_json::json!({
        "projectId": "p", "metadata": {"ticket": "another"},
        "emails": ["nobody", "unknown1@example.org", "unknown2@example.org", "Ann@example.org"],
    })
    .to_string()
    .into_bytes();
    world.vhost.publish(&[shuffled]).await;
    let seen = outcomes.wait_for(3).await.to_vec();
    assert_eq!(world.api.lock().ledger.summary.calls, 1);
    for repeat in &seen[1..] {
        assert_eq!(without_time(seen[0].json()), without_time(repeat.json()));
        assert_eq!(seen[0].properties.message_id(), repeat.properties.message_id());
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_arrives_while_the_first_is_under_way_gets_its_own_equal_outcome() {
    let world = World::new().await;
    world.set_faults(Faults { latency_ms: 500, ..Faults::default() });
    let worker = world.worker().await;
    let request = Request::new("twin", "p", &["ann@example.org"]);
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    world.vhost.publish(&[request.clone(), request.clone(), request]).await;
    let seen = outcomes.wait_for(3).await.to_vec();
    assert_eq!(world.api.lock().ledger.summary.calls, 1);
    assert!(seen.iter().all(|s| without_time(s.json()) == without_time(seen[0].json())));
    assert_eq!(seen[0].json()["deleted"], 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_request_never_joins_a_new_batch() {
    let world = World::new().await;
    world.set_faults(Faults { latency_ms: 1000, ..Faults::default() });
    let worker = world.worker().await;
    world.vhost.publish(&[Request::new("first", "p", &["ann@example.org"])]).await;
    let start = std::time::Instant::now();
    while world.api.lock().ledger.summary.calls == 0 {
        assert!(start.elapsed() < crate::support::PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    worker.kill9();
    world.vhost.publish(&[Request::new("second", "p", &["bob@example.org"])]).await;
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let seen = outcomes.wait_for(2).await.to_vec();
    let bodies: Vec<usize> = world.api.lock().ledger.entries.iter().map(|entry| entry.emails).collect();
    assert_eq!(bodies, [1, 1], "each travelled in its own batch");
    let keys: std::collections::HashSet<String> =
        seen.iter().map(|s| s.json()["requests"][0]["idempotencyKey"].to_string()).collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(world.api.lock().ledger.summary.conflicts, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_with_other_emails_or_another_project_is_told_to_be_reused_and_the_first_stays_as_it_was() {
    let world = World::new().await;
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    world.vhost.publish(&[Request::new("id", "p", &["ann@example.org"])]).await;
    outcomes.wait_for(1).await;
    world
        .vhost
        .publish(&[Request::new("id", "p", &["bob@example.org"]), Request::new("id", "q", &["ann@example.org"])])
        .await;
    let seen = outcomes.wait_for(3).await.to_vec();
    for reused in &seen[1..] {
        assert_eq!(reused.json()["status"], "rejected");
        assert_eq!(reused.json()["error"]["code"], "MESSAGE_ID_REUSED");
        assert_ne!(reused.properties.message_id(), seen[0].properties.message_id());
    }
    assert_ne!(seen[1].properties.message_id(), seen[2].properties.message_id());
    assert_eq!(world.api.lock().ledger.summary.calls, 1);
    worker.stop().await;
}
