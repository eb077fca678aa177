//! The permit to make one call: gates, room in flight, rate, and the daily quota, in that order.
//!
//! Among those whose project may be called now new batches and open manifests take turns, each first come first served:
//! manifests that fail and try again, however many they are, leave every second permit to what is new. Every attempt
//! takes a permit, retries too.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as _;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter as Governor};
use tokio::time::Instant;

use super::desk::{Desk, Look, State};
use crate::domain::gates::{Departure, Leave};
use crate::domain::ids::ProjectId;

/// After so long every call of today counts no more, whatever the wall clock says: 24 hours, counted by whole minutes.
const QUOTA_WINDOW: Duration = Duration::from_mins(24 * 60 + 1);

/// Governor over tokio's clock, so that a paused one is obeyed.
#[derive(Clone, Debug)]
struct TokioClock {
    start: Instant,
}

impl governor::clock::Clock for TokioClock {
    type Instant = Duration;
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// So many calls a minute, evenly, with so many at once after a pause.
pub(super) struct RateLimiter {
    governor: Governor<NotKeyed, InMemoryState, TokioClock, StateInformationMiddleware>,
    clock: TokioClock,
    period: Duration,
    burst: u32,
    /// When the last permit was taken, and how many were left then.
    last: Option<(Duration, u32)>,
}

impl RateLimiter {
    pub(super) fn new(per_minute: NonZeroU32, burst: NonZeroU32) -> Self {
        // Calls are spread by the time between them, not by governor's own burst arithmetic, which would count a
        // quota of N a minute as N at once.
        let period = (Duration::from_mins(1) / per_minute.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(period).unwrap_or(Quota::per_minute(per_minute)).allow_burst(burst);
        let clock = TokioClock { start: Instant::now() };
        let governor =
            Governor::direct_with_clock(quota, clock.clone()).with_middleware::<StateInformationMiddleware>();
        Self { governor, clock, period, burst: burst.get(), last: None }
    }

    /// Takes a permit, or tells how long until there is one.
    pub(super) fn take(&mut self) -> Result<(), Duration> {
        let now = self.clock.now();
        match self.governor.check() {
            Ok(state) => {
                self.last = Some((now, state.remaining_burst_capacity()));
                Ok(())
            }
            Err(not_until) => Err(not_until.wait_time_from(now)),
        }
    }

    /// How many permits could be taken now, give or take one.
    pub(super) fn available(&self) -> u32 {
        let Some((at, left)) = self.last else { return self.burst };
        let grown = self.clock.now().saturating_sub(at).as_nanos() / self.period.as_nanos();
        u32::try_from(grown).unwrap_or(u32::MAX).saturating_add(left).min(self.burst)
    }
}

/// What a permit is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// The first call of a new batch.
    New,
    /// A call for a manifest that is open.
    Open,
}

/// Who waits for a permit, and for which project.
#[derive(Debug, Default)]
pub(super) struct Line {
    new: BTreeMap<u64, ProjectId>,
    open: BTreeMap<u64, ProjectId>,
    numbers: u64,
    /// Who had a permit last.
    last: Option<Errand>,
}

impl Line {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.new.len() + self.open.len()
    }

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn of(&mut self, errand: Errand) -> &mut BTreeMap<u64, ProjectId> {
        match errand {
            Errand::New => &mut self.new,
            Errand::Open => &mut self.open,
        }
    }

    fn stand(&mut self, errand: Errand, number: u64, project: &ProjectId) {
        let line = self.of(errand);
        if line.get(&number) != Some(project) {
            line.insert(number, project.clone());
        }
    }

    /// Whether it stood there.
    fn step_out(&mut self, errand: Errand, number: u64) -> bool {
        self.of(errand).remove(&number).is_some()
    }

    /// Whose turn it is, of those whose project may be called.
    fn first(&self, may: impl Fn(&ProjectId) -> bool) -> Option<(Errand, u64)> {
        let first = |line: &BTreeMap<u64, ProjectId>| line.iter().find(|(_, project)| may(project)).map(|(n, _)| *n);
        let new = || first(&self.new).map(|number| (Errand::New, number));
        let open = || first(&self.open).map(|number| (Errand::Open, number));
        if self.last == Some(Errand::Open) { new().or_else(open) } else { open().or_else(new) }
    }
}

/// The right to make one call for a project. Given back when it is dropped.
#[must_use = "a permit that is dropped is a call that was not made"]
pub(super) struct Permit {
    desk: Arc<Desk>,
    project: ProjectId,
    departure: Departure,
    /// Until when its call may leave (steady); `None`: whenever.
    good_until: Option<Duration>,
    returned: bool,
}

impl Permit {
    pub(super) const fn project(&self) -> &ProjectId {
        &self.project
    }

    /// The number of its call.
    pub(super) const fn departure(&self) -> Departure {
        self.departure
    }

    /// The call came back.
    pub(super) fn back(mut self, state: &mut State) {
        state.gates.back(&self.project, self.departure);
        self.returned = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.returned {
            self.desk.lock().gates.back(&self.project, self.departure);
            self.desk.ring();
        }
    }
}

/// A place in the queue, left when it is dropped.
struct Ticket<'a> {
    desk: &'a Desk,
    errand: Errand,
    number: Option<u64>,
}

