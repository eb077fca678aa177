//! The journal's disk is full: nothing is sent that is not journaled, nothing is lost, and all goes on by itself.

use std::process::Command;

use crate::support::requests::mixed;
use crate::support::{Worker, World, truth};

/// Lets the worker's files grow no further than so many bytes, as a full disk would.
fn limit_files(worker: &Worker, bytes: &str) {
    let limited =
        Command::new("prlimit").args(["--pid", &worker.pid().to_string(), &format!("--fsize={bytes}:")]).status();
    assert!(limited.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_everything_until_there_is_room() {
    let world = World::new().await;
    let settings = [("AMQP__CONSUMER_TIMEOUT", "6s"), ("MIGMA__REQUEST_TIMEOUT", "2s")];
    let worker = Worker::start_surviving_full_disks(&world, &settings).await;
    let requests = mixed(300, &["p", "q"], 400, 31);
    let (first, rest) = requests.split_at(100);
    world.vhost.publish(first).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(first.len()).await;
    let calls = world.api.lock().ledger.summary.calls;

    limit_files(&worker, "4096");
    world.vhost.publish(rest).await;
    worker.wait_readiness(|status, text| status == 503 && text.contains("journal")).await;
    // Consuming stops, and what was taken goes back: it waits where others could take it.
    let start = std::time::Instant::now();
    while world.vhost.ready("contacts.deletion.requests").await < 200 {
        assert!(start.elapsed() < crate::support::PATIENCE, "{}", worker.log_text());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(world.api.lock().ledger.summary.calls, calls, "no call leaves that is not journaled");

    limit_files(&worker, "unlimited");
    outcomes.wait_for(requests.len()).await;
    worker.wait_ready().await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    let log = worker.stop().await;
    let told = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert!(told("the journal failed; nothing is sent") <= 10, "not a line a try: {log}");
    assert!(told("the journal works again") >= 1);
}
