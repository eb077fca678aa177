use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::*;
use crate::domain::email::fold;
use crate::domain::envelope::Envelope;
use crate::domain::manifest::body_emails;

const LINGER: Duration = Duration::from_millis(250);

fn request(id: &str, emails: &[String]) -> Arc<DeletionRequest> {
    let payload = serde_json::json!({"projectId": "p", "emails": emails}).to_string().into();
    let envelope = Envelope { message_id: Some(id.into()), payload, ..Envelope::default() };
    Arc::new(DeletionRequest::parse(&envelope, None).unwrap())
}

fn lane(project: &str) -> Lane {
    Lane { project: ProjectId::parse(project).unwrap(), alone: None }
}

fn queue_all(planner: &mut Planner, lane: &Lane, request: &Arc<DeletionRequest>, now: Duration) {
    planner.queue(lane.clone(), request, &(0..request.len()).collect::<Vec<_>>(), now);
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("u{n:04}@x.de")).collect()
}

#[test]
fn a_full_batch_leaves_at_once_and_a_partial_one_after_the_linger() {
    let mut planner = Planner::new(10, LINGER);
    queue_all(&mut planner, &lane("p"), &request("a", &names(9)), Duration::ZERO);
    assert_eq!(planner.ready(Duration::ZERO, Sight::Nothing, |_| true), Ready::At(LINGER));
    assert_eq!(planner.ready(LINGER, Sight::Nothing, |_| true), Ready::Now(lane("p")));
    queue_all(&mut planner, &lane("p"), &request("b", &["z@x.de".into()]), Duration::ZERO);
    assert_eq!(planner.ready(Duration::ZERO, Sight::Nothing, |_| true), Ready::Now(lane("p")));
}

#[test]
fn a_partial_batch_waits_for_what_is_in_sight_but_not_for_ever() {
    let mut planner = Planner::new(10, LINGER);
    queue_all(&mut planner, &lane("p"), &request("a", &names(9)), Duration::ZERO);
    assert_eq!(planner.ready(LINGER, Sight::Coming, |_| true), Ready::At(LINGER + IN_SIGHT_PATIENCE));
    assert_eq!(planner.ready(LINGER + IN_SIGHT_PATIENCE, Sight::Coming, |_| true), Ready::Now(lane("p")));
}

#[test]
fn a_full_batch_waits_for_its_linger_while_repeats_may_be_in_sight() {
    let mut planner = Planner::new(10, LINGER);
    queue_all(&mut planner, &lane("p"), &request("a", &names(10)), Duration::ZERO);
    assert_eq!(planner.ready(Duration::ZERO, Sight::Coming, |_| true), Ready::At(LINGER));
    assert_eq!(planner.ready(LINGER, Sight::Coming, |_| true), Ready::Now(lane("p")));
}

#[test]
fn where_nothing_comes_before_others_have_left_a_full_batch_leaves_at_once_and_a_partial_one_waits() {
    let mut planner = Planner::new(10, LINGER);
    queue_all(&mut planner, &lane("p"), &request("a", &names(9)), Duration::ZERO);
    assert_eq!(planner.ready(LINGER, Sight::Later, |_| true), Ready::At(LINGER + IN_SIGHT_PATIENCE));
    queue_all(&mut planner, &lane("p"), &request("b", &["z@x.de".into()]), Duration::ZERO);
    assert_eq!(planner.ready(Duration::ZERO, Sight::Later, |_| true), Ready::Now(lane("p")));
}

#[test]
fn lanes_take_turns_and_a_held_project_is_passed_over() {
    let mut planner = Planner::new(2, Duration::ZERO);
    for project in ["p", "q", "r"] {
        queue_all(&mut planner, &lane(project), &request(project, &names(4)), Duration::ZERO);
    }
    let mut served = Vec::new();
    while let Ready::Now(next) = planner.ready(Duration::ZERO, Sight::Nothing, |project| project.as_str() != "q") {
        served.push(next.project.as_str().to_owned());
        let _ = planner.pack(&next).unwrap();
    }
    assert_eq!(served, ["p", "r", "p", "r"]);
    assert_eq!(planner.waiting(), 4);
}

#[test]
fn a_request_that_goes_takes_along_what_it_alone_names() {
    let mut planner = Planner::new(10, Duration::ZERO);
    let (a, b) = (request("a", &names(3)), request("b", &names(2)));
    queue_all(&mut planner, &lane("p"), &a, Duration::ZERO);
    queue_all(&mut planner, &lane("p"), &b, Duration::ZERO);
    planner.remove(|digest| *digest == a.digest);
    let packed = planner.pack(&lane("p")).unwrap();
    assert_eq!(packed.emails, 2);
    assert_eq!(packed.members.len(), 1);
    assert_eq!(planner.ready(Duration::ZERO, Sight::Nothing, |_| true), Ready::Empty);
}

#[test]
fn a_returned_request_travels_alone() {
    let mut planner = Planner::new(10, LINGER);
    let (a, b) = (request("a", &names(3)), request("b", &names(2)));
    queue_all(&mut planner, &lane("p"), &a, Duration::ZERO);
    let alone = Lane { alone: Some(b.digest), ..lane("p") };
    queue_all(&mut planner, &alone, &b, Duration::ZERO);
    assert_eq!(planner.ready(Duration::ZERO, Sight::Nothing, |_| true), Ready::Now(alone.clone()));
    assert_eq!(planner.pack(&alone).unwrap().members.len(), 1);
    assert_eq!(planner.pack(&lane("p")).unwrap().members.len(), 1);
}

