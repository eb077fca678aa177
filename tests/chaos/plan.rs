//! What goes wrong, and when: fixed by the seed alone. What the worker is at when it happens is up to the machine.

use std::time::Duration;

use migma_eraser::sandbox::Faults;
use migma_eraser::sandbox::faults::RateLimit;

use crate::support::requests::Numbers;

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub enum Blow {
    /// SIGKILL, and a new one.
    KillWorker,
    /// SIGTERM, its end with exit code 0, and a new one.
    StopWorker,
    /// SIGKILL for the broker, which comes back by itself; the next blows do not wait for it.
    KillBroker,
    /// Every connection to the broker ends.
    CutBroker,
    /// The broker's confirms and acks are lost, and then the connections end.
    LoseConfirms(Duration),
    /// Nothing passes to or from the broker for a while.
    StallBroker(Duration),
    /// Answers of the API are lost, and then the connections end.
    LoseAnswers(Duration),
    /// The API cannot be reached for a while.
    CloseApi(Duration),
    /// Another way of the API to be in trouble.
    Api(Mood),
}

/// How the API is.
#[derive(Clone, Copy, Debug)]
pub enum Mood {
    Well,
    Lossy,
    Failing,
    Babbling,
    Down,
    BehindABrokenProxy,
    RefusingTheKey,
    RefusingOneProject,
    TooSlow,
    Throttling,
    Inventing,
}

/// When after the one before, and what.
#[derive(Clone, Debug)]
pub struct Step {
    pub after: Duration,
    pub blow: Blow,
}

/// SIGKILLs of the worker and of the broker in a minute.
pub const WORKER_KILLS: usize = 7;
pub const BROKER_KILLS: usize = 1;

/// The blows of one minute, in a random order with random pauses.
pub fn minute(seed: u64, minute: u64) -> Vec<Step> {
    let mut dice = Numbers(seed.wrapping_mul(1_000_003).wrapping_add(minute));
    let mut while_ = |most: usize| Duration::from_millis(100 + dice.below(most) as u64);
    let mut blows = vec![
        Blow::StopWorker,
        Blow::CutBroker,
        Blow::CutBroker,
        Blow::LoseConfirms(while_(600)),
        Blow::LoseConfirms(while_(600)),
        Blow::StallBroker(while_(4000)),
        Blow::LoseAnswers(while_(600)),
        Blow::LoseAnswers(while_(600)),
        Blow::CloseApi(while_(3000)),
    ];
    blows.extend(std::iter::repeat_n(Blow::KillWorker, WORKER_KILLS));
    blows.extend(std::iter::repeat_n(Blow::KillBroker, BROKER_KILLS));
    blows.extend((0..7).map(|_| Blow::Api(Mood::any(&mut dice))));
    for end in (1..blows.len()).rev() {
        blows.swap(end, dice.below(end + 1));
    }
    let pause = 2 * 60_000 / blows.len();
    blows.into_iter().map(|blow| Step { after: Duration::from_millis(dice.below(pause) as u64), blow }).collect()
}

impl Mood {
    fn any(dice: &mut Numbers) -> Self {
        const MOODS: [Mood; 14] = [
            Mood::Well,
            Mood::Well,
            Mood::Lossy,
            Mood::Lossy,
            Mood::Lossy,
            Mood::Failing,
            Mood::Babbling,
            Mood::Down,
            Mood::BehindABrokenProxy,
            Mood::RefusingTheKey,
            Mood::RefusingOneProject,
            Mood::TooSlow,
            Mood::Throttling,
            Mood::Inventing,
        ];
        MOODS[dice.below(MOODS.len())]
    }

    /// The faults of this mood, on top of those that are always there.
    pub fn faults(self, always: &Faults) -> Faults {
        let mut faults = Faults { latency_ms: 20, jitter_ms: 60, ..always.clone() };
        match self {
            Self::Well => {}
            Self::Lossy => (faults.drop_after, faults.drop_before, faults.jitter_ms) = (0.3, 0.1, 300),
            Self::Failing => faults.errors = [(500, 0.2), (503, 0.2), (429, 0.1)].into(),
            Self::Babbling => (faults.garbage, faults.unsuccessful) = (0.2, 0.2),
            Self::Down => faults.errors = [(503, 1.0)].into(),
            Self::BehindABrokenProxy => faults.proxy_page = Some(502),
            Self::RefusingTheKey => faults.refuse_all_keys = true,
            Self::RefusingOneProject => {
                faults.forbidden_projects.insert(crate::load::LOCKED.to_owned());
            }
            Self::TooSlow => faults.latency_ms = 2500,
            Self::Throttling => faults.rate_limit = Some(RateLimit { per_second: 3.0, burst: 3.0 }),
            Self::Inventing => faults.invented_not_found = vec!["nobody.sent.this@example.org".to_owned()],
        }
        faults
    }
}
