use super::*;
use crate::domain::envelope::Envelope;
use crate::domain::ids::{ManifestId, ProjectId};
use crate::domain::key::KeyBase;
use crate::domain::manifest::{Conclusion, End, KnownPart, Positions, RequestRecord, Span};
use crate::domain::moment::Timestamp;
use crate::domain::registry::Met;

const OURS: ManifestId = ManifestId(1);
const THEIRS: ManifestId = ManifestId(2);

fn request(emails: u32) -> Arc<DeletionRequest> {
    let emails: Vec<String> = (0..emails).map(|n| format!("u{n}@x.de")).collect();
    let payload = serde_json::json!({"projectId": "p", "emails": emails}).to_string();
    let envelope = Envelope { message_id: Some("m".to_owned()), payload: payload.into(), ..Envelope::default() };
    Arc::new(DeletionRequest::parse(&envelope, None).unwrap())
}

fn spans(request_at: u32, len: u16) -> Vec<Span> {
    vec![Span { request_at, body_at: 0, len }]
}

fn member(request: &DeletionRequest, request_at: u32, len: u16) -> Member {
    Member { request: request.digest, spans: spans(request_at, len) }
}

fn deleted(at: i64) -> Conclusion {
    Conclusion {
        end: End::Answered { not_found: Positions::default(), uncertain: false, count_mismatch: false },
        generation: 0,
        http_status: Some(200),
        attempts: 1,
        replayed: false,
        request_id: None,
        at: Timestamp::from_millis(at),
    }
}

/// As the journal has it: each part with its manifest, its first email, how many, and its end.
fn known(request: &DeletionRequest, parts: &[(ManifestId, u32, u16, Option<i64>)]) -> KnownRequest {
    let part = |(manifest, request_at, len, ended): &(ManifestId, u32, u16, Option<i64>)| KnownPart {
        manifest: *manifest,
        key: KeyBase([0; 32]),
        spans: spans(*request_at, *len),
        conclusion: ended.map(deleted),
    };
    let record = RequestRecord {
        digest: request.digest,
        content: request.content,
        project: ProjectId::parse("p").unwrap(),
        emails: request.len(),
        correlation_id: None,
        metadata: None,
    };
    KnownRequest { record, parts: parts.iter().map(part).collect() }
}

fn among_others() -> Registry<u8> {
    Registry::default().among_others()
}

/// The emails that are to be queued; panics where the request does not wait.
fn queued(then: Then<u8>) -> Vec<u32> {
    match then {
        Then::Waits(plan) => plan.positions,
        other => panic!("it waits: {other:?}"),
    }
}

fn admit(registry: &mut Registry<u8>, request: &Arc<DeletionRequest>) -> Vec<u32> {
    match registry.admit(Arc::clone(request), ProjectId::parse("p").unwrap(), 7) {
        Met::Waits(plan) => plan.positions,
        other => panic!("it waits: {other:?}"),
    }
}

#[test]
fn what_is_under_way_elsewhere_is_waited_for_and_never_planned_here() {
    let request = request(3);
    let mut registry = among_others();
    let known_open = known(&request, &[(THEIRS, 0, 3, None)]);
    let Met::Waits(plan) = registry.recall(Arc::clone(&request), known_open.clone(), 7) else { panic!("it waits") };
    assert!(plan.positions.is_empty());
    assert_eq!(registry.elsewhere(), [request.digest]);
    // A twin attaches to it.
    assert!(matches!(registry.attach(Arc::clone(&request), 8), Ok(Met::Waits(plan)) if plan.positions.is_empty()));
    assert!(queued(registry.refresh(known_open).then).is_empty());
    let Then::Complete(done) = registry.refresh(known(&request, &[(THEIRS, 0, 3, Some(5))])).then else {
        panic!("it is complete")
    };
    assert_eq!(done.deliveries, [7, 8]);
    assert!(registry.is_empty() && registry.elsewhere().is_empty());
}

#[test]
fn alone_what_the_journal_has_open_and_is_not_here_is_asked_for_again() {
    let request = request(1);
    let mut registry = Registry::default();
    let known = known(&request, &[(THEIRS, 0, 1, None)]);
    assert!(matches!(registry.recall(request, known, 7), Met::Stale(..)));
}

#[test]
fn a_batch_that_was_lost_is_planned_again_without_what_others_have() {
    let request = request(5);
    let mut registry = among_others();
    assert_eq!(admit(&mut registry, &request), [0, 1, 2, 3, 4]);
    let draft = [member(&request, 0, 3)];
    let _ = registry.start(&draft);
    registry.back_out(&draft);
    // Others have two of the three; the third goes on here, beside the two that never left their lane.
    let refreshed = registry.refresh(known(&request, &[(THEIRS, 1, 2, None)]));
    assert!(!refreshed.unqueued);
    assert_eq!(queued(refreshed.then), [0]);
    assert_eq!(registry.elsewhere(), [request.digest]);
}

#[test]
fn emails_that_others_have_leave_their_lane_and_the_rest_is_queued_anew() {
    let request = request(4);
    let mut registry = among_others();
    assert_eq!(admit(&mut registry, &request).len(), 4);
    let refreshed = registry.refresh(known(&request, &[(THEIRS, 0, 2, None)]));
    assert!(refreshed.unqueued);
    assert_eq!(queued(refreshed.then), [2, 3]);
    // The same word again moves nothing.
    let refreshed = registry.refresh(known(&request, &[(THEIRS, 0, 2, None)]));
    assert!(!refreshed.unqueued && queued(refreshed.then).is_empty());
}

