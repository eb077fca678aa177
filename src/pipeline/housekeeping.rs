//! What has to be done now and then: forget what is old, leave no erased address behind, and give deliveries back to
//! the broker before it takes them back itself.

use std::sync::Arc;
use std::time::Duration;

use super::Context;
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
        give_back_the_overdue(&context, now.steady);
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

/// While everything is held, deliveries wait in their queue, where others could take them; an open manifest tries.
fn hold_or_consume(context: &Context, consuming: bool) -> bool {
    let desk = &context.desk;
    let now = desk.ports.world.now().wall;
    let held_for = {
        let state = desk.lock();
        // Without an open manifest nobody would try whether the hold is over.
        let somebody_tries = state.registry.is_under_way();
        state.gates.held().filter(|_| somebody_tries).map(|hold| now.millis_since(hold.since))
    };
    let patience = i64::try_from(PATIENCE.min(desk.settings.consumer_timeout / 4).as_millis()).unwrap_or(i64::MAX);
    match held_for {
        Some(held_for) if consuming && held_for >= patience => {
            desk.ports.broker.consume(false);
            desk.ports.observer.see(&Event::GivenBack("held"));
            false
        }
        None if !consuming => {
            desk.ports.broker.consume(true);
            true
        }
        _ => consuming,
    }
}

/// A delivery that has waited for half the consumer timeout goes back, and all others of its channel with it.
fn give_back_the_overdue(context: &Context, now: Duration) {
    let desk = &context.desk;
    let limit = desk.settings.consumer_timeout / 2;
    let overdue = desk
        .lock()
        .registry
        .deliveries()
        .filter(|waiter| now.saturating_sub(waiter.since) >= limit)
        .map(|waiter| waiter.delivery.epoch)
        .max();
    if let Some(epoch) = overdue {
        desk.ports.broker.give_back(epoch);
        desk.ports.observer.see(&Event::GivenBack("consumer_timeout"));
    }
}
