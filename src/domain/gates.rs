//! When a call may leave: holds (everything, or one project) and the slow start behind them.
//!
//! Rate and quota are not here; they are counted where the call is made. Times are those of the steady clock.

use std::collections::HashMap;
use std::time::Duration;

use super::ids::{ManifestId, ProjectId};
use super::moment::Timestamp;

/// Failures of unlike calls, with no success between, that are taken for an outage.
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
}

impl HoldReason {
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

/// A wait that is nobody's fault. One call at a time tries whether it is over.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// Since when.
    pub since: Timestamp,
    /// Tries that failed; the exponent of the next wait.
    pub tries: u32,
    /// When the next try may leave (steady).
    pub until: Duration,
    /// Whether a try is under way.
    probing: bool,
}

/// Whether a call may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Yes.
    Now,
    /// Not before this time (steady).
    At(Duration),
    /// Not before some other call has ended.
    AfterAnother,
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
    /// How many may be in flight: 1 after a hold, doubled by each success.
    window: u32,
    everything: Option<Hold>,
    projects: HashMap<ProjectId, Hold>,
    failures_in_a_row: u32,
    successes: u64,
    refusals: Refusals,
    changes: Vec<Change>,
}

/// The same 4xx in a row, and whom it met.
#[derive(Debug, Default)]
struct Refusals {
    status: u16,
    roots: Vec<ManifestId>,
    unknown_projects: Vec<ProjectId>,
    any_project_known: bool,
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
            everything: None,
            projects: HashMap::new(),
            failures_in_a_row: 0,
            successes: 0,
            refusals: Refusals::default(),
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
        if self.in_flight >= self.window {
            return Leave::AfterAnother;
        }
        let holds = [self.everything.as_ref(), self.projects.get(project)];
        let mut leave = Leave::Now;
        for hold in holds.into_iter().flatten() {
            if hold.probing {
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
    pub fn leave(&mut self, project: &ProjectId) {
        self.in_flight += 1;
        for hold in [self.everything.as_mut(), self.projects.get_mut(project)].into_iter().flatten() {
            hold.probing = true;
        }
    }

    /// A call came back, or never left after all. Told of every call before its meaning.
    pub fn back(&mut self, project: &ProjectId) {
        self.in_flight = self.in_flight.saturating_sub(1);
        for hold in [self.everything.as_mut(), self.projects.get_mut(project)].into_iter().flatten() {
            hold.probing = false;
        }
    }

    /// The API did its work for this project: what was held goes on, one call first, then two, then more.
    pub fn served(&mut self, project: &ProjectId) {
        self.successes += 1;
        self.failures_in_a_row = 0;
        self.refusals = Refusals { any_project_known: true, ..Refusals::default() };
        self.window = self.window.saturating_mul(2).min(self.max_in_flight);
        self.release_all();
        self.release(project);
    }

    /// Nothing holds this project by itself any more.
    pub fn release(&mut self, project: &ProjectId) {
        if let Some(hold) = self.projects.remove(project) {
            self.changes.push(Change::Ended(Scope::Project, hold.reason, hold.since));
        }
    }

    /// The API answered in its own voice about this body or project: it is up, whatever the answer.
    pub fn spoke(&mut self) {
        self.failures_in_a_row = 0;
        self.release_all();
    }

    fn release_all(&mut self) {
        if let Some(hold) = self.everything.take() {
            self.window = 1;
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

    /// A 404: `true` where it is the third project in a row and none was ever known.
    pub fn unknown_project(&mut self, project: &ProjectId) -> bool {
        if self.refusals.any_project_known {
            return false;
        }
        if !self.refusals.unknown_projects.contains(project) {
            self.refusals.unknown_projects.push(project.clone());
        }
        self.refusals.unknown_projects.len() >= 3
    }

    /// Holds, or goes on holding, until `until` (steady). A longer wait than one already named is kept.
    pub fn hold(&mut self, scope: Scope, project: &ProjectId, reason: HoldReason, until: Duration, wall: Timestamp) {
        let present = match scope {
            Scope::Everything => self.everything.as_mut(),
            Scope::Project => self.projects.get_mut(project),
        };
        if let Some(hold) = present {
            hold.reason = reason;
            hold.tries = hold.tries.saturating_add(1);
            hold.until = hold.until.max(until);
            return;
        }
        let hold = Hold { reason, since: wall, tries: 1, until, probing: false };
        match scope {
            Scope::Everything => self.everything = Some(hold),
            Scope::Project => drop(self.projects.insert(project.clone(), hold)),
        }
        self.changes.push(Change::Began(scope, reason));
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

    /// Lets the next try leave at once, for what was wrong may have been mended (a new API key).
    pub fn try_now(&mut self) {
        for hold in self.everything.iter_mut().chain(self.projects.values_mut()) {
            hold.until = Duration::ZERO;
        }
    }

    /// The hold of everything, if any.
    #[must_use]
    pub const fn held(&self) -> Option<&Hold> {
        self.everything.as_ref()
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Timestamp = Timestamp::from_millis(0);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn project(name: &str) -> ProjectId {
        ProjectId::parse(name).unwrap()
    }

    #[test]
    fn while_everything_is_held_one_call_at_a_time_tries() {
        let p = project("p");
        let mut gates = Gates::new(8);
        gates.hold(Scope::Everything, &p, HoldReason::ApiDown, secs(5), WALL);
        assert_eq!(gates.take_changes(), [Change::Began(Scope::Everything, HoldReason::ApiDown)]);
        assert_eq!(gates.ask(&p, secs(4)), Leave::At(secs(5)));
        assert_eq!(gates.ask(&p, secs(5)), Leave::Now);
        gates.leave(&p);
        assert_eq!(gates.ask(&p, secs(6)), Leave::AfterAnother);
        gates.back(&p);
        assert!(gates.failed());
        gates.hold(Scope::Everything, &p, HoldReason::ApiDown, secs(9), WALL);
        assert_eq!(gates.take_changes(), []);
        assert_eq!(gates.tries(Scope::Everything, &p), 2);
        assert_eq!(gates.ask(&p, secs(6)), Leave::At(secs(9)));
    }

    #[test]
    fn after_a_hold_one_call_leaves_then_two_then_more() {
        let p = project("p");
        let mut gates = Gates::new(8);
        gates.hold(Scope::Everything, &p, HoldReason::Throttled, secs(1), WALL);
        gates.leave(&p);
        gates.back(&p);
        gates.served(&p);
        assert_eq!(gates.take_changes()[1], Change::Ended(Scope::Everything, HoldReason::Throttled, WALL));
        for window in [1, 2, 4, 8, 8] {
            for _ in 0..window {
                assert_eq!(gates.ask(&p, secs(2)), Leave::Now);
                gates.leave(&p);
            }
            assert_eq!(gates.ask(&p, secs(2)), Leave::AfterAnother);
            for _ in 0..window {
                gates.back(&p);
            }
            gates.served(&p);
        }
    }

    #[test]
    fn a_project_that_is_held_holds_no_other() {
        let (p, q) = (project("p"), project("q"));
        let mut gates = Gates::new(8);
        gates.hold(Scope::Project, &p, HoldReason::Forbidden, secs(5), WALL);
        assert_eq!(gates.ask(&p, secs(1)), Leave::At(secs(5)));
        assert_eq!(gates.ask(&q, secs(1)), Leave::Now);
        gates.served(&q);
        assert_eq!(gates.ask(&p, secs(1)), Leave::At(secs(5)));
        gates.served(&p);
        assert_eq!(gates.take_changes()[1], Change::Ended(Scope::Project, HoldReason::Forbidden, WALL));
        assert_eq!(gates.ask(&p, secs(1)), Leave::Now);
    }

    #[test]
    fn single_failures_hold_nothing_and_three_in_a_row_are_an_outage() {
        let mut gates = Gates::new(8);
        assert!(!gates.failed());
        assert!(!gates.failed());
        gates.served(&project("p"));
        assert!(!gates.failed());
        assert!(!gates.failed());
        assert!(gates.failed());
    }

    #[test]
    fn one_refusal_for_three_unlike_batches_is_not_about_the_bodies() {
        let mut gates = Gates::new(8);
        assert!(!gates.refused(400, ManifestId(1)));
        assert!(!gates.refused(400, ManifestId(1)));
        assert!(!gates.refused(400, ManifestId(2)));
        assert!(!gates.refused(422, ManifestId(3)));
        assert!(!gates.refused(400, ManifestId(3)));
        assert!(!gates.refused(400, ManifestId(4)));
        assert!(gates.refused(400, ManifestId(5)));
        gates.served(&project("p"));
        assert!(!gates.refused(400, ManifestId(6)));
    }
}
