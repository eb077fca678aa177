//! Holds and the slow start, told call by call; and pauses, which nothing of it ends.

use super::*;
use crate::domain::moment::Moment;
use crate::domain::pauses::Pause;

const WALL: Timestamp = Timestamp::from_millis(0);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn project(name: &str) -> ProjectId {
    ProjectId::parse(name).unwrap()
}

fn trouble(reason: HoldReason, departure: Departure, until: Duration) -> Trouble {
    Trouble {
        reason,
        departure,
        until,
        asked: None,
        doubtful: false,
        at: Moment { wall: WALL, steady: Duration::ZERO },
    }
}

/// A call that leaves and comes back.
fn call(gates: &mut Gates, project: &ProjectId) -> Departure {
    let departure = gates.leave(project);
    gates.back(project, departure);
    departure
}

#[test]
fn while_everything_is_held_one_call_at_a_time_tries() {
    let p = project("p");
    let mut gates = Gates::new(8);
    let first = call(&mut gates, &p);
    gates.hold(Scope::Everything, &p, &trouble(HoldReason::ApiDown, first, secs(5)));
    assert_eq!(gates.take_changes(), [Change::Began(Scope::Everything, HoldReason::ApiDown)]);
    assert_eq!(gates.ask(&p, secs(4)), Leave::At(secs(5)));
    assert_eq!(gates.ask(&p, secs(5)), Leave::Now);
    let probe = gates.leave(&p);
    assert_eq!(gates.ask(&p, secs(6)), Leave::AfterAnother);
    gates.back(&p, probe);
    assert!(gates.failed());
    gates.hold(Scope::Everything, &p, &trouble(HoldReason::ApiDown, probe, secs(9)));
    assert_eq!(gates.take_changes(), []);
    assert_eq!(gates.tries(Scope::Everything, &p), 2);
    assert_eq!(gates.ask(&p, secs(6)), Leave::At(secs(9)));
}

#[test]
fn after_a_hold_one_call_leaves_then_two_then_more() {
    let p = project("p");
    let mut gates = Gates::new(8);
    let first = call(&mut gates, &p);
    gates.hold(Scope::Everything, &p, &trouble(HoldReason::Throttled, first, secs(1)));
    let probe = call(&mut gates, &p);
    gates.served(&p, probe, WALL);
    assert_eq!(gates.take_changes()[1], Change::Ended(Scope::Everything, HoldReason::Throttled, WALL));
    for window in [1, 2, 4, 8, 8] {
        let mut left = Vec::new();
        for _ in 0..window {
            assert_eq!(gates.ask(&p, secs(2)), Leave::Now);
            left.push(gates.leave(&p));
        }
        assert_eq!(gates.ask(&p, secs(2)), Leave::AfterAnother);
        for departure in &left {
            gates.back(&p, *departure);
        }
        gates.served(&p, left[0], WALL);
    }
}

#[test]
fn what_left_before_a_hold_neither_ends_it_nor_lengthens_it_nor_opens_the_window_behind_it() {
    let p = project("p");
    let mut gates = Gates::new(8);
    let early: Vec<Departure> = (0..8).map(|_| gates.leave(&p)).collect();
    gates.back(&p, early[0]);
    gates.hold(Scope::Everything, &p, &trouble(HoldReason::Throttled, early[0], secs(1)));
    for departure in &early[1..4] {
        gates.back(&p, *departure);
        gates.served(&p, *departure, WALL);
        gates.spoke(*departure);
        gates.hold(Scope::Everything, &p, &trouble(HoldReason::ApiDown, *departure, secs(99)));
    }
    assert_eq!(gates.ask(&p, Duration::ZERO), Leave::At(secs(1)));
    assert_eq!(gates.tries(Scope::Everything, &p), 1);
    // One try at a time, whoever else comes back meanwhile.
    let probe = gates.leave(&p);
    gates.back(&p, early[4]);
    assert_eq!(gates.ask(&p, secs(2)), Leave::AfterAnother);
    gates.back(&p, probe);
    gates.served(&p, probe, WALL);
    assert!(gates.held().is_none());
    for departure in &early[5..] {
        gates.back(&p, *departure);
        gates.served(&p, *departure, WALL);
    }
    assert_eq!(gates.room(secs(2)), 1);
}