proptest! {
    #[test]
    fn a_backlog_takes_the_fewest_calls_and_every_email_of_every_request_travels_once(
        requests in proptest::collection::vec(proptest::collection::vec(0..60usize, 1..12), 1..40),
        max in 1..20usize,
    ) {
        let mut planner = Planner::new(max, Duration::ZERO);
        let mut expected: BTreeSet<(RequestDigest, u32)> = BTreeSet::new();
        let mut distinct = HashSet::new();
        let mut by_digest = HashMap::new();
        for (n, emails) in requests.iter().enumerate() {
            let spelled: Vec<String> = emails.iter().map(|e| if n % 2 == 0 { format!("U{e}@x.de") } else { format!("u{e}@X.DE") }).collect();
            distinct.extend(spelled.iter().map(|text| fold(text).into_owned()));
            let request = request(&format!("m{n}"), &spelled);
            expected.extend((0..request.len()).map(|at| (request.digest, at)));
            queue_all(&mut planner, &lane("p"), &request, Duration::ZERO);
            by_digest.insert(request.digest, request);
        }
        let mut calls = 0;
        let mut seen = BTreeSet::new();
        while let Ready::Now(next) = planner.ready(Duration::ZERO, Sight::Nothing, |_| true) {
            let packed = planner.pack(&next).unwrap();
            calls += 1;
            let body = body_emails(&packed.body).unwrap();
            prop_assert!(body.len() <= max && body.len() == usize::from(packed.emails));
            let folded: Vec<String> = body.iter().map(|text| fold(text).into_owned()).collect();
            prop_assert_eq!(folded.iter().collect::<HashSet<_>>().len(), body.len(), "each email once in a batch");
            for member in &packed.members {
                for (at, body_at) in member.positions() {
                    prop_assert!(seen.insert((member.request, at)), "an email of a request travels once");
                    let email = &by_digest[&member.request].emails[at as usize];
                    prop_assert_eq!(email.folded(), folded[usize::from(body_at)].as_str());
                }
            }
        }
        prop_assert_eq!(calls, distinct.len().div_ceil(max));
        prop_assert_eq!(seen, expected);
    }
}

/// The emails of a call.
fn sent(packed: &Packed) -> Vec<String> {
    body_emails(&packed.body).unwrap().into_iter().map(|email| fold(&email).into_owned()).collect()
}

#[test]
fn no_call_carries_for_another_an_email_that_one_of_its_requests_has_in_another_call() {
    let mut planner = Planner::new(3, LINGER);
    let spread = request("spread", &names(5));
    queue_all(&mut planner, &lane("p"), &spread, LINGER);
    assert_eq!(sent(&planner.pack(&lane("p")).unwrap()), names(3));
    // The first is under way; another brings it anew, and fills up the call with what nobody else has.
    let again = request("again", &["U0000@x.de".into(), "y@x.de".into(), "z@x.de".into()]);
    queue_all(&mut planner, &lane("p"), &again, LINGER);
    let packed = planner.pack(&lane("p")).unwrap();
    assert_eq!(sent(&packed), ["u0003@x.de", "u0004@x.de", "y@x.de"]);
    assert_eq!(packed.emails, 3);
    // It has kept its turn, and who comes with it now still shares its place.
    queue_all(&mut planner, &lane("p"), &request("third", &["u0000@x.de".into()]), LINGER);
    let last = planner.pack(&lane("p")).unwrap();
    assert_eq!(sent(&last), ["u0000@x.de", "z@x.de"]);
    assert_eq!(last.members.len(), 2);
    assert!(planner.pack(&lane("p")).is_none());
}

#[test]
fn two_requests_that_each_have_the_others_email_elsewhere_go_in_turn() {
    let mut planner = Planner::new(10, LINGER);
    let (one, two) = (request("one", &names(2)), request("two", &names(2)));
    planner.queue(lane("p"), &one, &[0], LINGER);
    planner.queue(lane("p"), &two, &[1], LINGER);
    assert_eq!(sent(&planner.pack(&lane("p")).unwrap()), ["u0000@x.de"]);
    assert_eq!(sent(&planner.pack(&lane("p")).unwrap()), ["u0001@x.de"]);
    assert!(planner.pack(&lane("p")).is_none());
}

#[test]
fn a_call_passes_over_a_bounded_number_of_emails_and_they_keep_their_turn() {
    let mut planner = Planner::new(10, LINGER);
    let (one, again) = (request("one", &names(100)), request("again", &names(100)));
    planner.queue(lane("p"), &one, &[97, 98, 99], LINGER);
    queue_all(&mut planner, &lane("p"), &again, LINGER);
    planner.queue(lane("p"), &request("other", &["other@x.de".to_owned()]), &[0], LINGER);
    let first = planner.pack(&lane("p")).unwrap();
    assert_eq!(sent(&first), ["u0097@x.de", "u0098@x.de", "u0099@x.de"]);
    assert_eq!(sent(&planner.pack(&lane("p")).unwrap())[0], "u0000@x.de");
}
