//! Pauses: stops that somebody ordered, of all calls or of one project's, and that nothing but a resumption ends.
//!
//! What ended is remembered for a while, for time that was spent paused counts against no patience. Never here: a stop
//! that the API brought about; that is a hold of [`super::gates`].

use std::time::Duration;

use super::ids::{ProjectId, redacted};
use super::masking::mask_words;
use super::moment::Timestamp;

/// How long a pause is remembered after its end: longer than `retry.give_up_after` can be, so that none is missed where
/// patience is measured.
pub const KEPT: Duration = Duration::from_hours(90 * 24);

/// The longest reason that is kept, in characters.
const REASON_MAX: usize = 200;

/// One stop, under way or over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Whose calls; `None` for everybody's.
    pub project: Option<ProjectId>,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None` while it is in force.
    pub until: Option<Timestamp>,
    /// Why, as whoever ordered it said; fit to be shown: see [`reason`].
    pub reason: Option<String>,
}

impl Pause {
    /// Whether no call that it is about may leave.
    #[must_use]
    pub const fn is_in_force(&self) -> bool {
        self.until.is_none()
    }

    /// The project as it may be shown.
    #[must_use]
    pub fn shown_project(&self) -> Option<String> {
        self.project.as_ref().map(|project| redacted(project.as_str()).into_owned())
    }

    fn is_about(&self, project: &ProjectId) -> bool {
        self.project.as_ref().is_none_or(|paused| paused == project)
    }
}

/// A reason as it may be kept and shown: one line, no address, no longer than a line. `None` where nothing is left.
#[must_use]
pub fn reason(text: &str) -> Option<String> {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let masked = mask_words(line.trim());
    let short: String = masked.chars().take(REASON_MAX).collect();
    (!short.is_empty()).then_some(short)
}

/// All that are known.
#[derive(Debug, Default)]
pub struct Pauses {
    all: Vec<Pause>,
}

/// What a new look at the pauses brought.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "who is newly paused must step aside"]
pub struct News {
    /// These have begun.
    pub began: Vec<Pause>,
    /// These have ended.
    pub ended: Vec<Pause>,
}

impl News {
    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.began.is_empty() && self.ended.is_empty()
    }
}

impl Pauses {
    /// Knows these from now on, and tells what is new of it.
    pub fn learn(&mut self, all: Vec<Pause>) -> News {
        let before = std::mem::replace(&mut self.all, all);
        let is_in = |pauses: &[Pause], pause: &Pause| {
            pauses.iter().any(|p| p.is_in_force() && p.project == pause.project && p.since == pause.since)
        };
        let fresh = self.in_force().filter(|pause| !is_in(&before, pause));
        let gone = before.iter().filter(|pause| pause.is_in_force() && !is_in(&self.all, pause));
        News { began: fresh.cloned().collect(), ended: gone.cloned().collect() }
    }

    /// Those in force.
    pub fn in_force(&self) -> impl Iterator<Item = &Pause> {
        self.all.iter().filter(|pause| pause.is_in_force())
    }

    /// That of everything, if it is in force.
    #[must_use]
    pub fn everything(&self) -> Option<&Pause> {
        self.in_force().find(|pause| pause.project.is_none())
    }

    /// Whether this project is paused by itself.
    #[must_use]
    pub fn has(&self, project: &ProjectId) -> bool {
        self.in_force().any(|pause| pause.project.as_ref() == Some(project))
    }

    /// Whether this project's calls stop, by its own pause or by that of everything.
    #[must_use]
    pub fn stop(&self, project: &ProjectId) -> bool {
        self.in_force().any(|pause| pause.is_about(project))
    }

    /// How much of the time from `since` to `until` this project's calls were stopped for; time that was paused twice
    /// counts once.
    #[must_use]
    pub fn time_paused(&self, project: &ProjectId, since: Timestamp, until: Timestamp) -> Duration {
        let about = self.all.iter().filter(|pause| pause.is_about(project));
        let mut spans: Vec<(i64, i64)> = about
            .map(|pause| {
                let end = pause.until.map_or(until, |end| end.min(until));
                (pause.since.max(since).as_millis(), end.as_millis())
            })
            .filter(|(start, end)| start < end)
            .collect();
        spans.sort_unstable();
        let (mut total, mut reached) = (0_i64, i64::MIN);
        for (start, end) in spans {
            total += (end - start.max(reached)).max(0);
            reached = reached.max(end);
        }
        Duration::from_millis(u64::try_from(total).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn pause(project: Option<&str>, since: i64, until: Option<i64>) -> Pause {
        let project = project.and_then(ProjectId::parse);
        Pause { project, since: at(since), until: until.map(at), reason: None }
    }

    fn project(name: &str) -> ProjectId {
        ProjectId::parse(name).unwrap()
    }

    #[test]
    fn what_is_new_is_told_once() {
        let mut pauses = Pauses::default();
        let (all, p) = (pause(None, 1, None), pause(Some("p"), 2, None));
        let news = pauses.learn(vec![all.clone(), p.clone()]);
        assert_eq!((news.began, news.ended.len()), (vec![all.clone(), p.clone()], 0));
        assert!(pauses.learn(vec![all.clone(), p.clone()]).is_empty());
        let news = pauses.learn(vec![pause(None, 1, Some(9)), p.clone()]);
        assert_eq!((news.began.len(), news.ended), (0, vec![all]));
        // Ended and ordered again between two looks.
        let again = pause(Some("p"), 5, None);
        let news = pauses.learn(vec![pause(Some("p"), 2, Some(4)), again.clone()]);
        assert_eq!((news.began, news.ended), (vec![again], vec![p]));
    }

    #[test]
    fn a_pause_of_everything_stops_each_project_and_one_of_a_project_no_other() {
        let mut pauses = Pauses::default();
        let _ = pauses.learn(vec![pause(Some("p"), 1, None), pause(None, 1, Some(2))]);
        assert!(pauses.stop(&project("p")) && pauses.has(&project("p")));
        assert!(!pauses.stop(&project("q")) && pauses.everything().is_none());
        let _ = pauses.learn(vec![pause(None, 3, None)]);
        assert!(pauses.stop(&project("q")) && !pauses.has(&project("q")));
    }

    #[test]
    fn time_that_is_paused_twice_counts_once_and_only_within_its_bounds() {
        let mut pauses = Pauses::default();
        let _ = pauses.learn(vec![
            pause(None, 0, Some(10)),
            pause(Some("p"), 5, Some(20)),
            pause(Some("q"), 0, Some(100)),
            pause(None, 30, None),
            // A clock that went back between the two.
            pause(None, 50, Some(40)),
        ]);
        let p = project("p");
        assert_eq!(pauses.time_paused(&p, at(0), at(25)), Duration::from_secs(20));
        assert_eq!(pauses.time_paused(&p, at(8), at(33)), Duration::from_secs(15));
        assert_eq!(pauses.time_paused(&p, at(20), at(30)), Duration::ZERO);
        assert_eq!(pauses.time_paused(&project("other"), at(0), at(25)), Duration::from_secs(10));
    }

    #[test]
    fn a_reason_is_one_line_without_an_address() {
        assert_eq!(reason("  DSR-1: wrong list\n").as_deref(), Some("DSR-1: wrong list"));
        assert_eq!(reason(" \n "), None);
        let shown = reason("ann@example.com said so").unwrap();
        assert!(!shown.contains("ann") && !shown.contains("example"), "{shown}");
        assert_eq!(reason(&"x".repeat(1000)).unwrap().len(), 200);
    }
}
