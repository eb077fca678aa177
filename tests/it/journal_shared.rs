//! One journal in `PostgreSQL` that several workers share: claims, leases, and who succeeds whom.
//! What every journal must do is in `conformance_journal`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::join_all;
use migma_eraser::domain::ids::RequestDigest;
use migma_eraser::domain::lease::{LEASE, may_send};
use migma_eraser::domain::manifest::Draft;
use migma_eraser::domain::pace::Rate;
use migma_eraser::journal::{PostgresJournal, Unusable};
use migma_eraser::ports::{Journal as _, JournalError, Recorded};

use crate::journal::sample::{at, called, deleted, digest, draft, whole};
use crate::support::postgres::{Schema, Server};
use crate::support::until;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Every lease and the calls after it are long past. A worker that lives renews its own within seconds.
const RUN_OUT: &str = "UPDATE migma_eraser_workers SET until = clock_timestamp() - interval '1 hour'";

async fn join(schema: &Schema) -> PostgresJournal {
    PostgresJournal::join(&schema.url(), TIMEOUT).await.unwrap()
}

async fn record(journal: &PostgresJournal, batch: &Draft) -> Recorded {
    journal.record(batch, called(1), at(1)).await.unwrap()
}

/// What was lost, in order.
fn lost(recorded: Recorded) -> Vec<RequestDigest> {
    match recorded {
        Recorded::Manifest(manifest) => panic!("{:?} was recorded", manifest.id),
        Recorded::Lost(mut lost) => {
            lost.sort_unstable();
            lost
        }
    }
}

fn is_taken(error: &JournalError) -> bool {
    matches!(error.source.downcast_ref(), Some(Unusable::Taken))
}

