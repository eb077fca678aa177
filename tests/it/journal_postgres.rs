//! The journal in `PostgreSQL`, where it is more than a file: connections that break, a server that dies, a second worker.
//! What every journal must do is in `conformance_journal`.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use migma_eraser::domain::pauses::Pause;
use migma_eraser::journal::{PostgresJournal, Unusable};
use migma_eraser::ports::{Journal as _, JournalError};
use migma_eraser::sandbox::Faults;

use crate::journal::sample::{at, called, deleted, digest, draft, whole};
use crate::support::authority::Authority;
use crate::support::postgres::{Schema, Server};
use crate::support::requests::mixed;
use crate::support::worker::command;
use crate::support::{Worker, World, truth, until};

const OUTCOMES: &str = "contacts.deletion.outcomes";
/// Others stand by.
const ALONE: (&str, &str) = ("JOURNAL__SHARED", "false");

fn why(error: &JournalError) -> &Unusable {
    error.source.downcast_ref::<Unusable>().unwrap_or_else(|| panic!("{error}: {}", error.source))
}

/// Of everything, in force since then.
fn pause(since: i64) -> Pause {
    Pause { project: None, since: at(since), until: None, reason: None }
}

/// Ends the connections of whoever owns the journal in this schema, but for ours.
const CUT_ALL: &str = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
     WHERE application_name = 'migma-eraser' AND datname = current_database() AND pid <> pg_backend_pid()";

#[tokio::test]
async fn a_second_worker_cannot_have_the_journal_before_the_first_lets_go() {
    let schema = Schema::fresh().await;
    let first = PostgresJournal::open(&schema.url()).await.unwrap();
    let error = PostgresJournal::open(&schema.url()).await.unwrap_err();
    assert!(matches!(why(&error), Unusable::InUse));
    assert!(PostgresJournal::inspect(&schema.url(), false).await.unwrap().in_use);
    let _ = first.record(&whole(&[("m", 1)]), called(1), at(1)).await.unwrap();
    first.close().await;
    assert!(first.lookup(&[digest("m")]).await.is_err());
    let second = PostgresJournal::open(&schema.url()).await.unwrap();
    assert_eq!(second.open_manifests().await.unwrap().len(), 1);
    assert!(!second.was_new());
}

#[tokio::test]
async fn a_journal_that_is_dropped_is_let_go() {
    let schema = Schema::fresh().await;
    drop(PostgresJournal::open(&schema.url()).await.unwrap());
    until("it is free", async || PostgresJournal::open(&schema.url()).await.is_ok()).await;
}

#[tokio::test]
async fn who_was_cut_off_and_replaced_writes_no_more() {
    let schema = Schema::on(Server::private().await).await;
    let first = PostgresJournal::open(&schema.url()).await.unwrap();
    let manifest = first.record(&whole(&[("m", 2)]), called(1), at(1)).await.unwrap().manifest().unwrap();
    // Its hold is gone before it knows, and another is quicker.
    schema.number(CUT_ALL).await;
    let second = PostgresJournal::open(&schema.url()).await.unwrap();
    for error in [
        first.conclude(manifest.id, &deleted(2)).await.unwrap_err(),
        first.restate(&manifest, called(2)).await.map(drop).unwrap_err(),
        first.record(&whole(&[("n", 1)]), called(1), at(1)).await.map(drop).unwrap_err(),
        first.spend(9, at(1)).await.map(drop).unwrap_err(),
        first.forget(at(i64::MAX)).await.map(drop).unwrap_err(),
        first.pause(&pause(1)).await.unwrap_err(),
        first.resume(None, at(1)).await.unwrap_err(),
    ] {
        assert!(matches!(why(&error), Unusable::Taken));
    }
    first.taken().await;
    let [found] = &second.open_manifests().await.unwrap()[..] else { panic!("one manifest is open") };
    assert_eq!(found.fate, called(1).recovered());
    assert_eq!(second.spent(at(1)).await.unwrap(), 0);
}

#[tokio::test]
async fn tables_of_an_earlier_version_are_brought_up_to_date_and_a_look_tells_what_is_paused() {
    let schema = Schema::fresh().await;
    PostgresJournal::open(&schema.url()).await.unwrap().close().await;
    schema
        .execute(
            "DROP TABLE migma_eraser_pauses, migma_eraser_workers, migma_eraser_rate;
             ALTER TABLE migma_eraser_manifests DROP COLUMN owner, DROP COLUMN inherited;
             UPDATE migma_eraser_journal SET version = 1",
        )
        .await;
    let look = async || PostgresJournal::inspect(&schema.url(), false).await.unwrap();
    let before = look().await;
    assert!(before.has_tables && before.pauses.is_empty() && before.live_workers.is_none());
    let journal = PostgresJournal::open(&schema.url()).await.unwrap();
    journal.pause(&pause(5)).await.unwrap();
    assert_eq!(look().await.pauses, [pause(5)]);
    journal.resume(None, at(6)).await.unwrap();
    assert_eq!(look().await.pauses, []);
}

