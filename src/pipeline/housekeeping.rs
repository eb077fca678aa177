//! What has to be done now and then: forget what is old, leave no erased address behind, and give deliveries back to
//! the broker before it takes them back itself.

use std::sync::Arc;
use std::time::Duration;

use super::aside::Because;
use super::{Context, aside};
use crate::ports::{Epoch, Event};

/// How often it looks.
const TICK: Duration = Duration::from_secs(5);
/// Nothing is forgotten before consuming has gone on for so long: what waits in the queue may be a repeat of the oldest
/// that is remembered.
const FORGET_AFTER: Duration = Duration::from_mins(15);
/// How often the journal is asked to forget, while nothing is left to forget.
const FORGET_EVERY: Duration = Duration::from_mins(1);
/// A hold of everything that lasts longer stops consuming; what is here goes back.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(context: Arc<Context>) {
    let desk = &context.desk;
    let start = desk.ports.world.now().steady;
    let mut next_forget = start + FORGET_AFTER;
    let mut consuming = true;
    let mut given_back = Epoch(0);
    loop {
        tokio::time::sleep(TICK).await;
        let now = desk.ports.world.now();
        consuming = hold_or_consume(&context, consuming);
        // What steps aside has until the next look to be confirmed and acked: given back, it would be there twice.
        if !aside::the_returned(&context, Because::OfTime) {
            give_back_the_overdue(&context, consuming, &mut given_back);
        }
        if let Err(error) = desk.ports.journal.tidy().await {
            desk.ports.observer.see(&Event::JournalFailed(&error));
        }
        if now.steady >= next_forget {
            next_forget = now.steady + FORGET_EVERY;
            match desk.ports.journal.forget(now.wall.before(desk.settings.retention)).await {
                Ok(forgotten) => {
                    if forgotten.requests > 0 {
                        desk.ports.observer.see(&Event::Forgot { requests: forgotten.requests });
                    }
                    if forgotten.more {
                        next_forget = now.steady;
                    }
                }
                Err(error) => desk.ports.observer.see(&Event::JournalFailed(&error)),
            }
        }
    }
}

/// While nothing can be sent or remembered, deliveries wait in their queue, where others could take them. Whoever is at
/// it already, an open manifest or the journal's asker, tries on.
fn hold_or_consume(context: &Context, consuming: bool) -> bool {
    let desk = &context.desk;
    let now = desk.ports.world.now();
    let patience = PATIENCE.min(desk.settings.consumer_timeout / 4);
    let millis = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    let (waiting, hopeless) = {
        let state = desk.lock();
        // Without an open manifest nobody would try whether the hold is over.
        let hold = state.gates.held().filter(|_| state.registry.is_under_way());
        let for_so_long = [
            hold.map(|hold| millis(now.wall.millis_since(hold.since))),
            state.journal_down.map(|since| now.steady.saturating_sub(since)),
        ];
        let quota_for = state.quota_until.map(|until| millis(until.millis_since(now.wall)));
        let quota_for = quota_for.filter(|left| *left >= patience);
        let waiting = for_so_long.iter().any(Option::is_some) || quota_for.is_some();
        (waiting, quota_for.is_some() || for_so_long.iter().flatten().any(|waited| *waited >= patience))
    };
    match (consuming, hopeless, waiting) {
        (true, true, _) => {
            desk.ports.broker.consume(false);
            false
        }
        (false, _, false) => {
            desk.ports.broker.consume(true);
            true
        }
        _ => consuming,
    }
}

/// Deliveries that have been here for half the consumer timeout go back, and all others of their channel with them; all
/// of them do where nothing is consumed. Returned ones step aside before.
fn give_back_the_overdue(context: &Context, consuming: bool, given_back: &mut Epoch) {
    let desk = &context.desk;
    let now = desk.ports.world.now().steady;
    let limit = if consuming { desk.settings.consumer_timeout / 2 } else { Duration::ZERO };
    let Some(came_by) = now.checked_sub(limit) else { return };
    let overdue = {
        let state = desk.lock();
        let waiting = state.registry.deliveries().map(|(_, _, waiter)| (waiter.delivery.epoch, waiter.since));
        let waiting = waiting.chain(state.taking).filter(|(_, since)| *since <= came_by).map(|(epoch, _)| epoch);
        waiting.chain(context.settle.epoch_of_older(came_by)).max()
    };
    let Some(epoch) = overdue.filter(|epoch| epoch > given_back) else { return };
    if aside::the_returned(context, Because::OfTheEnd) {
        return;
    }
    *given_back = epoch;
    desk.ports.broker.give_back(epoch);
    desk.ports.observer.see(&Event::GivenBack(if consuming { "consumer_timeout" } else { "held" }));
}
