//! Packs batches, each when its permit to send is there and not before: while permits are scarce it fills by itself.

use std::sync::Arc;

use super::desk::State;
use super::permits::{Wish, acquire};
use super::{Context, dispatch};
use crate::domain::manifest::{Draft, Member};
use crate::domain::moment::Timestamp;
use crate::domain::planner::{Packed, Ready};

pub(super) async fn run(context: Arc<Context>) {
    let desk = &context.desk;
    loop {
        let permit = acquire(desk, |state, now| {
            // A project that is held has an open manifest that tries whether it is over.
            match state.planner.ready(now, state.in_sight, |project| !state.gates.is_project_held(project)) {
                Ready::Now(lane) => Wish::Call(lane.project),
                Ready::At(at) => Wish::Nobody(Some(at)),
                Ready::Empty => Wish::Nobody(None),
            }
        })
        .await;
        let draft = {
            let mut state = desk.lock();
            let now = desk.ports.world.now().steady;
            // The lane may have gone back to the broker while the permit was waited for.
            match state.planner.ready(now, state.in_sight, |project| project == permit.project()) {
                Ready::Now(lane) => state.planner.pack(&lane).map(|Packed { project, body, emails, members }| {
                    let requests = state.registry.start(&members);
                    let troubled_since = troubled_since(&state, &members);
                    (Draft { project, body, emails, members, requests }, troubled_since)
                }),
                Ready::At(_) | Ready::Empty => None,
            }
        };
        if let Some((draft, troubled_since)) = draft {
            context.crew.hire(dispatch::start(Arc::clone(&context), draft, troubled_since, permit));
        }
    }
}

/// Since when all members have waited aside for their project's hold: the patience of the youngest counts.
fn troubled_since(state: &State, members: &[Member]) -> Option<Timestamp> {
    let aside_since = |member: &Member| {
        let deliveries = state.registry.deliveries_of(&member.request);
        deliveries.iter().filter_map(|waiter| waiter.delivery.envelope.aside_since).min()
    };
    let all: Option<Vec<Timestamp>> = members.iter().map(aside_since).collect();
    all?.into_iter().max()
}
