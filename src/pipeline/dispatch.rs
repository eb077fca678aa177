//! One manifest from its journal entry to its end: journal, call, obey [`attempt::decide`], journal the end, attribute.
//!
//! Order is everything here. Before a call leaves, what it could change is durable; before anybody hears of an end, the
//! end is durable.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::permits::{Errand, Permit, Wish, acquire, leaves};
use super::{Context, aside, elsewhere, turns};
use crate::domain::answer::Reply;
use crate::domain::attempt::{self, Circumstances, Decision, History, Ordeal, Wait};
use crate::domain::fate::{BeforeCall, Fate};
use crate::domain::gates::{Change, Scope, Trouble};
use crate::domain::ids::ManifestId;
use crate::domain::lease;
use crate::domain::manifest::{Conclusion, Draft, End, Journaled, Manifest, split};
use crate::domain::moment::Timestamp;
use crate::domain::outcome::{BATCH_TYPE, BatchEvent};
use crate::domain::planner::Lane;
use crate::domain::traceparent::TraceParent;
use crate::ports::{Event, Exchange, Head, Publication, Recorded, Trace};
use crate::shutdown::Phase;

/// How long a manifest waits that may not be sent, before it looks whether the lease was renewed.
const LEASE_PAUSE: Duration = Duration::from_millis(250);

/// Takes up the manifests that an earlier life left open, before anything is consumed. Returns which.
pub(super) async fn recover(context: &Arc<Context>) -> HashSet<ManifestId> {
    let desk = &context.desk;
    let open = desk.journaled(|| desk.ports.journal.open_manifests()).await;
    let taken_up = open.iter().map(|manifest| manifest.id).collect();
    take_up_all(context, open);
    desk.set_recovered();
    taken_up
}

/// Takes up manifests that another life left open, or another worker.
pub(super) fn take_up_all(context: &Arc<Context>, open: Vec<Journaled<Manifest>>) {
    let desk = &context.desk;
    {
        let mut state = desk.lock();
        for manifest in &open {
            state.registry.open(manifest.id, &manifest.project);
        }
    }
    if !open.is_empty() {
        desk.ports.observer.see(&Event::Recovered { manifests: open.len() });
    }
    for manifest in open {
        take_up(context, manifest, History::default(), None);
    }
}

/// Lets a manifest without a permit go its way; `parent` is the place of the batch that it was split from. Boxed by
/// name, for its way may lead to children that do the same.
fn take_up(context: &Arc<Context>, manifest: Journaled<Manifest>, history: History, parent: Option<TraceParent>) {
    let trace = follow(context, &manifest, parent);
    let way: BoxFuture<'static, ()> = Box::pin(go_on(Arc::clone(context), manifest, None, history, trace));
    context.crew.hire(way);
}

fn follow(context: &Context, manifest: &Manifest, parent: Option<TraceParent>) -> Box<dyn Trace> {
    match &context.desk.ports.tracer {
        Some(tracer) => tracer.follow(manifest, &places(context, manifest), parent),
        None => Box::new(()),
    }
}

/// Where the requests of a manifest stand in their traces.
fn places(context: &Context, manifest: &Manifest) -> Vec<TraceParent> {
    if context.desk.ports.tracer.is_none() {
        return Vec::new();
    }
    let state = context.desk.lock();
    let deliveries = manifest.members.iter().flat_map(|member| state.registry.deliveries_of(&member.request));
    deliveries.filter_map(|waiter| waiter.delivery.envelope.traceparent).collect()
}

/// A new batch from this lane, with the permit for its first call. Its requests have waited for their project
/// `troubled_since`.
pub(super) async fn start(
    context: Arc<Context>,
    draft: Draft,
    lane: Lane,
    troubled_since: Option<Timestamp>,
    permit: Permit,
) {
    let desk = &context.desk;
    let now = desk.ports.world.now();
    let fate = Fate { troubled_since, ..Fate::first_called(now, desk.key.borrow().fingerprint()) };
    let manifest = match desk.journaled(|| desk.ports.journal.record(&draft, fate, now.wall)).await {
        Recorded::Manifest(manifest) => manifest,
        Recorded::Lost(lost) => return elsewhere::lost(&context, &draft.members, &lost, &lane).await,
    };
    {
        let mut state = desk.lock();
        state.registry.open(manifest.id, &manifest.project);
        state.registry.recorded(&manifest.members);
    }
    let trace = follow(&context, &manifest, None);
    let history = troubled_since.map_or_else(History::default, |_| History::after(Ordeal::Forbidden));
    go_on(context, manifest, Some(permit), history, trace).await;
}

