//! A journal that cannot be written, or not be read: nothing is sent that is not journaled, nothing is lost, and the
//! reason is told with its cure.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::requests::mixed;
use crate::support::{Worker, World, truth, worker};

/// Where the worker of this world has its journal.
fn journal(world: &World) -> PathBuf {
    world.folder.path().join("journal/eraser.db")
}

/// Runs the worker to its end: its exit code and its log.
async fn run_to_end(mut command: Command) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(move || command.arg("run").output().unwrap()).await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

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
    let failed = |line: &str| {
        let count = line.strip_prefix("migma_eraser_journal_failures_total{operation=\"record\"} ");
        count.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count > 0)
    };
    assert!(worker.metrics().await.lines().any(failed), "the failures are counted");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_on_one_file_ends_with_the_reason_and_the_first_goes_on() {
    let world = World::new().await;
    let first = world.worker().await;
    let (code, log) = run_to_end(worker::command(&world)).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another worker is at work on") && log.contains("journal.url"), "{log}");
    let requests = mixed(50, &["p"], 60, 41);
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    first.stop().await;
}

/// A worker that may write nowhere in the world's folder: root may write everywhere, and is another user here.
fn without_rights(world: &World) -> Command {
    let folder = world.folder.path();
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(folder.join("journal")).unwrap() {
        fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o444)).unwrap();
    }
    fs::set_permissions(folder.join("journal"), Permissions::from_mode(0o555)).unwrap();
    // Where that user may read it.
    let program = folder.join("worker");
    let plain = worker::command(world);
    fs::copy(plain.get_program(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = if is_root { Command::new("setpriv") } else { Command::new("env") };
    if is_root {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.arg(program).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::piped());
    command.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_may_not_be_written_stops_the_start_and_loses_nothing() {
    let world = World::new().await;
    let requests = mixed(40, &["p"], 50, 42);
    let (first, rest) = requests.split_at(20);
    let worker = world.worker().await;
    world.vhost.publish(first).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(first.len()).await;
    worker.stop().await;
    let calls = world.api.lock().ledger.summary.calls;

    world.vhost.publish(rest).await;
    let (code, log) = run_to_end(without_rights(&world)).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("cannot be written; let the worker's user own the folder and the file"), "{log}");
    assert_eq!(world.api.lock().ledger.summary.calls, calls, "no call leaves that is not journaled");

    fs::set_permissions(journal(&world).parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(journal(&world).parent().unwrap()).unwrap() {
        fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o600)).unwrap();
    }
    let worker = world.worker().await;
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_sends_nothing_and_once_it_is_restored_all_is_answered() {
    let world = World::new().await;
    let requests = mixed(400, &["p", "q"], 500, 43);
    let (first, rest) = requests.split_at(200);
    let worker = world.worker_with(&[("BATCH__MAX_EMAILS", "20")]).await;
    world.vhost.publish(first).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(first.len()).await;
    worker.stop().await;
    let (calls, sound) = (world.api.lock().ledger.summary.calls, fs::read(journal(&world)).unwrap());
    let again = [&first[..50], rest].concat();
    world.vhost.publish(&again).await;

    // From its first byte on it is no database: the start ends with the cure, and the file is left as it was.
    fs::write(journal(&world), vec![7; sound.len()]).unwrap();
    let (code, log) = run_to_end(worker::command(&world)).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("is damaged or no SQLite file; put it aside"), "{log}");
    assert_eq!(fs::read(journal(&world)).unwrap(), vec![7; sound.len()]);

    // Beyond its first page all is garbage: whether it ends or holds, nothing is sent and nothing is answered.
    fs::write(journal(&world), &sound).unwrap();
    let file = OpenOptions::new().write(true).open(journal(&world)).unwrap();
    file.write_all_at(&vec![7; sound.len() - 4096], 4096).unwrap();
    let (code, log) = run_to_end(worker::command(&world)).await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("is damaged or no SQLite file; put it aside"), "{log}");
    assert_eq!(world.api.lock().ledger.summary.calls, calls, "no call leaves without the journal");

    fs::write(journal(&world), &sound).unwrap();
    let worker = world.worker().await;
    outcomes.wait_for(first.len() + again.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    worker.stop().await;
}
