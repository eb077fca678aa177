//! Packs batches, each when its permit to send is there and not before: while permits are scarce it fills by itself.

use std::sync::Arc;

use super::permits::{Wish, acquire};
use super::{Context, dispatch};
use crate::domain::manifest::Draft;
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
                    Draft { project, body, emails, members, requests }
                }),
                Ready::At(_) | Ready::Empty => None,
            }
        };
        if let Some(draft) = draft {
            context.crew.hire(dispatch::start(Arc::clone(&context), draft, permit));
        }
    }
}