/// Calls until the manifest has ended, or the worker drains: an open manifest is taken up again at the next start.
async fn go_on(
    context: Arc<Context>,
    mut manifest: Journaled<Manifest>,
    mut first_permit: Option<Permit>,
    mut history: History,
    mut trace: Box<dyn Trace>,
) {
    let desk = &context.desk;
    let mut fate = manifest.fate;
    loop {
        let permit = if let Some(permit) = first_permit.take() {
            permit
        } else {
            tokio::select! {
                biased;
                () = context.shutdown.reached(Phase::Draining) => return,
                permit = acquire(desk, Errand::Open, |_, _| Wish::Call(manifest.project.clone())) => permit,
            }
        };
        let key = desk.key.borrow().clone();
        // What is to be journaled takes its time, and a window may close meanwhile.
        while let BeforeCall::Journal(restated) =
            fate.before_call(&manifest.fate, desk.ports.world.now(), key.fingerprint())
        {
            manifest = desk.journaled(|| desk.ports.journal.restate(&manifest, restated)).await;
            fate = restated;
        }
        // One whose turn is now leaves, draining or not: taken up again, its fate would be in doubt for nothing.
        tokio::select! {
            biased;
            leaves = leaves(desk, &permit) => if !leaves { continue },
            () = context.shutdown.reached(Phase::Draining) => return,
        }
        if !lease::may_send(desk.ports.journal.lease_left()) {
            drop(permit);
            tokio::select! {
                biased;
                () = context.shutdown.reached(Phase::Draining) => return,
                () = tokio::time::sleep(LEASE_PAUSE) => continue,
            }
        }
        let left = desk.ports.world.now();
        let reply = desk.ports.api.delete(&manifest, &key, trace.call(&manifest)).await;
        trace.called(&reply);
        desk.ports.observer.see(&Event::Called { key: &manifest.idempotency_key(), reply: &reply });

        let generation = fate.generation;
        let departure = permit.departure();
        let circumstances = Circumstances { left, departure, give_up_after: desk.settings.give_up_after };
        let (decision, pause) = judge(&context, &manifest, fate, &mut history, &reply, permit, circumstances);
        turns::share_the_wait(&context);
        let conclude = |end| Conclusion {
            end,
            generation,
            http_status: reply.status,
            attempts: history.attempts,
            replayed: reply.replayed,
            request_id: reply.request_id.clone(),
            at: desk.ports.world.now().wall,
        };
        match decision {
            Decision::Finish(end) => {
                let conclusion = conclude(end);
                desk.journaled(|| desk.ports.journal.conclude(manifest.id, &conclusion)).await;
                return hear(&context, &manifest, &conclusion, &reply, trace.as_mut());
            }
            Decision::Split { fate: inherited } => {
                // A body of ours with two emails or more has two halves.
                let Some(halves) = split(&manifest) else { return };
                let conclusion = conclude(End::Split);
                let ask = || desk.ports.journal.split(&manifest, &conclusion, inherited, &halves);
                let children = desk.journaled(ask).await;
                {
                    let mut state = desk.lock();
                    for child in &children {
                        state.registry.open(child.id, &child.project);
                    }
                }
                hear(&context, &manifest, &conclusion, &reply, trace.as_mut());
                for child in children {
                    take_up(&context, child, history.inherited(), trace.here());
                }
                return;
            }
            Decision::Again { fate: next, .. } => fate = next,
        }
        tokio::select! {
            biased;
            () = context.shutdown.reached(Phase::Draining) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Lets the domain decide, and moves the gates. Returns how long this manifest alone has to wait.
fn judge(
    context: &Context,
    manifest: &Manifest,
    fate: Fate,
    history: &mut History,
    reply: &Reply,
    permit: Permit,
    circumstances: Circumstances,
) -> (Decision, Duration) {
    let desk = &context.desk;
    let mut alone = Duration::ZERO;
    let now = desk.ports.world.now();
    let (decision, changes, leaving) = {
        let mut state = desk.lock();
        permit.back(&mut state);
        let gates = &mut state.gates;
        gates.leaps.look(now);
        let decision = attempt::decide(manifest, fate, history, reply, gates, circumstances);
        if let Decision::Again { wait, .. } = &decision {
            match wait {
                Wait::Alone { exponent } => alone = desk.backoff(*exponent),
                Wait::Hold { scope, reason } => {
                    let jitter = desk.backoff(gates.tries(*scope, &manifest.project));
                    let asked = reply.retry_after.map(|wait| now.steady + wait);
                    let trouble = Trouble {
                        reason: *reason,
                        departure: circumstances.departure,
                        until: asked.unwrap_or_default().max(now.steady + jitter),
                        asked,
                        doubtful: reply.verdict.may_spare_others(),
                        at: now,
                    };
                    gates.hold(*scope, &manifest.project, &trouble);
                }
            }
        }
        let changes = gates.take_changes();
        let held = changes.iter().any(|change| matches!(change, Change::Began(Scope::Project, _)));
        let leaving = if held { aside::all_of(&mut state, &manifest.project) } else { Vec::new() };
        (decision, changes, leaving)
    };
    for waiter in leaving {
        context.settle.step_aside(waiter, true);
    }
    desk.ring();
    for change in changes {
        let (Change::Began(scope, _) | Change::Ended(scope, ..)) = change;
        let project = (scope == Scope::Project).then_some(&manifest.project);
        desk.ports.observer.see(&Event::Gate(change, project));
    }
    (decision, alone)
}

/// A manifest has ended, durably: its requests hear of it, and operations.
fn hear(context: &Context, manifest: &Manifest, conclusion: &Conclusion, reply: &Reply, trace: &mut dyn Trace) {
    let desk = &context.desk;
    // Before they leave the registry. Some may have come only now: a manifest of an earlier life sets out without them.
    trace.ended(conclusion, &places(context, manifest));
    desk.ports.observer.see(&Event::Concluded { manifest, conclusion });
    let took = u64::try_from(reply.took.as_millis()).unwrap_or(u64::MAX);
    let event = BatchEvent::of(manifest, conclusion, took);
    desk.ports.broker.tell(Publication {
        exchange: Exchange::Outcomes,
        routing_key: format!("batch.{}", event.status),
        head: Head::Own {
            message_id: event.idempotency_key().to_owned(),
            correlation_id: None,
            kind: BATCH_TYPE,
            at: conclusion.at,
            traceparent: trace.here(),
        },
        payload: event.json(),
        mandatory: false,
    });
    let completed = desk.lock().registry.conclude(manifest.id, manifest.key, &manifest.members, conclusion);
    context.settle.complete(completed);
    // Who waits for others' tries to end must look again.
    desk.ring();
}
