//! Clocks that are put right while something waits, in worlds where nothing else goes wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use migma_eraser::domain::envelope::Envelope;
use migma_eraser::pipeline::{self, Desk, Ports, Settings};
use migma_eraser::ports::{ApiKey, Exchange};
use migma_eraser::shutdown;
use tokio::sync::watch;
use tokio::time::sleep;

use super::MAX_EMAILS;
use super::sim::api::FakeApi;
use super::sim::broker::FakeBroker;
use super::sim::dice::Dice;
use super::sim::fault::Faults;
use super::sim::journal::{FakeJournal, Probe};
use super::sim::world::{Blind, SimWorld};

const DAY: Duration = Duration::from_hours(24);
const DAY_MS: i64 = 24 * 3_600_000;

/// A worker in a world without faults.
struct Quiet {
    world: SimWorld,
    broker: FakeBroker,
    api: FakeApi,
    desk: Arc<Desk>,
}

impl Quiet {
    /// Has a worker with these settings live in it while `story` is told.
    fn tell(settings: impl FnOnce(&mut Settings), story: impl AsyncFnOnce(&Self)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let dice = Dice::new(1);
            let faults = Faults::new(dice.clone(), 0.0, 0.0, 0);
            faults.off();
            let (world, probe) = (SimWorld::new(dice.clone()), Probe::default());
            let broker = FakeBroker::new(Arc::clone(&faults), 50);
            let mut all = super::settings(&dice);
            settings(&mut all);
            let api = FakeApi::new(Arc::clone(&faults), world.clone(), probe.clone(), MAX_EMAILS);
            api.store.lock().unwrap().contacts.insert("p".to_owned(), ["ann@x.de".to_owned()].into());
            api.store.lock().unwrap().broken.insert("broken@x.de".to_owned());
            let ports = Ports {
                broker: Arc::new(broker.clone()),
                api: Arc::new(api.clone()),
                journal: Arc::new(FakeJournal::new(probe, faults)),
                world: Arc::new(world.clone()),
                observer: Arc::new(Blind),
                tracer: None,
            };
            let (_key, key) = watch::channel(ApiKey::new("key"));
            let desk = Desk::new(ports, all, key);
            let (_trigger, told) = shutdown::channel();
            let worker = tokio::spawn(pipeline::run(Arc::clone(&desk), told));
            story(&Self { world, broker, api, desk }).await;
            worker.abort();
        });
    }

    fn ask(&self, id: &str, email: &str) {
        let payload = serde_json::json!({"projectId": "p", "emails": [email]}).to_string().into();
        self.broker.send(Envelope { message_id: Some(id.to_owned()), payload, ..Envelope::default() });
    }

    fn put_clock(&self, millis: i64) {
        self.world.step.fetch_add(millis, Ordering::SeqCst);
    }

    fn outcomes(&self) -> usize {
        self.broker.store.lock().unwrap().log.iter().filter(|p| p.exchange == Exchange::Outcomes && !p.aside).count()
    }
}

#[test]
fn a_clock_that_is_put_back_keeps_nobody_out_of_a_doubtful_hold() {
    Quiet::tell(
        |_| {},
        async |quiet| {
            // Newcomers that fail like the first, until none is wanted for a while.
            let mut broken = 0;
            while broken == 0 || quiet.broker.consumes() {
                broken += 1;
                assert!(broken < 20, "it goes on consuming");
                quiet.ask(&format!("broken-{broken}"), "broken@x.de");
                sleep(Duration::from_mins(3)).await;
            }
            assert!(quiet.desk.snapshot().hold.is_some());
            quiet.put_clock(-5 * DAY_MS);
            for number in 0..5 {
                quiet.ask(&format!("other-{number}"), "ann@x.de");
            }
            sleep(Duration::from_hours(2)).await;
            assert_eq!(quiet.outcomes(), 5);
        },
    );
}

#[test]
fn a_clock_that_is_put_back_keeps_the_daily_quota_from_nobody() {
    let one_a_day = |settings: &mut Settings| settings.requests_per_day = Some(1);
    Quiet::tell(one_a_day, async |quiet| {
        quiet.put_clock(20 * DAY_MS);
        quiet.ask("first", "ann@x.de");
        sleep(Duration::from_mins(1)).await;
        quiet.ask("second", "ann@x.de");
        sleep(Duration::from_hours(1)).await;
        assert_eq!(quiet.outcomes(), 1);
        quiet.put_clock(-20 * DAY_MS);
        // Until the calls of the wrong time cease to count, and once more for they count from when they are put right.
        sleep(3 * DAY).await;
        assert_eq!(quiet.outcomes(), 2);
    });
}

#[test]
fn a_clock_that_leaps_fails_nothing_that_waits_for_its_project() {
    Quiet::tell(
        |_| {},
        async |quiet| {
            quiet.api.store.lock().unwrap().forbidden.insert("p".to_owned());
            quiet.ask("waits", "ann@x.de");
            sleep(Duration::from_mins(5)).await;
            quiet.put_clock(5 * DAY_MS);
            sleep(Duration::from_hours(12)).await;
            assert_eq!(quiet.outcomes(), 0);
            quiet.api.store.lock().unwrap().forbidden.clear();
            sleep(Duration::from_hours(1)).await;
            assert_eq!(quiet.outcomes(), 1);
            assert_eq!(quiet.api.store.lock().unwrap().ledger.len(), 1, "done, not given up");
        },
    );
}
