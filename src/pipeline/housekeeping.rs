//! What has to be done now and then: forget what is old, leave no erased address behind, and give deliveries back to
//! the broker before it takes them back itself.

use std::sync::Arc;
use std::time::Duration;

use super::{Context, aside};
use super::aside::Because;
use crate::ports::Event;

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
    loop {
        tokio::time::sleep(TICK).await;
        let now = desk.ports.world.now();
        consuming = hold_or_consume(&context, consuming);
        // What steps aside has until the next look to be confirmed and acked: given back, it would be there twice.
        if !aside::the_returned(&context, if consuming { Because::OfTime } else { Because::OfTheEnd }) {
            give_back_the_overdue(&context, now.steady, consuming);
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

/// While nothing can be sent, deliveries wait in their queue, where others could take them; an open manifest tries.
fn hold_or_consume(context: &Context, consuming: bool) -> bool {
    let desk = &context.desk;
    let now = desk.ports.world.now().wall;
    let patience = PATIENCE.min(desk.settings.consumer_timeout / 4).as_millis();
    let outlasts = |millis: i64| u128::try_from(millis).is_ok_and(|millis| millis >= patience);
    let (held, hopeless) = {
        let state = desk.lock();
        // Without an open manifest nobody would try whether the hold is over.
        let somebody_tries = state.registry.is_under_way();
        let hold = state.gates.held().filter(|_| somebody_tries);
        let quota_until = state.quota_until.filter(|until| outlasts(until.millis_since(now)));
        let hopeless = hold.is_some_and(|hold| outlasts(now.millis_since(hold.since))) || quota_until.is_some();
        (hold.is_some() || quota_until.is_some(), hopeless)
    };
    match (consuming, hopeless, held) {
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

/// Deliveries that have waited for half the consumer timeout go back, and all others of their channel with them; all of
/// them do where nothing is consumed. Returned ones step aside before.
fn give_back_the_overdue(context: &Context, now: Duration, consuming: bool) {
    let desk = &context.desk;
    let limit = desk.settings.consumer_timeout / 2;
    let overdue = desk
        .lock()
        .registry
        .deliveries()
        .filter(|(_, _, waiter)| !consuming || now.saturating_sub(waiter.since) >= limit)
        .map(|(_, _, waiter)| waiter.delivery.epoch)
        .max();
    if let Some(epoch) = overdue {
        desk.ports.broker.give_back(epoch);
        desk.ports.observer.see(&Event::GivenBack(if consuming { "consumer_timeout" } else { "held" }));
    }
}
