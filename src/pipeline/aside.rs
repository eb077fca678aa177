//! Requests that cannot be done now step aside: a copy waits in a queue of the broker's, confirmed before the ack.
//!
//! Requests of a held or paused project go to the parking queue, from where they come back a while later, so that they
//! do not crowd the prefetch while that project is held; and so do those that are in open batches already, where they
//! would keep a newcomer out that is to try whether a hold is over. What the broker returned (the returned queue) goes to
//! that queue's own tail instead, so that it stays alone and the broker's count of its deliveries, which is meant for what
//! kills the worker, starts anew.

use std::collections::HashSet;
use std::time::Duration;

use super::Context;
use super::desk::{State, Waiter};
use crate::domain::ids::{ProjectId, RequestDigest};
use crate::ports::Source;

/// How long a returned request of a held or paused project stays in hand before another has its turn: as long as a
/// parked one stays aside.
pub(super) const TURN: Duration = Duration::from_secs(15);

/// A project's hold or pause has begun: all its requests step aside, but for returned ones, which are one at a time
/// anyway. What is under way of them goes on.
#[must_use = "they have left the registry, and must be settled"]
pub(super) fn all_of(state: &mut State, project: &ProjectId) -> Vec<Waiter> {
    let requests = state.registry.of_project(project);
    withdraw(state, &requests, |waiter| waiter.delivery.source == Source::Requests)
}

/// The same for one request that came while its project is held or paused, before any of its emails stand in a lane.
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
    let goes = |waiter: &Waiter, stopped: bool| {
        let here = now.saturating_sub(waiter.since);
        waiter.delivery.source == Source::Returned
            && (because == Because::OfTheEnd || here >= overdue || (stopped && here >= TURN))
    };
    let requests: Vec<(RequestDigest, bool, bool)> = state
        .registry
        .deliveries()
        .map(|(request, project, waiter)| (request, state.gates.steps_aside(project), project, waiter))
        .filter(|(_, stopped, _, waiter)| goes(waiter, *stopped))
        .map(|(request, stopped, project, _)| (request, stopped, state.gates.is_project_held(project)))
        .collect();
    if requests.is_empty() {
        return false;
    }
    for (request, stopped, held) in requests {
        let waiters = withdraw(&mut state, &[request], |waiter| goes(waiter, stopped));
        for waiter in waiters {
            context.settle.step_aside(waiter, held);
        }
    }
    drop(state);
    // Whoever stood in line for what they had in a lane must look again, and make room for others.
    desk.ring();
    true
}

/// Requests that are in open batches already make room for a newcomer, where none is here. What is under way of them goes
/// on. Whether any did.
pub(super) fn the_open(context: &Context) -> bool {
    let desk = &context.desk;
    let mut state = desk.lock();
    if state.has_newcomer() {
        return false;
    }
    let is_ours = |waiter: &Waiter| waiter.delivery.source == Source::Requests;
    let open: HashSet<RequestDigest> =
        state.registry.deliveries().filter(|(_, _, waiter)| is_ours(waiter)).map(|(request, ..)| request).collect();
    let leaving = withdraw(&mut state, &Vec::from_iter(open), is_ours);
    drop(state);
    let any = !leaving.is_empty();
    for waiter in leaving {
        context.settle.step_aside(waiter, false);
    }
    any
}

/// In the order in which they were delivered, for that is the order in which they come back.
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
    waiters.sort_by_key(|waiter| (waiter.delivery.epoch, waiter.delivery.tag));
    waiters
}
