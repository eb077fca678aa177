//! Pauses taken, ordered and ended: journal first, then the gates, so that what is told of a pause is so after a crash.
//!
//! Never here: what a pause stops; that is decided in [`crate::domain::gates`].

use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::{Context, aside};
use crate::domain::ids::ProjectId;
use crate::domain::pauses::{Pause, reason};
use crate::ports::{Event, JournalError};

/// How often it looks what the journal knows.
const TICK: Duration = Duration::from_secs(5);

impl Desk {
    /// Stops all calls, or those of one project: once this returns, none leaves any more, now and after any restart,
    /// before [`Desk::resume`]. Other workers on the journal obey within 5 seconds. Where they are stopped already nothing
    /// changes. Returns the pauses in force.
    ///
    /// # Errors
    /// The journal did not confirm it. Where it was kept all the same, it is obeyed within 5 seconds.
    pub async fn pause(&self, project: Option<ProjectId>, why: Option<&str>) -> Result<Vec<Pause>, JournalError> {
        let since = self.ports.world.now().wall;
        let pause = Pause { project, since, until: None, reason: why.and_then(reason) };
        let _one_at_a_time = self.pausing.lock().await;
        self.ports.journal.pause(&pause).await?;
        self.learn(self.ports.journal.pauses().await?);
        Ok(self.pauses())
    }

    /// Ends the pause of everything, or that of one project; each leaves the other in force. Returns those in force.
    ///
    /// # Errors
    /// The journal did not confirm it. Where it was kept all the same, it is obeyed within 5 seconds.
    pub async fn resume(&self, project: Option<&ProjectId>) -> Result<Vec<Pause>, JournalError> {
        let _one_at_a_time = self.pausing.lock().await;
        self.ports.journal.resume(project, self.ports.world.now().wall).await?;
        self.learn(self.ports.journal.pauses().await?);
        Ok(self.pauses())
    }

    /// The pauses in force.
    #[must_use]
    pub fn pauses(&self) -> Vec<Pause> {
        self.lock().gates.pauses.in_force().cloned().collect()
    }

    /// Takes what the journal says, and tells of what is new.
    fn learn(&self, all: Vec<Pause>) {
        let news = {
            let mut state = self.lock();
            let news = state.gates.pauses.learn(all);
            // At once: from now on none of its requests may have emails in a lane.
            for project in news.began.iter().filter_map(|pause| pause.project.as_ref()) {
                let held = state.gates.is_project_held(project);
                let leaving = aside::all_of(&mut state, project);
                state.leaving.extend(leaving.into_iter().map(|waiter| (waiter, held)));
            }
            news
        };
        if news.is_empty() {
            return;
        }
        news.ended.iter().for_each(|pause| self.ports.observer.see(&Event::Resumed(pause)));
        news.began.iter().for_each(|pause| self.ports.observer.see(&Event::Paused(pause)));
        self.ring();
        self.paused_otherwise.notify_one();
    }
}

/// Before anything leaves or is consumed: what was paused when the worker stopped is so still.
pub(super) async fn take_up(desk: &Desk) {
    let _one_at_a_time = desk.pausing.lock().await;
    let all = desk.journaled(|| desk.ports.journal.pauses()).await;
    desk.learn(all);
}

/// What the journal knows counts: it may have kept an order whose answer was lost. Nobody waits for it, however long the
/// disk takes.
pub(super) async fn run(context: Arc<Context>) {
    let desk = &context.desk;
    loop {
        tokio::time::sleep(TICK).await;
        let _one_at_a_time = desk.pausing.lock().await;
        match desk.ports.journal.pauses().await {
            Ok(all) => desk.learn(all),
            Err(error) => desk.ports.observer.see(&Event::ChoreFailed(&error)),
        }
    }
}

/// What has left for a pause steps aside. Whether anything did.
pub(super) fn make_way(context: &Context) -> bool {
    let leaving = std::mem::take(&mut context.desk.lock().leaving);
    let any = !leaving.is_empty();
    for (waiter, held) in leaving {
        context.settle.step_aside(waiter, held);
    }
    any
}
