use proptest::prelude::*;

use super::*;

fn envelope(payload: &str) -> Envelope {
    Envelope { message_id: Some("m1".into()), payload: payload.to_owned().into(), ..Envelope::default() }
}

fn event(payload: &str) -> Envelope {
    Envelope {
        content_type: Some("application/cloudevents+json; charset=utf-8".into()),
        message_id: None,
        ..envelope(payload)
    }
}

fn parse(payload: &str) -> Result<DeletionRequest, Box<Unusable>> {
    DeletionRequest::parse(&envelope(payload), None)
}

fn code(result: Result<DeletionRequest, Box<Unusable>>) -> (RejectCode, String) {
    let unusable = result.unwrap_err();
    (unusable.rejection.code, unusable.rejection.message)
}

#[test]
fn a_sound_request_is_taken_with_its_distinct_emails_in_canonical_order() {
    let request = parse(
        r#"{"projectId":"p","emails":[" bob@x.de","Ann@x.de","ANN@X.DE","nope"],"metadata":{"b":1,"a":2},"more":[1]}"#,
    )
    .unwrap();
    assert_eq!(request.project.unwrap().as_str(), "p");
    let emails: Vec<_> = request.emails.iter().map(Email::as_str).collect();
    assert_eq!(emails, ["Ann@x.de", "bob@x.de"]);
    assert_eq!(request.invalid.len(), 1);
    assert_eq!(request.metadata.unwrap().get(), r#"{"b":1,"a":2}"#);
}

#[test]
fn each_fault_has_its_code_and_names_its_field() {
    use RejectCode::*;
    let two_kib = "x".repeat(METADATA_MAX_BYTES);
    let big = format!(r#"{{"projectId":"p","emails":["a@x"],"metadata":{{"x":"{two_kib}"}}}}"#);
    let (open, close) = ("[".repeat(200), "]".repeat(200));
    let deep = format!(r#"{{"projectId":"p","emails":["a@x"],"metadata":{{"x":{open}{close}}}}}"#);
    for (payload, expected, field) in [
        ("", MalformedJson, "JSON"),
        (&deep, MalformedJson, "nested"),
        (r#"{"emails":["a@x"],"projectId":"p","metadata":{"x":1e999}}"#, MalformedJson, "number"),
        ("{", MalformedJson, "JSON"),
        ("[]", InvalidRequest, "object"),
        ("7", InvalidRequest, "object"),
        (r#"{"emails":["a@x"],"emails":["b@x"],"projectId":"p"}"#, MalformedJson, "twice"),
        (r#"{"emails":["a@x"],"projectId":"p","x":1,"x":2}"#, MalformedJson, "twice"),
        (r#"{"emails":["a@x"],"projectId":"p","metadata":{"a":{"b":1,"b":2}}}"#, MalformedJson, "twice"),
        (r#"{"emails":["a@x"],"projectId":7}"#, InvalidRequest, "projectId"),
        (r#"{"emails":["a@x"],"projectId":""}"#, InvalidRequest, "projectId"),
        (r#"{"projectId":"p"}"#, InvalidRequest, "emails"),
        (r#"{"projectId":"p","emails":"a@x"}"#, InvalidRequest, "emails"),
        (r#"{"projectId":"p","emails":null}"#, InvalidRequest, "emails"),
        (r#"{"projectId":"p","emails":["a@x",7]}"#, InvalidRequest, "emails[1]"),
        (r#"{"projectId":"p","emails":[]}"#, NoEmails, "emails"),
        (r#"{"projectId":"p","emails":["a","b"]}"#, NoValidEmail, "emails"),
        (r#"{"projectId":"p","emails":["a@x"],"metadata":[]}"#, InvalidRequest, "metadata"),
        (&big, InvalidRequest, "metadata"),
    ] {
        let (got, message) = code(parse(payload));
        assert_eq!(got, expected, "{payload}");
        assert!(message.contains(field), "{payload}: {message}");
    }
}

#[test]
fn a_message_that_is_not_utf_8_is_malformed() {
    let mut message = envelope("");
    message.payload = bytes::Bytes::from_static(b"{\"projectId\":\"p\",\"emails\":[\"a\xff@x\"]}");
    assert_eq!(code(DeletionRequest::parse(&message, None)).0, RejectCode::MalformedJson);
}

#[test]
fn a_nesting_bomb_is_malformed_and_not_a_stack_overflow() {
    let bomb =
        format!(r#"{{"projectId":"p","emails":["a@x"],"metadata":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&bomb).is_err());
    let bomb = format!(r#"{{"x":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&bomb).is_err());
}

#[test]
fn a_message_without_an_id_is_rejected_whatever_it_holds() {
    let mut message = envelope(r#"{"projectId":"p","emails":["a@x"]}"#);
    for id in [None, Some(String::new())] {
        message.message_id = id;
        assert_eq!(code(DeletionRequest::parse(&message, None)).0, RejectCode::MissingMessageId);
    }
}

#[test]
fn other_content_types_are_unsupported() {
    let mut message = envelope(r#"{"projectId":"p","emails":["a@x"]}"#);
    message.content_type = Some("text/csv".into());
    assert_eq!(code(DeletionRequest::parse(&message, None)).0, RejectCode::UnsupportedContentType);
    message.content_type = Some("Application/JSON; charset=utf-8".into());
    assert!(DeletionRequest::parse(&message, None).is_ok());
}

#[test]
fn the_default_project_stands_in_where_the_message_names_none() {
    let default = ProjectId::parse("d").unwrap();
    let message = envelope(r#"{"emails":["a@x"]}"#);
    let policy = |allowed: &[&str]| Policy {
        default_project: None,
        max_message_bytes: 100,
        allowed_projects: allowed.iter().filter_map(|p| ProjectId::parse(p)).collect(),
    };
    let request = DeletionRequest::parse(&message, Some(&default)).unwrap();
    assert_eq!(request.project, Some(default));
    assert!(!request.names_project);
    assert!(policy(&[]).admit(&request).is_ok());
    assert_eq!(policy(&["p"]).admit(&request).unwrap_err().code, RejectCode::ProjectNotAllowed);
    let nameless = DeletionRequest::parse(&message, None).unwrap();
    assert_eq!(policy(&[]).admit(&nameless).unwrap_err().code, RejectCode::InvalidRequest);
}

#[test]
fn a_cloud_event_is_named_by_its_property_or_by_source_and_id() {
    let text =
        r#"{"specversion":"1.0","id":"7","source":"urn:crm","type":"t","data":{"projectId":"p","emails":["a@x"]}}"#;
    let request = DeletionRequest::parse(&event(text), None).unwrap();
    assert_eq!(request.id.as_str(), "urn:crm 7");
    let mut named = event(text);
    named.message_id = Some("m9".into());
    assert_eq!(DeletionRequest::parse(&named, None).unwrap().id.as_str(), "m9");
}

#[test]
fn a_cloud_event_that_cannot_be_read_names_the_field() {
    use RejectCode::*;
    for (text, expected, field) in [
        (r#"{"specversion":"0.3","id":"7","source":"s","data":{}}"#, InvalidRequest, "specversion"),
        (r#"{"specversion":"1.0","id":7,"source":"s","data":{}}"#, InvalidRequest, "id"),
        (r#"{"specversion":"1.0","id":"7","source":"a b","data":{}}"#, InvalidRequest, "source"),
        (r#"{"specversion":"1.0","source":"s","data":{}}"#, MissingMessageId, "message_id"),
        (r#"{"specversion":"1.0","id":"7","source":"s"}"#, InvalidRequest, "data"),
        (r#"{"specversion":"1.0","id":"7","source":"s","data":"x"}"#, InvalidRequest, "data"),
        (r#"{"specversion":"1.0","id":"7","source":"s","data_base64":"x"}"#, InvalidRequest, "data_base64"),
        (r#"{"specversion":"1.0","id":"7","id":"8","source":"s","data":{}}"#, MalformedJson, "twice"),
        (r#"{"specversion":"1.0","id":"7","source":"s","data":{"projectId":"p"}}"#, InvalidRequest, "emails"),
        (r"[1]", InvalidRequest, "object"),
    ] {
        let (got, message) = code(DeletionRequest::parse(&event(text), None));
        assert_eq!(got, expected, "{text}");
        assert!(message.contains(field), "{text}: {message}");
    }
}

#[test]
fn a_list_of_non_addresses_that_no_outcome_could_hold_is_refused_as_a_whole() {
    let list = |invalid: usize| {
        let mut emails: Vec<String> = (0..invalid).map(|n| n.to_string()).collect();
        emails.push("a@x".into());
        serde_json::json!({"projectId": "p", "emails": emails}).to_string()
    };
    assert_eq!(parse(&list(20_000)).unwrap().invalid.len(), 20_000);
    let (got, message) = code(parse(&list(30_000)));
    assert_eq!(got, RejectCode::InvalidRequest);
    assert!(message.contains("30000 entries"), "{message}");
}

#[test]
fn undone_entries_are_told_by_their_place_in_the_message() {
    let message = envelope(r#"{"projectId":"p","emails":["a@x","no","B@x","b@x","c@x"]}"#);
    let ranges = undone_indices(&message, |folded| folded == "a@x" || folded == "c@x").unwrap();
    assert_eq!(format!("{ranges:?}"), "[1..4]");
}

proptest! {
    #[test]
    fn order_letter_case_and_repetition_do_not_change_what_a_request_asks_for(
        names in proptest::collection::hash_set("[a-z]{1,6}", 1..20),
        seed in any::<u64>(),
    ) {
        let plain: Vec<String> = names.iter().map(|n| format!("{n}@x.de")).collect();
        let mut shuffled = plain.clone();
        let turn = usize::try_from(seed % shuffled.len() as u64).unwrap();
        shuffled.rotate_left(turn);
        shuffled.push(plain[turn].to_uppercase());
        let text = |emails: &[String]| serde_json::json!({"projectId": "p", "emails": emails}).to_string();
        let a = parse(&text(&plain)).unwrap();
        let b = parse(&text(&shuffled)).unwrap();
        prop_assert_eq!(a.content, b.content);
        prop_assert_eq!(a.len() as usize, names.len());
        shuffled.push("another@y.de".into());
        prop_assert_ne!(a.content, parse(&text(&shuffled)).unwrap().content);
    }

    #[test]
    fn whatever_arrives_is_either_a_request_or_a_rejection(text in "\\PC{0,200}") {
        let _ = parse(&text);
        let _ = DeletionRequest::parse(&event(&text), None);
    }
}
