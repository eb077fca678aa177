//! The rate of calls: this worker's own, or, where several share a journal, one for all of them, by turns that the journal
//! grants. Who is told by the API to wait has the others wait too: no turns are granted meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::permits::RateLimiter;
use super::{Context, Desk, Settings};
use crate::domain::gates::Hold;
use crate::domain::pace::{Rate, Stock, Take};

/// The longest pause before turns are asked for again that were not due.
const AGAIN: Duration = Duration::from_secs(1);

/// The shortest, too: others may be quicker again and again.
const NOT_AT_ONCE: Duration = Duration::from_millis(10);

/// Whose rate calls go by.
pub(super) enum Limiter {
    /// This worker's own.
    Own(RateLimiter),
    /// One that all workers on the journal share.
    Shared {
        /// The turns that this worker was granted.
        stock: Stock,
        /// Rung when there is none left.
        demand: Arc<Notify>,
    },
}

impl Limiter {
    pub(super) fn own(settings: &Settings) -> Self {
        Self::Own(RateLimiter::new(settings.requests_per_minute, settings.burst))
    }

    pub(super) fn shared(settings: &Settings) -> Self {
        let rate = Rate::new(settings.requests_per_minute, settings.burst);
        Self::Shared { stock: Stock::new(rate), demand: Arc::default() }
    }

    /// Takes the right to make one call, and tells until when it is good (steady), where that ends; else when to ask again,
    /// or that the bell will ring.
    pub(super) fn take(&mut self, now: Duration) -> Result<Option<Duration>, Option<Duration>> {
        match self {
            Self::Own(limiter) => limiter.take().map(|()| None).map_err(|wait| Some(now + wait)),
            Self::Shared { stock, demand } => match stock.take(now) {
                Take::Taken { until } => Ok(Some(until)),
                Take::At(at) => Err(Some(at)),
                Take::None => {
                    demand.notify_one();
                    Err(None)
                }
            },
        }
    }

    /// How many calls could leave now, give or take one: of a shared rate, of what was granted to this worker.
    pub(super) fn available(&self, now: Duration) -> u32 {
        match self {
            Self::Own(limiter) => limiter.available(),
            Self::Shared { stock, .. } => stock.available(now),
        }
    }

    fn stock(&mut self) -> Option<&mut Stock> {
        match self {
            Self::Own(_) => None,
            Self::Shared { stock, .. } => Some(stock),
        }
    }
}

/// Asks for turns whenever there is none left and somebody wants one.
pub(super) async fn supply(context: Arc<Context>) {
    let desk = &context.desk;
    let demand = match &desk.lock().limiter {
        Limiter::Own(_) => None,
        Limiter::Shared { demand, .. } => Some(Arc::clone(demand)),
    };
    let Some(demand) = demand else { return std::future::pending().await };
    loop {
        demand.notified().await;
        let now = desk.ports.world.now().steady;
        let asking = {
            let mut state = desk.lock();
            let waiting = state.line.len();
            state.limiter.stock().map(|stock| (stock.rate(), stock.wanted(waiting, now)))
        };
        let Some((rate, wanted)) = asking else { continue };
        let mut asked = now;
        let ask = || {
            asked = desk.ports.world.now().steady;
            desk.ports.journal.turns(rate, wanted)
        };
        let grant = desk.journaled(ask).await;
        let heard = desk.ports.world.now().steady;
        if let Some(stock) = desk.lock().limiter.stock() {
            stock.put(&grant, asked, heard);
        }
        if grant.count == 0 {
            tokio::time::sleep(grant.again().clamp(NOT_AT_ONCE, AGAIN)).await;
        }
        // Whoever wants a turn looks, and asks again where there is none.
        desk.ring();
    }
}

/// Where the API asked for no call before some time, the other workers on the journal wait as long. What else holds this
/// one may be its own: its way to the API, its key, a body that it alone has met.
pub(super) fn share_the_wait(context: &Arc<Context>) {
    let desk = &context.desk;
    let until = {
        let state = desk.lock();
        let is_shared = matches!(state.limiter, Limiter::Shared { .. });
        state.gates.held().filter(|_| is_shared).map(Hold::asked_until)
    };
    let left = |desk: &Desk, until: Duration| until.saturating_sub(desk.ports.world.now().steady);
    let Some(until) = until.filter(|until| !left(desk, *until).is_zero()) else { return };
    let desk = Arc::clone(desk);
    context.crew.hire(async move {
        desk.journaled(|| desk.ports.journal.postpone(left(&desk, until))).await;
    });
}
