//! Several workers on one broker and one journal: killed, stopped past their lease, cut off; every outcome one and true.

use std::collections::BTreeSet;

use migma_eraser::sandbox::Faults;
use migma_eraser::sandbox::faults::Next;

use crate::support::broker::Collector;
use crate::support::partition::Partition;
use crate::support::postgres::Schema;
use crate::support::requests::{Numbers, Request, mixed};
use crate::support::{Worker, World, truth};

const OUTCOMES: &str = "contacts.deletion.outcomes";

/// The settings of one of several workers on this journal.
fn settings(url: &str) -> Vec<(&str, &str)> {
    vec![
        ("JOURNAL__URL", url),
        ("BATCH__MAX_EMAILS", "40"),
        ("MIGMA__REQUEST_TIMEOUT", "2s"),
        ("AMQP__HEARTBEAT", "5s"),
    ]
}

/// Requests of a few emails, and some that take several calls; each twice, so that workers meet twins.
fn twins(count: usize, seed: u64) -> (Vec<Request>, Vec<Request>) {
    let mut requests = mixed(count, &["p", "q"], count, seed);
    for n in 0..count / 60 {
        let emails = (0..150).map(|at| format!("long{}@example.org", (n * 97 + at * 13) % 4000)).collect();
        requests.insert(n * 50, Request::of(&format!("long-{seed}-{n}"), "p", emails));
    }
    let mut published = requests.clone();
    published.extend(requests.iter().cloned());
    // Twins meet soon: some at one worker, some at two.
    let mut numbers = Numbers(seed);
    for at in 0..published.len() {
        let other = numbers.below(published.len());
        published.swap(at, other);
    }
    (requests, published)
}

/// Requests of one email each.
fn ones(count: usize) -> Vec<Request> {
    (0..count).map(|n| Request::of(&format!("one-{n}"), "p", vec![format!("one{n}@example.org")])).collect()
}

/// Waits until each request has an outcome. Some have several: a worker that ends between outcome and ack leaves the same
/// to be told again.
pub(crate) async fn all_answered(outcomes: &mut Collector, requests: &[Request]) {
    let all: BTreeSet<&str> = requests.iter().map(|request| request.id.as_str()).collect();
    let mut answered = BTreeSet::new();
    let mut looked_at = 0;
    while answered.len() < all.len() {
        let seen = outcomes.wait_for(looked_at + 1).await;
        for outcome in &seen[looked_at..] {
            let json = outcome.json();
            answered.extend(all.get(json["messageId"].as_str().unwrap_or_default()).copied());
        }
        looked_at = seen.len();
    }
}

