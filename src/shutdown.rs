//! How the worker stops: Running → Draining → Aborting, each phase told to all who hold a [`Shutdown`].
//!
//! Nothing here waits or kills; who is told decides what it still has to do.

use tokio::sync::watch;

/// Where the worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Work goes on.
    Running,
    /// No new work; what is under way is finished.
    Draining,
    /// Nothing is waited for any more. Nothing is lost by it: what was not settled comes again.
    Aborting,
}

/// The side that tells.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// The side that is told.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Phase>);

/// A pair, running.
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (tell, told) = watch::channel(Phase::Running);
    (Trigger(tell), Shutdown(told))
}

impl Trigger {
    /// Moves on to this phase; never back.
    pub fn advance(&self, to: Phase) {
        self.0.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = (*phase).max(to);
            later
        });
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }
}

impl Shutdown {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Returns once this phase, or a later one, is reached. Never, where its trigger is gone before.
    pub async fn reached(&self, phase: Phase) {
        let mut told = self.0.clone();
        if told.wait_for(|now| *now >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
