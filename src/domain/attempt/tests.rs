//! Each branch of the decision, told as what a manifest meets, call by call.

mod patience;
mod pauses;

use super::*;
use crate::domain::answer::{Deletion, Doubt};
use crate::domain::email::Email;
use crate::domain::fate::FirstCall;
use crate::domain::gates::{Change, Departure, Leave};
use crate::domain::ids::{Fingerprint, ManifestId, ProjectId, RequestDigest};
use crate::domain::key::KeyBase;
use crate::domain::manifest::{Member, Positions, Span, body};

const DAY: Duration = Duration::from_hours(24);

fn moment(millis: i64) -> Moment {
    let steady = Duration::from_millis(u64::try_from(millis).unwrap());
    Moment { wall: Timestamp::from_millis(millis), steady }
}

fn manifest(id: i64, project: &str, emails: u16) -> Manifest {
    let project = ProjectId::parse(project).unwrap();
    let texts: Vec<Email> = (0..emails).map(|n| Email::parse(&format!("{n}@example.com")).unwrap()).collect();
    let span = Span { request_at: 0, body_at: 0, len: emails };
    let members = vec![Member { request: RequestDigest([7; 32]), spans: vec![span] }];
    let first_call = FirstCall { at: moment(0).wall, fingerprint: Fingerprint([1; 16]), steady: None };
    Manifest {
        id: ManifestId(id),
        root: ManifestId(id),
        body: body(&project, texts.iter()),
        project,
        emails,
        key: KeyBase::derive(&members),
        members,
        fate: Fate { first_call: Some(first_call), ..Fate::never_sent() },
    }
}

/// A manifest on its way, with the gates that it shares with others.
struct Way {
    manifest: Manifest,
    fate: Fate,
    history: History,
    gates: Gates,
    at: Circumstances,
}

impl Way {
    fn of(manifest: Manifest) -> Self {
        let at = Circumstances { left: moment(0), departure: Departure::default(), give_up_after: DAY };
        Self { fate: manifest.fate, manifest, history: History::default(), gates: Gates::new(8), at }
    }

    fn reply(&mut self, reply: &Reply) -> Decision {
        self.at.departure = self.gates.leave(&self.manifest.project);
        self.comes_back(reply)
    }

    /// The answer to a call that has left.
    fn comes_back(&mut self, reply: &Reply) -> Decision {
        self.gates.back(&self.manifest.project, self.at.departure);
        let decision = decide(&self.manifest, self.fate, &mut self.history, reply, &mut self.gates, self.at);
        if let Decision::Again { fate, wait } = &decision {
            self.fate = *fate;
            if let Wait::Hold { scope, reason } = wait {
                let Circumstances { left, departure, .. } = self.at;
                let asked = reply.retry_after.map(|wait| left.steady + wait);
                let until = asked.unwrap_or(left.steady);
                let doubtful = reply.verdict.may_spare_others();
                let trouble = Trouble { reason: *reason, departure, until, asked, doubtful, at: left };
                self.gates.hold(*scope, &self.manifest.project, &trouble);
            }
        }
        decision
    }

    fn meets(&mut self, status: u16, verdict: Verdict) -> Decision {
        self.reply(&reply(status, verdict))
    }

    /// How it waits after this.
    fn waits(&mut self, status: u16, verdict: Verdict) -> Wait {
        match self.meets(status, verdict) {
            Decision::Again { wait, .. } => wait,
            other => panic!("{other:?}"),
        }
    }

    fn others_are_served(&mut self, times: u32) {
        let other = ProjectId::parse("other").unwrap();
        for _ in 0..times {
            let departure = self.gates.leave(&other);
            self.gates.back(&other, departure);
            self.gates.served(&other, departure, self.at.left.wall);
        }
    }

    /// Fails and fails again while others are served, until that tells.
    fn fails_alone(&mut self, verdict: &Verdict) -> Decision {
        for exponent in 0..2 {
            assert_eq!(self.waits(500, verdict.clone()), Wait::Alone { exponent });
            self.others_are_served(2);
        }
        self.meets(500, verdict.clone())
    }
}

fn reply(status: u16, verdict: Verdict) -> Reply {
    Reply {
        verdict,
        status: (status > 0).then_some(status),
        api_code: (400..500).contains(&status).then(|| "CODE".to_owned()),
        replayed: false,
        request_id: None,
        retry_after: None,
        took: Duration::from_millis(100),
    }
}