/// No call met another one of the same key that was still running: no manifest was at two workers at once.
fn no_two_at_once(world: &World) {
    let met = world.api.lock().ledger.summary.by_status.get(&409).copied();
    assert_eq!(met, None, "calls met others of their key");
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_at_several_workers_are_answered_alike_and_each_request_is_done_once() {
    let world = World::new().await;
    let schema = Schema::fresh().await;
    world.set_faults(Faults { latency_ms: 30, drop_after: 0.1, ..Faults::default() });
    let url = schema.url();
    let (requests, published) = twins(900, 91);
    world.vhost.declare().await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Worker::start(&world, &settings(&url)).await);
    }
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    world.vhost.publish(&published).await;
    outcomes.wait_for(published.len()).await;
    let seen = outcomes.drain().await;
    truth::check(&requests, seen, &world.api.lock());
    no_two_at_once(&world);
    assert_eq!(schema.number("SELECT COUNT(DISTINCT owner) FROM migma_eraser_manifests").await, 3, "all are at work");
    assert_eq!(schema.number("SELECT COUNT(*) FROM migma_eraser_bodies").await, 0);
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(schema.number("SELECT COUNT(*) FROM migma_eraser_workers").await, 0, "each left in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_killed_at_random_lose_nothing_and_tell_the_truth() {
    let kills = std::env::var("WORKER_KILLS").map_or(8, |kills| kills.parse().unwrap());
    let world = World::new().await;
    let schema = Schema::fresh().await;
    world.set_faults(Faults { latency_ms: 60, drop_after: 0.2, errors: [(503, 0.05)].into(), ..Faults::default() });
    let url = schema.url();
    let (requests, published) = twins(250 * kills, 92);
    world.vhost.declare().await;
    let mut workers: Vec<Worker> = (0..3).map(|_| Worker::launch(&world, &settings(&url))).collect();
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    let mut numbers = Numbers(5);
    let mut sent = 0;
    for group in published.chunks(published.len().div_ceil(kills)) {
        world.vhost.publish(group).await;
        // All that was sent before, and some of what is new.
        outcomes.wait_for(sent + numbers.below(group.len() / 2)).await;
        sent += group.len();
        let victim = numbers.below(3);
        let next = Worker::launch(&world, &settings(&url));
        std::mem::replace(&mut workers[victim], next).kill9();
    }
    all_answered(&mut outcomes, &requests).await;
    for worker in &workers {
        worker.wait_ready().await;
    }
    let seen = outcomes.drain().await;
    let (told, calls) = (seen.len(), world.api.lock().ledger.entries.len());
    truth::check(&requests, seen, &world.api.lock());
    no_two_at_once(&world);
    println!(
        "{kills} SIGKILLs of three workers, {} requests twice each: {told} outcomes and {calls} calls checked",
        requests.len()
    );
    for worker in workers {
        let log = worker.stop().await;
        assert!(!log.contains("@example"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stands_still_past_its_lease_is_succeeded_and_ends_when_it_wakes_up() {
    let world = World::new().await;
    let schema = Schema::fresh().await;
    world.set_faults(Faults { latency_ms: 200, drop_after: 0.3, ..Faults::default() });
    let url = schema.url();
    let (requests, published) = twins(500, 93);
    world.vhost.declare().await;
    let mut first = Worker::start(&world, &settings(&url)).await;
    let second = Worker::start(&world, &settings(&url)).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    world.vhost.publish(&published).await;
    outcomes.wait_for(60).await;
    first.signal("STOP");
    all_answered(&mut outcomes, &requests).await;
    let open = "SELECT COUNT(*) FROM migma_eraser_bodies";
    assert_eq!(schema.number(open).await, 0, "all that it had was succeeded to");
    first.signal("CONT");
    assert_eq!(first.ended().await.code(), Some(1), "{}", first.log_text());
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    let log = second.stop().await;
    assert!(log.contains("taking up what was under way"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_from_the_journal_is_succeeded_and_ends_when_it_is_back() {
    let world = World::new().await;
    let schema = Schema::fresh().await;
    world.set_faults(Faults { latency_ms: 100, drop_after: 0.3, ..Faults::default() });
    let (url, partition) = (schema.url(), Partition::start(&schema.url()).await);
    let (requests, published) = twins(500, 95);
    world.vhost.declare().await;
    let mut first = Worker::start(&world, &settings(partition.url())).await;
    let second = Worker::start(&world, &settings(&url)).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    world.vhost.publish(&published).await;
    outcomes.wait_for(60).await;
    partition.close();
    // What it has of the broker's goes back once it notices that the journal is away.
    all_answered(&mut outcomes, &requests).await;
    partition.open();
    assert_eq!(first.ended().await.code(), Some(1), "{}", first.log_text());
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    no_two_at_once(&world);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_in_order_leaves_what_is_open_to_the_others_at_once() {
    let world = World::new().await;
    let schema = Schema::fresh().await;
    let url = schema.url();
    // Long after the test: only who leaves in order is succeeded soon.
    let mut settings = settings(&url);
    settings.push(("MIGMA__REQUEST_TIMEOUT", "5m"));
    world.set_faults(Faults { latency_ms: 50, errors: [(503, 1.0)].into(), ..Faults::default() });
    let first = Worker::start(&world, &settings).await;
    let requests = mixed(40, &["p"], 40, 94);
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    first.wait_readiness(|status, text| status == 503 && text.contains("api_down")).await;
    let second = Worker::start(&world, &settings).await;
    first.stop().await;
    world.set_faults(Faults::default());
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_is_succeeded_at_once_by_one_on_its_machine() {
    let world = World::new().await;
    let schema = Schema::fresh().await;
    let url = schema.url();
    // Long after the test: only who is known to be dead is succeeded soon.
    let mut settings = settings(&url);
    settings.push(("MIGMA__REQUEST_TIMEOUT", "5m"));
    world.set_faults(Faults { latency_ms: 50, drop_after: 0.5, ..Faults::default() });
    let first = Worker::start(&world, &settings).await;
    let second = Worker::start(&world, &settings).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    let requests = mixed(400, &["p", "q"], 400, 96);
    world.vhost.publish(&requests).await;
    outcomes.wait_for(50).await;
    first.kill9();
    let third = Worker::launch(&world, &settings);
    all_answered(&mut outcomes, &requests).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    for worker in [second, third] {
        worker.stop().await;
    }
    assert_eq!(schema.number("SELECT COUNT(*) FROM migma_eraser_workers").await, 0, "nobody is waited for");
}

/// How often a worker had all others wait.
async fn postponements(worker: &Worker) -> u64 {
    const COUNT: &str = "migma_eraser_journal_operation_duration_seconds_count{operation=\"postpone\"} ";
    let metrics = worker.metrics().await;
    metrics.lines().find_map(|line| line.strip_prefix(COUNT)).unwrap().parse().unwrap()
}

/// What holds one worker may be its own: no other waits for it, and its deliveries come to them.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_key_is_refused_slows_no_other() {
    let world = World::new().await;
    let schema = Schema::fresh().await;
    let url = schema.url();
    let mut settings = settings(&url);
    settings.push(("BATCH__MAX_EMAILS", "1"));
    let requests = ones(200);
    world.vhost.declare().await;
    let ill = Worker::start_in(&world, &settings, &[("MIGMA_API_KEY", "a-key-of-yesterday")]).await;
    let well = Worker::start(&world, &settings).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    world.vhost.publish(&requests).await;
    // It has a batch of its own, and keeps trying.
    ill.wait_readiness(|status, text| status == 503 && text.contains("key_refused")).await;
    outcomes.wait_for(requests.len() - 20).await;
    assert_eq!(postponements(&ill).await, 0);
    ill.stop().await;
    all_answered(&mut outcomes, &requests).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    well.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_minute_has_more_calls_than_configured_however_many_workers_make_them() {
    let world = World::new().await;
    let schema = Schema::fresh().await;
    let url = schema.url();
    let mut settings = settings(&url);
    settings.push(("BATCH__MAX_EMAILS", "1"));
    settings.push(("RATE_LIMIT__REQUESTS_PER_MINUTE", "240"));
    settings.push(("RATE_LIMIT__BURST", "1"));
    let requests = ones(290);
    world.vhost.declare().await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Worker::start(&world, &settings).await);
    }
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    world.vhost.publish(&requests).await;
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    let calls: Vec<u64> = world.api.lock().ledger.entries.iter().map(|entry| entry.at).collect();
    let most = (0..calls.len()).map(|n| calls[n..].iter().take_while(|at| **at < calls[n] + 60_000).count()).max();
    let took = calls.last().unwrap() - calls[0];
    println!(
        "at most {most:?} calls in a minute of 240; {} % of the rate used",
        (calls.len() as u64 - 1) * 25_000 / took
    );
    assert!(most <= Some(240), "{most:?}");
    assert_eq!(schema.number("SELECT COUNT(DISTINCT owner) FROM migma_eraser_manifests").await, 3, "all are at work");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_that_one_worker_hears_is_waited_out_by_all() {
    let world = World::new().await;
    let schema = Schema::fresh().await;
    let url = schema.url();
    let mut settings = settings(&url);
    settings.push(("BATCH__MAX_EMAILS", "1"));
    settings.push(("RATE_LIMIT__REQUESTS_PER_MINUTE", "1200"));
    settings.push(("RATE_LIMIT__BURST", "1"));
    let requests = ones(200);
    world.vhost.declare().await;
    let workers = (Worker::start(&world, &settings).await, Worker::start(&world, &settings).await);
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    world.vhost.publish(&requests).await;
    outcomes.wait_for(50).await;
    world.set_faults(Faults { next: [Next::RetryAfter(20)].into(), ..Faults::default() });
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    let calls: Vec<u64> = world.api.lock().ledger.entries.iter().map(|entry| entry.at).collect();
    let pause = calls.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(postponements(&workers.0).await + postponements(&workers.1).await > 0);
    assert!(pause >= Some(10_000), "the others went on: the longest pause was {pause:?} ms of 20000");
    assert_eq!(schema.number("SELECT COUNT(DISTINCT owner) FROM migma_eraser_manifests").await, 2, "both are at work");
    drop(workers);
}