impl Ticket<'_> {
    fn stand(&mut self, state: &mut State, project: &ProjectId) -> u64 {
        let number = *self.number.get_or_insert_with(|| state.line.next_number());
        state.line.stand(self.errand, number, project);
        number
    }

    /// Leaves the line; whoever stood behind must look again.
    fn step_out(&self, state: &mut State) {
        if let Some(number) = self.number
            && state.line.step_out(self.errand, number)
        {
            self.desk.ring();
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.step_out(&mut self.desk.lock());
    }
}

/// Who wants a permit, as of now.
pub(super) enum Wish {
    /// A call for this project.
    Call(ProjectId),
    /// Nobody yet: ask again then (steady), or on a change.
    Nobody(Option<Duration>),
}

/// Waits for a permit. `wish` is asked anew at every change.
pub(super) async fn acquire(
    desk: &Arc<Desk>,
    errand: Errand,
    mut wish: impl FnMut(&mut State, Duration) -> Wish,
) -> Permit {
    let mut ticket = Ticket { desk, errand, number: None };
    loop {
        let (project, departure, good_until) = desk
            .wait_for(|state, now| match wish(state, now) {
                Wish::Nobody(again) => {
                    ticket.step_out(state);
                    Look::Again(again)
                }
                Wish::Call(project) => {
                    let number = ticket.stand(state, &project);
                    match turn(state, errand, number, &project, now) {
                        Ok(good_until) => {
                            let departure = state.gates.leave(&project);
                            ticket.step_out(state);
                            Look::Found((project, departure, good_until))
                        }
                        Err(again) => Look::Again(again),
                    }
                }
            })
            .await;
        let permit = Permit { desk: Arc::clone(desk), project, departure, good_until, returned: false };
        if spend(desk).await {
            return permit;
        }
    }
}

/// Whether it is this one's turn, and a call may leave, and until when; else when to ask again.
fn turn(
    state: &mut State,
    errand: Errand,
    number: u64,
    project: &ProjectId,
    now: Duration,
) -> Result<Option<Duration>, Option<Duration>> {
    match state.gates.ask(project, now) {
        Leave::AfterAnother | Leave::WhenResumed => return Err(None),
        Leave::At(at) => return Err(Some(at)),
        Leave::Now => {}
    }
    let first = state.line.first(|project| state.gates.ask(project, now) == Leave::Now);
    if first.is_some_and(|first| first != (errand, number)) {
        return Err(None);
    }
    let good_until = state.limiter.take(now)?;
    state.line.last = Some(errand);
    Ok(good_until)
}

/// Waits until the call leaves, for what was to be journaled may have taken its time; `false` where it must not leave
/// after all.
pub(super) async fn leaves(desk: &Desk, permit: &Permit) -> bool {
    loop {
        let wait = {
            let mut state = desk.lock();
            let now = desk.ports.world.now().steady;
            let is_too_late = permit.good_until.is_some_and(|until| now > until);
            if is_too_late || state.gates.is_called_off(permit.project(), permit.departure(), now) {
                return false;
            }
            match state.departures.take() {
                Ok(()) => return true,
                Err(wait) => wait,
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Counts the call against the daily quota; `false` where it has to wait, which it then has done.
async fn spend(desk: &Desk) -> bool {
    let Some(quota) = desk.settings.requests_per_day else { return true };
    let journal = &desk.ports.journal;
    let Some(until) = desk.journaled(|| journal.spend(quota, desk.ports.world.now().wall)).await else {
        desk.lock().quota_until = None;
        return true;
    };
    let now = desk.ports.world.now();
    let wait = Duration::from_millis(u64::try_from(until.millis_since(now.wall)).unwrap_or(0)).min(QUOTA_WINDOW);
    desk.lock().quota_until = Some(now.steady + wait);
    tokio::time::sleep(wait.clamp(Duration::from_millis(100), Duration::from_mins(1))).await;
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_batch_has_every_second_permit_however_many_try_again() {
        let (p, q) = (ProjectId::parse("p").unwrap(), ProjectId::parse("q").unwrap());
        let mut line = Line::default();
        let mut stand = |errand, project| {
            let number = line.next_number();
            line.stand(errand, number, project);
        };
        for _ in 0..100 {
            stand(Errand::Open, &p);
        }
        stand(Errand::New, &q);
        let mut turns = Vec::new();
        for _ in 0..6 {
            let (errand, number) = line.first(|_| true).unwrap();
            assert!(line.step_out(errand, number));
            line.last = Some(errand);
            // Who had a turn comes back at once.
            let number = line.next_number();
            line.stand(errand, number, if errand == Errand::New { &q } else { &p });
            turns.push(errand);
        }
        let (open, new) = (Errand::Open, Errand::New);
        assert_eq!(turns, [open, new, open, new, open, new]);
        assert_eq!(line.first(|project| project == &p).map(|(errand, _)| errand), Some(Errand::Open));
        line.last = Some(open);
        assert_eq!(line.first(|project| project == &p).map(|(errand, _)| errand), Some(Errand::Open));
        assert_eq!(line.first(|_| false), None);
    }

    #[tokio::test(start_paused = true)]
    async fn permits_that_are_taken_come_back_one_by_one_up_to_the_burst() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let mut limiter = RateLimiter::new(number(60), number(5));
        assert_eq!(limiter.available(), 5);
        for left in [4, 3, 2] {
            limiter.take().unwrap();
            assert_eq!(limiter.available(), left);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(limiter.available(), 3);
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(limiter.available(), 5);
        while limiter.take().is_ok() {}
        assert_eq!(limiter.available(), 0);
    }
}