fn deleted(not_found: &[&str]) -> Verdict {
    let not_found: Vec<String> = not_found.iter().map(|&text| text.to_owned()).collect();
    Verdict::Deleted(Deletion { deleted: Some(2 - not_found.len() as u64), not_found })
}

fn answered(uncertain: bool) -> Decision {
    let mut not_found = Positions::default();
    not_found.insert(1);
    Decision::Finish(End::Answered { not_found, uncertain, count_mismatch: false })
}

fn failed(code: FailCode, api_code: Option<&str>, may_have_taken_effect: bool) -> Decision {
    let api_code = api_code.map(str::to_owned);
    Decision::Finish(End::Failed { code, api_code, may_have_taken_effect })
}

/// Its halves begin under keys of their own, with its doubt.
fn assert_split(decision: &Decision, lost: bool) {
    let Decision::Split { fate } = decision else { panic!("{decision:?}") };
    assert_eq!((fate.generation, fate.first_call, fate.unknown, fate.lost), (0, None, false, lost));
}

const fn everything(reason: HoldReason) -> Wait {
    Wait::Hold { scope: Scope::Everything, reason }
}

const SERVER: Verdict = Verdict::Unknown(Doubt::Server);
const TIMEOUT: Verdict = Verdict::Unknown(Doubt::Timeout);
const UNSUCCESSFUL: Verdict = Verdict::Unknown(Doubt::Unsuccessful);
const CONFLICT: Verdict = Verdict::Refused(Refusal::Conflict);
const FORBIDDEN: Verdict = Verdict::Refused(Refusal::Forbidden);
const BAD_BODY: Verdict = Verdict::Refused(Refusal::Body);
const BAD_KEY: Verdict = Verdict::Refused(Refusal::Key);
const BAD_PROJECT: Verdict = Verdict::Refused(Refusal::Project);

#[test]
fn a_report_ends_it() {
    let mut way = Way::of(manifest(1, "p", 2));
    assert_eq!(way.meets(200, deleted(&["1@example.com"])), answered(false));
}

#[test]
fn a_throttled_call_holds_all_and_leaves_no_doubt() {
    let mut way = Way::of(manifest(1, "p", 2));
    assert_eq!(way.waits(429, Verdict::Throttled), everything(HoldReason::Throttled));
    assert_eq!(way.fate, way.manifest.fate);
}

#[test]
fn a_call_that_never_left_waits_and_leaves_no_doubt() {
    let mut way = Way::of(manifest(1, "p", 2));
    assert_eq!(way.waits(0, Verdict::Unsent), Wait::Alone { exponent: 0 });
    assert_eq!(way.waits(0, Verdict::Unsent), Wait::Alone { exponent: 1 });
    assert_eq!(way.fate, way.manifest.fate);
}

#[test]
fn a_lost_answer_goes_out_again_under_the_same_key_and_its_replay_is_certain() {
    let mut way = Way::of(manifest(1, "p", 2));
    assert_eq!(way.waits(0, TIMEOUT), Wait::Alone { exponent: 0 });
    assert_eq!(way.fate, way.manifest.fate.with_unknown_call());
    assert_eq!(way.meets(200, deleted(&["1@example.com"])), answered(false));
}

#[test]
fn the_third_failure_with_no_success_between_is_an_outage_and_splits_nothing() {
    let mut way = Way::of(manifest(1, "p", 2));
    assert_eq!(way.waits(500, SERVER), Wait::Alone { exponent: 0 });
    assert_eq!(way.waits(0, Verdict::Unsent), Wait::Alone { exponent: 1 });
    for _ in 0..20 {
        assert_eq!(way.waits(0, TIMEOUT), everything(HoldReason::ApiDown));
    }
    assert_eq!(way.fate.generation, 0);
}

#[test]
fn a_body_that_alone_fails_again_and_again_is_split_and_its_halves_inherit_the_doubt() {
    let mut way = Way::of(manifest(1, "p", 2));
    assert_split(&way.fails_alone(&SERVER), true);
    let mut way = Way::of(manifest(1, "p", 2));
    assert_split(&way.fails_alone(&Verdict::Unsent), false);
}

#[test]
fn an_outage_counts_once_against_a_body_however_often_it_tried_in_it() {
    let mut way = Way::of(manifest(1, "p", 2));
    for _ in 0..10 {
        let _ = way.meets(503, SERVER);
    }
    way.others_are_served(10);
    assert!(matches!(way.meets(503, SERVER), Decision::Again { .. }));
    way.others_are_served(1);
    assert!(matches!(way.meets(503, SERVER), Decision::Split { .. }));
}

