//! Requests of which another worker has emails under way: they are looked up again until those have come to their end.
//! And the manifests of workers that are gone: this one succeeds them.
//!
//! Nobody tells a worker of another's ends: it asks, every second, for all that it waits for at once. Never here: a call,
//! an answer that is not in the journal.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::desk::Waiter;
use super::{Context, dispatch};
use crate::domain::ids::{ManifestId, RequestDigest};
use crate::domain::manifest::{KnownRequest, Member};
use crate::domain::outcome::Outcome;
use crate::domain::planner::Lane;
use crate::domain::registry::{Plan, Refreshed, Then};
use crate::domain::rejection::Rejection;
use crate::ports::{Event, Source};

/// How often the journal is asked for what is under way elsewhere.
const ASKING: Duration = Duration::from_secs(1);

/// How many of those askings it takes until it is looked who is gone.
const SUCCEEDING: u32 = 5;

/// The same for who is held: whoever can make calls is there before.
const SUCCEEDING_HELD: u32 = 60;

/// The most requests that are looked up in one go.
const GROUP: usize = 1000;

/// Asks for ever, where others work on the journal; `taken_up` are the manifests that went out at the start.
pub(super) async fn run(context: Arc<Context>, mut taken_up: HashSet<ManifestId>) {
    let desk = &context.desk;
    if desk.ports.journal.lease_left().is_none() {
        return std::future::pending().await;
    }
    for turn in 1u32.. {
        tokio::time::sleep(ASKING).await;
        let requests = desk.lock().registry.elsewhere();
        for group in requests.chunks(GROUP) {
            ask(&context, group).await;
        }
        let is_held = desk.lock().gates.held().is_some();
        if turn.is_multiple_of(if is_held { SUCCEEDING_HELD } else { SUCCEEDING }) {
            succeed(&context, &mut taken_up).await;
        }
    }
}

/// Takes up what workers left that are gone; each manifest once.
async fn succeed(context: &Arc<Context>, taken_up: &mut HashSet<ManifestId>) {
    let desk = &context.desk;
    let mut manifests = match desk.ports.journal.succeed().await {
        Ok(manifests) => manifests,
        Err(error) => return desk.ports.observer.see(&Event::ChoreFailed(&error)),
    };
    manifests.retain(|manifest| taken_up.insert(manifest.id));
    dispatch::take_up_all(context, manifests);
}

async fn ask(context: &Context, requests: &[RequestDigest]) {
    let desk = &context.desk;
    let mut known = desk.journaled(|| desk.ports.journal.lookup(requests)).await;
    let told: Vec<(RequestDigest, Option<KnownRequest>)> =
        requests.iter().map(|request| (*request, known.remove(request))).collect();
    hear(context, told, &[], None);
}

/// A batch was not recorded, for others had some of its requests first: those wait for what the others' calls come to, and
/// all the rest is planned again.
pub(super) async fn lost(context: &Context, members: &[Member], lost: &[RequestDigest], lane: &Lane) {
    let desk = &context.desk;
    desk.ports.observer.see(&Event::Overtaken { requests: lost.len() as u64 });
    let mut known = desk.journaled(|| desk.ports.journal.lookup(lost)).await;
    // One that is unknown by now was forgotten in between: it is planned again like the rest.
    let told = lost.iter().filter_map(|request| Some((*request, Some(known.remove(request)?)))).collect();
    hear(context, told, members, lane.alone);
}

/// What the journal says of requests by now. Those of `unrecorded` are in no manifest of ours after all.
fn hear(
    context: &Context,
    told: Vec<(RequestDigest, Option<KnownRequest>)>,
    unrecorded: &[Member],
    alone: Option<RequestDigest>,
) {
    let desk = &context.desk;
    let now = desk.ports.world.now().steady;
    let (mut completed, mut refused, mut forgotten) = (Vec::new(), Vec::new(), Vec::new());
    {
        let mut state = desk.lock();
        let state = &mut *state;
        state.registry.back_out(unrecorded);
        let mut plans: Vec<Plan> = Vec::new();
        let mut unqueued = HashSet::new();
        for (request, known) in told {
            let Some(known) = known else {
                forgotten.extend(state.registry.forget(&request));
                unqueued.insert(request);
                continue;
            };
            let Refreshed { unqueued: leaves, then } = state.registry.refresh(known);
            if leaves {
                unqueued.insert(request);
            }
            match then {
                Then::Waits(plan) => plans.push(plan),
                Then::Complete(done) => completed.push(*done),
                Then::Reused(request, waiters) => refused.push((request, waiters)),
                Then::Nothing => {}
            }
        }
        if !unqueued.is_empty() {
            state.planner.remove(|request| unqueued.contains(request));
        }
        plans.extend(unrecorded.iter().filter_map(|member| state.registry.plan_again(&member.request)));
        for plan in plans {
            let digest = plan.request.digest;
            let returned = |waiter: &Waiter| waiter.delivery.source == Source::Returned;
            let is_alone = alone == Some(digest) || state.registry.deliveries_of(&digest).iter().all(returned);
            let lane = Lane { project: plan.project, alone: is_alone.then_some(digest) };
            state.planner.queue(lane, &plan.request, &plan.positions, now);
        }
    }
    context.settle.complete(completed);
    for (request, waiters) in refused {
        for waiter in waiters {
            let outcome = Outcome::refused(&request, &Rejection::message_id_reused(), &waiter.delivery.envelope);
            context.settle.answer(waiter, Arc::new(outcome));
        }
    }
    // They come again, and the journal is asked anew.
    if let Some(epoch) = forgotten.iter().map(|waiter| waiter.delivery.epoch).max() {
        desk.ports.broker.give_back(epoch);
    }
    desk.ring();
}
