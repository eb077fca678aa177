//! What has to be done now and then, beside the journal: consume or not, and give deliveries back to the broker before it
//! takes them back itself. It waits for nobody, and for no disk.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Sleep;

use super::aside::Because;
use super::desk::State;
use super::{Context, aside, intake, pausing};
use crate::ports::{Epoch, Event};

/// How often it looks.
const TICK: Duration = Duration::from_secs(5);
/// A hold of everything that lasts longer stops consuming; what is here goes back.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is taken from the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consuming {
    /// As much as can be sent in time.
    All,
    /// Until a newcomer is among it, for another body is to try whether a hold is over.
    Newcomer,
    /// Nothing.
    Nothing,
}

/// What was given back so far.
#[derive(Default)]
struct GivenBack {
    /// All of this epoch and those before it.
    last: Epoch,
    /// For the end of this epoch the returned ones have stepped aside.
    made_way: Epoch,
}

pub(super) async fn run(context: Arc<Context>) {
    let mut given_back = GivenBack::default();
    let _ = hold_or_consume(&context);
    loop {
        let next_look = pin!(tokio::time::sleep(TICK));
        let made_way = pauses_until(next_look, &context).await;
        let (before, consuming) = hold_or_consume(&context);
        // For a whole look no newcomer came.
        let crowded_out = before == Consuming::Newcomer && consuming == Consuming::Newcomer;
        // What steps aside has until the next look to be confirmed and acked: given back, it would be there twice.
        let stepped_aside = crowded_out && aside::the_open(&context);
        if !aside::the_returned(&context, Because::OfTime) && !stepped_aside && !made_way {
            give_back_the_overdue(&context, consuming, &mut given_back);
        }
    }
}

/// Obeys pauses that begin and end before the next look, each at once. Whether any request stepped aside for one.
async fn pauses_until(mut next_look: Pin<&mut Sleep>, context: &Context) -> bool {
    let mut made_way = false;
    loop {
        made_way |= pausing::make_way(context);
        tokio::select! {
            biased;
            () = context.desk.paused_otherwise.notified() => {
                let _ = hold_or_consume(context);
            }
            () = &mut next_look => return made_way,
        }
    }
}

/// While nothing can be sent or remembered, deliveries wait in their queue, where others could take them. Whoever is at
/// it already, an open manifest or the journal's asker, tries on. Tells what was taken before, and what is from now on.
fn hold_or_consume(context: &Context) -> (Consuming, Consuming) {
    let desk = &context.desk;
    let (was, is) = {
        let mut state = desk.lock();
        let was = state.consuming;
        state.gates.leaps.look(desk.ports.world.now());
        state.consuming = wanted(context, &state);
        (was, state.consuming)
    };
    let broker = &desk.ports.broker;
    match is {
        Consuming::Newcomer => intake::hold_no_more_than_is_of_use(context),
        Consuming::All if was != is => broker.looked(Some(desk.settings.most_deliveries())),
        Consuming::All | Consuming::Nothing => {}
    }
    if was != is {
        broker.consume(is != Consuming::Nothing);
    }
    (was, is)
}

fn wanted(context: &Context, state: &State) -> Consuming {
    let desk = &context.desk;
    let now = desk.ports.world.now().steady;
    let patience = PATIENCE.min(desk.settings.consumer_timeout / 4);
    if state.gates.pauses.everything().is_some() {
        return Consuming::Nothing;
    }
    // Without an open manifest that may try nobody would see whether the hold is over.
    let hold = state.gates.held().filter(|_| state.is_tried());
    let held_for = hold.map(|hold| hold.lasted(now));
    let down_for = state.journal_down.map(|since| now.saturating_sub(since));
    let quota_for = state.quota_until.map(|until| until.saturating_sub(now)).filter(|left| *left >= patience);
    if down_for.is_some_and(|waited| waited >= patience) {
        return Consuming::Nothing;
    }
    match held_for {
        // Without a place in the line for permits a newcomer would never see the quota's next one.
        Some(waited) if waited >= patience && state.gates.wants_newcomer() => Consuming::Newcomer,
        _ if quota_for.is_some() => Consuming::Nothing,
        Some(waited) if waited >= patience => Consuming::Nothing,
        None if down_for.is_none() => Consuming::All,
        _ => state.consuming,
    }
}

/// Deliveries that have been here for half the consumer timeout go back, and all others of their channel with them; all
/// of them do where nothing is consumed. Returned ones step aside before.
fn give_back_the_overdue(context: &Context, consuming: Consuming, given_back: &mut GivenBack) {
    let desk = &context.desk;
    let now = desk.ports.world.now().steady;
    let held = consuming == Consuming::Nothing && !ends_soon(context);
    let limit = if held { Duration::ZERO } else { desk.settings.consumer_timeout / 2 };
    let Some(came_by) = now.checked_sub(limit) else { return };
    let overdue = {
        let state = desk.lock();
        let waiting = state.registry.all_deliveries().map(|waiter| (waiter.delivery.epoch, waiter.since));
        let waiting = waiting.chain(state.taking).filter(|(_, since)| *since <= came_by).map(|(epoch, _)| epoch);
        waiting.chain(context.settle.epoch_of_older(came_by)).max()
    };
    let Some(epoch) = overdue.filter(|epoch| *epoch > given_back.last) else { return };
    // Once for each end: the copy may be here again by the next look.
    if given_back.made_way < epoch {
        given_back.made_way = epoch;
        if aside::the_returned(context, Because::OfTheEnd) {
            return;
        }
    }
    given_back.last = epoch;
    desk.ports.broker.give_back(epoch);
    desk.ports.observer.see(&Event::GivenBack(if held { "held" } else { "consumer_timeout" }));
}

/// Whether a pause of everything waits for calls that had left before it, and for their outcomes: these are still to be
/// heard, by deliveries that are still here.
fn ends_soon(context: &Context) -> bool {
    let state = context.desk.lock();
    let is_paused = state.gates.pauses.everything().is_some();
    is_paused && (state.gates.in_flight() > 0 || context.desk.settling.oldest().is_some())
}
