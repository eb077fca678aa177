//! Requests that cannot be done now step aside: a copy waits in a queue of the broker's, confirmed before the ack.
//!
//! Requests of a held project go to the parking queue, from where they come back a while later, so that they do not
//! crowd the prefetch while that project is held. What the broker returned (the returned queue) goes to that queue's own
//! tail instead, so that it stays alone and the broker's count of its deliveries, which is meant for what kills the
//! worker, starts anew.

use std::collections::HashSet;
use std::time::Duration;

use super::Context;
use super::desk::{State, Waiter};
use crate::domain::ids::{ProjectId, RequestDigest};
use crate::ports::Source;

/// How long a returned request of a held project stays in hand before another has its turn: as long as a parked one
/// stays aside.
pub(super) const TURN: Duration = Duration::from_secs(15);

/// A project's hold has begun: all its requests step aside, but for returned ones, which are one at a time anyway.
/// What is under way of them goes on.
#[must_use = "they have left the registry, and must be settled"]
pub(super) fn all_of(state: &mut State, project: &ProjectId) -> Vec<Waiter> {
    let requests = state.registry.of_project(project);
    withdraw(state, &requests, |waiter| waiter.delivery.source == Source::Requests)
}

/// The same for one request that came while its project is held, before any of its emails stand in a lane.
#[must_use = "they have left the registry, and must be settled"]
pub(super) fn newcomer(state: &mut State, request: RequestDigest) -> Vec<Waiter> {
    state.registry.withdraw(&request, |waiter| waiter.delivery.source == Source::Requests).deliveries
}

/// Why returned requests step aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Because {
    /// Some have been here for too long.
    OfTime,
    /// The channel is about to end.
    OfTheEnd,
}

/// Returned requests that wait for nothing soon step aside. Whether any did.
pub(super) fn the_returned(context: &Context, because: Because) -> bool {
    let desk = &context.desk;
    let now = desk.ports.world.now().steady;
    let overdue = desk.settings.consumer_timeout / 2;
    let mut state = desk.lock();
    let goes = |waiter: &Waiter, held: bool| {
        let here = now.saturating_sub(waiter.since);
        waiter.delivery.source == Source::Returned
            && (because == Because::OfTheEnd || here >= overdue || (held && here >= TURN))
    };
    let requests: Vec<(RequestDigest, bool)> = state
        .registry
        .deliveries()
        .map(|(request, project, waiter)| (request, state.gates.is_project_held(project), waiter))
        .filter(|(_, held, waiter)| goes(waiter, *held))
        .map(|(request, held, _)| (request, held))
        .collect();
    if requests.is_empty() {
        return false;
    }
    for (request, held) in requests {
        let waiters = withdraw(&mut state, &[request], |waiter| goes(waiter, held));
        for waiter in waiters {
            context.settle.step_aside(waiter, held);
        }
    }
    drop(state);
    // Whoever stood in line for what they had in a lane must look again, and make room for others.
    desk.ring();
    true
}

fn withdraw(state: &mut State, requests: &[RequestDigest], goes: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
    let mut waiters = Vec::new();
    let mut unqueued = HashSet::new();
    for request in requests {
        let withdrawn = state.registry.withdraw(request, &goes);
        waiters.extend(withdrawn.deliveries);
        if withdrawn.unqueued {
            unqueued.insert(*request);
        }
    }
    if !unqueued.is_empty() {
        state.planner.remove(|request| unqueued.contains(request));
    }
    waiters
}
