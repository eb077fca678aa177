//! How long a manifest waits, and for what it is given up.

use super::*;

#[test]
fn retry_after_holds_all_whatever_is_decided() {
    let cases = [
        (503, SERVER, HoldReason::ApiDown),
        (429, Verdict::Throttled, HoldReason::Throttled),
        (409, CONFLICT, HoldReason::Throttled),
        (403, FORBIDDEN, HoldReason::Throttled),
        (400, BAD_BODY, HoldReason::Throttled),
    ];
    for (status, verdict, reason) in cases {
        let mut way = Way::of(manifest(1, "p", 2));
        let retry_after = Some(Duration::from_secs(5));
        let _ = way.reply(&Reply { retry_after, ..reply(status, verdict) });
        assert!(way.gates.take_changes().contains(&Change::Began(Scope::Everything, reason)), "{status}");
    }

    // A body's own failure is split all the same, and its halves wait.
    let mut way = Way::of(manifest(1, "p", 2));
    let _ = way.fails_alone(&Verdict::Unsent);
    let retry_after = Some(Duration::from_secs(5));
    let decision = way.reply(&Reply { retry_after, ..reply(503, SERVER) });
    assert_split(&decision, true);
    let until = Duration::from_millis(5100);
    assert_eq!(way.gates.ask(&way.manifest.project, Duration::ZERO), Leave::At(until));
    assert_eq!(way.gates.ask(&way.manifest.project, until), Leave::Now);
}

#[test]
fn a_report_is_no_reason_to_wait() {
    let mut way = Way::of(manifest(1, "p", 2));
    let retry_after = Some(Duration::from_secs(5));
    let _ = way.reply(&Reply { retry_after, ..reply(200, deleted(&[])) });
    assert!(way.gates.held().is_none());
}

#[test]
fn a_retry_after_outlasts_the_answers_of_calls_that_left_before_it() {
    for (status, verdict) in [(200, deleted(&[])), (403, FORBIDDEN), (400, BAD_BODY), (404, BAD_PROJECT)] {
        let mut way = Way::of(manifest(1, "p", 2));
        way.at.departure = way.gates.leave(&way.manifest.project);
        let other = way.gates.leave(&way.manifest.project);
        let retry_after = Some(Duration::from_secs(30));
        let _ = way.comes_back(&Reply { retry_after, ..reply(429, Verdict::Throttled) });
        way.at.departure = other;
        let _ = way.comes_back(&reply(status, verdict));
        let q = ProjectId::parse("q").unwrap();
        assert_eq!(way.gates.ask(&q, Duration::from_secs(1)), Leave::At(Duration::from_secs(30)), "{status}");
    }
}

#[test]
fn no_trouble_is_given_up_for_the_time_that_another_took() {
    let mut way = Way::of(manifest(1, "p", 1));
    let _ = way.meets(403, FORBIDDEN);
    way.at.left = moment(24 * 3_600_000);
    assert!(matches!(way.fails_alone(&SERVER), Decision::Again { wait: Wait::Alone { .. }, .. }));
    way.at.left = moment(48 * 3_600_000 - 1);
    assert!(matches!(way.waits(500, SERVER), Wait::Alone { .. }));
    assert!(matches!(way.waits(403, FORBIDDEN), Wait::Hold { scope: Scope::Project, .. }));

    // Nor for the time that its requests waited aside for their project.
    let mut way = Way::of(manifest(1, "p", 1));
    (way.fate, way.history) = (way.fate.troubled(moment(0).wall), History::after(Ordeal::Forbidden));
    way.at.left = moment(30 * 3_600_000);
    assert!(matches!(way.fails_alone(&SERVER), Decision::Again { wait: Wait::Alone { .. }, .. }));
}

#[test]
fn what_one_body_meets_with_a_retry_after_is_for_another_to_tell() {
    for (status, verdict) in [(503, SERVER), (409, CONFLICT), (403, FORBIDDEN)] {
        let mut way = Way::of(manifest(1, "p", 1));
        if status == 503 {
            let _ = way.fails_alone(&verdict);
        }
        let retry_after = Some(Duration::from_secs(30));
        for _ in 0..3 {
            let _ = way.reply(&Reply { retry_after, ..reply(status, verdict.clone()) });
        }
        assert!(way.gates.held().is_some() && way.gates.wants_newcomer(), "{status}");
    }
    let mut way = Way::of(manifest(1, "p", 1));
    let _ = way.reply(&Reply { retry_after: Some(Duration::from_secs(30)), ..reply(429, Verdict::Throttled) });
    assert!(!way.gates.wants_newcomer(), "a throttling is nobody's own");
}

#[test]
fn halves_count_on_in_the_trouble_of_their_whole_and_in_no_other() {
    let mut whole = Way::of(manifest(1, "p", 2));
    let _ = whole.meets(403, FORBIDDEN);
    whole.at.left = moment(20 * 3_600_000);
    let Decision::Split { fate } = whole.meets(400, BAD_BODY) else { panic!("it is split") };
    let mut half = Way::of(manifest(2, "p", 1));
    (half.fate, half.history) = (fate, whole.history.inherited());
    half.at.left = moment(20 * 3_600_000);
    let _ = half.fails_alone(&SERVER);
    half.at.left = moment(24 * 3_600_000);
    assert!(matches!(half.waits(500, SERVER), Wait::Alone { .. }), "four hours of its own are not a day");
    half.at.left = moment(44 * 3_600_000);
    assert_eq!(half.meets(500, SERVER), failed(FailCode::GaveUp, None, true));
}

#[test]
fn a_clock_that_leaps_gives_nothing_up() {
    let mut way = Way::of(manifest(1, "p", 1));
    let (started, day) = (moment(0), 24 * 3_600_000);
    way.gates.leaps.look(started);
    let _ = way.meets(403, FORBIDDEN);
    way.at.left = Moment { wall: moment(3 * day).wall, ..moment(1000) };
    way.gates.leaps.look(way.at.left);
    assert!(matches!(way.waits(403, FORBIDDEN), Wait::Hold { scope: Scope::Project, .. }));
    way.at.left = Moment { wall: moment(4 * day).wall, ..moment(day) };
    way.gates.leaps.look(way.at.left);
    assert_eq!(way.meets(403, FORBIDDEN), failed(FailCode::Forbidden, Some("CODE"), false));
}

#[test]
fn what_is_given_up_while_its_project_is_held_lets_others_of_the_project_go() {
    let mut way = Way::of(manifest(1, "p", 1));
    let _ = way.fails_alone(&SERVER);
    let project = Wait::Hold { scope: Scope::Project, reason: HoldReason::Forbidden };
    assert_eq!(way.waits(403, FORBIDDEN), project);
    let _ = way.fails_alone(&SERVER);
    way.at.left = moment(24 * 3_600_000);
    assert_eq!(way.meets(500, SERVER), failed(FailCode::GaveUp, None, true));
    assert!(!way.gates.is_project_held(&way.manifest.project));
}

#[test]
fn the_same_refusal_for_everybody_is_waited_out_however_long_it_lasts() {
    let mut way = Way::of(manifest(1, "p", 2));
    for root in 1..=2 {
        way.manifest.root = ManifestId(root);
        assert_split(&way.meets(400, BAD_BODY), false);
    }
    way.manifest.root = ManifestId(3);
    for day in 0..4 {
        way.at.left = moment(day * 24 * 3_600_000);
        assert_eq!(way.waits(400, BAD_BODY), everything(HoldReason::RefusesAll));
    }
}
