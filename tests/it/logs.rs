//! What the worker logs at info: JSON where nobody sits, a line for each batch and each hold, none for a message.

use migma_eraser::sandbox::Faults;

use crate::support::{Request, Worker, World};

const OUTCOMES: &str = "contacts.deletion.outcomes";
const INFO: [(&str, &str); 1] = [("RUST_LOG", "info")];

fn one_each(count: usize) -> Vec<Request> {
    (0..count).map(|n| Request::of(&format!("m-{n}"), "p", vec![format!("user{n}@example.org")])).collect()
}

fn count(log: &str, what: &str) -> usize {
    log.lines().filter(|line| line.contains(what)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_one_line_at_info_and_a_message_none() {
    let world = World::new().await;
    world.vhost.declare().await;
    let mut requests = one_each(599);
    requests.push(Request::raw("broken", "{"));
    requests.push(Request::new("partial", "p", &["ann@example.org", "no address"]));
    world.vhost.publish(&requests).await;
    let settings = [("BATCH__MAX_EMAILS", "200"), ("BATCH__LINGER", "30s")];
    let worker = Worker::start_in(&world, &settings, &INFO).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    let log = worker.stop().await;
    // 600 emails in calls of 200.
    assert_eq!(count(&log, "batch done"), 3, "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    assert!(!log.contains("\"m-") && !log.contains("broken"), "{log}");
    let of_the_run = log.lines().count() - 3;
    assert!(of_the_run < 20, "{of_the_run} lines beside those of the batches, for 601 messages: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_has_a_line_at_its_start_and_one_at_its_end_however_often_it_is_tried() {
    let world = World::new().await;
    world.set_faults(Faults { refuse_all_keys: true, ..Faults::default() });
    let worker = Worker::start_in(&world, &[], &INFO).await;
    world.vhost.publish(&one_each(20)).await;
    // Tried, and tried again.
    let tried = |text: &str| {
        text.contains("key_refused")
            && !["0", "1", "2"].map(|n| format!("tried {n} times")).iter().any(|few| text.contains(few))
    };
    worker.wait_readiness(|_, text| tried(text)).await;
    world.set_faults(Faults::default());
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(20).await;
    worker.wait_ready().await;
    let log = worker.stop().await;
    assert_eq!((count(&log, "\"holding\""), count(&log, "\"going on\"")), (1, 1), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_text_where_it_is_asked_for_and_has_no_colour_in_a_pipe() {
    let world = World::new().await;
    let worker = Worker::start_in(&world, &[("LOG__FORMAT", "text")], &INFO).await;
    let log = worker.stop().await;
    assert!(count(&log, "starting") == 1 && !log.starts_with('{') && !log.contains('\u{1b}'), "{log}");
}
