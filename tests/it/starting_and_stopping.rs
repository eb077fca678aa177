//! Exit codes, what is told at the start, and an ordered end.

use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use migma_eraser::journal::PostgresJournal;
use migma_eraser::sandbox::Faults;

use crate::support::partition::Partition;
use crate::support::postgres::Schema;
use crate::support::requests::mixed;
use crate::support::{Worker, World, quiet_port, truth, worker};

fn run(arguments: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_migma-eraser")).args(arguments).envs(env.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn exit_codes_are_those_of_the_contract_and_all_faults_are_told_at_once() {
    assert_eq!(run(&["no-such-command"], &[]).0, Some(2));
    assert_eq!(run(&["config"], &[]).0, Some(0));
    assert_eq!(run(&["schema", "outcome"], &[]).0, Some(0));
    let wrong = [
        ("MIGMA_ERASER__BATCH__MAX_EMAILS", "1001"),
        ("MIGMA_ERASER__MIGMA__BASE_URL", "http://api.example.org"),
        ("MIGMA_ERASER__AMQP__URI", "amqp://x"),
        ("MIGMA_API_KEY", "k"),
    ];
    let (code, text) = run(&["run"], &wrong);
    assert_eq!(code, Some(78), "{text}");
    for key in ["batch.max_emails", "migma.base_url", "amqp.uri"] {
        assert!(text.to_lowercase().contains(key), "{key}: {text}");
    }
    assert_eq!(run(&["run"], &[("MIGMA_API_KEY", "")]).0, Some(78));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_stands_with_other_arguments_stops_the_start_and_is_named() {
    let world = World::new().await;
    let channel = world.vhost.connect().await.create_channel().await.unwrap();
    let classic = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("contacts.deletion.requests".into(), classic, FieldTable::default()).await.unwrap();
    let mut command = worker::command(&world);
    let output = tokio::task::spawn_blocking(move || command.arg("run").output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("contacts.deletion.requests") && text.contains("inequivalent arg"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_what_is_there_and_what_run_would_declare() {
    let world = World::new().await;
    let check = |world: &World| {
        let mut command = worker::command(world);
        command.arg("check").stdout(std::process::Stdio::piped());
        tokio::task::spawn_blocking(move || {
            let output = command.output().unwrap();
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        })
    };
    let (code, text) = check(&world).await.unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("will declare"), "{text}");
    world.vhost.declare().await;
    let (code, text) = check(&world).await.unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("everything is there"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_nodes_that_do_not_answer_and_serve_nobody_in_need() {
    let world = World::new().await;
    let (_kept, port) = quiet_port();
    let mut command = worker::command(&world);
    let urls = format!("{},amqp://guest:hunter2@127.0.0.1:{port}/{}", world.vhost.url, world.vhost.name());
    command.env("MIGMA_ERASER__AMQP__URL", urls).arg("check").stdout(std::process::Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(&format!("warn  broker         127.0.0.1:{port}: ")), "{text}");
    assert!(text.contains("will declare") && !text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_warns_of_more_workers_than_the_rate_can_use_and_one_to_spare() {
    let world = World::new().await;
    let schema = Schema::fresh().await;
    let check_as = |shared: &str, rate: &str| {
        let mut check = worker::command(&world);
        check
            .env("MIGMA_ERASER__JOURNAL__URL", schema.url())
            .env("MIGMA_ERASER__JOURNAL__SHARED", shared)
            .env("MIGMA_ERASER__RATE_LIMIT__REQUESTS_PER_MINUTE", rate);
        let told = check.arg("check").stdout(std::process::Stdio::piped()).output().unwrap();
        (told.status.code(), String::from_utf8(told.stdout).unwrap())
    };
    let (_, told) = check_as("true", "100");
    assert!(told.contains("ok    workers        the rate can use 1 (100 calls a minute, "), "nobody is known: {told}");
    let (url, timeout) = (schema.url(), Duration::from_secs(30));
    let workers = join_all((0..3).map(|_| PostgresJournal::join(&url, timeout))).await;
    let (code, told) = check_as("true", "100");
    assert!(told.contains("warn  workers        3 workers live, the rate can use 1 (") && code == Some(0), "{told}");
    let (_, told) = check_as("true", "481");
    assert!(told.contains("ok    workers        3 live, one of them to spare: the rate can use 2 ("), "{told}");
    let (_, told) = check_as("false", "100");
    assert!(!told.contains(" workers  "), "it would have the journal alone: {told}");
    for worker in workers {
        let worker = worker.unwrap();
        worker.leave().await.unwrap();
        worker.close().await;
    }
    let (_, told) = check_as("true", "100");
    assert!(told.contains("ok    workers        0 live, "), "who has left counts no more: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_under_load_loses_nothing_and_repeats_nothing() {
    for signal in ["TERM", "INT"] {
        let world = World::new().await;
        world.set_faults(Faults { latency_ms: 100, ..Faults::default() });
        let settings = [("BATCH__MAX_EMAILS", "25")];
        let mut worker = world.worker_with(&settings).await;
        let requests = mixed(800, &["p", "q"], 5000, 4);
        world.vhost.publish(&requests).await;
        let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
        outcomes.wait_for(30).await;
        worker.signal(signal);
        assert_eq!(worker.ended().await.code(), Some(0), "{}", worker.log_text());
        let first = outcomes.drain().await.len();
        assert!(first < 800, "it stopped in the middle");
        let worker = world.worker_with(&settings).await;
        let seen = outcomes.wait_for(800).await.to_vec();
        worker.stop().await;
        assert_eq!(outcomes.drain().await.len(), 800, "no outcome is repeated by a clean stop");
        truth::check(&requests, &seen, &world.api.lock());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_everything_waits_loses_nothing() {
    let world = World::new().await;
    world.set_faults(Faults { refuse_all_keys: true, ..Faults::default() });
    let worker = world.worker().await;
    let requests = mixed(100, &["p", "q"], 150, 21);
    world.vhost.publish(&requests).await;
    worker.wait_readiness(|status, text| status == 503 && text.contains("key_refused")).await;
    worker.stop().await;
    assert_eq!(world.vhost.ready("contacts.deletion.outcomes").await, 0);
    world.set_faults(Faults::default());
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(requests.len()).await;
    assert_eq!(outcomes.drain().await.len(), requests.len(), "each once");
    truth::check(&requests, &outcomes.seen, &world.api.lock());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_broker_is_away_is_in_order() {
    let world = World::new().await;
    let (_kept, port) = quiet_port();
    let nowhere = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    let worker = Worker::launch(&world, &[("AMQP__URL", &nowhere)]);
    worker.wait_readiness(|status, text| status == 503 && text.contains("starting")).await;
    worker.stop().await;

    let world = World::new().await;
    let worker = world.worker().await;
    world.vhost.cut_both_connections().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_no_node_of_the_broker_answers_is_in_order() {
    let world = World::new().await;
    let nodes = [Partition::start(&world.vhost.url).await, Partition::start(&world.vhost.url).await];
    let urls = nodes.each_ref().map(Partition::url).join(",");
    // Far beyond the test: no try to connect ends by itself, nor does the patience of the stop.
    let settings = [
        ("AMQP__URL", urls.as_str()),
        ("AMQP__HEARTBEAT", "1s"),
        ("AMQP__CONNECT_TIMEOUT", "5m"),
        ("SHUTDOWN__GRACE", "5m"),
    ];
    let worker = world.worker_with(&settings).await;
    nodes.iter().for_each(Partition::close);
    worker.wait_readiness(|status, text| status == 503 && text.contains("broker_consuming")).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once_and_the_next_worker_finds_out_what_was_done() {
    let world = World::new().await;
    let settings = [("MIGMA__REQUEST_TIMEOUT", "5m"), ("SHUTDOWN__GRACE", "5m")];
    let mut worker = world.worker_with(&settings).await;
    let requests = mixed(100, &["p"], 150, 22);
    world.vhost.publish(&requests[..50]).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(50).await;
    world.set_faults(Faults { latency_ms: 20_000, ..Faults::default() });
    world.vhost.publish(&requests[50..]).await;
    worker.wait_readiness(|_, _| world.api.lock().calls_under_way() > 0).await;
    worker.signal("TERM");
    worker.wait_readiness(|status, text| status == 503 && text.contains("stopping")).await;
    worker.signal("TERM");
    assert_eq!(worker.ended().await.code(), Some(0));
    assert!(world.api.lock().calls_under_way() > 0, "it did not wait for the call");

    world.set_faults(Faults::default());
    let worker = world.worker().await;
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    worker.stop().await;
}