#[tokio::test]
async fn who_was_cut_off_and_not_replaced_goes_on() {
    let schema = Schema::on(Server::private().await).await;
    let journal = PostgresJournal::open(&schema.url()).await.unwrap();
    for n in 0..3 {
        assert!(schema.number(CUT_ALL).await > 0);
        let name = format!("m{n}");
        let _ = journal.record(&whole(&[(&name, 1)]), called(1), at(1)).await.unwrap();
    }
    // And holds the journal again.
    let held = async || PostgresJournal::inspect(&schema.url(), false).await.unwrap().in_use;
    until("it is held", held).await;
    assert_eq!(journal.open_manifests().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_batch_whose_commit_was_not_heard_of_is_found_by_who_asks_again() {
    let schema = Schema::fresh().await;
    let journal = PostgresJournal::open(&schema.url()).await.unwrap();
    let batch = whole(&[("m1", 2), ("m2", 1)]);
    // Asked many times at once, as by one that has not heard yet: they wait for each other, and find one batch.
    let recorded = join_all((0..8).map(|_| journal.record(&batch, called(1), at(1)))).await;
    let ids: Vec<_> = recorded.into_iter().map(|recorded| recorded.unwrap().manifest().unwrap().id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(journal.open_manifests().await.unwrap().len(), 1);
    assert_eq!(journal.lookup(&[digest("m1")]).await.unwrap()[&digest("m1")].parts.len(), 1);
}

#[tokio::test]
async fn batches_that_share_requests_in_any_order_do_not_wait_in_a_circle() {
    let schema = Schema::fresh().await;
    let journal = PostgresJournal::open(&schema.url()).await.unwrap();
    let names: Vec<String> = (0..60).map(|n| format!("m{n}")).collect();
    let record = async |n: usize| {
        let mut parts: Vec<_> = names.iter().map(|name| (name.as_str(), 8, n as u32..n as u32 + 1)).collect();
        parts.rotate_left(n * 7);
        journal.record(&draft(&parts), called(1), at(1)).await.unwrap().manifest().unwrap()
    };
    join_all((0..8).map(record)).await;
    let known = journal.lookup(&names.iter().map(|name| digest(name)).collect::<Vec<_>>()).await.unwrap();
    assert!(known.len() == 60 && known.values().all(|known| known.parts.len() == 8));
    assert!(known.values().all(|known| known.parts.is_sorted_by_key(|part| part.manifest)));
}

#[tokio::test]
async fn a_thousand_requests_take_a_handful_of_statements() {
    let schema = Schema::fresh().await;
    let journal = PostgresJournal::open(&schema.url()).await.unwrap();
    let names: Vec<String> = (0..1000).map(|n| format!("m{n}")).collect();
    let batch = whole(&names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
    let digests: Vec<_> = names.iter().map(|name| digest(name)).collect();
    // Each statement that changes something fires once for each table, whatever it changes.
    schema
        .execute(
            "CREATE TABLE fired (n bigint);
             CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO fired VALUES (1); RETURN NULL; END $$;
             CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON migma_eraser_requests EXECUTE FUNCTION count_it();
             CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON migma_eraser_members EXECUTE FUNCTION count_it();
             CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON migma_eraser_manifests EXECUTE FUNCTION count_it();
             CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON migma_eraser_bodies EXECUTE FUNCTION count_it();",
        )
        .await;
    let manifest = journal.record(&batch, called(1), at(1)).await.unwrap().manifest().unwrap();
    assert_eq!(journal.lookup(&digests).await.unwrap().len(), 1000);
    journal.conclude(manifest.id, &deleted(2)).await.unwrap();
    assert_eq!(schema.number("SELECT COUNT(*) FROM fired").await, 5);
    assert_eq!(journal.forget(at(3)).await.unwrap().requests, 1000);
    assert!(schema.number("SELECT COUNT(*) FROM fired").await <= 10);
}

#[tokio::test]
async fn a_body_is_gone_from_its_table_once_it_is_answered() {
    let schema = Schema::on(Server::private().await).await;
    let journal = PostgresJournal::open(&schema.url()).await.unwrap();
    let names: Vec<String> = (0..400).map(|n| format!("m{n}")).collect();
    let batch = whole(&names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
    let manifest = journal.record(&batch, called(1), at(1)).await.unwrap().manifest().unwrap();
    let takes = "SELECT pg_relation_size('migma_eraser_bodies') + pg_relation_size(reltoastrelid)
         FROM pg_class WHERE oid = 'migma_eraser_bodies'::regclass";
    assert!(schema.number(takes).await > 0);
    journal.conclude(manifest.id, &deleted(2)).await.unwrap();
    // It gives way to a transaction that could still see it.
    until("nothing of it is in the files", async || {
        journal.tidy().await.unwrap();
        schema.number(takes).await == 0
    })
    .await;
}

#[tokio::test]
async fn a_database_that_does_not_serve_is_named_with_its_cure() {
    let schema = Schema::fresh().await;
    PostgresJournal::open(&schema.url()).await.unwrap().close().await;
    schema.execute("UPDATE migma_eraser_journal SET version = 99").await;
    let error = PostgresJournal::open(&schema.url()).await.unwrap_err();
    assert!(matches!(why(&error), Unusable::Newer { found: 99, .. }));

    let foreign = Schema::fresh().await;
    foreign.execute("CREATE TABLE migma_eraser_requests (theirs text)").await;
    let error = PostgresJournal::open(&foreign.url()).await.unwrap_err();
    assert!(matches!(why(&error), Unusable::Foreign));

    let error = PostgresJournal::open(&format!("{}_not_there", schema.url())).await.unwrap_err();
    assert!(matches!(why(&error), Unusable::NoSchema));

    let url = schema.url();
    let (server, rest) = url.rsplit_once('/').unwrap();
    let options = rest.split_once('?').unwrap().1;
    let error = PostgresJournal::open(&format!("{server}/no_such_database?{options}")).await.unwrap_err();
    assert!(matches!(why(&error), Unusable::Refused { code, .. } if code == "3D000"));
}

#[tokio::test]
async fn an_error_quotes_no_row() {
    let schema = Schema::fresh().await;
    let journal = PostgresJournal::open(&schema.url()).await.unwrap();
    schema.execute("ALTER TABLE migma_eraser_bodies ADD CHECK (length(body) < 10)").await;
    schema.execute("ALTER TABLE migma_eraser_requests ADD CHECK (emails < 0)").await;
    let error = journal.record(&whole(&[("ann", 3)]), called(1), at(1)).await.unwrap_err();
    let told = format!("{error} {error:?} {}", error.source);
    assert!(told.contains("check constraint") && !told.contains('@') && !told.contains("6578616d706c65"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_dies_and_comes_back_is_waited_for_and_nothing_is_lost() {
    let world = World::new().await;
    let server = Server::private().await;
    let schema = Schema::on(Arc::clone(&server)).await;
    // A password that nobody asks for, to look for in the log.
    let url = schema.url().replace("eraser@", "eraser:hunter2@");
    world.set_faults(Faults { latency_ms: 20, drop_after: 0.2, errors: [(503, 0.1)].into(), ..Faults::default() });
    let settings = [("JOURNAL__URL", url.as_str()), ("BATCH__MAX_EMAILS", "20"), ("MIGMA__REQUEST_TIMEOUT", "2s")];
    let worker = Worker::start(&world, &settings).await;
    let requests = mixed(1500, &["p", "q"], 1000, 77);
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    for (blow, so_far) in [("kill", 100), ("stop", 400), ("kill", 700)] {
        outcomes.wait_for(so_far).await;
        server.order(blow).await;
        worker.wait_readiness(|status, text| status == 503 && text.contains("journal")).await;
        server.order("start").await;
    }
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    let size = worker.metrics().await;
    assert!(size.contains("migma_eraser_journal_size_bytes ") && !size.contains("journal_disk_free"), "{size}");
    let log = worker.stop().await;
    assert!(!log.contains("hunter2") && !log.contains("@example"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_stands_by_and_takes_over_when_the_first_is_killed() {
    let world = World::new().await;
    let schema = Schema::fresh().await;
    world.set_faults(Faults { latency_ms: 50, drop_after: 0.3, ..Faults::default() });
    let url = schema.url();
    let settings = [("JOURNAL__URL", url.as_str()), ALONE, ("BATCH__MAX_EMAILS", "50")];
    let requests = mixed(1200, &["p", "q"], 900, 78);
    world.vhost.declare().await;
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    let mut at_work = Worker::start(&world, &settings).await;
    for so_far in [150, 400, 650] {
        let standby = Worker::launch(&world, &settings);
        standby.wait_readiness(|status, text| status == 503 && text.contains("starting")).await;
        // On a machine that is short of breath the other could die before this one has tried.
        until("it stands by", async || standby.log_text().contains("waiting for the journal")).await;
        outcomes.wait_for(so_far).await;
        at_work.kill9();
        standby.wait_ready().await;
        at_work = standby;
    }
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    let log = at_work.stop().await;
    assert!(log.contains("waiting for the journal") && log.contains("the journal is ours"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stands_still_is_replaced_and_ends_when_it_goes_on() {
    let world = World::new().await;
    // From version 14 on a server ends silent sessions.
    let schema = Schema::on(Server::private().await).await;
    world.set_faults(Faults { latency_ms: 200, drop_after: 0.3, ..Faults::default() });
    let url = schema.url();
    let settings = [("JOURNAL__URL", url.as_str()), ALONE, ("BATCH__MAX_EMAILS", "30"), ("AMQP__HEARTBEAT", "5s")];
    let requests = mixed(600, &["p", "q"], 500, 79);
    world.vhost.declare().await;
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    let mut first = Worker::start(&world, &settings).await;
    let second = Worker::launch(&world, &settings);
    outcomes.wait_for(100).await;
    first.signal("STOP");
    second.wait_ready().await;
    outcomes.wait_for(requests.len()).await;
    first.signal("CONT");
    assert_eq!(first.ended().await.code(), Some(1), "{}", first.log_text());
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_journal_to_another_ends() {
    let world = World::new().await;
    let schema = Schema::on(Server::private().await).await;
    let url = schema.url();
    let mut worker = Worker::start(&world, &[("JOURNAL__URL", url.as_str()), ALONE]).await;
    schema.number(CUT_ALL).await;
    let _other = PostgresJournal::open(&url).await.unwrap();
    let status = worker.ended().await;
    assert_eq!(status.code(), Some(1), "{}", worker.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_trusted_by_its_authority_and_name_and_its_password_is_told_to_nobody() {
    let (ours, other) = (Authority::named("ours"), Authority::named("another"));
    let folder = tempfile::tempdir().unwrap();
    let files = ours.write_server(folder.path(), "localhost");
    let (trusted, wrong) = (format!("{files}/ca.pem"), other.write(folder.path(), "wrong.pem"));
    let schema = Schema::on(Server::private_by_tls(files).await).await;
    let verified = |url: &str, authority: &str| format!("{url}&sslmode=verify-full&sslrootcert={authority}");
    for url in [
        verified(&schema.url(), &wrong),
        verified(&schema.url().replace("localhost", "127.0.0.1"), &trusted),
        format!("{}&sslmode=disable", schema.url()),
    ] {
        assert!(PostgresJournal::open(&url).await.is_err(), "{url}");
    }
    let url = verified(&schema.url().replace("hunter2", "hunter3"), &trusted);
    let error = PostgresJournal::open(&url).await.unwrap_err();
    assert!(matches!(why(&error), Unusable::Refused { code, .. } if code == "28P01"));
    assert!(!format!("{error:?}").contains("hunter"));

    let world = World::new().await;
    let url = verified(&schema.url(), &trusted);
    let worker = Worker::start(&world, &[("JOURNAL__URL", url.as_str())]).await;
    let all_encrypted = "SELECT (COUNT(*) > 0 AND bool_and(ssl))::int::bigint
         FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'migma-eraser'";
    assert_eq!(schema.number(all_encrypted).await, 1);
    let requests = mixed(20, &["p"], 30, 80);
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    assert!(!worker.stop().await.contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_which_database_would_be_used_without_its_password() {
    let world = World::new().await;
    let schema = Schema::fresh().await;
    let url = schema.url().replacen('@', ":hunter2@", 1);
    let check_as = |shared: &str| {
        let mut check = command(&world);
        check.env("MIGMA_ERASER__JOURNAL__URL", &url).env("MIGMA_ERASER__JOURNAL__SHARED", shared);
        let told = check.arg("check").stdout(Stdio::piped()).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        assert!(!told.contains("hunter2"), "{told}");
        told
    };
    let check = || check_as("true");
    assert!(check().contains("`run` will make its tables in postgres"));
    let journal = PostgresJournal::open(&schema.url()).await.unwrap();
    assert!(check().contains("is in use by a worker that has it alone"), "{}", check());
    assert!(check_as("false").contains("is in use by a worker"));
    journal.close().await;
    let journal = PostgresJournal::join(&schema.url(), Duration::from_secs(30)).await.unwrap();
    assert!(check().contains("ok    journal        postgres"), "{}", check());
    assert!(check_as("false").contains("is in use by a worker"));
    journal.close().await;
    let told = check();
    assert!(told.contains("ok    journal        postgres") && told.contains(":***@"), "{told}");
}