#[test]
fn a_request_in_parts_of_two_workers_is_complete_with_the_last_of_them() {
    let request = request(4);
    let mut registry = among_others();
    admit(&mut registry, &request);
    let ours = [member(&request, 0, 2)];
    let _ = registry.start(&ours);
    registry.open(OURS, &ProjectId::parse("p").unwrap());
    let _ = registry.refresh(known(&request, &[(OURS, 0, 2, None), (THEIRS, 2, 2, None)]));
    assert!(registry.conclude(OURS, KeyBase([0; 32]), &ours, &deleted(3)).is_empty());
    assert_eq!(registry.elsewhere(), [request.digest]);
    // An older word than what is known here does no harm.
    assert!(queued(registry.refresh(known(&request, &[(OURS, 0, 2, None), (THEIRS, 2, 2, None)])).then).is_empty());
    let last = known(&request, &[(OURS, 0, 2, Some(3)), (THEIRS, 2, 2, Some(9))]);
    let Then::Complete(done) = registry.refresh(last).then else { panic!("it is complete") };
    assert_eq!(done.progress.completed_at(), Some(Timestamp::from_millis(9)));
    assert_eq!(done.progress.calls().len(), 2);
}

#[test]
fn an_older_word_of_the_journal_does_not_make_a_newer_one_forgotten() {
    let request = request(2);
    let mut registry = among_others();
    admit(&mut registry, &request);
    let _ = registry.refresh(known(&request, &[(OURS, 0, 1, Some(3)), (THEIRS, 1, 1, None)]));
    // Asked before the others had the rest.
    let _ = registry.refresh(known(&request, &[(OURS, 0, 1, None)]));
    assert_eq!(registry.elsewhere(), [request.digest]);
    let last = known(&request, &[(OURS, 0, 1, Some(3)), (THEIRS, 1, 1, Some(4))]);
    assert!(matches!(registry.refresh(last).then, Then::Complete(_)));
}

#[test]
fn what_is_succeeded_here_is_not_asked_for_any_more() {
    let request = request(1);
    let mut registry = among_others();
    let _ = registry.recall(Arc::clone(&request), known(&request, &[(THEIRS, 0, 1, None)]), 7);
    registry.open(THEIRS, &ProjectId::parse("p").unwrap());
    assert!(registry.elsewhere().is_empty());
    let done = registry.conclude(THEIRS, KeyBase([0; 32]), &[member(&request, 0, 1)], &deleted(3));
    assert_eq!(done.len(), 1);
}

#[test]
fn a_name_that_another_worker_gave_away_first_is_reused() {
    let (ours, other) = (request(2), request(3));
    let mut registry = among_others();
    admit(&mut registry, &ours);
    let mut known = known(&other, &[(THEIRS, 0, 3, None)]);
    known.record.digest = ours.digest;
    let refreshed = registry.refresh(known);
    assert!(refreshed.unqueued);
    assert!(matches!(refreshed.then, Then::Reused(_, waiters) if waiters == [7]));
    assert!(registry.is_empty());
}

#[test]
fn nobody_queues_what_nobody_waits_for() {
    let request = request(2);
    let mut registry = among_others();
    admit(&mut registry, &request);
    let draft = [member(&request, 0, 2)];
    let _ = registry.start(&draft);
    assert_eq!(registry.detach(|_| true).len(), 1);
    registry.back_out(&draft);
    assert!(registry.plan_again(&request.digest).is_none());
    assert!(registry.is_empty());
}

#[test]
fn a_name_is_another_request_s_only_once_the_journal_knows_that_one() {
    let mut registry = among_others();
    let (first, second) = (request(2), request(3));
    let project = first.project.clone().unwrap();
    let _ = registry.admit(Arc::clone(&first), project, 1);
    assert!(matches!(registry.attach(Arc::clone(&second), 2), Ok(Met::Rival)));
    let [(rival, 2)] = &registry.take_rivals()[..] else { panic!("it waits to be met again") };
    assert_eq!(rival.content, second.content);
    let _ = registry.start(&[member(&first, 0, 2)]);
    registry.recorded(&[member(&first, 0, 2)]);
    assert!(matches!(registry.attach(second, 2), Ok(Met::Reused(..))));
    assert!(!registry.has_rivals());
}

#[test]
fn a_rival_goes_with_its_channel() {
    let mut registry = among_others();
    let project = request(2).project.clone().unwrap();
    let _ = registry.admit(request(2), project, 1);
    let _ = registry.attach(request(3), 2);
    assert_eq!(registry.all_deliveries().count(), 2);
    let _ = registry.detach(|delivery| *delivery == 2);
    assert!(!registry.has_rivals());
}

#[test]
fn what_was_done_for_another_request_of_the_same_name_is_not_told_of_one_that_the_journal_does_not_know() {
    let mut registry = among_others();
    let waits = request(2);
    let project = waits.project.clone().unwrap();
    let _ = registry.admit(Arc::clone(&waits), project.clone(), 1);
    // Taken up from a worker that is gone; its member has the name in common, and other emails.
    registry.open(THEIRS, &project);
    let members = [member(&waits, 0, 2)];
    assert!(registry.conclude(THEIRS, KeyBase([0; 32]), &members, &deleted(1)).is_empty());
    assert_eq!(registry.deliveries_of(&waits.digest), [1]);
}
