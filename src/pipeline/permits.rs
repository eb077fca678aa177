//! The permit to make one call: gates, room in flight, rate, and the daily quota, in that order.
//!
//! First come first served among those whose project may be called now, so that a failing manifest that tries again and
//! again leaves its turn to others in between. Every attempt takes a permit, retries too.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter as Governor};
use tokio::time::Instant;

use super::desk::{Desk, Look, State};
use crate::domain::gates::Leave;
use crate::domain::ids::ProjectId;

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
    governor: Governor<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>,
    clock: TokioClock,
}

impl RateLimiter {
    pub(super) fn new(per_minute: NonZeroU32, burst: NonZeroU32) -> Self {
        // Calls are spread by the time between them, not by governor's own burst arithmetic, which would count a
        // quota of N a minute as N at once.
        let period = Duration::from_mins(1) / per_minute.get();
        let quota = Quota::with_period(period.max(Duration::from_nanos(1)))
            .unwrap_or(Quota::per_minute(per_minute))
            .allow_burst(burst);
        let clock = TokioClock { start: Instant::now() };
        Self { governor: Governor::direct_with_clock(quota, clock.clone()), clock }
    }

    /// Takes a permit, or tells how long until there is one.
    fn take(&self) -> Result<(), Duration> {
        self.governor.check().map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// The right to make one call for a project. Given back when it is dropped.
#[must_use = "a permit that is dropped is a call that was not made"]
pub(super) struct Permit {
    desk: Arc<Desk>,
    project: ProjectId,
    returned: bool,
}

impl Permit {
    pub(super) const fn project(&self) -> &ProjectId {
        &self.project
    }

    /// The call came back.
    pub(super) fn back(mut self, state: &mut State) {
        state.gates.back(&self.project);
        self.returned = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.returned {
            self.desk.lock().gates.back(&self.project);
            self.desk.ring();
        }
    }
}

/// A place in the queue, left when it is dropped.
struct Ticket<'a> {
    desk: &'a Desk,
    number: Option<u64>,
}

impl Ticket<'_> {
    fn stand(&mut self, state: &mut State, project: &ProjectId) -> u64 {
        let number = *self.number.get_or_insert_with(|| {
            state.next_ticket += 1;
            state.next_ticket
        });
        if state.queue.get(&number) != Some(project) {
            state.queue.insert(number, project.clone());
        }
        number
    }

    fn step_out(&mut self, state: &mut State) {
        if let Some(number) = self.number {
            state.queue.remove(&number);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number
            && self.desk.lock().queue.remove(&number).is_some()
        {
            self.desk.ring();
        }
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
pub(super) async fn acquire(desk: &Arc<Desk>, mut wish: impl FnMut(&mut State, Duration) -> Wish) -> Permit {
    let mut ticket = Ticket { desk, number: None };
    loop {
        let project = desk
            .wait_for(|state, now| match wish(state, now) {
                Wish::Nobody(again) => {
                    ticket.step_out(state);
                    Look::Again(again)
                }
                Wish::Call(project) => {
                    let number = ticket.stand(state, &project);
                    match turn(state, number, &project, now) {
                        Ok(()) => {
                            state.gates.leave(&project);
                            ticket.step_out(state);
                            Look::Found(project)
                        }
                        Err(again) => Look::Again(again),
                    }
                }
            })
            .await;
        // The next in line may have a turn as well.
        desk.ring();
        let permit = Permit { desk: Arc::clone(desk), project, returned: false };
        if spend(desk).await {
            return permit;
        }
    }
}

/// Whether it is this one's turn, and a call may leave; else when to ask again.
fn turn(state: &State, number: u64, project: &ProjectId, now: Duration) -> Result<(), Option<Duration>> {
    match state.gates.ask(project, now) {
        Leave::AfterAnother => return Err(None),
        Leave::At(at) => return Err(Some(at)),
        Leave::Now => {}
    }
    let first = state.queue.iter().find(|(_, project)| state.gates.ask(project, now) == Leave::Now);
    if first.is_some_and(|(first, _)| *first != number) {
        return Err(None);
    }
    state.limiter.take().map_err(|wait| Some(now + wait))
}

/// Counts the call against the daily quota; `false` where it has to wait, which it then has done.
async fn spend(desk: &Desk) -> bool {
    let Some(quota) = desk.settings.requests_per_day else { return true };
    let journal = &desk.ports.journal;
    let Some(until) = desk.journaled(|| journal.spend(quota, desk.ports.world.now().wall)).await else {
        desk.lock().quota_until = None;
        return true;
    };
    desk.lock().quota_until = Some(until);
    let wait = until.millis_since(desk.ports.world.now().wall);
    tokio::time::sleep(Duration::from_millis(u64::try_from(wait).unwrap_or(0).clamp(100, 60_000))).await;
    false
}