#[test]
fn one_email_that_alone_fails_waits_alone_until_it_is_given_up() {
    let mut way = Way::of(manifest(1, "p", 1));
    assert_eq!(way.fails_alone(&SERVER), Decision::Again { fate: way.fate, wait: Wait::Alone { exponent: 2 } });
    way.at.left = moment(24 * 3_600_000 - 1);
    assert_eq!(way.waits(500, SERVER), Wait::Alone { exponent: 3 });
    way.at.left = moment(24 * 3_600_000);
    assert_eq!(way.meets(500, SERVER), failed(FailCode::GaveUp, None, true));
}

#[test]
fn in_an_outage_nothing_is_given_up() {
    let mut way = Way::of(manifest(1, "p", 1));
    way.at.left = moment(72 * 3_600_000);
    for _ in 0..3 {
        let _ = way.meets(500, SERVER);
    }
    assert_eq!(way.waits(500, SERVER), everything(HoldReason::ApiDown));
}

#[test]
fn a_refused_api_key_holds_all_and_the_next_try_takes_the_next_key() {
    let mut way = Way::of(manifest(1, "p", 1));
    way.at.left = moment(72 * 3_600_000);
    for generation in 1..5 {
        assert_eq!(way.waits(401, BAD_KEY), everything(HoldReason::KeyRefused));
        assert_eq!((way.fate.generation, way.fate.lost), (generation, false));
    }
}

#[test]
fn a_403_holds_its_project_until_it_has_outlasted_the_time_to_give_up() {
    let mut way = Way::of(manifest(1, "p", 2));
    let project = Wait::Hold { scope: Scope::Project, reason: HoldReason::Forbidden };
    assert_eq!(way.waits(403, FORBIDDEN), project);
    assert_eq!(way.fate.generation, 1);
    way.at.left = moment(24 * 3_600_000 - 1);
    assert_eq!(way.waits(403, FORBIDDEN), project);
    assert!(way.gates.held().is_none());

    way.at.left = moment(24 * 3_600_000);
    assert_eq!(way.meets(403, FORBIDDEN), failed(FailCode::Forbidden, Some("CODE"), false));
    // The next of its project may try.
    assert!(!way.gates.is_project_held(&way.manifest.project));
}

#[test]
fn the_time_to_give_up_counts_from_the_first_trouble_and_not_from_an_outage_before_it() {
    let mut way = Way::of(manifest(1, "p", 2));
    let _ = way.meets(503, SERVER);
    way.at.left = moment(30 * 3_600_000);
    assert!(matches!(way.waits(403, FORBIDDEN), Wait::Hold { scope: Scope::Project, .. }));
    way.at.left = moment(53 * 3_600_000);
    assert!(matches!(way.waits(403, FORBIDDEN), Wait::Hold { scope: Scope::Project, .. }));
    way.at.left = moment(54 * 3_600_000);
    assert_eq!(way.meets(403, FORBIDDEN), failed(FailCode::Forbidden, Some("CODE"), true));
}

#[test]
fn a_403_shows_that_the_api_is_up() {
    let mut way = Way::of(manifest(1, "p", 2));
    for _ in 0..3 {
        let _ = way.meets(503, SERVER);
    }
    assert!(way.gates.held().is_some());
    let _ = way.meets(403, FORBIDDEN);
    assert!(way.gates.held().is_none());
}

#[test]
fn an_unknown_project_fails_and_the_third_with_no_success_ever_holds_all() {
    let mut gates = Gates::new(8);
    let mut meet = |project: &str| {
        let mut way = Way { gates: std::mem::replace(&mut gates, Gates::new(8)), ..Way::of(manifest(1, project, 2)) };
        let decision = way.meets(404, BAD_PROJECT);
        gates = way.gates;
        decision
    };
    let fails = failed(FailCode::ProjectNotFound, Some("CODE"), false);
    assert_eq!(meet("p"), fails);
    assert_eq!(meet("q"), fails);
    assert_eq!(meet("p"), fails);
    let decision = meet("r");
    assert!(matches!(&decision, Decision::Again { fate, wait }
        if fate.generation == 1 && *wait == everything(HoldReason::UnknownProjects)));
}

