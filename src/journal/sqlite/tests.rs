//! What only this store can know: its file.

#![allow(clippy::unwrap_used)]

mod sample;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use self::sample::{at, called, deleted, draft, request};
use super::clerk::Work;
use super::{Failure, SqliteJournal, Unfit};
use crate::domain::fate::Fate;
use crate::domain::manifest::{End, Journaled, Manifest, split};
use crate::ports::{Journal as _, JournalError};

const MANY: u16 = 1000;

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

async fn refused(path: &Path) -> (Unfit, String) {
    let error = SqliteJournal::open(path).await.unwrap_err();
    let text = format!("{error}: {}", error.source);
    (*error.source.downcast::<Unfit>().unwrap(), text)
}

async fn record(journal: &SqliteJournal, name: &str, emails: u16) -> Result<Journaled<Manifest>, JournalError> {
    journal.record(&draft(name, emails), called(1), at(1)).await.map(|recorded| recorded.manifest().unwrap())
}

/// Has the writer execute a statement.
struct Raw(&'static str);

#[async_trait]
impl Work for Raw {
    const ACTION: &'static str = "test";
    type Answer = ();
    async fn work(&self, db: &mut SqliteConnection) -> Result<(), Failure> {
        sqlx::query(self.0).fetch_all(db).await?;
        Ok(())
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn folder_and_files_are_for_their_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/deep/journal.db");
    let journal = SqliteJournal::open(&path).await.unwrap();
    record(&journal, "m", 1).await.unwrap();
    assert_eq!(mode(&folder.path().join("new")), 0o700);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for side in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&folder.path().join(format!("new/deep/journal.db{side}"))), 0o600, "{side}");
    }
    journal.close().await.unwrap();
    // As a restored backup may have it.
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let _journal = SqliteJournal::open(&path).await.unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[tokio::test]
async fn a_second_worker_is_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let first = SqliteJournal::open(&path).await.unwrap();
    record(&first, "m", 1).await.unwrap();
    let (unfit, text) = refused(&path).await;
    assert!(matches!(unfit, Unfit::InUse(_)));
    assert!(text.contains("journal.url") && text.contains("journal.db"), "{text}");
    record(&first, "n", 1).await.unwrap();
    first.close().await.unwrap();
    assert!(first.lookup(&[request("m", 1).digest]).await.is_err());
    assert!(record(&first, "o", 1).await.is_err());
    let second = SqliteJournal::open(&path).await.unwrap();
    assert_eq!(second.open_manifests().await.unwrap().len(), 2);
    assert!(!second.was_new());
}

#[tokio::test]
async fn a_journal_that_is_dropped_gives_its_file_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path).await.unwrap();
    record(&journal, "m", 1).await.unwrap();
    drop(journal);
    let again = loop {
        match SqliteJournal::open(&path).await {
            Ok(journal) => break journal,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(again.open_manifests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_that_does_not_serve_is_named_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    SqliteJournal::open(&path).await.unwrap().close().await.unwrap();
    let mut db = raw(&path).await;
    sqlx::query("PRAGMA user_version = 99").execute(&mut db).await.unwrap();
    db.close().await.unwrap();
    assert!(matches!(refused(&path).await, (Unfit::Newer { found: 99, .. }, _)));

    let path = folder.path().join("other.db");
    let mut db = raw(&path).await;
    sqlx::query("CREATE TABLE theirs (x)").execute(&mut db).await.unwrap();
    db.close().await.unwrap();
    assert!(matches!(refused(&path).await, (Unfit::Foreign, _)));

    let path = folder.path().join("garbage.db");
    fs::write(&path, vec![7; 10_000]).unwrap();
    assert!(matches!(refused(&path).await, (Unfit::Damaged(..), _)));
    assert_eq!(fs::read(&path).unwrap(), vec![7; 10_000], "left as it was");

    let path = folder.path().join("garbage.db/journal.db");
    assert!(matches!(refused(&path).await, (Unfit::NotWritable(..), _)));
}

#[tokio::test]
async fn a_journal_of_an_older_schema_is_brought_up_to_date_with_all_that_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path).await.unwrap();
    let ended = record(&journal, "m", 3).await.unwrap();
    let open = record(&journal, "n", 2).await.unwrap();
    journal.conclude(ended.id, &deleted(2)).await.unwrap();
    journal.close().await.unwrap();
    let mut db = raw(&path).await;
    for undo in ["DROP TABLE pauses", "ALTER TABLE manifests DROP COLUMN troubled_since", "PRAGMA user_version = 1"] {
        sqlx::query(undo).execute(&mut db).await.unwrap();
    }
    db.close().await.unwrap();

    let journal = SqliteJournal::open(&path).await.unwrap();
    let [found] = &journal.open_manifests().await.unwrap()[..] else { panic!("one manifest is open") };
    assert_eq!((found.id, &found.body, found.fate.troubled_since), (open.id, &open.body, None));
    let known = journal.lookup(&[request("m", 3).digest]).await.unwrap();
    assert_eq!(known[&request("m", 3).digest].parts[0].conclusion, Some(deleted(2)));
    let troubled = journal.restate(found, found.fate.troubled(at(5))).await.unwrap();
    assert_eq!(troubled.fate.troubled_since, Some(at(5)));
    assert_eq!(journal.pauses().await.unwrap(), []);
}

