//! Deliveries in: parsed, recognised, queued, or answered at once. The one task that takes requests into the registry,
//! so that between a look into the journal and its use no other delivery of the same request can slip in.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::desk::{Desk, State, Waiter};
use super::housekeeping::Consuming;
use super::{Context, aside};
use crate::domain::ids::RequestDigest;
use crate::domain::manifest::KnownRequest;
use crate::domain::outcome::Outcome;
use crate::domain::planner::{Lane, Sight};
use crate::domain::registry::{Completed, Met};
use crate::domain::rejection::Rejection;
use crate::domain::request::{DeletionRequest, property_id};
use crate::ports::{Delivery, Epoch, Event, Inbound, Source};

/// Without a delivery for so long nothing more is in sight: longer than a round trip to the broker, for the prefetch
/// grows in such steps, even on a machine that is short of breath; and no longer than a batch lingers anyway.
const QUIET: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(100);

/// How long a request waits whose name another one has here, before it is looked whether the journal knows whose it is.
const RIVALRY: Duration = Duration::from_secs(1);

/// A sound request, with the delivery that brought it.
type Pending = (Arc<DeletionRequest>, Waiter);

pub(super) async fn run(context: Arc<Context>) {
    let desk = &context.desk;
    let quiet = (desk.settings.linger / 2).clamp(*QUIET.start(), *QUIET.end());
    let mut met_at = desk.ports.world.now().steady;
    loop {
        let now = desk.ports.world.now().steady;
        if now.saturating_sub(met_at) >= RIVALRY && desk.lock().registry.has_rivals() {
            met_at = now;
            meet_rivals(&context).await;
        }
        let inbound = if let Ok(inbound) = tokio::time::timeout(quiet, desk.ports.broker.next()).await {
            inbound
        } else {
            let used_up = desk.ports.broker.is_used_up();
            see(desk, if used_up { Sight::Later } else { Sight::Nothing });
            let rivals = desk.lock().registry.has_rivals();
            tokio::select! {
                biased;
                inbound = desk.ports.broker.next() => inbound,
                () = desk.room.notified(), if used_up => {
                    // Where nothing is under way any more, no batch need wait for what would come after it.
                    desk.ring();
                    continue;
                }
                () = tokio::time::sleep(RIVALRY), if rivals => continue,
            }
        };
        match inbound {
            Inbound::Deliveries(deliveries) => {
                {
                    let mut state = desk.lock();
                    state.sight = Sight::Coming;
                    state.channel_lost = false;
                    let now = desk.ports.world.now().steady;
                    state.taking = deliveries.last().map(|delivery| (delivery.epoch, now));
                }
                let returned = deliveries.iter().filter(|delivery| delivery.source == Source::Returned).count();
                let requests = (deliveries.len() - returned) as u64;
                desk.ports.observer.see(&Event::Received { requests, returned: returned as u64 });
                take(&context, deliveries).await;
                desk.lock().taking = None;
                hold_no_more_than_is_of_use(&context);
                see(desk, if desk.ports.broker.is_used_up() { Sight::Later } else { Sight::Coming });
                desk.ring();
                // A flood must not keep the other tasks from their turn.
                tokio::task::yield_now().await;
            }
            Inbound::Lost(epoch) => lose(&context, epoch),
        }
    }
}

/// Those that waited for the journal to know whose their name is are met again.
async fn meet_rivals(context: &Context) {
    let desk = &context.desk;
    let rivals = {
        let mut state = desk.lock();
        let rivals = state.registry.take_rivals();
        let newest = rivals.iter().map(|(_, waiter)| waiter.delivery.epoch).max();
        state.taking = newest.zip(rivals.iter().map(|(_, waiter)| waiter.since).min());
        rivals
    };
    recognise(context, rivals).await;
    desk.lock().taking = None;
    desk.ring();
}

