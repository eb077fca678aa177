//! `watch`: outcomes seen as they come, taken from nobody, masked; over the loss of a connection too.

use lapin::options::BasicPublishOptions;
use serde_json::json;

use crate::support::console::start;
use crate::support::{Request, World};

const OUTCOMES: &str = "contacts.deletion.outcomes";

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_shown_masked_and_stay_in_their_queue() {
    let world = World::new().await;
    let worker = world.worker().await;
    let mut lines = start(&world, &["watch", "--count", "2"], "");
    let mut objects = start(&world, &["watch", "--json", "--project", "p", "--count", "1"], "");
    let mut open = start(&world, &["watch", "--show-addresses", "--project", "p", "--count", "1"], "");
    for watching in [&mut lines, &mut objects, &mut open] {
        watching.says("watching; Ctrl-C ends it").await;
    }
    world.vhost.publish(&[Request::new("first", "q", &["ann@example.org"])]).await;
    lines.says("first").await;
    world.vhost.publish(&[Request::new("ann@example.org", "p", &["unknown@example.org", "nobody"])]).await;
    let lines = lines.ended().await.with(0);
    assert!(lines.out.contains(" succeeded q first: 1 deleted\n"), "{lines:?}");
    assert!(
        lines.out.contains(" partial   p sha256:") && lines.out.contains(": 1 not found, 1 invalid\n"),
        "{lines:?}"
    );
    let objects = objects.ended().await.with(0);
    assert_eq!(objects.json()["notFound"], json!(["u***@e***"]));
    for ended in [&lines, &objects] {
        assert!(!ended.out.contains("example.org") && !ended.err.contains("example.org"), "{ended:?}");
    }
    let open = open.ended().await.with(0);
    assert!(
        open.out.contains("not found: unknown@example.org\n") && open.out.contains("invalid: nobody\n"),
        "{open:?}"
    );
    world.vhost.wait_ready(OUTCOMES, 2).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_a_filter_and_batches_come_on_demand() {
    let world = World::new().await;
    let worker = world.worker().await;
    let mut rejected = start(&world, &["watch", "--status", "rejected", "--count", "1"], "");
    let mut calls = start(&world, &["watch", "--batches", "--status", "failed", "--count", "1"], "");
    rejected.says("watching").await;
    calls.says("watching").await;
    world.vhost.publish(&[Request::new("good", "p", &["ann@example.org"])]).await;
    let calls = calls.ended().await.with(0);
    assert!(
        calls.out.contains(" call ") && calls.out.contains("HTTP 200, 1 deleted, 1 email of 1 request"),
        "{calls:?}"
    );
    world.vhost.publish(&[Request::raw("bad", "{")]).await;
    let rejected = rejected.ended().await.with(0);
    assert!(rejected.out.contains("rejected  - bad: nothing done (MALFORMED_JSON)"), "{rejected:?}");
    assert!(!rejected.out.contains("good"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_and_made_again_and_ctrl_c_is_a_good_end() {
    let world = World::new().await;
    world.vhost.declare().await;
    let mut watching = start(&world, &["watch"], "");
    watching.says("watching; Ctrl-C ends it").await;
    world.vhost.cut_at_least(1).await;
    watching.says("the broker is lost").await;
    watching.says("outcomes published meanwhile were missed").await;
    let body = json!({"messageId": "later", "projectId": "p", "status": "succeeded", "deleted": 3, "notFound": [],
        "uncertain": [], "invalid": [], "failed": [], "error": null, "publishedAt": "2026-11-24T12:00:00.000Z"});
    let channel = world.vhost.connect().await.create_channel().await.unwrap();
    let options = BasicPublishOptions::default();
    let body = body.to_string();
    let publishing = channel.basic_publish(
        OUTCOMES.into(),
        "outcome.succeeded".into(),
        options,
        body.as_bytes(),
        lapin::BasicProperties::default(),
    );
    publishing.await.unwrap().await.unwrap();
    watching.says("12:00:00 succeeded p later: 3 deleted").await;
    watching.signal("INT");
    let ended = watching.ended().await.with(0);
    assert_eq!(ended.out.lines().count(), 1, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_exchange_the_cure_is_told() {
    let world = World::new().await;
    let ended = crate::support::console::run(&world, &["watch"]).await.with(1);
    assert!(ended.err.contains("no exchange 'contacts.deletion.outcomes'; declare it"), "{ended:?}");
}