#[tokio::test]
async fn what_was_told_to_be_durable_survives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path).await.unwrap();
    let ended = record(&journal, "m", MANY).await.unwrap();
    let open = record(&journal, "n", MANY).await.unwrap();
    journal.conclude(ended.id, &deleted(2)).await.unwrap();
    // The files as they stand, with nothing closed.
    for side in ["", "-wal"] {
        let from = folder.path().join(format!("journal.db{side}"));
        fs::copy(from, folder.path().join(format!("crashed.db{side}"))).unwrap();
    }
    let after = SqliteJournal::open(&folder.path().join("crashed.db")).await.unwrap();
    let [found] = &after.open_manifests().await.unwrap()[..] else { panic!("one manifest is open") };
    assert_eq!((found.id, &found.body), (open.id, &open.body));
    let known = after.lookup(&[request("m", 1).digest]).await.unwrap();
    assert_eq!(known[&request("m", 1).digest].parts[0].conclusion, Some(deleted(2)));
}

/// All bytes of the journal's files.
fn bytes_in(folder: &Path) -> Vec<u8> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().flat_map(|path| fs::read(path).unwrap()).collect()
}

/// The requests whose addresses stand somewhere in the bytes.
fn named_in(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut names: Vec<String> = text
        .match_indices("@example.com")
        .filter_map(|(end, _)| {
            let start = text[..end].rfind('<')?;
            Some(text[start + 1..end].split('.').next()?.to_owned())
        })
        // One that runs over the end of a page has lost its beginning.
        .filter(|name| name.chars().all(char::is_alphanumeric))
        .collect();
    names.sort();
    names.dedup();
    names
}

#[tokio::test]
async fn no_address_outlives_its_answer_in_any_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path).await.unwrap();
    let mut open: Vec<Journaled<Manifest>> = Vec::new();
    let mut dice = 7u32;
    for n in 0..250u32 {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Bodies within a page, about a page, and over many.
        let emails = [1, 3, 60, 70, 80, 400, MANY][(dice >> 8) as usize % 7];
        open.push(record(&journal, &format!("m{n}"), emails).await.unwrap());
        if n % 5 == 0 && open.last().unwrap().emails > 1 {
            let parent = open.pop().unwrap();
            let split = split(&parent).unwrap();
            let children =
                journal.split(&parent, &sample::ended(End::Split, 2), Fate::never_sent(), &split).await.unwrap();
            open.extend(children);
        }
        while open.len() > (dice >> 16) as usize % 12 {
            let manifest = open.swap_remove((dice >> 4) as usize % open.len());
            journal.conclude(manifest.id, &deleted(i64::from(n))).await.unwrap();
        }
        if n % 50 == 0 {
            journal.forget(at(i64::from(n))).await.unwrap();
        }
    }
    for name in ["last1", "last2", "last3"] {
        open.push(record(&journal, name, 70).await.unwrap());
    }
    assert!(named_in(&bytes_in(folder.path())).len() > 10, "the log still has them");

    let mut still_open: Vec<String> = open.iter().map(|manifest| sample::first_name(manifest)).collect();
    still_open.sort();
    still_open.dedup();
    journal.tidy().await.unwrap();
    assert_eq!(named_in(&bytes_in(folder.path())), still_open);

    for manifest in &open {
        journal.conclude(manifest.id, &deleted(3)).await.unwrap();
    }
    journal.tidy().await.unwrap();
    let bytes = bytes_in(folder.path());
    assert!(named_in(&bytes).is_empty());
    assert!(!String::from_utf8_lossy(&bytes).contains("example.co"), "not even in part");
    record(&journal, "closing", 70).await.unwrap();
    journal.conclude(journal.open_manifests().await.unwrap()[0].id, &deleted(4)).await.unwrap();
    journal.close().await.unwrap();
    assert!(named_in(&bytes_in(folder.path())).is_empty());
}

