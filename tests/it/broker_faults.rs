//! The broker ends connections, restarts, is killed, loses a queue, blocks publishers, runs out of patience: the worker
//! never exits, never spins, and goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::options::QueueDeleteOptions;
use migma_eraser::sandbox::{Data, Faults};

use crate::support::broker::{Collector, Node, Vhost};
use crate::support::requests::mixed;
use crate::support::{PATIENCE, Request, World, truth};

const OUTCOMES: &str = "contacts.deletion.outcomes";
const REQUESTS: &str = "contacts.deletion.requests";

async fn on_a_node_of_its_own(environment: &'static [(&'static str, &'static str)]) -> (Arc<Node>, World) {
    let node = Node::private(environment).await;
    let world = World::on(Vhost::on(Arc::clone(&node)).await, Data { open_world: true, ..Data::default() }).await;
    (node, world)
}

/// Every request has an outcome; repeats are equal, and everything agrees with the ledger.
async fn all_are_answered(requests: &[Request], outcomes: &mut Collector, world: &World) {
    let ids: std::collections::HashSet<&str> = requests.iter().map(|request| request.id.as_str()).collect();
    let answered = |seen: &[crate::support::broker::Seen]| {
        let told: std::collections::HashSet<String> =
            seen.iter().map(|outcome| outcome.json()["messageId"].as_str().unwrap().to_owned()).collect();
        ids.iter().all(|id| told.contains(*id))
    };
    outcomes.wait_until("an outcome for every request", answered).await;
    truth::check(requests, outcomes.drain().await, &world.api.lock());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_and_one_that_is_killed_lose_nothing() {
    let (node, world) = on_a_node_of_its_own(&[]).await;
    world.set_faults(Faults { latency_ms: 40, drop_after_every: 6, ..Faults::default() });
    let worker = world.worker_with(&[("BATCH__MAX_EMAILS", "20")]).await;
    let requests = mixed(2000, &["p", "q"], 3000, 11);
    for (half, order) in requests.chunks(1000).zip(["restart", "kill"]) {
        world.vhost.publish(half).await;
        node.order(order).await;
    }
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    all_are_answered(&requests, &mut outcomes, &world).await;
    worker.wait_ready().await;
    assert_eq!(world.vhost.ready(REQUESTS).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_holds_outcomes_back_and_repeats_none_when_it_ends() {
    let (node, world) = on_a_node_of_its_own(&[]).await;
    world.set_faults(Faults { latency_ms: 1500, ..Faults::default() });
    let worker = world.worker().await;
    let requests = mixed(300, &["p"], 500, 12);
    world.vhost.publish(&requests).await;
    node.order("alarm").await;
    // The answers come while nothing can be published.
    let start = Instant::now();
    while world.api.lock().ledger.summary.calls == 0 {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    node.order("calm").await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    all_are_answered(&requests, &mut outcomes, &world).await;
    assert_eq!(outcomes.seen.len(), requests.len(), "each once");
    worker.wait_ready().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_timeout_of_the_broker_s_is_survived() {
    let (_node, world) = on_a_node_of_its_own(&[("NODE_CONSUMER_TIMEOUT_MS", "3000")]).await;
    world.set_faults(Faults { latency_ms: 8000, ..Faults::default() });
    let worker = world.worker().await;
    let requests = mixed(50, &["p"], 100, 13);
    world.vhost.publish(&requests).await;
    let start = Instant::now();
    while !worker.log_text().contains("consuming ended") {
        assert!(start.elapsed() < PATIENCE, "the broker's patience never ends");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    all_are_answered(&requests, &mut outcomes, &world).await;
    assert_eq!(world.api.lock().ledger.summary.calls, 1, "what was under way goes on");
    worker.wait_ready().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_under_the_worker_is_declared_anew() {
    let world = World::new().await;
    let worker = world.worker().await;
    let connection = world.vhost.connect().await;
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete(REQUESTS.into(), QueueDeleteOptions::default()).await.unwrap();
    worker.wait_readiness(|_, _| worker.log_text().contains("the broker cancelled the consumer")).await;
    worker.wait_ready().await;
    let requests = mixed(20, &["p"], 50, 14);
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    all_are_answered(&requests, &mut outcomes, &world).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_in_the_queue_is_answered_like_everything_else() {
    let world = World::new().await;
    world.vhost.declare().await;
    let mut request = Request::new("m", "p", &["ann@example.org", "unknown1@example.org"]);
    request.properties = request.properties.with_expiration("1".into());
    world.vhost.publish(std::slice::from_ref(&request)).await;
    let start = Instant::now();
    while world.vhost.ready("contacts.deletion.returned").await == 0 {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    all_are_answered(&[request], &mut outcomes, &world).await;
    assert_eq!(world.vhost.ready("contacts.deletion.dead").await, 0);
    worker.stop().await;
}
