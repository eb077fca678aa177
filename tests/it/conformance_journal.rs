//! Every journal passes one suite.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use migma_eraser::journal::SqliteJournal;
use migma_eraser::ports::Journal;

use crate::journal::conformance::{Stand, each_case};
use crate::journal::fake::{FakeJournal, Store};

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
