use super::*;
use crate::domain::attribution::CallRecord;
use crate::domain::ids::ManifestId;
use crate::domain::key::KeyBase;
use crate::domain::manifest::{Conclusion, End, Positions, Span};
use crate::domain::rejection::RejectCode;

fn envelope(payload: &str) -> Envelope {
    Envelope { message_id: Some("m1".into()), payload: payload.to_owned().into(), ..Envelope::default() }
}

fn request(payload: &str) -> DeletionRequest {
    DeletionRequest::parse(&envelope(payload), None).unwrap()
}

fn record(request: &DeletionRequest) -> RequestRecord {
    RequestRecord {
        digest: request.digest,
        content: request.content,
        project: request.project.clone().unwrap(),
        emails: request.len(),
        correlation_id: None,
        metadata: request.metadata.as_ref().map(|m| m.get().to_owned()),
    }
}

fn concluded(request: &DeletionRequest, end: End) -> Progress {
    let mut progress = Progress::new(request.len());
    let spans = [Span { request_at: 0, body_at: 0, len: u16::try_from(request.len()).unwrap() }];
    let conclusion = Conclusion {
        end,
        generation: 0,
        http_status: Some(200),
        attempts: 2,
        replayed: false,
        request_id: Some("r1".into()),
        at: Timestamp::from_millis(1_795_435_200_000),
    };
    progress.start(&spans);
    progress.conclude(&CallRecord::of(ManifestId(1), KeyBase([0; 32]), &conclusion), &spans, &conclusion);
    progress
}

fn not_found(at: &[u16]) -> End {
    let mut positions = Positions::default();
    for at in at {
        positions.insert(*at);
    }
    End::Answered { not_found: positions, uncertain: false, count_mismatch: false }
}

#[test]
fn an_outcome_has_the_fields_of_the_contract() {
    let payload = r#"{"projectId":"p","emails":["bob@x","Ann@x","no address"],"metadata":{"ticket":"T-1"}}"#;
    let request = request(payload);
    let outcome = Outcome::of(&request, &record(&request), &concluded(&request, not_found(&[1])));
    let json: serde_json::Value =
        serde_json::from_slice(&outcome.json(Timestamp::from_millis(1_795_435_201_000))).unwrap();
    let key = KeyBase([0; 32]).generation(0);
    assert_eq!(
        json,
        serde_json::json!({
            "messageId": "m1", "correlationId": "m1", "projectId": "p", "status": "partial", "deleted": 1,
            "notFound": ["bob@x"], "invalid": [{"email": "no address", "reason": "contains white space or a control character"}],
            "failed": [], "uncertain": [], "countMismatch": false, "error": null,
            "requests": [{"idempotencyKey": key.as_str(), "httpStatus": 200, "attempts": 2, "replayed": false, "requestId": "r1"}],
            "metadata": {"ticket": "T-1"},
            "completedAt": "2026-11-23T12:00:00.000Z", "publishedAt": "2026-11-23T12:00:01.000Z"
        })
    );
    assert_eq!(outcome.dead.as_ref().unwrap().code, "INVALID_EMAIL");
    assert_eq!(outcome.undone(&envelope(payload)).unwrap(), "2");
}

#[test]
fn a_status_follows_from_what_became_of_the_emails() {
    let sound = request(r#"{"projectId":"p","emails":["a@x","b@x"]}"#);
    let mixed = request(r#"{"projectId":"p","emails":["a@x","b@x","c"]}"#);
    let failed =
        End::Failed { code: FailCode::ApiRejected, api_code: Some("BAD".into()), may_have_taken_effect: false };
    let uncertain = End::Answered {
        not_found: {
            let mut p = Positions::default();
            p.insert(0);
            p
        },
        uncertain: true,
        count_mismatch: false,
    };
    for (request, end, status) in [
        (&sound, not_found(&[0, 1]), Status::Succeeded),
        (&sound, uncertain, Status::Succeeded),
        (&sound, failed.clone(), Status::Failed),
        (&mixed, failed, Status::Failed),
        (&mixed, not_found(&[]), Status::Partial),
    ] {
        let outcome = Outcome::of(request, &record(request), &concluded(request, end));
        assert_eq!(outcome.status, status);
        assert_eq!(outcome.dead.is_some(), status != Status::Succeeded);
        let c = outcome.counts;
        assert_eq!(c.deleted + c.not_found + c.uncertain + c.failed, u64::from(request.len()));
    }
}

#[test]
fn a_rejection_names_its_code_and_has_no_completion() {
    let message = envelope(r#"{"projectId":"p","emails":["x","y"]}"#);
    let unusable = DeletionRequest::parse(&message, None).unwrap_err();
    let outcome = Outcome::unusable(&unusable, &message);
    let json: serde_json::Value = serde_json::from_slice(&outcome.json(Timestamp::from_millis(0))).unwrap();
    assert_eq!(json["status"], "rejected");
    assert_eq!(json["error"]["code"], RejectCode::NoValidEmail.as_str());
    assert_eq!(json["completedAt"], serde_json::Value::Null);
    assert_eq!(json["projectId"], "p");
    assert_eq!(outcome.undone(&message).unwrap(), "0-1");
}

#[test]
fn an_outcome_of_calls_without_end_is_small_enough_for_a_broker_and_says_what_it_leaves_out() {
    let request = request(r#"{"projectId":"p","emails":["ann@x"]}"#);
    let mut progress = Progress::new(1);
    for n in 0..90_000 {
        let end = if n < 89_999 { End::Split } else { not_found(&[]) };
        let spans = [Span { request_at: 0, body_at: 0, len: 1 }];
        let conclusion = Conclusion {
            end,
            generation: 0,
            http_status: Some(400),
            attempts: 1,
            replayed: false,
            request_id: Some("r".repeat(36)),
            at: Timestamp::from_millis(0),
        };
        progress.conclude(&CallRecord::of(ManifestId(n), KeyBase([0; 32]), &conclusion), &spans, &conclusion);
    }
    let json = Outcome::of(&request, &record(&request), &progress).json(Timestamp::from_millis(0));
    assert!(json.len() < 4 << 20, "{}", json.len());
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((json["requests"].as_array().unwrap().len(), &json["requestsOmitted"]), (10_000, &80_000.into()));
}
