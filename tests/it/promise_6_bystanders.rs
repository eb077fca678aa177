//! Promise 6: one bad request never harms another.

use migma_eraser::sandbox::{Data, Faults};

use crate::support::requests::mixed;
use crate::support::{PATIENCE, Request, World, truth};

/// The most calls that one culprit in a full batch costs beside the fewest: 2·log2(1000) + 2.
const EXTRA: u64 = 22;

#[tokio::test(flavor = "multi_thread")]
async fn three_poisoned_emails_among_1500_requests_fail_three_requests_and_no_other() {
    let world = World::with(Data { open_world: true, ..Data::default() }).await;
    world.vhost.declare().await;
    let mut requests = mixed(1500, &["p"], 20_000, 6);
    let poisoned = ["poison-a@example.org", "poison-b@example.org", "poison-c@example.org"];
    let culprits = [(100, true), (700, false), (1400, true)];
    for ((at, in_company), email) in culprits.into_iter().zip(poisoned) {
        let request = &requests[at];
        let mut emails = if in_company { request.emails.clone() } else { Vec::new() };
        emails.push(email.to_owned());
        requests[at] = Request::of(&request.id, "p", emails);
    }
    let poison_emails = poisoned.iter().map(|email| (*email).to_owned()).collect();
    world.set_faults(Faults { poison_emails, ..Faults::default() });
    world.vhost.publish(&requests).await;

    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let mut dead = world.vhost.collect("contacts.deletion.dead").await;
    outcomes.wait_for(requests.len()).await;
    dead.wait_for(3).await;
    let outcomes = outcomes.drain().await.to_vec();
    let dead = dead.drain().await;
    for (at, in_company) in culprits {
        let outcome = outcomes.iter().map(crate::support::broker::Seen::json);
        let outcome = outcome.into_iter().find(|outcome| outcome["messageId"] == requests[at].id).unwrap();
        assert_eq!(outcome["status"], if in_company { "partial" } else { "failed" });
        let failed = &outcome["failed"][0];
        assert_eq!((&failed["code"], &failed["httpStatus"]), (&"API_REJECTED".into(), &400.into()));
        assert_eq!(failed["mayHaveTakenEffect"], false);
        assert!(dead.iter().any(|letter| letter.body == requests[at].body), "whole and unchanged");
    }
    let others = outcomes.iter().filter(|outcome| outcome.routing_key == "outcome.succeeded").count();
    assert_eq!((others, dead.len()), (1497, 3));

    truth::check(&requests, &outcomes, &world.api.lock());
    let (calls, fewest) = (world.api.lock().ledger.summary.calls, truth::fewest_calls(&requests));
    println!("{calls} calls, {fewest} without poison, at most {EXTRA} more for each of 3 culprits");
    assert!(calls <= fewest + 3 * EXTRA, "{calls} calls");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_fails_while_nothing_else_is_there_keeps_nobody_who_comes_later() {
    let world = World::new().await;
    let poison_emails = ["poison@example.org".to_owned()].into();
    world.set_faults(Faults { poison_emails, poison_status: Some(500), ..Faults::default() });
    // Consuming stops after a quarter of the consumer timeout.
    let settings =
        [("AMQP__CONSUMER_TIMEOUT", "6s"), ("MIGMA__REQUEST_TIMEOUT", "2s"), ("RETRY__MAX_INTERVAL", "200ms")];
    let worker = world.worker_with(&settings).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let mut bystanders = Vec::new();
    world.vhost.publish(&[Request::new("poisoned", "p", &["poison@example.org"])]).await;
    for n in 0..3 {
        worker.wait_readiness(|status, text| status == 503 && text.contains("api_down")).await;
        // Once it is plain that nobody is served, it makes room for others.
        world.vhost.wait_ready("contacts.deletion.parked", 1).await;
        let id = format!("m{n}");
        let bystander = Request::of(&id, "q", vec![format!("user{n}@example.org")]);
        world.vhost.publish(std::slice::from_ref(&bystander)).await;
        outcomes.wait_until("the bystander's outcome", |seen| seen.iter().any(|o| o.json()["messageId"] == id)).await;
        bystanders.push(bystander);
    }
    truth::check(&bystanders, &outcomes.seen, &world.api.lock());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_error_that_only_one_body_meets_splits_it_until_the_culprit_stands_alone() {
    let world = World::new().await;
    let poison_emails = ["poison@example.org".to_owned()].into();
    world.set_faults(Faults { poison_emails, poison_status: Some(500), ..Faults::default() });
    let worker = world
        .worker_with(&[("RETRY__GIVE_UP_AFTER", "2s"), ("BATCH__MAX_EMAILS", "8"), ("RETRY__MAX_INTERVAL", "200ms")])
        .await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let poisoned = Request::new("poisoned", "p", &["ann@example.org", "poison@example.org"]);
    world.vhost.publish(std::slice::from_ref(&poisoned)).await;
    // Others are served meanwhile: without them a failure would be the API's.
    let mut requests = vec![poisoned];
    let start = std::time::Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "it is never given up");
        let n = requests.len();
        let bystander = Request::of(&format!("m{n}"), "q", vec![format!("user{n}@example.org")]);
        world.vhost.publish(std::slice::from_ref(&bystander)).await;
        requests.push(bystander);
        outcomes
            .wait_until("the bystander's outcome", |seen| seen.iter().any(|o| o.json()["messageId"] == format!("m{n}")))
            .await;
        if outcomes.seen.iter().any(|outcome| outcome.json()["messageId"] == "poisoned") {
            break;
        }
    }
    let outcome = outcomes.seen.iter().map(crate::support::broker::Seen::json).find(|o| o["messageId"] == "poisoned");
    let outcome = outcome.unwrap();
    assert_eq!((&outcome["status"], &outcome["deleted"]), (&"partial".into(), &1.into()));
    let failed = &outcome["failed"][0];
    assert_eq!((&failed["code"], &failed["emails"][0]), (&"GAVE_UP".into(), &"poison@example.org".into()));
    assert_eq!(failed["mayHaveTakenEffect"], true, "a server error tells nothing of what was done");
    truth::check(&requests, &outcomes.seen, &world.api.lock());
    worker.stop().await;
}