#[test]
fn a_conflict_is_tried_again_under_its_key_and_then_under_the_next_with_doubt() {
    let mut way = Way::of(manifest(1, "p", 2));
    for exponent in 0..4 {
        assert_eq!(way.waits(409, CONFLICT), Wait::Alone { exponent });
        assert_eq!((way.fate.generation, way.fate.lost), (0, false));
    }
    assert_eq!(way.waits(409, CONFLICT), Wait::Alone { exponent: 4 });
    assert_eq!((way.fate.generation, way.fate.lost, way.fate.unknown), (1, true, false));
    // The wait goes on growing under the next key.
    assert_eq!(way.waits(409, CONFLICT), Wait::Alone { exponent: 5 });
    assert_eq!(way.meets(200, deleted(&["1@example.com"])), answered(true));
}

#[test]
fn a_conflict_that_ends_under_its_key_leaves_no_doubt() {
    let mut way = Way::of(manifest(1, "p", 2));
    let _ = way.meets(409, CONFLICT);
    assert_eq!(way.meets(200, deleted(&["1@example.com"])), answered(false));
}

#[test]
fn a_conflict_under_key_after_key_is_given_up_only_while_others_are_served() {
    for served in [0, 1] {
        let mut way = Way::of(manifest(1, "p", 2));
        for _ in 0..9 {
            assert!(matches!(way.waits(409, CONFLICT), Wait::Alone { .. }));
            way.others_are_served(served);
            way.at.left = moment(24 * 3_600_000);
        }
        let decision = way.meets(409, CONFLICT);
        if served == 0 {
            assert!(matches!(decision, Decision::Again { fate, .. } if fate.generation == 2));
        } else {
            assert_eq!(decision, failed(FailCode::GaveUp, Some("CODE"), true));
        }
    }
}

#[test]
fn a_refused_body_is_split_until_its_culprit_stands_alone() {
    let mut way = Way::of(manifest(1, "p", 2));
    assert_split(&way.meets(400, BAD_BODY), false);
    let mut way = Way::of(manifest(1, "p", 1));
    assert_eq!(way.meets(422, BAD_BODY), failed(FailCode::ApiRejected, Some("CODE"), false));
    let mut way = Way::of(manifest(1, "p", 1));
    let _ = way.meets(0, TIMEOUT);
    assert_eq!(way.meets(400, BAD_BODY), failed(FailCode::ApiRejected, Some("CODE"), true));
}

#[test]
fn the_same_refusal_for_three_unlike_batches_is_not_about_them() {
    let mut way = Way::of(manifest(1, "p", 2));
    let meet = |root: i64, way: &mut Way| {
        way.manifest.root = ManifestId(root);
        way.meets(400, BAD_BODY)
    };
    assert_split(&meet(1, &mut way), false);
    assert_split(&meet(1, &mut way), false);
    assert_split(&meet(2, &mut way), false);
    let held = meet(3, &mut way);
    assert!(matches!(held, Decision::Again { fate, wait }
        if fate.generation == 1 && wait == everything(HoldReason::RefusesAll)));
}

#[test]
fn success_false_three_times_leaves_the_key_behind_and_the_doubt_stays() {
    let mut way = Way::of(manifest(1, "p", 2));
    for _ in 0..2 {
        let _ = way.meets(200, UNSUCCESSFUL);
        assert_eq!((way.fate.generation, way.fate.unknown, way.fate.lost), (0, true, false));
    }
    // What says nothing of a replay neither counts nor starts anew.
    let _ = way.meets(429, Verdict::Throttled);
    let _ = way.meets(200, UNSUCCESSFUL);
    assert_eq!((way.fate.generation, way.fate.unknown, way.fate.lost), (1, false, true));
    assert_eq!(way.meets(200, deleted(&["1@example.com"])), answered(true));
}

#[test]
fn a_server_error_is_never_replayed_so_its_key_is_kept() {
    let mut way = Way::of(manifest(1, "p", 2));
    for _ in 0..9 {
        let _ = way.meets(500, SERVER);
    }
    assert_eq!(way.fate.generation, 0);
    assert_eq!(way.meets(200, deleted(&["1@example.com"])), answered(false));
}

#[test]
fn a_lost_answer_then_a_refusal_then_a_report_is_uncertain() {
    for (status, refusal) in [(403, FORBIDDEN), (401, BAD_KEY)] {
        let mut way = Way::of(manifest(1, "p", 2));
        let _ = way.meets(0, Verdict::Unknown(Doubt::Reset));
        let _ = way.meets(status, refusal);
        assert_eq!((way.fate.generation, way.fate.lost), (1, true));
        assert_eq!(way.meets(200, deleted(&["1@example.com"])), answered(true));
    }
}
