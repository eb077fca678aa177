//! TLS with a private certificate authority, to the broker and to the API; and nothing is trusted that is not of it.

use std::process::Stdio;

use migma_eraser::sandbox::Data;

use crate::support::authority::{Authority, Relay};
use crate::support::broker::{Node, Vhost};
use crate::support::raw::{self, Properties};
use crate::support::requests::mixed;
use crate::support::{Worker, World, quiet_port, truth, worker};

const OUTCOMES: &str = "contacts.deletion.outcomes";
const DEAD: &str = "contacts.deletion.dead";

/// `check` with these settings: its exit code, and what it says.
async fn check(world: &World, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    check_in(world, settings, &[]).await
}

/// The same in an environment that has these variables too.
async fn check_in(world: &World, settings: &[(&str, &str)], more: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = worker::command(world);
    command.envs(more.iter().copied());
    for (key, value) in settings {
        command.env(format!("MIGMA_ERASER__{key}"), value);
    }
    let output = tokio::task::spawn_blocking(move || command.arg("check").stdout(Stdio::piped()).output().unwrap());
    let output = output.await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The line of `check` that begins like this, with the cure under it.
fn told<'a>(report: &'a str, start: &str) -> &'a str {
    let at = report.find(start).unwrap_or_else(|| panic!("no {start:?} in\n{report}"));
    let end = report[at..].match_indices('\n').nth(1).map_or(report.len(), |(end, _)| at + end);
    &report[at..end]
}

/// The first line of the log that says both.
async fn logged(worker: &Worker, what: &str, why: &str) -> String {
    let find = || worker.log_text().lines().find(|line| line.contains(what) && line.contains(why)).map(str::to_owned);
    worker.wait_readiness(|_, _| find().is_some()).await;
    find().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_a_private_authority_is_served_and_one_of_another_is_never_told_the_password() {
    let (ours, other) = (Authority::named("ours"), Authority::named("another"));
    let folder = tempfile::tempdir().unwrap();
    let files = ours.write_server(folder.path(), "localhost");
    let node = Node::private(&[("NODE_TLS_DIR", &files)]).await;
    let world = World::on(Vhost::on(node).await, Data { open_world: true, ..Data::default() }).await;
    let url = world.vhost.amqps_url().replace("guest:guest@", "guest:%67uest@");
    let by_address = url.replace("localhost", "127.0.0.1");
    let trusted = ours.write(world.folder.path(), "trusted.pem");
    let wrong = other.write(world.folder.path(), "wrong.pem");

    // A broker of an authority that is not ours, or that has another name.
    for (url, ca_file, cure) in [(&url, &wrong, "amqp.ca_file"), (&by_address, &trusted, "amqp.url")] {
        let settings = [("AMQP__URL", url.as_str()), ("AMQP__CA_FILE", ca_file.as_str())];
        let (code, report) = check(&world, &settings).await;
        assert_eq!(code, Some(1), "{report}");
        let told = told(&report, "FAIL  broker");
        assert!(told.contains("certificate") && told.contains(cure) && !told.contains("67uest"), "{told}");

        let worker = Worker::launch(&world, &settings);
        let line = logged(&worker, "trying again", "certificate").await;
        assert!(line.contains("certificate") && line.contains(cure), "{line}");
        worker.wait_readiness(|status, text| status == 503 && text.contains("starting")).await;
        let log = worker.stop().await;
        assert!(!log.contains("67uest") && !log.contains("guest"), "no password in\n{log}");
    }

    // One that was started before its broker could be trusted goes on by itself, once it can.
    let ca_file = other.write(world.folder.path(), "ca.pem");
    let settings = [("AMQP__URL", url.as_str()), ("AMQP__CA_FILE", ca_file.as_str())];
    let worker = Worker::launch(&world, &settings);
    logged(&worker, "trying again", "certificate").await;
    ours.write(world.folder.path(), "ca.pem");
    worker.wait_ready().await;
    let requests = mixed(200, &["p", "q"], 300, 31);
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    // What only a connection without a library can put aside is put aside by TLS too.
    raw::publish(&world.vhost.url, "contacts.deletion.requests", &Properties::message_id(b"\xff\xfe"), b"{}").await;
    world.vhost.wait_ready(DEAD, 1).await;
    worker.wait_ready().await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    worker.stop().await;
    let (code, report) = check(&world, &settings).await;
    assert_eq!(code, Some(0), "{report}");
    // A slim image has no authorities of its own; ours is enough.
    let settings = [settings[0], settings[1], ("MIGMA__CA_FILE", ca_file.as_str())];
    let (code, report) =
        check_in(&world, &settings, &[("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nowhere")]).await;
    assert_eq!(code, Some(0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_why_the_broker_cannot_be_reached_is_told_once() {
    let world = World::new().await;
    let (_kept, port) = quiet_port();
    let url = format!("amqps://guest:guest@localhost:{port}/%2f");
    let worker = Worker::launch(&world, &[("AMQP__URL", &url)]);
    logged(&worker, "trying again", "refused").await;
    let _relay = Relay::start_on(port, world.api.address, &Authority::named("a stranger").sign("localhost")).await;
    logged(&worker, "trying again", "amqp.ca_file").await;
    let log = worker.stop().await;
    assert_eq!(log.matches("trying again").count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_not_trusted_is_told_nothing_and_waited_for() {
    let (ours, other) = (Authority::named("ours"), Authority::named("another"));
    let world = World::new().await;
    let ca_file = ours.write(world.folder.path(), "ca.pem");
    let relay = Relay::start(world.api.address, &other.sign("localhost")).await;
    let url = relay.url();
    let settings = [("MIGMA__BASE_URL", url.as_str()), ("MIGMA__CA_FILE", ca_file.as_str())];
    let requests = mixed(200, &["p", "q"], 300, 32);

    let (code, report) = check(&world, &settings).await;
    assert_eq!(code, Some(1), "{report}");
    let line = told(&report, "FAIL  api  ");
    assert!(line.contains("certificate") && line.contains("migma.ca_file"), "{line}");

    let worker = world.worker_with(&settings).await;
    world.vhost.publish(&requests).await;
    for (leaf, cause, cure) in [
        (other.sign("localhost"), "UnknownIssuer", "migma.ca_file"),
        (ours.sign("elsewhere.example.org"), "elsewhere.example.org", "migma.base_url"),
    ] {
        relay.present(&leaf);
        let line = logged(&worker, "has no answer", cause).await;
        assert!(line.contains(cure), "{line}");
        worker.wait_readiness(|status, text| status == 503 && text.contains("api_down")).await;
    }
    assert_eq!(world.api.lock().ledger.summary.calls, 0, "nothing was sent");
    assert_eq!((world.vhost.ready(OUTCOMES).await, world.vhost.ready(DEAD).await), (0, 0));

    relay.present(&ours.sign("localhost"));
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    assert!(outcomes.seen.iter().all(|outcome| outcome.json()["uncertain"] == serde_json::json!([])));
    worker.wait_ready().await;
    worker.stop().await;
    let (code, report) = check(&world, &settings).await;
    assert_eq!(code, Some(0), "{report}");
    let (code, report) =
        check_in(&world, &settings, &[("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nowhere")]).await;
    assert_eq!(code, Some(0), "{report}");
}
