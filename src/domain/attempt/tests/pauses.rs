//! Patience, where somebody stopped the calls meanwhile.

use super::*;
use crate::domain::pauses::Pause;

const HOUR: i64 = 3_600_000;

fn pause(project: Option<&ProjectId>, since: i64, until: Option<i64>) -> Pause {
    let (since, until) = (Timestamp::from_millis(since * HOUR), until.map(|h| Timestamp::from_millis(h * HOUR)));
    Pause { project: project.cloned(), since, until, reason: None }
}

#[test]
fn time_that_is_paused_is_no_patience_spent() {
    let mut way = Way::of(manifest(1, "p", 1));
    let forbidden = Verdict::Refused(Refusal::Forbidden);
    let hold = Wait::Hold { scope: Scope::Project, reason: HoldReason::Forbidden };
    let project = way.manifest.project.clone();
    assert_eq!(way.waits(403, forbidden.clone()), hold);
    // 30 hours went by, 10 of them paused, in all or in this project.
    let _ = way.gates.pauses.learn(vec![pause(None, 5, Some(11)), pause(Some(&project), 11, Some(15))]);
    way.at.left = moment(30 * HOUR);
    assert_eq!(way.waits(403, forbidden.clone()), hold);
    // What stopped others stopped not this one.
    let other = ProjectId::parse("q").unwrap();
    let _ = way.gates.pauses.learn(vec![pause(Some(&other), 5, Some(15))]);
    assert_eq!(way.meets(403, forbidden), failed(FailCode::Forbidden, Some("CODE"), false));
}