#[tokio::test]
async fn tidying_gives_way_to_a_reader_and_is_done_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = SqliteJournal::open(&path).await.unwrap();
    let wal = folder.path().join("journal.db-wal");
    let manifest = record(&journal, "m", 10).await.unwrap();
    let mut backup = raw(&path).await;
    sqlx::query("BEGIN").execute(&mut backup).await.unwrap();
    sqlx::query("SELECT COUNT(*) FROM manifests").fetch_all(&mut backup).await.unwrap();
    journal.conclude(manifest.id, &deleted(2)).await.unwrap();
    journal.tidy().await.unwrap();
    assert!(fs::metadata(&wal).unwrap().len() > 0);
    backup.close().await.unwrap();
    journal.tidy().await.unwrap();
    assert_eq!(fs::metadata(&wal).unwrap().len(), 0);
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_the_journal_usable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Arc::new(SqliteJournal::open(&path).await.unwrap());
    let before = record(&journal, "before", 5).await.unwrap();
    // Not below the pages that there are.
    journal.writer.ask(Raw("PRAGMA max_page_count = 1")).await.unwrap();
    let names: Vec<String> = (0..4).map(|n| format!("m{n}")).collect();
    // One that needs no more room, in company with those that do.
    let (errors, small) = tokio::join!(
        join_all(names.iter().map(|name| record(&journal, name, MANY))),
        journal.restate(&before, called(2))
    );
    assert_eq!(small.unwrap().fate, called(2));
    for error in errors {
        let error = error.map(drop).unwrap_err();
        assert!(error.source.to_string().contains("full"), "{}", error.source);
        assert!(!error.source.to_string().contains('@'));
    }
    let digests: Vec<_> = names.iter().map(|name| request(name, 1).digest).collect();
    assert!(journal.lookup(&digests).await.unwrap().is_empty());
    assert_eq!(journal.open_manifests().await.unwrap()[0].fate, called(2).with_unknown_call());
    journal.conclude(before.id, &deleted(2)).await.unwrap();
    assert!(journal.open_manifests().await.unwrap().is_empty());

    journal.writer.ask(Raw("PRAGMA max_page_count = 4294967294")).await.unwrap();
    record(&journal, "after", MANY).await.unwrap();
    journal.close().await.unwrap();
    let again = SqliteJournal::open(&path).await.unwrap();
    assert_eq!(again.open_manifests().await.unwrap().len(), 1);
    assert!(again.lookup(&digests).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_that_fails_harms_none_that_shares_its_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(&folder.path().join("journal.db")).await.unwrap();
    let bad = Raw("INSERT INTO bodies (manifest, body) VALUES (1, NULL)");
    let half = Raw("INSERT INTO calls VALUES (1, 1), (2, 2), (1, 3)");
    let (a, b, c, d) = tokio::join!(
        record(&journal, "m1", 3),
        journal.writer.ask(bad),
        journal.writer.ask(half),
        record(&journal, "m2", 3)
    );
    assert!(a.is_ok() && b.is_err() && c.is_err() && d.is_ok());
    assert_eq!(journal.open_manifests().await.unwrap().len(), 2);
    // Nothing of the half that would have gone in.
    assert_eq!(journal.spend(1, at(60_000)).await.unwrap(), None);
    // Even where it ends the transaction under the others, as a full disk can.
    let ends = Raw("INSERT OR ROLLBACK INTO bodies (manifest, body) VALUES (1, NULL)");
    let (a, b, c) = tokio::join!(record(&journal, "m3", 3), journal.writer.ask(ends), record(&journal, "m4", 3));
    assert!(a.is_ok() && b.is_err() && c.is_ok());
    assert_eq!(journal.open_manifests().await.unwrap().len(), 4);
    // Even where it does so unseen: what came after it does not stand by itself.
    let (a, b, c) =
        tokio::join!(record(&journal, "m5", 3), journal.writer.ask(Raw("ROLLBACK")), record(&journal, "m6", 3));
    assert!(a.is_err() && b.is_err() && c.is_err());
    assert_eq!(journal.open_manifests().await.unwrap().len(), 4);
    record(&journal, "m5", 3).await.unwrap();
}

#[tokio::test]
async fn no_query_of_every_day_scans_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    SqliteJournal::open(&path).await.unwrap().close().await.unwrap();
    let mut db = raw(&path).await;
    for (query, index) in [
        ("SELECT id FROM manifests WHERE due < ? ORDER BY due LIMIT 1", "manifests_due"),
        ("SELECT id FROM manifests WHERE parent = ? ORDER BY id", "manifests_parent"),
        ("SELECT id FROM requests WHERE digest IN (?, ?)", "requests_digest"),
        ("SELECT id FROM requests WHERE manifest = ?", "requests_manifest"),
        ("SELECT request FROM members WHERE manifest = ?", "members_manifest"),
        ("SELECT spans FROM members WHERE request IN (?, ?)", "PRIMARY KEY"),
    ] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}"));
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain).fetch_all(&mut db).await.unwrap();
        assert!(plan.iter().all(|step| !step.3.contains("SCAN")), "{plan:?}");
        assert!(plan.iter().any(|step| step.3.contains(index)), "{plan:?}");
    }
}
