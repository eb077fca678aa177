//! Promise 7: what is nobody's fault waits, visibly; it ends by itself, and gives deliveries back meanwhile.

use std::time::{Duration, Instant};

use migma_eraser::sandbox::faults::{Next, RateLimit};
use migma_eraser::sandbox::{Data, Faults, State};

use crate::support::requests::{mixed, one_each};
use crate::support::{API_KEY, PATIENCE, Request, Worker, World, quiet_port, truth};

const OUTCOMES: &str = "contacts.deletion.outcomes";
const REQUESTS: &str = "contacts.deletion.requests";
const PARKED: &str = "contacts.deletion.parked";
const RETURNED: &str = "contacts.deletion.returned";
const DEAD: &str = "contacts.deletion.dead";

/// Deliveries are given back after a quarter of this.
const IMPATIENT: [(&str, &str); 3] =
    [("AMQP__CONSUMER_TIMEOUT", "6s"), ("MIGMA__REQUEST_TIMEOUT", "2s"), ("RETRY__MAX_INTERVAL", "1s")];

/// How often each line was logged.
fn lines(worker: &Worker, holding: &str) -> (usize, usize) {
    let log = worker.log_text();
    let count = |what: &str| log.lines().filter(|line| line.contains(what) && line.contains(holding)).count();
    (count("holding"), count("going on"))
}

