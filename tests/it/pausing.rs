//! `pause` and `resume`, given to the worker as a process by the command itself.

use std::process::Output;

use crate::support::requests::one_each;
use crate::support::worker::command;
use crate::support::{Request, Worker, World, truth};
use migma_eraser::sandbox::Faults;

const OUTCOMES: &str = "contacts.deletion.outcomes";
const REQUESTS: &str = "contacts.deletion.requests";
const PARKED: &str = "contacts.deletion.parked";
const DEAD: &str = "contacts.deletion.dead";
const TOKEN: (&str, &str) = ("MIGMA_ERASER_ADMIN_TOKEN", "s3cret-of-the-tests");

/// Gives the order, as somebody would on a command line.
async fn order(world: &World, worker: &Worker, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = command(world);
    command.args(arguments).args(["--admin", &format!("http://{}", worker.admin())]);
    command.envs(environment.iter().copied()).stdout(std::process::Stdio::piped());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn obeyed(world: &World, worker: &Worker, arguments: &[&str]) -> String {
    let done = order(world, worker, arguments, &[]).await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn calls(world: &World) -> u64 {
    world.api.lock().ledger.summary.by_status.values().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_is_paused_nothing_leaves_over_restarts_and_then_all_is_done() {
    let world = World::new().await;
    let worker = world.worker().await;
    let told = obeyed(&world, &worker, &["pause", "--reason", "wrong list of ann@example.com"]).await;
    assert!(told.starts_with("everything is paused since ") && !told.contains("ann@"), "{told}");
    worker.wait_readiness(|status, text| status == 503 && text.contains(r#""reason":"paused""#)).await;
    assert!(worker.metrics().await.contains(r#"migma_eraser_holds{reason="paused"} 1"#));
    let requests = one_each("p", 30);
    world.vhost.publish(&requests).await;
    world.vhost.wait_ready(REQUESTS, 30).await;
    let log = worker.stop().await;
    assert_eq!(log.matches("migma-eraser resume").count(), 1, "one line at its start");
    let mut check = command(&world);
    check.arg("check").stdout(std::process::Stdio::piped());
    let checked = tokio::task::spawn_blocking(move || check.output().unwrap()).await.unwrap();
    let checked = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.contains("warn  pauses         everything is paused since "), "{checked}");

    let worker = Worker::launch(&world, &[]);
    let is_paused = |status: u16, text: &str| status == 503 && text.contains("everything") && !text.contains("broker");
    worker.wait_readiness(is_paused).await;
    assert!(worker.log_text().contains("holding"), "it says so at the start");
    world.vhost.wait_ready(REQUESTS, 30).await;
    assert_eq!((calls(&world), world.vhost.ready(OUTCOMES).await), (0, 0));

    assert_eq!(obeyed(&world, &worker, &["resume"]).await, "nothing is paused\n");
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    worker.wait_ready().await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    assert_eq!(world.vhost.ready(DEAD).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_project_waits_aside_and_others_go_on() {
    let world = World::new().await;
    let worker = world.worker().await;
    obeyed(&world, &worker, &["pause", "--project", "p"]).await;
    let (paused, bystanders) = (one_each("p", 20), one_each("q", 20));
    world.vhost.publish(&paused).await;
    world.vhost.wait_ready(PARKED, 20).await;
    world.vhost.publish(&bystanders).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(bystanders.len()).await;
    assert!(outcomes.seen.iter().all(|outcome| outcome.json()["projectId"] == "q"));
    // Another's pause ends no other's.
    let left = obeyed(&world, &worker, &["resume", "--json"]).await;
    assert!(left.contains(r#""project":"p""#), "{left}");
    obeyed(&world, &worker, &["resume", "--project", "p"]).await;
    outcomes.wait_for(bystanders.len() + paused.len()).await;
    let all: Vec<Request> = paused.into_iter().chain(bystanders).collect();
    truth::check(&all, outcomes.drain().await, &world.api.lock());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_batch_tries_no_more_while_it_is_paused_nor_after_a_restart() {
    let world = World::new().await;
    world.set_faults(Faults { errors: [(503, 1.0)].into(), ..Faults::default() });
    let worker = world.worker().await;
    let requests = one_each("p", 5);
    world.vhost.publish(&requests).await;
    worker.wait_readiness(|status, text| status == 503 && text.contains("api_down")).await;
    obeyed(&world, &worker, &["pause"]).await;
    // Those that had left come back; from then on there are no more, and the deliveries go back.
    world.vhost.wait_ready(REQUESTS, 5).await;
    let before = calls(&world);
    world.set_faults(Faults::default());
    let worker = {
        worker.stop().await;
        Worker::launch(&world, &[])
    };
    worker.wait_readiness(|status, text| status == 503 && text.contains("paused") && !text.contains("starting")).await;
    assert_eq!(calls(&world), before, "no recovered batch leaves");
    obeyed(&world, &worker, &["resume"]).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_that_is_paused_is_no_patience_spent() {
    let world = World::new().await;
    world.set_faults(Faults { forbidden_projects: ["p".to_owned()].into(), ..Faults::default() });
    let worker = world.worker_with(&[("RETRY__GIVE_UP_AFTER", "10s")]).await;
    world.vhost.publish(&one_each("p", 3)).await;
    worker.wait_readiness(|status, text| status == 503 && text.contains("forbidden")).await;
    obeyed(&world, &worker, &["pause", "--project", "p"]).await;
    // They come back after 15 seconds, which is longer than the patience, and step aside again.
    worker.wait_metric("migma_eraser_stepped_aside_total", 6).await;
    let before = calls(&world);
    obeyed(&world, &worker, &["resume", "--project", "p"]).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(3).await;
    assert!(outcomes.seen.iter().all(|outcome| outcome.json()["failed"][0]["code"] == "FORBIDDEN"));
    // Were it spent, the first try after the pause would have been the last.
    assert!(calls(&world) - before > 2, "{} calls after the pause", calls(&world) - before);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_a_token_obeys_whoever_has_it() {
    let world = World::new().await;
    let worker = Worker::start_in(&world, &[], &[TOKEN]).await;
    let refused = order(&world, &worker, &["pause"], &[]).await;
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(told.contains("MIGMA_ERASER_ADMIN_TOKEN") && told.contains("401"), "{told}");
    assert!(order(&world, &worker, &["pause"], &[TOKEN]).await.status.success());
    worker.wait_readiness(|status, text| status == 503 && text.contains("paused")).await;
    assert!(order(&world, &worker, &["resume"], &[TOKEN]).await.status.success());
    worker.wait_ready().await;
    let log = worker.stop().await;
    assert!(!log.contains(TOKEN.1), "no token in a log");
}
