//! The numbers under `/metrics` are those of the traffic, on a real broker.

use std::time::{Duration, Instant};

use migma_eraser::sandbox::Faults;
use migma_eraser::sandbox::faults::Next;

use crate::support::{PATIENCE, Request, Worker, World};

const OUTCOMES: &str = "contacts.deletion.outcomes";

/// The value of a series, without the prefix; `None` where it is not shown.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| {
        let name = line.rsplit_once(' ').map_or("", |(name, _)| name);
        name.strip_prefix("migma_eraser_") == Some(series)
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// Scrapes until every series has its value.
async fn shows(worker: &Worker, wanted: &[(&str, f64)]) -> String {
    let start = Instant::now();
    loop {
        let text = worker.metrics().await;
        let wrong: Vec<_> = wanted
            .iter()
            .map(|(series, wanted)| (*series, *wanted, value(&text, series)))
            .filter(|(_, wanted, found)| !found.is_some_and(|found| (found - wanted).abs() < 1e-6))
            .collect();
        if wrong.is_empty() {
            return text;
        }
        assert!(start.elapsed() < PATIENCE, "series, wanted, shown: {wrong:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn one_each(project: &str, count: usize) -> Vec<Request> {
    let email = |n| if n % 5 == 4 { format!("unknown{n}@example.org") } else { format!("user{n}@example.org") };
    (0..count).map(|n| Request::of(&format!("{project}-{n}"), project, vec![email(n)])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn known_traffic_gives_known_numbers() {
    let world = World::new().await;
    world.vhost.declare().await;
    world.set_faults(Faults { next: [Next::Status(503)].into(), ..Faults::default() });
    // 30 emails for the API in calls of 10, one of which is made twice.
    let mut requests = one_each("p", 29);
    requests.push(Request::new("partial", "p", &["ann@example.org", "no address"]));
    requests.push(Request::raw("broken", "{"));
    world.vhost.publish(&requests).await;
    let settings = [
        ("BATCH__MAX_EMAILS", "10"),
        ("BATCH__LINGER", "30s"),
        ("MIGMA__MAX_IN_FLIGHT", "1"),
        ("RATE_LIMIT__REQUESTS_PER_DAY", "1000"),
    ];
    let worker = world.worker_with(&settings).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    // A repeat is answered without a call.
    world.vhost.publish(&requests[..1]).await;
    outcomes.wait_for(requests.len() + 1).await;
    let text = shows(
        &worker,
        &[
            ("deliveries_total{queue=\"requests\"}", 32.0),
            ("deliveries_total{queue=\"returned\"}", 0.0),
            ("outcomes_total{status=\"succeeded\"}", 30.0),
            ("outcomes_total{status=\"partial\"}", 1.0),
            ("outcomes_total{status=\"failed\"}", 0.0),
            ("outcomes_total{status=\"rejected\"}", 1.0),
            ("dead_letters_total{code=\"INVALID_EMAIL\"}", 1.0),
            ("dead_letters_total{code=\"MALFORMED_JSON\"}", 1.0),
            ("dead_letters_total{code=\"TOO_LARGE\"}", 0.0),
            ("emails_total{result=\"deleted\"}", 26.0),
            ("emails_total{result=\"not_found\"}", 5.0),
            ("emails_total{result=\"invalid\"}", 1.0),
            ("emails_total{result=\"failed\"}", 0.0),
            ("calls_total{status=\"200\"}", 3.0),
            ("calls_total{status=\"503\"}", 1.0),
            ("calls_total{status=\"none\"}", 0.0),
            ("call_duration_seconds_count", 4.0),
            ("batches_total{result=\"done\"}", 3.0),
            ("batch_emails_sum", 30.0),
            ("batch_emails_count", 3.0),
            ("batch_fill_ratio_sum", 3.0),
            ("batch_attempts_sum", 4.0),
            ("batch_attempts_count", 3.0),
            ("queue_wait_seconds_count", 30.0),
            ("request_duration_seconds_count", 32.0),
            ("journal_operation_duration_seconds_count{operation=\"record\"}", 3.0),
            ("journal_operation_duration_seconds_count{operation=\"conclude\"}", 3.0),
            ("journal_operation_duration_seconds_count{operation=\"spend\"}", 4.0),
            ("journal_failures_total{operation=\"record\"}", 0.0),
            ("quota_left_calls", 996.0),
            ("calls_in_flight", 0.0),
            ("permits_available", 1.0),
            ("lanes", 0.0),
            ("waiting_emails", 0.0),
            ("open_requests", 0.0),
            ("unsettled_deliveries", 0.0),
            ("unsettled_bytes", 0.0),
            ("oldest_unsettled_request_age_seconds", 0.0),
            ("buffer_limit_bytes", 67_108_864.0),
            ("connected{connection=\"consuming\"}", 1.0),
            ("connected{connection=\"publishing\"}", 1.0),
            ("reconnects_total{connection=\"consuming\"}", 0.0),
            ("reconnects_total{connection=\"publishing\"}", 0.0),
            ("hold_starts_total{reason=\"api_down\"}", 0.0),
            ("not_ready{reason=\"starting\"}", 0.0),
            ("unpublished_messages_total{cause=\"unroutable\"}", 0.0),
            ("spans_total{result=\"exported\"}", 0.0),
        ],
    )
    .await;
    let at_least = |series: &str, least: f64| {
        let found = value(&text, series).unwrap();
        assert!(found >= least, "{series}: {found}");
    };
    at_least("journal_size_bytes", 4096.0);
    at_least("journal_disk_free_bytes", 1.0);
    at_least("prefetch_deliveries", 1.0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_shown_with_its_reason_and_its_age_until_it_is_done() {
    let world = World::new().await;
    world.vhost.declare().await;
    world.set_faults(Faults { refuse_all_keys: true, ..Faults::default() });
    let mut requests = one_each("p", 15);
    requests.extend(one_each("q", 15));
    world.vhost.publish(&requests).await;
    let settings = [("BATCH__MAX_EMAILS", "10"), ("BATCH__LINGER", "1s"), ("MIGMA__MAX_IN_FLIGHT", "1")];
    let worker = Worker::launch(&world, &settings);
    let text = shows(
        &worker,
        &[
            ("holds{reason=\"key_refused\"}", 1.0),
            ("holds{reason=\"api_down\"}", 0.0),
            ("hold_starts_total{reason=\"key_refused\"}", 1.0),
            ("not_ready{reason=\"key_refused\"}", 1.0),
            ("permits_available", 0.0),
            ("lanes", 2.0),
            ("open_requests", 30.0),
            ("unsettled_deliveries", 30.0),
            ("outcomes_total{status=\"succeeded\"}", 0.0),
        ],
    )
    .await;
    // All but the first batch, which has up to ten: fewer where they came slowly.
    let waiting = value(&text, "waiting_emails").unwrap();
    assert!((20.0..30.0).contains(&waiting), "{waiting}");
    assert!(value(&text, "unsettled_bytes").unwrap() >= 30.0 * 1024.0);
    assert!(value(&text, "oldest_unsettled_request_age_seconds").unwrap() > 0.0);
    assert!(value(&text, "quota_left_calls").is_none(), "there is no quota");
    world.set_faults(Faults::default());
    shows(
        &worker,
        &[
            ("holds{reason=\"key_refused\"}", 0.0),
            ("hold_starts_total{reason=\"key_refused\"}", 1.0),
            ("not_ready{reason=\"key_refused\"}", 0.0),
            ("outcomes_total{status=\"succeeded\"}", 30.0),
            ("lanes", 0.0),
            ("unsettled_deliveries", 0.0),
            ("oldest_unsettled_request_age_seconds", 0.0),
        ],
    )
    .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_made_again_are_counted_each() {
    let world = World::new().await;
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    // The collector's is cut with the others.
    world.vhost.cut_both_connections().await;
    drop(outcomes);
    world.vhost.publish(&one_each("p", 1)).await;
    outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(1).await;
    let start = Instant::now();
    loop {
        let text = worker.metrics().await;
        let again = |connection| value(&text, &format!("reconnects_total{{connection=\"{connection}\"}}")).unwrap();
        if again("consuming") >= 1.0 && again("publishing") >= 1.0 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    worker.stop().await;
}
