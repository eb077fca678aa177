//! Promise 8: no address, key or password in any log, at any level.

use migma_eraser::sandbox::Faults;

use crate::support::requests::mixed;
use crate::support::{API_KEY, Request, World};

#[tokio::test(flavor = "multi_thread")]
async fn no_address_and_no_secret_is_in_a_trace_level_log_or_in_the_metrics() {
    let world = World::new().await;
    world.set_faults(Faults { drop_after_every: 3, garbage: 0.1, errors: [(503, 0.1)].into(), ..Faults::default() });
    let worker = world.worker_with(&[("BATCH__MAX_EMAILS", "20")]).await;
    let mut requests = mixed(200, &["p@x", "q"], 500, 8);
    requests.push(Request::new("ann.of.id@example.org", "q", &["bob@example.org", "not an address of eve"]));
    requests.push(Request::raw("broken", "{\"emails\": [\"mallory@example.org\""));
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(requests.len()).await;
    let metrics = worker.metrics().await;
    let log = worker.stop().await;
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log has the lower levels");
    for text in [&log, &metrics] {
        let lower = text.to_lowercase();
        for secret in [API_KEY, "guest:guest", "@example.org", "mallory", "of eve", "ann.of.id", "p@x"] {
            assert!(!lower.contains(secret), "{secret} is in the log or in the metrics");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn once_answered_no_address_is_left_in_the_journal_s_files_and_they_are_the_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    let worker = world.worker().await;
    world
        .vhost
        .publish(&[Request::new("m", "p", &["a.very.special.address@example.org", "unknown.person@example.org"])])
        .await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(1).await;
    let folder = world.folder.path().join("journal");
    let traces = || {
        let mut found = Vec::new();
        for file in std::fs::read_dir(&folder).unwrap().flatten() {
            let bytes = std::fs::read(file.path()).unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if text.contains("special.address") || text.contains("unknown.person") {
                found.push(file.path());
            }
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
        }
        found
    };
    // In the running worker too, after a moment.
    let start = std::time::Instant::now();
    while !traces().is_empty() {
        assert!(start.elapsed() < crate::support::PATIENCE, "{:?}", traces());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    worker.stop().await;
    assert!(traces().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_no_queue_takes_waits_for_one_and_is_not_printed() {
    let world = World::new().await;
    let worker = world.worker().await;
    let connection = world.vhost.connect().await;
    let channel = connection.create_channel().await.unwrap();
    let gone = lapin::options::QueueDeleteOptions::default();
    channel.queue_delete("contacts.deletion.outcomes".into(), gone).await.unwrap();
    world.vhost.publish(&[Request::new("m", "p", &["ann@example.org", "unknown1@example.org"])]).await;
    worker.wait_readiness(|status, text| status == 503 && text.contains("unroutable_outcome")).await;
    world.vhost.declare().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    assert_eq!(outcomes.wait_for(1).await[0].json()["deleted"], 1);
    worker.wait_ready().await;
    let log = worker.stop().await;
    assert!(log.contains("did not reach a queue") && !log.contains("@example.org"), "{log}");
    assert_eq!(world.vhost.ready("contacts.deletion.requests").await, 0);
}
