use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::domain::attribution::{CallRecord, Progress};
use crate::domain::envelope::Envelope;
use crate::domain::fate::Fate;
use crate::domain::ids::ManifestId;
use crate::domain::key::KeyBase;
use crate::domain::manifest::{Conclusion, End, FailCode, Manifest, Member, Positions, RequestRecord, Span};
use crate::domain::moment::Timestamp;
use crate::domain::outcome::{BatchEvent, Outcome};
use crate::domain::rejection::{RejectCode, Rejection};
use crate::domain::request::DeletionRequest;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[track_caller]
fn holds(schema: &str, message: &Value, sound: bool) {
    let validator = jsonschema::draft202012::new(&parsed(schema)).unwrap();
    let faults: Vec<_> = validator.iter_errors(message).map(|fault| fault.to_string()).collect();
    assert_eq!(faults.is_empty(), sound, "{message:#}\n{faults:?}");
}

fn codes(schema: &str, pointer: &str) -> BTreeSet<String> {
    let schema = parsed(schema);
    let codes = schema.pointer(pointer).unwrap().as_array().unwrap();
    codes.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn the_schemas_are_schemas_and_their_examples_hold() {
    for schema in [REQUEST, OUTCOME, BATCH] {
        assert!(jsonschema::draft202012::meta::is_valid(&parsed(schema)));
        assert!(schema.ends_with("}\n"));
        let examples = parsed(schema)["examples"].as_array().unwrap().clone();
        for example in &examples {
            holds(schema, example, true);
        }
    }
    assert_eq!(parsed(&all().unwrap())["outcome"], parsed(OUTCOME));
}

#[test]
fn a_request_is_taken_as_the_worker_takes_it() {
    for (request, sound) in [
        (json!({"emails": ["a@x"]}), true),
        (json!({"emails": ["a@x"], "metadata": null, "unknown": 1}), true),
        (json!({"projectId": "p", "emails": ["no address", "a@x"], "metadata": {}}), true),
        (json!({"projectId": "p", "emails": []}), false),
        (json!({"projectId": "p"}), false),
        (json!({"projectId": "", "emails": ["a@x"]}), false),
        (json!({"projectId": 1, "emails": ["a@x"]}), false),
        (json!({"projectId": "p", "emails": [1]}), false),
        (json!({"projectId": "p", "emails": ["a@x"], "metadata": []}), false),
        (json!([]), false),
    ] {
        holds(REQUEST, &request, sound);
        let envelope =
            Envelope { message_id: Some("m".into()), payload: request.to_string().into(), ..Envelope::default() };
        assert_eq!(DeletionRequest::parse(&envelope, None).is_ok(), sound, "{request}");
    }
}

fn conclusion(end: End) -> Conclusion {
    let at = Timestamp::from_millis(1_795_435_200_000);
    Conclusion { end, generation: 0, http_status: None, attempts: 2, replayed: false, request_id: None, at }
}

fn ends() -> [End; 4] {
    let mut not_found = Positions::default();
    not_found.insert(0);
    let failed = |code| End::Failed { code, api_code: None, may_have_taken_effect: true };
    [
        End::Answered { not_found: not_found.clone(), uncertain: false, count_mismatch: true },
        End::Answered { not_found, uncertain: true, count_mismatch: false },
        failed(FailCode::GaveUp),
        failed(FailCode::Forbidden),
    ]
}

#[test]
fn what_the_worker_says_of_a_request_is_as_the_schema_says() {
    for payload in
        [r#"{"projectId":"p","emails":["a@x","b@x"]}"#, r#"{"projectId":"p","emails":["a@x","b@x","c"],"metadata":{}}"#]
    {
        let envelope = Envelope { message_id: Some("m".into()), payload: payload.into(), ..Envelope::default() };
        let request = DeletionRequest::parse(&envelope, None).unwrap();
        let record = RequestRecord {
            digest: request.digest,
            content: request.content,
            project: request.project.clone().unwrap(),
            emails: request.len(),
            correlation_id: None,
            metadata: request.metadata.as_ref().map(|text| text.get().to_owned()),
        };
        for end in ends() {
            let mut progress = Progress::new(request.len());
            let spans = [Span { request_at: 0, body_at: 0, len: 2 }];
            progress.start(&spans);
            let conclusion = conclusion(end);
            let call = CallRecord::of(ManifestId(1), KeyBase([0; 32]), &conclusion);
            progress.conclude(&call, &spans, &conclusion);
            let outcome = Outcome::of(&request, &record, &progress).json(Timestamp::from_millis(0));
            let mut outcome: Value = serde_json::from_slice(&outcome).unwrap();
            holds(OUTCOME, &outcome, true);
            outcome["status"] = "rejected".into();
            holds(OUTCOME, &outcome, false);
        }
    }
}

#[test]
fn what_the_worker_says_of_an_unusable_message_is_as_the_schema_says() {
    for payload in ["{", "{}", r#"{"projectId":"p","emails":["c"]}"#] {
        for message_id in [None, Some("m".into())] {
            let envelope = Envelope { message_id, payload: payload.into(), ..Envelope::default() };
            let unusable = DeletionRequest::parse(&envelope, None).unwrap_err();
            let outcome = Outcome::unusable(&unusable, &envelope).json(Timestamp::from_millis(0));
            holds(OUTCOME, &serde_json::from_slice(&outcome).unwrap(), true);
        }
    }
    let envelope = Envelope::default();
    let rejection = Rejection::new(RejectCode::TooLarge, "too large");
    let outcome = Outcome::too_large(None, &rejection, &envelope).json(Timestamp::from_millis(0));
    holds(OUTCOME, &serde_json::from_slice(&outcome).unwrap(), true);
}

#[test]
fn a_batch_event_is_as_the_schema_says() {
    let envelope = Envelope {
        message_id: Some("m".into()),
        payload: r#"{"projectId":"p","emails":["a@x","b@x"]}"#.into(),
        ..Envelope::default()
    };
    let request = DeletionRequest::parse(&envelope, None).unwrap();
    let manifest = Manifest {
        id: ManifestId(1),
        root: ManifestId(1),
        project: request.project.clone().unwrap(),
        body: "{}".into(),
        emails: 2,
        members: vec![Member { request: request.digest, spans: vec![Span { request_at: 0, body_at: 0, len: 2 }] }],
        key: KeyBase([0; 32]),
        fate: Fate::never_sent(),
    };
    for end in ends().into_iter().chain([End::Split]) {
        let event = BatchEvent::of(&manifest, &conclusion(end), 5).json();
        holds(BATCH, &serde_json::from_slice(&event).unwrap(), true);
    }
}

#[test]
fn the_codes_are_those_of_the_worker() {
    use RejectCode::{
        InvalidRequest, MalformedJson, MessageIdReused, MissingMessageId, NoEmails, NoValidEmail, ProjectNotAllowed,
        TooLarge, UnsupportedContentType,
    };
    let rejected = [
        MalformedJson,
        InvalidRequest,
        MissingMessageId,
        NoEmails,
        NoValidEmail,
        ProjectNotAllowed,
        MessageIdReused,
        TooLarge,
        UnsupportedContentType,
    ];
    let rejected = rejected.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(codes(OUTCOME, "/properties/error/oneOf/1/properties/code/enum"), rejected);
    let failed = [FailCode::ApiRejected, FailCode::ProjectNotFound, FailCode::Forbidden, FailCode::GaveUp];
    let mut failed: BTreeSet<String> = failed.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(codes(OUTCOME, "/properties/failed/items/properties/code/enum"), failed);
    failed.insert("SPLIT".to_owned());
    assert_eq!(codes(BATCH, "/properties/code/enum"), failed);
}
