//! `submit`: lists in, requests out, outcomes counted; and nothing done twice.

use std::fmt::Write as _;

use crate::support::World;
use crate::support::console::{run, start};

const REQUESTS: &str = "contacts.deletion.requests";

fn file(world: &World, name: &str, text: &str) -> String {
    let path = world.folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A list of so many addresses, with every tenth unknown to the API.
fn csv(count: usize) -> String {
    (0..count).fold("name,email\n".to_owned(), |mut text, n| {
        let name = if n % 10 == 0 { "unknown" } else { "user" };
        writeln!(text, "\"Smith, {n}\",{name}{n}@example.org").unwrap();
        text
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_is_submitted_and_its_outcomes_are_a_table() {
    let world = World::new().await;
    let worker = world.worker().await;
    let list = file(&world, "list.csv", &(csv(2500) + "x,nobody\n"));
    let line = ["submit", &list, "--project", "p", "--metadata", r#"{"ticket":"D-1"}"#, "--wait"];
    let ended = run(&world, &line).await.with(1);
    assert!(ended.out.contains("2,500 emails in 3 requests are with the broker"), "{ended:?}");
    assert!(ended.out.contains("1 entry is no address") && ended.out.contains("line 2502 does not have exactly one @"));
    let rows: Vec<String> =
        ended.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for row in ["deleted 2,250 succeeded 3", "not found 250 partial 0"] {
        assert!(rows.iter().any(|found| found == row), "{}", ended.out);
    }
    assert!(!ended.out.contains("example.org") && !ended.err.contains("example.org"), "{ended:?}");
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let outcome = outcomes.wait_for(3).await[0].json();
    assert_eq!(outcome["metadata"], serde_json::json!({"ticket": "D-1"}), "nothing was taken from the outcome queue");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_is_answered_equally_without_a_call() {
    let world = World::new().await;
    let worker = world.worker().await;
    let list = file(&world, "list.csv", &csv(1500));
    let line = ["submit", &list, "--project", "p", "--wait", "--json"];
    let first = run(&world, &line).await.with(0).json();
    assert_eq!(first["outcomes"]["emails"]["deleted"], 1350);
    assert_eq!(first["outcomes"]["requests"]["succeeded"], 2);
    let calls = world.api.lock().ledger.summary.calls;
    // The same by way of a pipe.
    let line = ["submit", "-", "--format", "csv", "--project", "p", "--wait", "--json"];
    let second = start(&world, &line, &csv(1500)).ended().await.with(0).json();
    assert_eq!(first, second);
    assert_eq!(world.api.lock().ledger.summary.calls, calls);
    // Anew on purpose: deleted already.
    let line = ["submit", &list, "--project", "p", "--label", "again", "--wait", "--json"];
    let anew = run(&world, &line).await.with(0).json();
    assert_eq!(anew["outcomes"]["emails"]["deleted"], 0, "{anew}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_figures_and_lines_and_asks_for_no_broker() {
    let world = World::new().await;
    let list = file(&world, "list.ndjson", "\"ann@example.org\"\n{\"mail\":\"bob@example.org\"}\n\"joe\"\n{}\nx\n");
    let line = ["submit", &list, "--column", "mail", "--project", "p", "--dry-run", "--per-message", "1"];
    let nowhere = ("MIGMA_ERASER__AMQP__URL", "amqp://127.0.0.1:1");
    let mut command = crate::support::worker::command(&world);
    let ended = crate::support::console::start_with(command.env(nowhere.0, nowhere.1), &line, "").ended().await.with(1);
    assert!(ended.out.starts_with("2 emails in 2 requests would be sent\n3 entries are no addresses"), "{ended:?}");
    assert!(ended.out.contains("line 4 has no such column or field\n  line 5 is not JSON"), "{ended:?}");
    assert!(!ended.out.contains("joe") && !ended.out.contains("example"));
    let open = run(&world, &[&line[..], &["--show-addresses", "--json"]].concat()).await.with(1).json();
    assert_eq!(open["invalid"]["lines"][0]["entry"], "\"joe\"");
    assert_eq!((open["sent"].as_bool(), open["emails"].as_u64()), (Some(false), Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_no_queue_takes_is_a_clear_error() {
    let world = World::new().await;
    let list = file(&world, "list.txt", "ann@example.org\n");
    let line = ["submit", &list, "--project", "p"];
    let ended = run(&world, &line).await.with(1);
    assert!(ended.err.contains("the broker has no exchange 'contacts.deletion'"), "{ended:?}");
    world.vhost.declare().await;
    let channel = world.vhost.connect().await.create_channel().await.unwrap();
    channel.queue_delete(REQUESTS.into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    let ended = run(&world, &line).await.with(1);
    assert!(ended.err.contains("no queue takes messages with the key 'request.submit'"), "{ended:?}");
    assert!(!ended.err.contains("example.org"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_wrong_usage_and_names_the_cure() {
    let world = World::new().await;
    let list = file(&world, "list.txt", "ann@example.org\n");
    for (arguments, told) in [
        (&[][..], "name the project"),
        (&["--project", "p", "--metadata", "[1]"], "--metadata: metadata: must be an object"),
        (&["--project", "p", "--column", "mail"], "--format"),
        (&["--project", "p", "--why", ""], "--why"),
        (&["--project", "p", "--per-message", "0"], "--per-message"),
        (&["--project", "p", "--dry-run", "--wait"], "--wait"),
    ] {
        let ended = run(&world, &[&["submit", &list], arguments].concat()).await.with(2);
        assert!(ended.err.contains(told), "{ended:?}");
    }
    let ended = run(&world, &["submit", "/nowhere/list", "--project", "p"]).await.with(1);
    assert!(ended.err.contains("cannot read /nowhere/list"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_interrupts_it_is_told_how_to_go_on_and_going_on_is_harmless() {
    let world = World::new().await;
    world.vhost.declare().await;
    let list = file(&world, "list.csv", &csv(3000));
    let line = ["submit", &list, "--project", "p", "--wait", "--json"];
    // No worker: it waits.
    let waiting = start(&world, &line, "");
    world.vhost.wait_ready(REQUESTS, 3).await;
    waiting.signal("INT");
    let ended = waiting.ended().await.with(1);
    assert!(ended.err.contains("interrupted: ") && ended.err.contains("Run the same command again"), "{ended:?}");
    let again = start(&world, &line, "");
    world.vhost.wait_ready(REQUESTS, 6).await;
    let worker = world.worker().await;
    let report = again.ended().await.with(0).json();
    assert_eq!(report["outcomes"]["emails"]["deleted"], 2700);
    assert_eq!(world.api.lock().ledger.summary.calls, 3, "nothing is deleted twice");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_lines_take_no_more_memory_than_a_thousand() {
    let world = World::new().await;
    world.vhost.declare().await;
    let mut peaks = Vec::new();
    for count in [1000, 1_000_000] {
        let text = (0..count).fold(String::with_capacity(count * 24), |mut text, n| {
            writeln!(text, "user{n}@example.org").unwrap();
            text
        });
        let list = file(&world, "list.txt", &text);
        let ended = run(&world, &["submit", &list, "--project", "p", "--json"]).await.with(0);
        assert_eq!(ended.json()["emails"], count);
        peaks.push(ended.peak_mib);
    }
    println!("peaks of memory for a thousand and a million lines, in MiB: {peaks:?}");
    // The window of what is not confirmed holds 16 MiB, and the AMQP library has copies of it.
    assert!(peaks[1] < peaks[0] + 64, "{peaks:?}");
}
