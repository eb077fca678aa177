//! What the status page shows, from the desk, the connections and the last hour. Words for people stand here.

use std::sync::Arc;
use std::time::Duration;

use super::WorkerHealth;
use super::brakes::shown;
use crate::admin::{Backlog, Health as _, Held, Mood, Overview, Status};
use crate::domain::gates::{Hold, HoldReason};
use crate::domain::ids::redacted;
use crate::domain::moment::{Moment, Timestamp};
use crate::pipeline::{Settings, Snapshot};
use crate::ports::World;
use crate::telemetry::{Minute, Recent};

/// Looks at the worker.
pub(super) struct WorkerOverview {
    pub health: Arc<WorkerHealth>,
    pub recent: Arc<Recent>,
    pub world: Arc<dyn World>,
    pub limits: Settings,
}

impl Overview for WorkerOverview {
    fn status(&self) -> Status {
        let now = self.world.now();
        let reasons: Vec<_> = self.health.readiness().reasons.iter().map(|reason| reason.reason).collect();
        let (minutes, failures) = self.recent.at(|history, now| (history.minutes(now), history.failures()));
        let limits = &self.limits;
        let rate = rate(&minutes, now.wall);
        let mut status = Status {
            now: now.wall.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            mood: Mood::Passing,
            words: vec!["It starts, or stands by: it waits for its journal, or for its broker.".to_owned()],
            reasons,
            rate,
            calls_a_minute: limits.requests_per_minute.get().into(),
            in_flight: (0, limits.max_in_flight.into()),
            quota: limits.requests_per_day.map(|quota| (quota, quota)),
            max_emails: limits.max_emails as u64,
            backlog: Backlog::default(),
            holds: Vec::new(),
            pauses: Vec::new(),
            minutes: minutes.into_iter().map(|(at, minute)| (clock(at), minute)).collect(),
            failures: failures.into_iter().map(|failure| (failure.at.to_string(), failure)).collect(),
        };
        let Some((desk, broker, _)) = self.health.parts() else { return status };
        let (here, broker) = (desk.snapshot(), *broker.borrow());
        status.in_flight.0 = here.in_flight.into();
        status.quota = limits.requests_per_day.zip(here.quota_left).map(|(quota, left)| (left, quota));
        status.backlog = Backlog {
            emails: here.waiting as u64,
            lanes: here.lanes as u64,
            requests: here.requests as u64,
            deliveries: broker.unsettled as u64,
            oldest: here.oldest.map(|age| age.as_secs()),
        };
        status.holds = holds(&here, now);
        status.pauses = shown(&here.pauses);
        (status.mood, status.words) = words(&here, &status.reasons);
        status
    }
}

/// Calls of the last 60 seconds: of the minute under way, and of as much of the one before as is not yet as long ago.
fn rate(minutes: &[(Timestamp, Minute)], now: Timestamp) -> u64 {
    let [.., (_, before), (start, present)] = minutes else { return 0 };
    let left = u64::try_from(60_000 - now.millis_since(*start)).unwrap_or(0).min(60_000);
    present.all_calls() + before.all_calls() * left / 60_000
}

/// The minute of a clock, in UTC.
fn clock(at: Timestamp) -> String {
    at.to_string().get(11..16).unwrap_or_default().to_owned()
}

fn holds(here: &Snapshot, now: Moment) -> Vec<Held> {
    let held = |hold: &Hold, project: Option<String>| Held {
        reason: hold.reason.as_str(),
        words: explained(hold.reason),
        project,
        since: hold.since.to_string(),
        tries: hold.tries,
        next_try: hold.until.checked_sub(now.steady).filter(|left| !left.is_zero()).map(ceil),
    };
    let projects = here.held_projects.iter();
    let mut projects: Vec<_> =
        projects.map(|(project, hold)| held(hold, Some(redacted(project.as_str()).into_owned()))).collect();
    projects.sort_by(|a, b| a.since.cmp(&b.since));
    here.hold.iter().map(|hold| held(hold, None)).chain(projects).collect()
}

