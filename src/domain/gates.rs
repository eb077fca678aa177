//! When a call may leave: pauses, holds (everything, or one project) and the slow start behind them.
//!
//! What a call meets speaks of the time after it left: an answer ends no hold that began later, and no wait that the API
//! asked for ends before its time. Where a body may be to blame for a hold of everything, only another body can tell, so
//! now and then a new batch tries. Rate and quota are not here; they are counted where the call is made. Times are those
//! of the steady clock.

mod hold;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

pub use self::hold::{Hold, Trouble};
use super::ids::{ManifestId, ProjectId};
use super::leaps::Leaps;
use super::moment::Timestamp;
use super::pauses::Pauses;

/// Failures in a row, with no success between, that are taken for an outage.
const OUTAGE: u32 = 3;

/// Why calls wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// It cannot be reached, fails, or answers what it would not answer.
    ApiDown,
    /// 429.
    Throttled,
    /// 401.
    KeyRefused,
    /// The same 4xx for unlike batches.
    RefusesAll,
    /// 404 for one project after the other.
    UnknownProjects,
    /// 403, for one project.
    Forbidden,
    /// Somebody ordered it, for all or for one project: [`Pauses`].
    Paused,
}

impl HoldReason {
    /// Each of them.
    pub const ALL: [Self; 7] = [
        Self::ApiDown,
        Self::Throttled,
        Self::KeyRefused,
        Self::RefusesAll,
        Self::UnknownProjects,
        Self::Forbidden,
        Self::Paused,
    ];

    /// As logs, metrics and readiness name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiDown => "api_down",
            Self::Throttled => "throttled",
            Self::KeyRefused => "key_refused",
            Self::RefusesAll => "api_refuses_all",
            Self::UnknownProjects => "unknown_projects",
            Self::Forbidden => "forbidden",
            Self::Paused => "paused",
        }
    }
}

/// What a hold stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every call.
    Everything,
    /// The calls of the project that met it.
    Project,
}

/// The number of a call, in the order in which they leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Departure(u64);

/// Whether a call may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Yes.
    Now,
    /// Not before this time (steady).
    At(Duration),
    /// Not before some other call has ended.
    AfterAnother,
    /// Not before somebody resumes.
    WhenResumed,
}

/// What changed, for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A hold began.
    Began(Scope, HoldReason),
    /// A hold ended; it had begun then.
    Ended(Scope, HoldReason, Timestamp),
}

/// The state of all gates.
#[derive(Debug)]
pub struct Gates {
    max_in_flight: u32,
    in_flight: u32,
    /// How many may be in flight: 1 after a hold, doubled by each success of a call that left since.
    window: u32,
    window_since: Departure,
    last: Departure,
    everything: Option<Hold>,
    projects: HashMap<ProjectId, Hold>,
    /// What somebody stopped. No answer of the API changes it.
    pub pauses: Pauses,
    /// What the wall clock skipped.
    pub leaps: Leaps,
    failures_in_a_row: u32,
    successes: u64,
    refusals: Refusals,
    /// When the API last did its work for each project.
    served: HashMap<ProjectId, Timestamp>,
    changes: Vec<Change>,
}

/// The same 4xx in a row, and whom it met.
#[derive(Debug, Default)]
struct Refusals {
    status: u16,
    roots: Vec<ManifestId>,
    unknown_projects: Vec<ProjectId>,
}

impl Gates {
    /// Open, with room for `max_in_flight` calls at a time (at least 1).
    #[must_use]
    pub fn new(max_in_flight: u32) -> Self {
        let max_in_flight = max_in_flight.max(1);
        Self {
            max_in_flight,
            in_flight: 0,
            window: max_in_flight,
            window_since: Departure::default(),
            last: Departure::default(),
            everything: None,
            projects: HashMap::new(),
            pauses: Pauses::default(),
            leaps: Leaps::default(),
            failures_in_a_row: 0,
            successes: 0,
            refusals: Refusals::default(),
            served: HashMap::new(),
            changes: Vec::new(),
        }
    }

