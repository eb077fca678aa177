//! Packs batches, each when its permit to send is there and not before: while permits are scarce it fills by itself.

use std::sync::Arc;
use std::time::Duration;

use super::desk::State;
use super::permits::{Errand, Wish, acquire};
use super::{Context, dispatch};
use crate::domain::ids::ProjectId;
use crate::domain::manifest::{Draft, Member};
use crate::domain::moment::Timestamp;
use crate::domain::planner::{Packed, Ready};
use crate::ports::Event;

pub(super) async fn run(context: Arc<Context>) {
    let desk = &context.desk;
    loop {
        let permit = acquire(desk, Errand::New, |state, now| {
            // Whoever is open already tries whether a hold is over; a new batch would only be one more whose fate is in
            // doubt.
            if state.gates.held().is_some() && state.is_tried() && !state.gates.wants_newcomer() {
                return Wish::Nobody(None);
            }
            match state.planner.ready(now, desk.worth_waiting_for(state), |project| !state.gates.steps_aside(project)) {
                Ready::Now(lane) => Wish::Call(lane.project),
                Ready::At(at) => Wish::Nobody(Some(at)),
                Ready::Empty => Wish::Nobody(None),
            }
        })
        .await;
        let draft = {
            let mut state = desk.lock();
            let now = desk.ports.world.now().steady;
            // The lane may have gone back to the broker while the permit was waited for, or been paused.
            let is_ours = |project: &ProjectId| project == permit.project() && !state.gates.pauses.stop(project);
            match state.planner.ready(now, desk.worth_waiting_for(&state), is_ours) {
                Ready::Now(lane) => state.planner.pack(&lane).map(|Packed { project, body, emails, members }| {
                    state.gates.newcomer_left();
                    let requests = state.registry.start(&members);
                    let troubled_since = troubled_since(&state, &project, &members);
                    let waits: Vec<Duration> = members.iter().filter_map(|member| wait(&state, member, now)).collect();
                    (Draft { project, body, emails, members, requests }, lane, troubled_since, waits)
                }),
                Ready::At(_) | Ready::Empty => None,
            }
        };
        if let Some((draft, lane, troubled_since, waits)) = draft {
            let max_emails = desk.settings.max_emails;
            desk.ports.observer.see(&Event::Packed { emails: draft.emails, max_emails, waits: &waits });
            context.crew.hire(dispatch::start(Arc::clone(&context), draft, lane, troubled_since, permit));
        }
    }
}

/// How long ago a request's first delivery came that waits here.
fn wait(state: &State, member: &Member, now: Duration) -> Option<Duration> {
    let came = state.registry.deliveries_of(&member.request).iter().map(|waiter| waiter.since).min()?;
    Some(now.saturating_sub(came))
}

/// Since when all members have waited aside for their project's hold: the patience of the youngest counts. What they
/// waited for is over where the project has been served since.
fn troubled_since(state: &State, project: &ProjectId, members: &[Member]) -> Option<Timestamp> {
    let aside_since = |member: &Member| {
        let deliveries = state.registry.deliveries_of(&member.request);
        deliveries.iter().filter_map(|waiter| waiter.delivery.envelope.aside_since).min()
    };
    let all: Option<Vec<Timestamp>> = members.iter().map(aside_since).collect();
    let since = all?.into_iter().max()?;
    state.gates.served_at(project).is_none_or(|served| served < since).then_some(since)
}