const fn ceil(time: Duration) -> u64 {
    time.as_secs() + (time.subsec_nanos() > 0) as u64
}

const fn explained(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::ApiDown => "The API cannot be reached, fails, or answers what it would not answer.",
        HoldReason::Throttled => "The API says that it is called too often.",
        HoldReason::KeyRefused => "The API refuses the key. Put a good one where migma.api_key_file points.",
        HoldReason::RefusesAll => {
            "The API refuses one batch after the other in the same way: not the batches are wrong."
        }
        HoldReason::UnknownProjects => "The API knows none of the projects. Is migma.base_url the right one?",
        HoldReason::Forbidden => "The API forbids it (403). Let the key work on this project.",
        HoldReason::Paused => "Somebody paused it.",
    }
}

/// What it does, the most important first.
fn words(here: &Snapshot, reasons: &[&'static str]) -> (Mood, Vec<String>) {
    let mut words = Vec::new();
    let everything = here.pauses.iter().any(|pause| pause.project.is_none());
    for reason in reasons {
        let text = match *reason {
            "starting" | "recovering" => "It starts: what was under way goes out again first.",
            "stopping" => "It stops: calls under way end, and the rest goes back to its queue.",
            "paused" if everything => "No call leaves before somebody resumes. Nothing is lost meanwhile.",
            "paused" if here.hold.is_some() => "Some projects are paused.",
            "paused" => "Some projects are paused; all others go on.",
            "forbidden" if everything || here.hold.is_some() => "Some projects are forbidden.",
            "forbidden" => "Some projects are forbidden; all others go on.",
            "daily_quota" => "The daily quota is spent; it goes on when calls of a day ago cease to count.",
            "journal" => "The journal fails, and nothing is sent without it. Look at its disk.",
            "unroutable_outcome" => "Outcomes find no queue. Is the outcome queue still bound?",
            "broker_consuming" | "broker_publishing" => "A connection to the broker is down; it is made again.",
            _ => here.hold.as_ref().map_or("Something is in the way.", |hold| explained(hold.reason)),
        };
        words.push(text.to_owned());
    }
    words.dedup();
    if everything {
        // Whatever else is in the way, this is what somebody wants.
        words.sort_by_key(|text| !text.starts_with("No call leaves"));
    }
    let some_alone = |reason: &&str| *reason == "forbidden" || (*reason == "paused" && !everything);
    let is_passing = reasons.iter().any(|reason| ["starting", "recovering", "stopping"].contains(reason));
    let mood = match reasons {
        _ if reasons.iter().all(some_alone) => Mood::Well,
        _ if is_passing => Mood::Passing,
        _ if everything => Mood::Paused,
        _ => Mood::Waits,
    };
    if words.is_empty() {
        words.push(match (here.in_flight, here.waiting) {
            (0, 0) => "Nothing waits; the next request is taken at once.".to_owned(),
            (0, _) => "Emails wait for company, or for their permit.".to_owned(),
            (1, _) => "One call is in flight.".to_owned(),
            (calls, _) => format!("{calls} calls are in flight."),
        });
    }
    (mood, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::History;

    #[test]
    fn the_rate_is_that_of_the_last_60_seconds() {
        let at = |seconds: i64| Timestamp::from_millis(1_795_435_200_000 + seconds * 1000);
        let mut history = History::new(at(0));
        for second in 0..60 {
            history.called(at(second), Some(200), Duration::from_millis(1));
        }
        for (seconds, calls) in [(60, 60), (75, 45), (119, 1), (120, 0)] {
            assert_eq!(rate(&history.minutes(at(seconds)), at(seconds)), calls, "{seconds}");
        }
        history.called(at(121), Some(200), Duration::from_millis(1));
        assert_eq!(rate(&history.minutes(at(121)), at(121)), 1);
        // A clock that went back.
        assert_eq!(rate(&history.minutes(at(3)), at(3)), 1);
    }
}