    /// What changed since this was asked last.
    #[must_use]
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whether a call for this project may leave now.
    #[must_use]
    pub fn ask(&self, project: &ProjectId, now: Duration) -> Leave {
        if self.pauses.stop(project) {
            return Leave::WhenResumed;
        }
        if self.in_flight >= self.window {
            return Leave::AfterAnother;
        }
        let holds = [self.everything.as_ref(), self.projects.get(project)];
        let mut leave = Leave::Now;
        for hold in holds.into_iter().flatten() {
            if hold.probe.is_some() {
                return Leave::AfterAnother;
            }
            if hold.until > now {
                leave = match leave {
                    Leave::At(at) if at >= hold.until => leave,
                    _ => Leave::At(hold.until),
                };
            }
        }
        leave
    }

    /// A call leaves.
    #[must_use = "what it meets is told with its number"]
    pub fn leave(&mut self, project: &ProjectId) -> Departure {
        self.in_flight += 1;
        self.last = Departure(self.last.0 + 1);
        for hold in [self.everything.as_mut(), self.projects.get_mut(project)].into_iter().flatten() {
            hold.probe = Some(self.last);
        }
        self.last
    }

    /// Whether a call that was let through must not leave after all, for somebody has ordered a stop since, or the API
    /// has asked for no call.
    #[must_use]
    pub fn is_called_off(&self, project: &ProjectId, departure: Departure, now: Duration) -> bool {
        self.pauses.stop(project)
            || self.everything.as_ref().is_some_and(|hold| departure <= hold.after && now < hold.asked)
    }

    /// A call came back, or never left after all. Told of every call before its meaning.
    pub fn back(&mut self, project: &ProjectId, departure: Departure) {
        self.in_flight = self.in_flight.saturating_sub(1);
        for hold in [self.everything.as_mut(), self.projects.get_mut(project)].into_iter().flatten() {
            hold.probe = hold.probe.filter(|probe| *probe != departure);
        }
    }

    /// The API did its work for this project: what was held goes on, one call first, then two, then more.
    pub fn served(&mut self, project: &ProjectId, departure: Departure, at: Timestamp) {
        self.successes += 1;
        self.failures_in_a_row = 0;
        self.refusals = Refusals::default();
        self.served.insert(project.clone(), at);
        if departure > self.window_since {
            self.window = self.window.saturating_mul(2).min(self.max_in_flight);
        }
        self.refute(departure);
        if self.projects.get(project).is_some_and(|hold| departure > hold.after) {
            self.release(project);
        }
    }

    /// Nothing holds this project by itself any more.
    pub fn release(&mut self, project: &ProjectId) {
        if let Some(hold) = self.projects.remove(project) {
            self.changes.push(Change::Ended(Scope::Project, hold.reason, hold.since));
        }
    }

    /// The API answered in its own voice about this body or project: it is up, whatever the answer.
    pub fn spoke(&mut self, departure: Departure) {
        self.failures_in_a_row = 0;
        self.refute(departure);
    }

    /// Ends the hold of everything, unless the call had left before it.
    fn refute(&mut self, departure: Departure) {
        if let Some(hold) = self.everything.take_if(|hold| departure > hold.after) {
            (self.window, self.window_since) = (1, self.last);
            self.changes.push(Change::Ended(Scope::Everything, hold.reason, hold.since));
        }
    }

    /// A transient failure: `true` where it is the API's, so that everything ought to be held, not the one call alone.
    pub fn failed(&mut self) -> bool {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.everything.is_some() || self.failures_in_a_row >= OUTAGE
    }

    /// A 4xx about the body: `true` where three unlike batches met it with no success between, so that it is not
    /// about the bodies.
    pub fn refused(&mut self, status: u16, root: ManifestId) -> bool {
        if self.refusals.status != status {
            self.refusals.status = status;
            self.refusals.roots.clear();
        }
        if !self.refusals.roots.contains(&root) {
            self.refusals.roots.push(root);
        }
        self.refusals.roots.len() >= 3
    }