#[test]
fn what_the_api_asked_for_is_waited_out_whatever_comes_back_meanwhile() {
    let p = project("p");
    let mut gates = Gates::new(8);
    let (one, two) = (gates.leave(&p), gates.leave(&p));
    gates.back(&p, one);
    gates.hold(Scope::Everything, &p, &trouble(HoldReason::ApiDown, one, secs(1)));
    let probe = gates.leave(&p);
    // A call from before the hold is told to wait, while a try is under way.
    gates.back(&p, two);
    let asked = Trouble { asked: Some(secs(60)), ..trouble(HoldReason::Throttled, two, secs(60)) };
    gates.hold(Scope::Everything, &p, &asked);
    gates.back(&p, probe);
    gates.served(&p, probe, WALL);
    assert_eq!(gates.ask(&p, secs(2)), Leave::At(secs(60)));
    // Nor does a new API key shorten it.
    gates.try_now();
    assert_eq!(gates.ask(&p, secs(2)), Leave::At(secs(60)));
    assert_eq!(gates.ask(&p, secs(60)), Leave::Now);
}

#[test]
fn where_a_body_may_be_to_blame_a_new_batch_tries_again_and_again_though_ever_less_often() {
    let p = project("p");
    let mut gates = Gates::new(8);
    let first = call(&mut gates, &p);
    gates.hold(Scope::Everything, &p, &Trouble { doubtful: true, ..trouble(HoldReason::ApiDown, first, secs(1)) });
    let mut newcomers = Vec::new();
    for tries in 1..=30 {
        if gates.wants_newcomer() {
            newcomers.push(tries);
            gates.newcomer_left();
        }
        let probe = call(&mut gates, &p);
        gates.hold(Scope::Everything, &p, &Trouble { doubtful: true, ..trouble(HoldReason::ApiDown, probe, secs(1)) });
    }
    assert_eq!(newcomers, [1, 3, 6, 10, 15, 21, 28]);

    let mut gates = Gates::new(8);
    let first = call(&mut gates, &p);
    gates.hold(Scope::Everything, &p, &trouble(HoldReason::KeyRefused, first, secs(1)));
    assert!(!gates.wants_newcomer(), "no body is to blame for a refused key");
}

#[test]
fn a_project_that_is_held_holds_no_other() {
    let (p, q) = (project("p"), project("q"));
    let mut gates = Gates::new(8);
    let first = call(&mut gates, &p);
    gates.hold(Scope::Project, &p, &trouble(HoldReason::Forbidden, first, secs(5)));
    assert_eq!(gates.ask(&p, secs(1)), Leave::At(secs(5)));
    assert_eq!(gates.ask(&q, secs(1)), Leave::Now);
    let other = call(&mut gates, &q);
    gates.served(&q, other, WALL);
    assert_eq!(gates.ask(&p, secs(1)), Leave::At(secs(5)));
    let probe = call(&mut gates, &p);
    gates.served(&p, probe, WALL);
    assert_eq!(gates.take_changes()[1], Change::Ended(Scope::Project, HoldReason::Forbidden, WALL));
    assert_eq!(gates.ask(&p, secs(1)), Leave::Now);
}

#[test]
fn single_failures_hold_nothing_and_three_in_a_row_are_an_outage() {
    let p = project("p");
    let mut gates = Gates::new(8);
    assert!(!gates.failed());
    assert!(!gates.failed());
    let departure = call(&mut gates, &p);
    gates.served(&p, departure, WALL);
    assert!(!gates.failed());
    assert!(!gates.failed());
    assert!(gates.failed());
}