/// No more is held than can be sent in half the consumer timeout: what is beyond that would only be given back.
pub(super) fn hold_no_more_than_is_of_use(context: &Context) {
    let desk = &context.desk;
    let calls = desk.settings.calls_in(desk.settings.consumer_timeout / 2);
    let emails = calls.saturating_mul(desk.settings.max_emails as u64);
    let limit = {
        let state = desk.lock();
        match state.consuming {
            Consuming::All => state.planner.requests_in_time(emails, state.registry.len()),
            // First come those that are in open batches already: as many more again, until a newcomer is there.
            Consuming::Newcomer if !state.has_newcomer() => Some(1 + 8 * state.registry.len() as u64),
            Consuming::Newcomer | Consuming::Nothing => Some(1),
        }
    };
    desk.ports.broker.looked(limit.map(|limit| u16::try_from(limit).unwrap_or(u16::MAX)));
}

/// What batches may wait for has changed, or not.
fn see(desk: &Desk, sight: Sight) {
    let was = std::mem::replace(&mut desk.lock().sight, sight);
    if was != sight {
        desk.ring();
    }
}

/// The deliveries of this channel come again: who waits for nothing else leaves its lane.
fn lose(context: &Context, epoch: Epoch) {
    context.settle.lost(epoch);
    let mut state = context.desk.lock();
    state.channel_lost = true;
    let unqueued = state.registry.detach(|waiter| waiter.delivery.epoch <= epoch);
    if !unqueued.is_empty() {
        state.planner.remove(|request| unqueued.contains(request));
    }
    drop(state);
    context.desk.ring();
}

async fn take(context: &Context, deliveries: Vec<Delivery>) {
    let desk = &context.desk;
    let since = desk.ports.world.now().steady;
    let policy = &desk.settings.policy;
    let mut pending = Vec::with_capacity(deliveries.len());
    let mut oversize = Vec::new();
    for delivery in deliveries {
        let waiter = Waiter { delivery, since };
        if waiter.delivery.source == Source::Returned && was_cut_off(context, &waiter.delivery) {
            context.settle.step_aside(waiter, false);
        } else if let Err(rejection) = policy.admit_size(&waiter.delivery.envelope) {
            oversize.push((rejection, waiter));
        } else {
            parse(context, waiter, &mut pending);
        }
    }
    // The bound on sizes is for new requests: one that is under way stays so, whatever the bound was set to since.
    let ids: Vec<RequestDigest> =
        oversize.iter().filter_map(|(_, w)| property_id(&w.delivery.envelope)).map(|id| id.digest()).collect();
    if !oversize.is_empty() {
        let known = lookup(context, ids).await;
        for (rejection, waiter) in oversize {
            let id = property_id(&waiter.delivery.envelope);
            match &id {
                Some(id) if known.contains_key(&id.digest()) || desk.lock().registry.contains(&id.digest()) => {
                    parse(context, waiter, &mut pending);
                }
                _ => {
                    let outcome = Outcome::too_large(id.as_ref(), &rejection, &waiter.delivery.envelope);
                    context.settle.answer(waiter, Arc::new(outcome));
                }
            }
        }
    }
    recognise(context, pending).await;
}

/// Whether a returned request comes again that this very process had before: its channel ended, and the process did not
/// die of it. The broker counts that all the same, up to a limit that is meant for what kills the worker; a copy starts
/// anew.
fn was_cut_off(context: &Context, delivery: &Delivery) -> bool {
    let request = property_id(&delivery.envelope).map(|id| id.digest());
    let before = std::mem::replace(&mut context.desk.lock().last_returned, request);
    delivery.redelivered && request.is_some() && before == request
}

fn parse(context: &Context, waiter: Waiter, pending: &mut Vec<Pending>) {
    let envelope = &waiter.delivery.envelope;
    match DeletionRequest::parse(envelope, context.desk.settings.policy.default_project.as_ref()) {
        Ok(request) => pending.push((Arc::new(request), waiter)),
        Err(unusable) => {
            let outcome = Outcome::unusable(&unusable, envelope);
            context.settle.answer(waiter, Arc::new(outcome));
        }
    }
}

