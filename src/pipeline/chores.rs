//! What the journal needs now and then: forget what is old, leave no erased address behind, tell how much of the quota is
//! spent. Nobody waits for it, however long the disk takes.

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::housekeeping::Consuming;
use crate::ports::Event;

/// How often it looks.
const TICK: Duration = Duration::from_secs(5);
/// Nothing is forgotten before consuming has gone on for so long: what waits in the queue may be a repeat of the oldest
/// that is remembered.
const FORGET_AFTER: Duration = Duration::from_mins(15);
/// How often the journal is asked to forget, while nothing is left to forget.
const FORGET_EVERY: Duration = Duration::from_mins(1);
/// How long it may go on forgetting at a time: others want the journal too.
const FORGET_FOR: Duration = Duration::from_secs(1);

pub(super) async fn run(context: Arc<Context>) {
    let desk = &context.desk;
    let mut consuming_since = desk.ports.world.now().steady;
    let mut next_forget = consuming_since;
    count_the_quota(&context).await;
    loop {
        tokio::time::sleep(TICK).await;
        count_the_quota(&context).await;
        if let Err(error) = desk.ports.journal.tidy().await {
            desk.ports.observer.see(&Event::ChoreFailed(&error));
        }
        let now = desk.ports.world.now().steady;
        let consumes = {
            let state = desk.lock();
            state.consuming == Consuming::All && !state.channel_lost
        };
        if !consumes {
            consuming_since = now;
        } else if now.saturating_sub(consuming_since) >= FORGET_AFTER && now >= next_forget {
            next_forget = if forget(&context).await { now } else { now + FORGET_EVERY };
        }
    }
}

/// Forgets for a while; whether more is old enough.
async fn forget(context: &Context) -> bool {
    let desk = &context.desk;
    let start = desk.ports.world.now().steady;
    loop {
        let now = desk.ports.world.now();
        let before = {
            let mut state = desk.lock();
            state.gates.leaps.look(now);
            state.gates.leaps.before(now.wall, desk.settings.retention)
        };
        match desk.ports.journal.forget(before).await {
            Ok(forgotten) => {
                if forgotten.requests > 0 {
                    desk.ports.observer.see(&Event::Forgot { requests: forgotten.requests });
                }
                if !forgotten.more {
                    return false;
                }
            }
            Err(error) => {
                desk.ports.observer.see(&Event::ChoreFailed(&error));
                return false;
            }
        }
        if desk.ports.world.now().steady.saturating_sub(start) >= FORGET_FOR {
            return true;
        }
        tokio::task::yield_now().await;
    }
}

/// Learns how much of the daily quota is spent, for those who watch; calls themselves are counted as they leave.
async fn count_the_quota(context: &Context) {
    let desk = &context.desk;
    if desk.settings.requests_per_day.is_none() {
        return;
    }
    match desk.ports.journal.spent(desk.ports.world.now().wall).await {
        Ok(spent) => desk.lock().quota_spent = spent,
        Err(error) => desk.ports.observer.see(&Event::ChoreFailed(&error)),
    }
}