/// Publishes, sees the worker wait for this reason, mends the world, and sees everything done.
async fn waits_and_goes_on(reason: &str, faults: Faults) {
    let world = World::new().await;
    world.set_faults(faults);
    let worker = world.worker().await;
    let requests = mixed(200, &["p", "q"], 300, 7);
    world.vhost.publish(&requests).await;
    worker.wait_readiness(|status, text| status == 503 && text.contains(reason)).await;
    assert!(worker.metrics().await.contains(&format!("migma_eraser_holds{{reason=\"{reason}\"}} 1")));
    assert_eq!((world.vhost.ready(OUTCOMES).await, world.vhost.ready(DEAD).await), (0, 0));
    world.set_faults(Faults::default());
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    worker.wait_ready().await;
    assert_eq!(lines(&worker, reason), (1, 1), "one line at its start, one at its end");
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    assert_eq!(world.vhost.ready(DEAD).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_down_is_waited_for() {
    waits_and_goes_on("api_down", Faults { errors: [(503, 1.0)].into(), ..Faults::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_answers_garbage_is_waited_for() {
    waits_and_goes_on("api_down", Faults { proxy_page: Some(200), ..Faults::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_s_page_is_no_refusal() {
    waits_and_goes_on("api_down", Faults { proxy_page: Some(403), ..Faults::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_and_waited_out() {
    let elsewhere = Some("http://127.0.0.1:9/".to_owned());
    waits_and_goes_on("api_down", Faults { redirect: elsewhere, ..Faults::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_nobody_s_failure() {
    waits_and_goes_on("key_refused", Faults { refuse_all_keys: true, ..Faults::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_key_waits_as_long_as_it_is_told() {
    let next = (0..40).map(|_| Next::RetryAfter(1)).collect();
    waits_and_goes_on("throttled", Faults { next, ..Faults::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_refusal_for_everybody_is_not_about_the_bodies() {
    let world = World::new().await;
    world.set_faults(Faults { errors: [(422, 1.0)].into(), ..Faults::default() });
    let worker = world.worker_with(&[("BATCH__MAX_EMAILS", "1")]).await;
    let requests = one_each("p", 20);
    world.vhost.publish(&requests).await;
    worker.wait_readiness(|status, text| status == 503 && text.contains("api_refuses_all")).await;
    world.set_faults(Faults::default());
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    let failed = outcomes.seen.iter().filter(|outcome| outcome.routing_key == "outcome.failed").count();
    assert!(failed <= 2, "{failed} were failed before it was plain that they were not to blame");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_base_url_is_waited_for() {
    let world = World::new().await;
    let (_kept, port) = quiet_port();
    let worker = world.worker_with(&[("MIGMA__BASE_URL", &format!("http://127.0.0.1:{port}"))]).await;
    let requests = one_each("p", 20);
    world.vhost.publish(&requests).await;
    worker.wait_readiness(|status, text| status == 503 && text.contains("api_down")).await;
    let data = Data { open_world: true, ..Data::default() };
    let late = migma_eraser::sandbox::start(([127, 0, 0, 1], port).into(), State::new(API_KEY, data, 7)).await.unwrap();
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &late.lock());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_everything_waits_nothing_is_consumed_and_what_was_goes_back() {
    let world = World::new().await;
    world.set_faults(Faults { refuse_all_keys: true, ..Faults::default() });
    let worker = world.worker_with(&IMPATIENT).await;
    let requests = one_each("p", 50);
    world.vhost.publish(&requests).await;
    world.vhost.wait_ready(REQUESTS, 50).await;
    // A manifest that is open already tries on.
    let calls = world.api.lock().ledger.summary.calls;
    let start = Instant::now();
    while world.api.lock().ledger.summary.calls < calls + 2 {
        assert!(start.elapsed() < PATIENCE, "nobody tries");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(world.api.lock().ledger.summary.by_status.keys().all(|status| *status == 401));
    world.set_faults(Faults::default());
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_taken_from_its_file_without_a_restart() {
    let world = World::new().await;
    let file = world.folder.path().join("key");
    std::fs::write(&file, "an-old-key\n").unwrap();
    let settings = [("MIGMA__API_KEY_FILE", file.to_str().unwrap())];
    let worker = Worker::start_without_key(&world, &settings).await;
    let requests = one_each("p", 20);
    world.vhost.publish(&requests).await;
    worker.wait_readiness(|status, text| status == 503 && text.contains("key_refused")).await;
    std::fs::write(&file, format!("{API_KEY}\n")).unwrap();
    worker.signal("HUP");
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    let log = worker.stop().await;
    assert!(!log.contains("an-old-key") && !log.contains(API_KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_for_a_minute_under_load_costs_a_probe_for_each_interval_and_no_request() {
    const MINUTE: Duration = Duration::from_mins(1);
    const INTERVAL: Duration = Duration::from_secs(2);
    let world = World::new().await;
    let settings = [("RETRY__INITIAL_INTERVAL", "100ms"), ("RETRY__MAX_INTERVAL", "2s")];
    let worker = world.worker_with(&settings).await;
    world.set_faults(Faults { refuse_all_keys: true, ..Faults::default() });
    let mut requests = Vec::new();
    let start = Instant::now();
    while start.elapsed() < MINUTE {
        let more = mixed(10, &["p", "q"], 500, requests.len() as u64);
        world.vhost.publish(&more).await;
        requests.extend(more);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let took = start.elapsed();
    let summary = world.api.lock().ledger.summary.clone();
    assert_eq!(summary.by_status.keys().copied().collect::<Vec<_>>(), [401]);
    // The wait is drawn between nothing and the interval: half of it on average, so twice as many probes as intervals,
    // and as many again for chance; beside them the calls that were under way and the first, shorter intervals.
    let intervals = took.as_secs() / INTERVAL.as_secs();
    println!("{} calls in {} s of a refused key: {intervals} intervals", summary.calls, took.as_secs());
    assert!(summary.calls <= 4 * intervals + 8 + 8, "{} calls in {intervals} intervals", summary.calls);
    assert_eq!((world.vhost.ready(OUTCOMES).await, world.vhost.ready(DEAD).await), (0, 0));
    world.set_faults(Faults::default());
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    assert!(outcomes.seen.iter().all(|outcome| outcome.routing_key == "outcome.succeeded"));
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_forbidden_project_step_aside_and_others_go_on() {
    let world = World::new().await;
    world.set_faults(Faults { forbidden_projects: ["p".to_owned()].into(), ..Faults::default() });
    let worker = world.worker().await;
    let held = one_each("p", 40);
    world.vhost.publish(&held).await;
    worker.wait_readiness(|status, text| status == 503 && text.contains("forbidden")).await;
    // All of them, those of the batch that met the 403 too: nothing of a held project crowds the prefetch.
    world.vhost.wait_ready(PARKED, 40).await;
    let bystanders = one_each("q", 40);
    world.vhost.publish(&bystanders).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(bystanders.len()).await;
    assert!(outcomes.seen.iter().all(|outcome| outcome.json()["projectId"] == "q"));
    assert_eq!(world.vhost.ready(DEAD).await, 0);
    world.set_faults(Faults::default());
    outcomes.wait_for(bystanders.len() + held.len()).await;
    worker.wait_ready().await;
    let all: Vec<Request> = held.into_iter().chain(bystanders).collect();
    truth::check(&all, outcomes.drain().await, &world.api.lock());
    assert_eq!(lines(&worker, "forbidden"), (1, 1));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_forbidden_for_too_long_fails_and_says_so_parked_or_not() {
    let world = World::new().await;
    world.set_faults(Faults { forbidden_projects: ["p".to_owned()].into(), ..Faults::default() });
    let worker = world.worker_with(&[("RETRY__GIVE_UP_AFTER", "3s"), ("BATCH__MAX_EMAILS", "5")]).await;
    let requests = one_each("p", 20);
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    for outcome in outcomes.drain().await {
        let outcome = outcome.json();
        assert_eq!((&outcome["status"], &outcome["failed"][0]["code"]), (&"failed".into(), &"FORBIDDEN".into()));
        assert_eq!(outcome["failed"][0]["mayHaveTakenEffect"], false);
    }
    let mut dead = world.vhost.collect(DEAD).await;
    assert_eq!(dead.wait_for(20).await[0].header("x-eraser-aside-since"), None, "as its sender published it");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_returned_outlasts_more_waits_and_restarts_than_its_delivery_limit() {
    let world = World::new().await;
    world.vhost.declare().await;
    world.set_faults(Faults { refuse_all_keys: true, ..Faults::default() });
    let returned = one_each("p", 1);
    world.vhost.publish_to("contacts.deletion.dead", "returned", &returned).await;
    // The limit is 5: given back so often, it would be a dead letter without an outcome.
    for round in 1..=7 {
        let worker = Worker::launch(&world, &IMPATIENT);
        worker.wait_readiness(|status, text| status == 503 && text.contains("key_refused")).await;
        if round == 4 {
            world.vhost.wait_ready(RETURNED, 1).await;
        }
        worker.stop().await;
    }
    world.vhost.wait_ready(RETURNED, 1).await;
    world.set_faults(Faults::default());
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(1).await;
    truth::check(&returned, outcomes.drain().await, &world.api.lock());
    assert_eq!(world.vhost.ready(DEAD).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn returned_requests_of_a_forbidden_project_take_turns_with_others() {
    let world = World::new().await;
    world.vhost.declare().await;
    world.set_faults(Faults { forbidden_projects: ["p".to_owned()].into(), ..Faults::default() });
    let (held, other) = (one_each("p", 1), one_each("q", 1));
    world.vhost.publish_to("contacts.deletion.dead", "returned", &held).await;
    world.vhost.publish_to("contacts.deletion.dead", "returned", &other).await;
    let worker = Worker::launch(&world, &[]);
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    assert_eq!(outcomes.wait_for(1).await[0].json()["projectId"], "q");
    world.set_faults(Faults::default());
    outcomes.wait_for(2).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_throttling_calls_come_back_slowly_so_that_few_are_refused() {
    let world = World::new().await;
    let rate_limit = Some(RateLimit { per_second: 3.0, burst: 1.0 });
    world.set_faults(Faults { rate_limit, ..Faults::default() });
    let settings = [
        ("BATCH__MAX_EMAILS", "1"),
        ("RATE_LIMIT__REQUESTS_PER_MINUTE", "3000"),
        ("RATE_LIMIT__BURST", "5"),
        ("RETRY__INITIAL_INTERVAL", "500ms"),
        ("RETRY__MAX_INTERVAL", "60s"),
    ];
    let worker = world.worker_with(&settings).await;
    let requests = one_each("p", 40);
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    let count = |status: u16| world.api.lock().ledger.summary.by_status.get(&status).copied().unwrap_or(0);
    let (served, refused) = (count(200), count(429));
    println!("{refused} refusals for {served} calls served");
    assert!(refused * 2 < served * 3, "{refused} refusals for {served} calls served");
    truth::check(&requests, &outcomes.seen, &world.api.lock());
    worker.stop().await;
}