/// Attaches, recalls or admits each, in order. What the registry does not know the journal is asked for, and asked
/// again where its word was overtaken.
async fn recognise(context: &Context, mut pending: Vec<Pending>) {
    let desk = &context.desk;
    while !pending.is_empty() {
        let unknown: Vec<RequestDigest> = {
            let state = desk.lock();
            pending
                .iter()
                .map(|(request, _)| request.digest)
                .filter(|digest| !state.registry.contains(digest))
                .collect()
        };
        let mut answers: HashMap<RequestDigest, Option<KnownRequest>> =
            unknown.iter().map(|digest| (*digest, None)).collect();
        for (digest, known) in lookup(context, unknown).await {
            answers.insert(digest, Some(known));
        }
        let mut again = Vec::new();
        let mut completed = Vec::new();
        let mut refused = Vec::new();
        let mut aside = Vec::new();
        {
            let mut state = desk.lock();
            for (request, waiter) in pending {
                match meet(context, &mut state, request, waiter, &answers) {
                    Recognised::Settled => {}
                    Recognised::Complete(done) => completed.push(*done),
                    Recognised::Refused(request, waiter, rejection) => refused.push((request, waiter, rejection)),
                    Recognised::Aside(waiters, held) => aside.extend(waiters.into_iter().map(|w| (w, held))),
                    Recognised::AskAgain(request, waiter) => again.push((request, waiter)),
                }
            }
        }
        context.settle.complete(completed);
        for (waiter, held) in aside {
            context.settle.step_aside(waiter, held);
        }
        for (request, waiter, rejection) in refused {
            let outcome = Outcome::refused(&request, &rejection, &waiter.delivery.envelope);
            context.settle.answer(waiter, Arc::new(outcome));
        }
        pending = again;
    }
}

enum Recognised {
    Settled,
    Complete(Box<Completed<Waiter>>),
    Refused(Arc<DeletionRequest>, Waiter, Rejection),
    /// Its project is held, as it says, or paused: these step aside.
    Aside(Vec<Waiter>, bool),
    AskAgain(Arc<DeletionRequest>, Waiter),
}

fn meet(
    context: &Context,
    state: &mut State,
    request: Arc<DeletionRequest>,
    waiter: Waiter,
    answers: &HashMap<RequestDigest, Option<KnownRequest>>,
) -> Recognised {
    let desk = &context.desk;
    let alone = waiter.delivery.source == Source::Returned;
    let redelivered = waiter.delivery.redelivered;
    let met = match state.registry.attach(request, waiter) {
        Ok(met) => met,
        Err((request, waiter)) => match answers.get(&request.digest) {
            None => return Recognised::AskAgain(request, waiter),
            Some(Some(known)) => state.registry.recall(request, known.clone(), waiter),
            Some(None) => match desk.settings.policy.admit(&request) {
                Ok(project) => {
                    if redelivered && desk.ports.journal.was_new() && !state.told_of_lost_journal {
                        state.told_of_lost_journal = true;
                        desk.ports.observer.see(&Event::JournalLost);
                    }
                    let project = project.clone();
                    state.registry.admit(request, project, waiter)
                }
                Err(rejection) => return Recognised::Refused(request, waiter, rejection),
            },
        },
    };
    match met {
        Met::Waits(plan) if !alone && state.gates.steps_aside(&plan.project) => {
            let held = state.gates.is_project_held(&plan.project);
            Recognised::Aside(aside::newcomer(state, plan.request.digest), held)
        }
        Met::Waits(plan) => {
            let lane = Lane { project: plan.project, alone: alone.then_some(plan.request.digest) };
            state.planner.queue(lane, &plan.request, &plan.positions, desk.ports.world.now().steady);
            Recognised::Settled
        }
        Met::Complete(done) => Recognised::Complete(done),
        Met::Rival => Recognised::Settled,
        Met::Reused(request, waiter) => Recognised::Refused(request, waiter, Rejection::message_id_reused()),
        Met::Stale(request, waiter) => Recognised::AskAgain(request, waiter),
    }
}

async fn lookup(context: &Context, requests: Vec<RequestDigest>) -> HashMap<RequestDigest, KnownRequest> {
    if requests.is_empty() {
        return HashMap::new();
    }
    let desk = &context.desk;
    desk.journaled(|| desk.ports.journal.lookup(&requests)).await
}