#[tokio::test]
async fn a_batch_with_a_request_that_another_worker_has_leaves_nothing_behind() {
    let schema = Schema::fresh().await;
    let (a, b) = (join(&schema).await, join(&schema).await);
    let first = record(&a, &whole(&[("m1", 2), ("m2", 1)])).await.manifest().unwrap();
    assert_eq!(lost(record(&b, &whole(&[("m2", 1), ("m3", 1)])).await), [digest("m2")]);
    assert!(b.lookup(&[digest("m3")]).await.unwrap().is_empty());
    assert!(b.open_manifests().await.unwrap().is_empty(), "what is open is the other's");
    // Without it, it goes; and each worker sees both.
    let second = record(&b, &whole(&[("m3", 1)])).await.manifest().unwrap();
    let known = b.lookup(&[digest("m2"), digest("m3")]).await.unwrap();
    assert_eq!(known[&digest("m2")].parts[0].manifest, first.id);
    assert_eq!(known[&digest("m3")].parts[0].manifest, second.id);
    assert_eq!(schema.number("SELECT COUNT(*) FROM migma_eraser_bodies").await, 2);
    assert_eq!(a.open_manifests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_same_batch_is_one_workers_alone() {
    let schema = Schema::fresh().await;
    let (a, b) = (join(&schema).await, join(&schema).await);
    let batch = whole(&[("m1", 2), ("m2", 1)]);
    let recorded = record(&a, &batch).await.manifest().unwrap();
    assert_eq!(lost(record(&b, &batch).await).len(), 2);
    // Who has it may ask again.
    assert_eq!(record(&a, &batch).await.manifest().unwrap().id, recorded.id);
}

#[tokio::test]
async fn of_a_long_request_each_email_is_in_one_batch_whichever_worker_has_it() {
    let schema = Schema::fresh().await;
    let (a, b) = (join(&schema).await, join(&schema).await);
    let first = record(&a, &draft(&[("long", 9, 0..3)])).await.manifest().unwrap();
    let second = record(&b, &draft(&[("long", 9, 3..6), ("m", 1, 0..1)])).await.manifest().unwrap();
    assert_eq!(lost(record(&a, &draft(&[("n", 1, 0..1), ("long", 9, 5..7)])).await), [digest("long")]);
    assert_eq!(lost(record(&b, &draft(&[("long", 9, 0..1)])).await), [digest("long")]);
    let third = record(&a, &draft(&[("long", 9, 6..9)])).await.manifest().unwrap();
    let known = b.lookup(&[digest("long")]).await.unwrap().remove(&digest("long")).unwrap();
    let parts: Vec<_> = known.parts.iter().map(|part| part.manifest).collect();
    assert_eq!(parts, [first.id, second.id, third.id]);
}

#[tokio::test]
async fn another_content_of_the_same_name_is_lost_even_where_no_email_is_claimed_twice() {
    let schema = Schema::fresh().await;
    let (a, b) = (join(&schema).await, join(&schema).await);
    record(&a, &draft(&[("m", 9, 0..3)])).await.manifest().unwrap();
    let mut other = draft(&[("m", 9, 3..6)]);
    other.requests[0].content = migma_eraser::domain::ids::ContentDigest([0; 32]);
    assert_eq!(lost(record(&b, &other).await), [digest("m")]);
    let mut elsewhere = draft(&[("m", 9, 3..6)]);
    elsewhere.requests[0].project = migma_eraser::domain::ids::ProjectId::parse("other").unwrap();
    assert_eq!(lost(record(&b, &elsewhere).await), [digest("m")]);
}

#[tokio::test]
async fn many_workers_at_once_on_the_same_requests_claim_each_of_them_once() {
    let schema = Schema::fresh().await;
    let workers = join_all((0..6).map(|_| join(&schema))).await;
    let names: Vec<String> = (0..40).map(|n| format!("m{n}")).collect();
    // Each worker wants them all, in batches of its own cut; what it loses it leaves out.
    let work = async |worker: &PostgresJournal, turn: usize| {
        let mut mine: Vec<&str> = names.iter().map(String::as_str).collect();
        mine.rotate_left(turn * 7);
        let mut recorded = 0;
        for batch in mine.chunks(3 + turn) {
            let mut batch = batch.to_vec();
            while !batch.is_empty() {
                let parts: Vec<_> = batch.iter().map(|name| (*name, 1)).collect();
                match record(worker, &whole(&parts)).await {
                    Recorded::Manifest(_) => {
                        recorded += batch.len();
                        break;
                    }
                    Recorded::Lost(lost) => {
                        assert!(!lost.is_empty());
                        batch.retain(|name| !lost.contains(&digest(name)));
                    }
                }
            }
        }
        recorded
    };
    let recorded = join_all(workers.iter().enumerate().map(|(turn, worker)| work(worker, turn))).await;
    assert_eq!(recorded.iter().sum::<usize>(), 40, "{recorded:?}");
    let known = workers[0].lookup(&names.iter().map(|name| digest(name)).collect::<Vec<_>>()).await.unwrap();
    assert!(known.len() == 40 && known.values().all(|known| known.parts.len() == 1));
}

#[tokio::test]
async fn a_look_counts_the_workers_whose_lease_lasts_and_neither_changes_nor_locks_anything() {
    let schema = Schema::fresh().await;
    let look = async || PostgresJournal::inspect(&schema.url(), true).await.unwrap().live_workers;
    assert_eq!(look().await, None);
    let tables = "SELECT COUNT(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace";
    assert_eq!(schema.number(tables).await, 0, "it makes none");
    let worker = join(&schema).await;
    worker.leave().await.unwrap();
    worker.close().await;
    // Two that live, one whose lease has run out, one that had the journal alone and is gone.
    schema
        .execute(
            "INSERT INTO migma_eraser_workers (until, afterglow) VALUES (now() + interval '1 hour', 0),
                 (now() + interval '1 hour', 0), (now() - interval '1 second', 0), ('infinity', 0)",
        )
        .await;
    // Where it wanted to write, or to hold a row, it would wait for this.
    let mut other = schema.connect().await;
    let held = "BEGIN; LOCK TABLE migma_eraser_workers IN EXCLUSIVE MODE";
    sqlx::raw_sql(held).execute(&mut other).await.unwrap();
    assert_eq!(look().await, Some(2));
    drop(other);
    assert_eq!(schema.number("SELECT COUNT(*) FROM migma_eraser_workers").await, 4);
}

#[tokio::test]
async fn who_is_gone_is_succeeded_as_after_a_crash_and_writes_no_more() {
    let schema = Schema::fresh().await;
    let (a, b) = (join(&schema).await, join(&schema).await);
    let manifest = record(&a, &whole(&[("m", 2)])).await.manifest().unwrap();
    assert!(b.succeed().await.unwrap().is_empty(), "it lives");
    // The one asks before the other renews.
    let mut inherited = Vec::new();
    until("it is succeeded", async || {
        schema.execute(&format!("{RUN_OUT} WHERE id = (SELECT MIN(id) FROM migma_eraser_workers)")).await;
        inherited = b.succeed().await.unwrap();
        !inherited.is_empty()
    })
    .await;
    let [found] = &inherited[..] else { panic!("one manifest was left") };
    assert_eq!((found.id, found.fate), (manifest.id, called(1).recovered()));
    assert_eq!((&found.body, &found.members), (&manifest.body, &manifest.members));
    for error in [
        a.conclude(manifest.id, &deleted(2)).await.unwrap_err(),
        a.restate(&manifest, called(2)).await.map(drop).unwrap_err(),
        a.record(&whole(&[("n", 1)]), called(1), at(1)).await.map(drop).unwrap_err(),
        a.split(&manifest, &deleted(2), called(2), &[]).await.map(drop).unwrap_err(),
        a.succeed().await.map(drop).unwrap_err(),
        a.spend(9, at(1)).await.map(drop).unwrap_err(),
        a.forget(at(i64::MAX)).await.map(drop).unwrap_err(),
    ] {
        assert!(is_taken(&error), "{error}: {}", error.source);
    }
    a.taken().await;
    // Told again for as long as it is open; and the same batch planned anew is not mistaken for it.
    assert_eq!(b.succeed().await.unwrap().len(), 1);
    assert_eq!(lost(record(&b, &whole(&[("m", 2)])).await), [digest("m")]);
    b.conclude(manifest.id, &deleted(3)).await.unwrap();
    assert!(b.succeed().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_being_written_when_a_worker_was_succeeded_is_seen_by_its_successor() {
    let schema = Schema::fresh().await;
    let (a, b) = (join(&schema).await, join(&schema).await);
    for n in 0..6 {
        let name = format!("m{n}");
        let batch = whole(&[(&name, 1)]);
        let writes = a.record(&batch, called(1), at(1));
        let gone = async {
            schema.execute(&format!("{RUN_OUT} WHERE id = (SELECT MIN(id) FROM migma_eraser_workers)")).await;
            b.succeed().await.unwrap()
        };
        let (written, inherited) = tokio::join!(writes, gone);
        match written {
            Ok(recorded) => {
                let id = recorded.manifest().unwrap().id;
                let theirs = b.succeed().await.unwrap();
                // Who was succeeded is told of nothing.
                let ours = a.open_manifests().await.unwrap_or_default();
                // One of them has it, never both and never nobody.
                let held = theirs.iter().chain(&ours).filter(|manifest| manifest.id == id).count();
                assert_eq!(held, 1);
            }
            Err(error) => {
                assert!(is_taken(&error));
                assert_eq!(inherited.len(), n);
                return;
            }
        }
    }
}

#[tokio::test]
async fn who_leaves_in_order_is_succeeded_at_once_and_who_dies_once_its_lease_is_past() {
    let schema = Schema::fresh().await;
    let (a, b, c) = (join(&schema).await, join(&schema).await, join(&schema).await);
    record(&a, &whole(&[("m1", 1)])).await.manifest().unwrap();
    record(&b, &whole(&[("m2", 1)])).await.manifest().unwrap();
    a.leave().await.unwrap();
    a.close().await;
    // No orderly end: its calls may still run.
    b.close().await;
    let inherited = c.succeed().await.unwrap();
    assert_eq!(inherited.len(), 1);
    assert_eq!(inherited[0].members[0].request, digest("m1"));
    // A newcomer waits for it like everybody.
    let d = join(&schema).await;
    assert!(d.open_manifests().await.unwrap().is_empty());
    schema.execute(&format!("{RUN_OUT} WHERE id = (SELECT MIN(id) FROM migma_eraser_workers)")).await;
    let inherited = d.succeed().await.unwrap();
    assert_eq!(inherited.iter().map(|manifest| manifest.members[0].request).collect::<Vec<_>>(), [digest("m2")]);
}

#[tokio::test]
async fn who_joins_takes_nothing_up_before_it_is_at_work() {
    let schema = Schema::fresh().await;
    let a = join(&schema).await;
    record(&a, &whole(&[("m", 1)])).await.manifest().unwrap();
    a.leave().await.unwrap();
    a.close().await;
    let b = join(&schema).await;
    let orphans = "SELECT COUNT(*) FROM migma_eraser_manifests
         WHERE owner NOT IN (SELECT id FROM migma_eraser_workers)";
    assert_eq!(schema.number(orphans).await, 1);
    assert_eq!(b.open_manifests().await.unwrap().len(), 1);
    assert_eq!(schema.number(orphans).await, 0);
}

#[tokio::test]
async fn a_lease_that_a_clock_ahead_gave_is_put_right() {
    let schema = Schema::fresh().await;
    let (a, b) = (join(&schema).await, join(&schema).await);
    record(&a, &whole(&[("m", 1)])).await.manifest().unwrap();
    a.close().await;
    schema.execute("UPDATE migma_eraser_workers SET until = clock_timestamp() + interval '1 day'").await;
    assert!(b.succeed().await.unwrap().is_empty());
    let longest = "SELECT ceil(extract(epoch FROM max(until) - clock_timestamp()))::bigint FROM migma_eraser_workers";
    assert!(schema.number(longest).await <= i64::try_from(LEASE.as_secs()).unwrap());
}

#[tokio::test]
async fn a_journal_that_one_worker_has_alone_is_not_shared_and_the_other_way_round() {
    let schema = Schema::fresh().await;
    let in_use = |error: JournalError| matches!(error.source.downcast_ref(), Some(Unusable::InUse));
    let alone = PostgresJournal::open(&schema.url()).await.unwrap();
    assert!(alone.lease_left().is_none());
    assert!(in_use(PostgresJournal::join(&schema.url(), TIMEOUT).await.unwrap_err()));
    record(&alone, &whole(&[("m", 1)])).await.manifest().unwrap();
    // Its lock is gone, and it had no lease to wait for.
    alone.close().await;
    let shared = join(&schema).await;
    assert_eq!(shared.open_manifests().await.unwrap().len(), 1);
    assert!(in_use(PostgresJournal::open(&schema.url()).await.unwrap_err()));
    shared.close().await;
    let alone = PostgresJournal::open(&schema.url()).await.unwrap();
    assert_eq!(alone.open_manifests().await.unwrap().len(), 1);
    assert_eq!(schema.number("SELECT COUNT(*) FROM migma_eraser_workers").await, 1, "who had it is fenced off");
}

#[tokio::test]
async fn a_lease_runs_out_while_the_database_is_away_and_is_renewed_when_it_is_back() {
    let server = Server::private().await;
    let schema = Schema::on(std::sync::Arc::clone(&server)).await;
    let (a, b) = (join(&schema).await, join(&schema).await);
    let manifest = record(&a, &whole(&[("m", 1)])).await.manifest().unwrap();
    assert!(may_send(a.lease_left()));
    server.order("stop").await;
    until("no call may leave", async || !may_send(a.lease_left()) && !may_send(b.lease_left())).await;
    server.order("start").await;
    until("calls may leave", async || may_send(a.lease_left()) && may_send(b.lease_left())).await;
    // Nor does anybody succeed it by its lease now, for it may be about to renew that: it goes on with what is its own.
    schema.execute(&format!("{RUN_OUT} WHERE id = (SELECT MIN(id) FROM migma_eraser_workers)")).await;
    assert!(b.succeed().await.unwrap().is_empty());
    a.conclude(manifest.id, &deleted(2)).await.unwrap();
    assert!(b.succeed().await.unwrap().is_empty());
}

#[tokio::test]
async fn outcomes_read_by_another_worker_are_those_of_the_one_that_had_them() {
    let schema = Schema::fresh().await;
    let (a, b) = (join(&schema).await, join(&schema).await);
    let mut ends = BTreeMap::new();
    for n in 0..5 {
        let name = format!("m{n}");
        let manifest = record(&a, &whole(&[(&name, 2)])).await.manifest().unwrap();
        let end = deleted(n);
        a.conclude(manifest.id, &end).await.unwrap();
        ends.insert(digest(&name), end);
    }
    let known = b.lookup(&ends.keys().copied().collect::<Vec<_>>()).await.unwrap();
    for (request, end) in ends {
        assert_eq!(known[&request].parts[0].conclusion, Some(end));
    }
}

#[tokio::test]
async fn all_workers_together_are_granted_no_more_turns_than_the_rate() {
    let schema = Schema::fresh().await;
    let workers = join_all((0..4).map(|_| join(&schema))).await;
    let number = |n| NonZeroU32::new(n).unwrap();
    let rate = Rate::new(number(6000), number(1));
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let start = schema.number(now).await;
    let ask = async |worker: &PostgresJournal| {
        let mut granted = 0;
        for _ in 0..40 {
            granted += worker.turns(rate, 3).await.unwrap().count;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        granted
    };
    let granted: u32 = join_all(workers.iter().map(ask)).await.into_iter().sum();
    let next = schema.number("SELECT next FROM migma_eraser_rate").await;
    let apart = i64::try_from(rate.apart().as_micros()).unwrap();
    assert!(granted > 40, "{granted}");
    assert!(i64::from(granted) * apart <= next - start + apart, "each has a time of its own");
    assert!(next <= schema.number(now).await + 500_000 + apart, "none is granted long before its time");
}

#[tokio::test]
async fn a_wait_that_one_worker_was_told_of_is_all_workers() {
    let schema = Schema::fresh().await;
    let (a, b) = (join(&schema).await, join(&schema).await);
    let number = |n| NonZeroU32::new(n).unwrap();
    let rate = Rate::new(number(600_000), number(1000));
    assert_eq!(b.turns(rate, 5).await.unwrap().count, 5);
    a.postpone(Duration::from_mins(10)).await.unwrap();
    let none = b.turns(rate, 5).await.unwrap();
    assert!(none.count == 0 && none.again() > Duration::from_mins(9));
    // A shorter one does not end it.
    b.postpone(Duration::from_secs(1)).await.unwrap();
    assert_eq!(b.turns(rate, 5).await.unwrap().count, 0);
}

#[tokio::test]
async fn the_daily_quota_is_counted_by_the_clock_that_all_share() {
    let schema = Schema::fresh().await;
    let (a, b) = (join(&schema).await, join(&schema).await);
    // However wrong their own clocks are.
    assert!(a.spend(3, at(0)).await.unwrap().is_none());
    assert!(b.spend(3, at(4_000_000_000_000)).await.unwrap().is_none());
    assert_eq!(b.spent(at(0)).await.unwrap(), 2);
    assert!(a.spend(3, at(9)).await.unwrap().is_none());
    assert!(b.spend(3, at(4_000_000_000_000)).await.unwrap().is_some());
}
