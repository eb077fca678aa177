//! One manifest from its journal entry to its end: journal, call, obey [`attempt::decide`], journal the end, attribute.
//!
//! Order is everything here. Before a call leaves, what it could change is durable; before anybody hears of an end, the
//! end is durable.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::permits::{Permit, Wish, acquire};
use super::{Context, aside};
use crate::domain::answer::Reply;
use crate::domain::attempt::{self, Circumstances, Decision, History, Wait};
use crate::domain::fate::{BeforeCall, Fate};
use crate::domain::gates::{Change, Scope};
use crate::domain::manifest::{Conclusion, Draft, End, Journaled, Manifest, split};
use crate::domain::moment::Timestamp;
use crate::domain::outcome::{BATCH_TYPE, BatchEvent};
use crate::ports::{Event, Exchange, Head, Publication};
use crate::shutdown::Phase;

/// Takes up the manifests that an earlier life left open, before anything is consumed.
pub(super) async fn recover(context: &Arc<Context>) {
    let desk = &context.desk;
    let open = desk.journaled(|| desk.ports.journal.open_manifests()).await;
    {
        let mut state = desk.lock();
        for manifest in &open {
            state.registry.open(manifest.id);
        }
    }
    if !open.is_empty() {
        desk.ports.observer.see(&Event::Recovered { manifests: open.len() });
    }
    for manifest in open {
        take_up(context, manifest);
    }
    desk.set_recovered();
}

/// Lets a manifest without a permit go its way. Boxed by name, for its way may lead to children that do the same.
fn take_up(context: &Arc<Context>, manifest: Journaled<Manifest>) {
    let way: BoxFuture<'static, ()> = Box::pin(go_on(Arc::clone(context), manifest, None));
    context.crew.hire(way);
}

/// A new batch, with the permit for its first call. `troubled_since` is what its requests have met before.
pub(super) async fn start(context: Arc<Context>, draft: Draft, troubled_since: Option<Timestamp>, permit: Permit) {
    let desk = &context.desk;
    let now = desk.ports.world.now();
    let fate = Fate { troubled_since, ..Fate::first_called(now, desk.key.borrow().fingerprint()) };
    let manifest = desk.journaled(|| desk.ports.journal.record(&draft, fate, now.wall)).await;
    desk.lock().registry.open(manifest.id);
    go_on(context, manifest, Some(permit)).await;
}

/// Calls until the manifest has ended, or the worker drains: an open manifest is taken up again at the next start.
async fn go_on(context: Arc<Context>, mut manifest: Journaled<Manifest>, mut first_permit: Option<Permit>) {
    let desk = &context.desk;
    let mut fate = manifest.fate;
    let mut history = History::default();
    loop {
        let permit = if let Some(permit) = first_permit.take() {
            permit
        } else {
            tokio::select! {
                biased;
                () = context.shutdown.reached(Phase::Draining) => return,
                permit = acquire(desk, |_, _| Wish::Call(manifest.project.clone())) => permit,
            }
        };
        let key = desk.key.borrow().clone();
        let left = desk.ports.world.now();
        if let BeforeCall::Journal(restated) = fate.before_call(&manifest.fate, left, key.fingerprint()) {
            manifest = desk.journaled(|| desk.ports.journal.restate(&manifest, restated)).await;
            fate = restated;
        }
        let reply = desk.ports.api.delete(&manifest, &key).await;
        desk.ports.observer.see(&Event::Called { key: &manifest.idempotency_key(), reply: &reply });

        let generation = fate.generation;
        let circumstances = Circumstances { left, give_up_after: desk.settings.give_up_after };
        let (decision, pause) = judge(&context, &manifest, fate, &mut history, &reply, permit, circumstances);
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
                return hear(&context, &manifest, &conclusion, &reply);
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
                        state.registry.open(child.id);
                    }
                }
                hear(&context, &manifest, &conclusion, &reply);
                for child in children {
                    take_up(&context, child);
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
        let decision = attempt::decide(manifest, fate, history, reply, gates, circumstances);
        if let Decision::Again { wait, .. } = &decision {
            match wait {
                Wait::Alone { exponent } => alone = desk.backoff(*exponent),
                Wait::Hold { scope, reason } => {
                    let jitter = desk.backoff(gates.tries(*scope, &manifest.project));
                    let wait = reply.retry_after.map_or(jitter, |least| least.max(jitter));
                    gates.hold(*scope, &manifest.project, *reason, now.steady + wait, now.wall);
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
fn hear(context: &Context, manifest: &Manifest, conclusion: &Conclusion, reply: &Reply) {
    let desk = &context.desk;
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
            traceparent: None,
        },
        payload: event.json(),
        mandatory: false,
    });
    let completed = desk.lock().registry.conclude(manifest.id, manifest.key, &manifest.members, conclusion);
    context.settle.complete(completed);
}
