//! Two workers on one journal and one broker: each crashes, stands still past its lease and wakes up, is cut off from the
//! journal or from the broker, and stops in order, while the other goes on.
//!
//! Pauses and the pace of calls are one worker's stories, told elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use migma_eraser::domain::lease::RENEWAL;
use migma_eraser::pipeline::{self, Desk, Ports, Settings};
use migma_eraser::ports::ApiKey;
use migma_eraser::shutdown::{self, Phase};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::sim::api::FakeApi;
use super::sim::broker::FakeBroker;
use super::sim::dice::Dice;
use super::sim::fault::Faults;
use super::sim::journal::{FakeJournal, Probe};
use super::sim::world::{Blind, SimWorld};
use super::sim::{check, coverage};
use super::{Living, MAX_EMAILS, assert_one_story, bystander, drive, number, run_seeds, settings, stock};

const WORKERS: usize = 2;

/// How long an orderly stop may take.
const GRACE: Duration = Duration::from_secs(30);

/// What is there for all workers.
#[derive(Clone)]
struct Company {
    dice: Dice,
    world: SimWorld,
    api: FakeApi,
    probe: Probe,
    settings: Settings,
    key: watch::Receiver<ApiKey>,
    /// Whether all has come to rest.
    over: Arc<AtomicBool>,
}

/// One place at which a worker lives, and another one after it.
#[derive(Clone)]
struct Place {
    faults: Arc<Faults>,
    /// The connection of who lives there now.
    broker: Arc<Mutex<FakeBroker>>,
}

impl Place {
    fn broker(&self) -> FakeBroker {
        self.broker.lock().unwrap().clone()
    }
}

impl Company {
    /// Lives at this place, one life after the other.
    async fn live(self, place: Place) {
        let faults = Arc::clone(&place.faults);
        while !self.over.load(Ordering::SeqCst) {
            // Who cannot reach the journal does not start.
            while faults.is_cut_off() || faults.is_stopped() {
                sleep(Duration::from_secs(1)).await;
            }
            let journal = FakeJournal::join(&self.probe, Arc::clone(&faults));
            let worker = journal.worker().unwrap();
            let ports = Ports {
                broker: Arc::new(place.broker()),
                api: Arc::new(self.api.beside(Arc::clone(&faults), worker)),
                journal: Arc::new(journal.clone()),
                world: Arc::new(self.world.clone()),
                observer: Arc::new(Blind),
                tracer: None,
            };
            let desk = Desk::new(ports, self.settings.clone(), self.key.clone());
            if self.lives(&desk, &faults, &journal).await {
                journal.leave();
            } else {
                self.probe.died(worker);
            }
            journal.close();
            // The dead worker's tasks are swept away before the next life begins.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            faults.revive();
            place.broker.lock().unwrap().reconnect();
            if self.dice.chance(0.3) {
                sleep(Duration::from_secs(*self.dice.pick(&[1, 20, 60, 3600]))).await;
            }
        }
    }

    /// One life; whether it ends in order.
    async fn lives(&self, desk: &Arc<Desk>, faults: &Faults, journal: &FakeJournal) -> bool {
        let (trigger, told) = shutdown::channel();
        let life = pipeline::run(Arc::clone(desk), told);
        tokio::pin!(life);
        let mut told_to_stop: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                () = faults.died() => return false,
                // With calls that were cut short it would not be known that they have ended.
                () = &mut life => return trigger.phase() < Phase::Aborting,
                () = sleep(RENEWAL) => {
                    if self.over.load(Ordering::SeqCst) {
                        return false;
                    }
                    if !journal.renew() {
                        coverage::hit("succession", "succeeded alive", "-");
                        return false;
                    }
                    if told_to_stop.is_some_and(|at| at.elapsed() > GRACE) {
                        trigger.advance(Phase::Aborting);
                    } else if faults.strikes(0.002) {
                        coverage::hit("succession", "left in order", "-");
                        told_to_stop.get_or_insert_with(Instant::now);
                        trigger.advance(Phase::Draining);
                    }
                }
            }
        }
    }

    /// What befalls the two, besides what befalls their effects.
    async fn trouble(&self, places: &[Place]) {
        loop {
            sleep(Duration::from_secs(1 + self.dice.next() % 20)).await;
            let place = self.dice.pick(places);
            let faults = &place.faults;
            let span = Duration::from_secs(*self.dice.pick(&[3, 8, 12, 20, 30, 300]));
            match self.dice.below(12) {
                0 => {
                    coverage::hit("world", "stands still", "-");
                    faults.stop(Instant::now() + span);
                    // The broker misses its heartbeats, sooner or later.
                    if self.dice.chance(0.7) {
                        place.broker().cut();
                    }
                }
                1 => {
                    coverage::hit("world", "cut off from the journal", "-");
                    faults.cut_off(true);
                    sleep(span).await;
                    faults.cut_off(false);
                }
                2 => {
                    coverage::hit("world", "cut off from the broker", "-");
                    place.broker().cut();
                }
                _ => {}
            }
        }
    }
}