    /// A 404: `true` where it is the third project in a row and none was ever known, or where three unlike batches met
    /// it, with no success between, whose projects were known before.
    pub fn unknown_project(&mut self, project: &ProjectId, root: ManifestId) -> bool {
        if self.served.contains_key(project) {
            return self.refused(404, root);
        }
        if !self.served.is_empty() {
            return false;
        }
        if !self.refusals.unknown_projects.contains(project) {
            self.refusals.unknown_projects.push(project.clone());
        }
        self.refusals.unknown_projects.len() >= 3
    }

    /// Holds, or goes on holding. A longer wait than one already named is kept.
    pub fn hold(&mut self, scope: Scope, project: &ProjectId, trouble: &Trouble) {
        let present = match scope {
            Scope::Everything => self.everything.as_mut(),
            Scope::Project => self.projects.get_mut(project),
        };
        if let Some(hold) = present {
            hold.goes_on(trouble, self.last);
            return;
        }
        let hold = Hold::new(trouble, self.last);
        match scope {
            Scope::Everything => self.everything = Some(hold),
            Scope::Project => drop(self.projects.insert(project.clone(), hold)),
        }
        self.changes.push(Change::Began(scope, trouble.reason));
    }

    /// Whether a new batch is to try whether the hold of everything is over. Else those try that have tried before: what
    /// they meet makes no more batches' fates doubtful.
    #[must_use]
    pub fn wants_newcomer(&self) -> bool {
        self.everything.as_ref().is_some_and(Hold::newcomer_due)
    }

    /// A new batch is on its way.
    pub fn newcomer_left(&mut self) {
        if let Some(hold) = &mut self.everything {
            hold.newcomers = hold.newcomers.saturating_add(1);
        }
    }

    /// When the API last did its work for this project, in this process's life.
    #[must_use]
    pub fn served_at(&self, project: &ProjectId) -> Option<Timestamp> {
        self.served.get(project).copied()
    }

    /// The exponent of the wait that a failure in this scope asks for: the tries that failed before it.
    #[must_use]
    pub fn tries(&self, scope: Scope, project: &ProjectId) -> u32 {
        let hold = match scope {
            Scope::Everything => self.everything.as_ref(),
            Scope::Project => self.projects.get(project),
        };
        hold.map_or(0, |hold| hold.tries)
    }

    /// Lets the next try leave at once, for what was wrong may have been mended (a new API key); not before the API asked.
    pub fn try_now(&mut self) {
        for hold in self.everything.iter_mut().chain(self.projects.values_mut()) {
            hold.until = hold.asked;
        }
    }

    /// The hold of everything, if any.
    #[must_use]
    pub const fn held(&self) -> Option<&Hold> {
        self.everything.as_ref()
    }

    /// Whether this project's requests step aside: it is held, or paused, by itself.
    #[must_use]
    pub fn steps_aside(&self, project: &ProjectId) -> bool {
        self.is_project_held(project) || self.pauses.has(project)
    }

    /// Whether this project is held by itself.
    #[must_use]
    pub fn is_project_held(&self, project: &ProjectId) -> bool {
        self.projects.contains_key(project)
    }

    /// The holds of single projects.
    pub fn held_projects(&self) -> impl Iterator<Item = (&ProjectId, &Hold)> {
        self.projects.iter()
    }

    /// Calls that did their work since the start.
    #[must_use]
    pub const fn successes(&self) -> u64 {
        self.successes
    }

    /// Calls under way.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How many calls could leave now, for a project that is not held by itself.
    #[must_use]
    pub fn room(&self, now: Duration) -> u32 {
        if self.pauses.everything().is_some() {
            return 0;
        }
        let free = self.window.saturating_sub(self.in_flight);
        match &self.everything {
            None => free,
            Some(hold) if hold.probe.is_some() || hold.until > now => 0,
            Some(_) => free.min(1),
        }
    }
}
