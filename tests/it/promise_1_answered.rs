//! Promise 1: every request that the broker accepted gets an outcome, whatever crashes.

use migma_eraser::sandbox::Faults;

use crate::support::requests::{Numbers, mixed};
use crate::support::{World, truth};

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_left_without_an_outcome_when_the_worker_is_killed_again_and_again() {
    let world = World::new().await;
    world.vhost.declare().await;
    let requests = mixed(3000, &["p1", "p2"], 3000, 11);
    world.vhost.publish(&requests).await;
    // One answer in six is lost after its work is done.
    world.set_faults(Faults { drop_after_every: 6, latency_ms: 5, jitter_ms: 60, ..Faults::default() });
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let settings = [("BATCH__MAX_EMAILS", "40")];
    let mut numbers = Numbers(5);
    for round in 1..=10 {
        let worker = world.worker_with(&settings).await;
        // At some moment of its work: after so many more outcomes.
        let more = outcomes.seen.len() + 1 + numbers.below(200);
        outcomes.wait_until("some more outcomes", |seen| seen.len() >= more || seen.len() >= 3000).await;
        worker.kill9();
        println!("kill {round}: {} outcomes so far", outcomes.seen.len());
    }
    let worker = world.worker_with(&settings).await;
    let ids: std::collections::HashSet<String> = requests.iter().map(|r| r.id.clone()).collect();
    outcomes
        .wait_until("an outcome of each request", |seen| {
            let answered: std::collections::HashSet<String> =
                seen.iter().filter_map(|s| s.properties.correlation_id().as_ref().map(ToString::to_string)).collect();
            ids.is_subset(&answered)
        })
        .await;
    worker.stop().await;
    let seen = outcomes.drain().await.to_vec();
    truth::check(&requests, &seen, &world.api.lock());
    assert_eq!(world.vhost.ready("contacts.deletion.requests").await, 0);
    let summary = world.api.lock().ledger.summary.clone();
    println!("{} outcomes of 3000 requests; {summary:?}", seen.len());
    assert!(summary.replayed > 0, "some lost answer was replayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_survive_the_cutting_of_all_connections() {
    let world = World::new().await;
    let worker = world.worker_with(&[("BATCH__MAX_EMAILS", "20")]).await;
    world.set_faults(Faults { latency_ms: 50, ..Faults::default() });
    let requests = mixed(600, &["p"], 2000, 3);
    world.vhost.publish(&requests).await;
    let mut cut = 0;
    while cut == 0 {
        // The broker learns of a connection a moment after it is made.
        cut = world.vhost.cut_connections().await;
    }
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_until("an outcome of each request", |seen| distinct(seen) == 600).await;
    worker.wait_ready().await;
    worker.stop().await;
    let seen = outcomes.drain().await.to_vec();
    truth::check(&requests, &seen, &world.api.lock());
    assert_eq!(world.vhost.ready("contacts.deletion.requests").await, 0);
}

fn distinct(seen: &[crate::support::broker::Seen]) -> usize {
    seen.iter().map(|s| s.json()["messageId"].to_string()).collect::<std::collections::HashSet<_>>().len()
}