#[test]
fn one_refusal_for_three_unlike_batches_is_not_about_the_bodies() {
    let p = project("p");
    let mut gates = Gates::new(8);
    assert!(!gates.refused(400, ManifestId(1)));
    assert!(!gates.refused(400, ManifestId(1)));
    assert!(!gates.refused(400, ManifestId(2)));
    assert!(!gates.refused(422, ManifestId(3)));
    assert!(!gates.refused(400, ManifestId(3)));
    assert!(!gates.refused(400, ManifestId(4)));
    assert!(gates.refused(400, ManifestId(5)));
    let departure = call(&mut gates, &p);
    gates.served(&p, departure, WALL);
    assert!(!gates.refused(400, ManifestId(6)));
}

#[test]
fn a_project_that_was_served_is_not_unknown_of_a_sudden() {
    let (p, q) = (project("p"), project("q"));
    let mut gates = Gates::new(8);
    let departure = call(&mut gates, &p);
    gates.served(&p, departure, WALL);
    assert!(!gates.unknown_project(&p, ManifestId(1)));
    assert!(!gates.unknown_project(&p, ManifestId(2)));
    // One that never was is no evidence against the API.
    for root in 3..9 {
        assert!(!gates.unknown_project(&q, ManifestId(root)));
    }
    assert!(gates.unknown_project(&p, ManifestId(9)));
}

/// These, or everything, are paused now, and nothing else.
fn pause(gates: &mut Gates, projects: &[Option<&ProjectId>]) {
    let pause =
        |project: Option<&ProjectId>| Pause { project: project.cloned(), since: WALL, until: None, reason: None };
    let _ = gates.pauses.learn(projects.iter().copied().map(pause).collect());
}

#[test]
fn a_pause_outlasts_whatever_ends_a_hold() {
    let (p, q) = (project("p"), project("q"));
    let mut gates = Gates::new(8);
    let before = gates.leave(&p);
    pause(&mut gates, &[Some(&p)]);
    assert_eq!((gates.ask(&p, secs(1)), gates.ask(&q, secs(1))), (Leave::WhenResumed, Leave::Now));
    assert!(gates.steps_aside(&p) && !gates.is_project_held(&p) && !gates.steps_aside(&q));
    pause(&mut gates, &[None]);
    gates.back(&p, before);
    gates.served(&p, before, WALL);
    gates.spoke(before);
    gates.release(&p);
    gates.try_now();
    assert_eq!((gates.ask(&q, secs(9)), gates.room(secs(9))), (Leave::WhenResumed, 0));
    assert!(!gates.steps_aside(&q), "nothing is consumed, so nothing crowds the prefetch");
    pause(&mut gates, &[]);
    assert_eq!((gates.ask(&q, secs(9)), gates.room(secs(9))), (Leave::Now, 8));
}

#[test]
fn what_is_resumed_is_still_held_by_what_held_it_before() {
    let p = project("p");
    let mut gates = Gates::new(8);
    let first = call(&mut gates, &p);
    gates.hold(Scope::Everything, &p, &trouble(HoldReason::ApiDown, first, secs(5)));
    pause(&mut gates, &[None]);
    assert_eq!(gates.ask(&p, secs(6)), Leave::WhenResumed);
    pause(&mut gates, &[]);
    assert_eq!((gates.ask(&p, secs(4)), gates.ask(&p, secs(6))), (Leave::At(secs(5)), Leave::Now));
}

#[test]
fn a_call_that_was_let_through_before_a_pause_is_called_off() {
    let (p, q) = (project("p"), project("q"));
    let mut gates = Gates::new(8);
    let (one, two) = (gates.leave(&p), gates.leave(&q));
    pause(&mut gates, &[Some(&p)]);
    assert!(gates.is_called_off(&p, one, secs(1)) && !gates.is_called_off(&q, two, secs(1)));
    pause(&mut gates, &[None]);
    assert!(gates.is_called_off(&q, two, secs(1)));
    pause(&mut gates, &[]);
    assert!(!gates.is_called_off(&p, one, secs(1)) && !gates.is_called_off(&q, two, secs(1)));
}