fn run_seed(dice: Dice) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(tell(dice))
}

async fn tell(dice: Dice) -> Vec<String> {
    let world = SimWorld::new(dice.clone());
    let probe = Probe::default();
    let (error_rate, prefetch) = (*dice.pick(&[0.0, 0.01, 0.05]), 4 + dice.below(60));
    let faults = || Faults::new(dice.clone(), 0.02, error_rate, dice.below(5) as u64);
    let quiet = faults();
    quiet.off();
    let broker = FakeBroker::new(quiet, prefetch);
    let places: Vec<Place> = (0..WORKERS)
        .map(|_| {
            let faults = faults();
            Place { broker: Arc::new(Mutex::new(broker.beside(Arc::clone(&faults)))), faults }
        })
        .collect();
    let api = FakeApi::new(Arc::clone(&places[0].faults), world.clone(), probe.clone(), MAX_EMAILS);
    stock(&api, &dice);
    let settings = Settings { requests_per_day: None, ..settings(&dice) };
    let (tell_key, key) = watch::channel(ApiKey::new("key-0"));
    let company = Company {
        dice: dice.clone(),
        world: world.clone(),
        api: api.clone(),
        probe: probe.clone(),
        settings,
        key,
        over: Arc::default(),
    };
    let workers: Vec<_> = places.iter().map(|place| tokio::spawn(company.clone().live(place.clone()))).collect();

    let nobody = Living::default();
    // Days are dear: everybody looks about every second.
    let longest = if dice.chance(0.05) { Duration::MAX } else { Duration::from_mins(10) };
    tokio::select! {
        biased;
        () = drive(&dice, broker.clone(), &api, &tell_key, &world, &nobody, longest) => {}
        () = company.trouble(&places) => {}
    }
    for Place { faults, .. } in &places {
        faults.off();
        faults.cut_off(false);
    }
    {
        let mut store = api.store.lock().unwrap();
        store.down = false;
        store.forbidden.clear();
        store.refused_keys.clear();
    }

    // In virtual time; a world that has not come to rest by then never will.
    let deadline = Instant::now() + Duration::from_hours(288);
    let journal = FakeJournal::new(probe.clone(), Arc::clone(&places[0].faults));
    let mut bystanders = 0;
    loop {
        sleep(Duration::from_secs(5)).await;
        let concluded = probe.0.lock().unwrap().rows.values().all(|row| row.conclusion.is_some());
        let is_calm = concluded && broker.store.lock().unwrap().is_empty();
        let is_late = Instant::now() > deadline;
        if is_calm || is_late || workers.iter().any(tokio::task::JoinHandle::is_finished) {
            company.over.store(true, Ordering::SeqCst);
            let mut wrong = check::violations(&broker, &api, &journal);
            if !is_calm {
                wrong.push(format!("it does not come to rest: {}", broker.store.lock().unwrap().describe()));
            }
            for worker in workers {
                worker.abort();
            }
            return wrong;
        }
        // What one body alone meets, only others can tell; and they must be served all the same.
        if dice.chance(0.02) && broker.store.lock().unwrap().is_taken() {
            bystanders += 1;
            broker.send(bystander(bystanders));
        }
    }
}

#[test]
fn a_seed_of_two_workers_tells_one_story() {
    coverage::of("one story of two workers");
    assert_one_story(run_seed);
}

#[test]
fn two_workers_lose_nothing_and_tell_the_truth_whatever_befalls_either() {
    const WORLD: &str = "two workers";
    if let Some(seed) = number("SIM_SEED") {
        return run_seeds(seed..seed + 1, WORLD, run_seed);
    }
    let seeds = number("SIM_SEEDS").unwrap_or(10_000);
    run_seeds(0..seeds, WORLD, run_seed);
    let journal_faults = ["crash before", "crash after", "error before", "error after"];
    let empty = coverage::report(
        WORLD,
        &[
            ("record", &journal_faults, &["unsent"]),
            ("record", &["lost to another"], &["unsent"]),
            ("succeed", &journal_faults, &["-"]),
            ("succession", &["inherited", "succeeded alive", "left in order"], &["-"]),
            ("call", &["crash before", "crash after"], &["first key", "next key", "child", "recovered"]),
            ("call", &["late"], &["-"]),
            ("world", &["stands still", "cut off from the journal", "cut off from the broker"], &["-"]),
        ],
    );
    if seeds >= 10_000 {
        assert!(empty.is_empty(), "cells without hits: {empty:#?}");
    }
}
