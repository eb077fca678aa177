//! Every journal passes one suite.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use migma_eraser::journal::{PostgresJournal, SqliteJournal};
use migma_eraser::ports::Journal;

use crate::journal::conformance::{Stand, each_case};
use crate::journal::fake::{FakeJournal, Store};
use crate::support::postgres::Schema;

#[derive(Default)]
struct FakeStand(Arc<Mutex<Store>>);

#[async_trait]
impl Stand for FakeStand {
    async fn open(&mut self) -> Arc<dyn Journal> {
        Arc::new(FakeJournal::open(&self.0))
    }
}

macro_rules! on_fake {
    ($($case:ident),* $(,)?) => {
        mod fake {
            use super::FakeStand;
            use crate::journal::conformance;
            $(#[tokio::test]
            async fn $case() {
                conformance::$case(&mut FakeStand::default()).await;
            })*
        }
    };
}
each_case!(on_fake);

struct SqliteStand {
    folder: tempfile::TempDir,
    journal: Option<Arc<SqliteJournal>>,
}

impl Default for SqliteStand {
    fn default() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), journal: None }
    }
}

#[async_trait]
impl Stand for SqliteStand {
    async fn open(&mut self) -> Arc<dyn Journal> {
        if let Some(before) = self.journal.take() {
            before.close().await.unwrap();
        }
        let journal = Arc::new(SqliteJournal::open(&self.folder.path().join("journal.db")).await.unwrap());
        self.journal = Some(Arc::clone(&journal));
        journal
    }
}

macro_rules! on_sqlite {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            use super::SqliteStand;
            use crate::journal::conformance;
            $(#[tokio::test]
            async fn $case() {
                conformance::$case(&mut SqliteStand::default()).await;
            })*
        }
    };
}
each_case!(on_sqlite);

#[derive(Default)]
struct PostgresStand {
    schema: Option<Schema>,
    journal: Option<Arc<PostgresJournal>>,
}

#[async_trait]
impl Stand for PostgresStand {
    async fn open(&mut self) -> Arc<dyn Journal> {
        if let Some(before) = self.journal.take() {
            before.close().await;
        }
        if self.schema.is_none() {
            self.schema = Some(Schema::fresh().await);
        }
        let journal = Arc::new(PostgresJournal::open(&self.schema.as_ref().unwrap().url()).await.unwrap());
        self.journal = Some(Arc::clone(&journal));
        journal
    }
}

macro_rules! on_postgres {
    ($($case:ident),* $(,)?) => {
        mod postgres {
            use super::PostgresStand;
            use crate::journal::conformance;
            $(#[tokio::test]
            async fn $case() {
                conformance::$case(&mut PostgresStand::default()).await;
            })*
        }
    };
}
each_case!(on_postgres);

/// What sets the clock by which calls are counted: workers that share a journal count by the database's, which no test
/// sets. All else of it is the same as for a worker that has the journal alone; that clock's own test is in
/// `journal_shared`.
const BY_OWN_CLOCK: [&str; 8] = [
    "a_quota_fits_so_many_calls_and_names_the_time_of_the_next",
    "what_is_spent_is_told_until_it_ceases_to_count",
    "a_quota_outlives_a_restart",
    "no_24_hours_ever_see_more_calls_than_the_quota",
    "a_clock_that_goes_back_gives_no_calls_for_free",
    "a_clock_that_was_far_ahead_does_not_stop_calls_for_ever",
    "a_smaller_quota_counts_what_was_spent_under_a_larger_one",
    "forgetting_does_not_forget_calls_that_count",
];

/// One of several workers: whoever comes next succeeds who left.
#[derive(Default)]
struct SharedStand {
    schema: Option<Schema>,
    journal: Option<Arc<PostgresJournal>>,
}

#[async_trait]
impl Stand for SharedStand {
    async fn open(&mut self) -> Arc<dyn Journal> {
        if let Some(before) = self.journal.take() {
            before.leave().await.unwrap();
            before.close().await;
        }
        if self.schema.is_none() {
            self.schema = Some(Schema::fresh().await);
        }
        let url = self.schema.as_ref().unwrap().url();
        let journal = Arc::new(PostgresJournal::join(&url, Duration::from_secs(30)).await.unwrap());
        self.journal = Some(Arc::clone(&journal));
        journal
    }
}

macro_rules! on_shared_postgres {
    ($($case:ident),* $(,)?) => {
        mod shared_postgres {
            use super::SharedStand;
            use crate::journal::conformance;
            $(#[tokio::test]
            async fn $case() {
                if !super::BY_OWN_CLOCK.contains(&stringify!($case)) {
                    conformance::$case(&mut SharedStand::default()).await;
                }
            })*
        }
    };
}
each_case!(on_shared_postgres);

macro_rules! names {
    ($($case:ident),* $(,)?) => {
        [$(stringify!($case)),*]
    };
}

#[test]
fn what_is_left_out_among_several_workers_is_among_the_cases() {
    let cases = each_case!(names);
    for name in BY_OWN_CLOCK {
        assert!(cases.contains(&name), "{name}");
    }
}
