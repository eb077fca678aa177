//! Unusable messages: each code, its outcome and its dead letter.

use lapin::types::{AMQPValue, FieldTable};

use crate::support::{Request, World};

#[tokio::test(flavor = "multi_thread")]
async fn each_unusable_message_is_told_why_and_goes_whole_to_the_dead_queue() {
    let world = World::new().await;
    let settings = [("MIGMA__ALLOWED_PROJECTS", "p"), ("AMQP__MAX_MESSAGE_BYTES", "20KiB")];
    let worker = world.worker_with(&settings).await;
    let mut csv = Request::raw("csv", "a,b");
    csv.properties = csv.properties.with_content_type("text/csv".into());
    let big = format!(r#"{{"projectId":"p","emails":["ann@example.org"],"x":"{}"}}"#, "x".repeat(30_000));
    let cases = [
        (Request::raw("json", "{"), "MALFORMED_JSON", None),
        (Request::raw("twice", r#"{"projectId":"p","emails":[],"emails":[]}"#), "MALFORMED_JSON", None),
        (Request::raw("field", r#"{"projectId":"p","emails":"ann@example.org"}"#), "INVALID_REQUEST", None),
        (Request::raw("noproject", r#"{"emails":["ann@example.org"]}"#), "INVALID_REQUEST", Some("0")),
        (Request::raw("", r#"{"projectId":"p","emails":["ann@example.org"]}"#), "MISSING_MESSAGE_ID", Some("0")),
        (Request::new("none", "p", &[]), "NO_EMAILS", Some("")),
        (Request::new("novalid", "p", &["a", "b"]), "NO_VALID_EMAIL", Some("0-1")),
        (Request::new("project", "q", &["ann@example.org"]), "PROJECT_NOT_ALLOWED", Some("0")),
        (Request::raw("big", &big), "TOO_LARGE", Some("0")),
        (csv, "UNSUPPORTED_CONTENT_TYPE", None),
    ];
    let requests: Vec<Request> = cases.iter().map(|(request, ..)| request.clone()).collect();
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let mut dead = world.vhost.collect("contacts.deletion.dead").await;
    let seen = outcomes.wait_for(cases.len()).await.to_vec();
    let letters = dead.wait_for(cases.len()).await.to_vec();
    for (request, code, undone) in &cases {
        let id = if request.id.is_empty() { serde_json::Value::Null } else { request.id.clone().into() };
        let outcome = seen.iter().find(|s| s.json()["messageId"] == id).unwrap_or_else(|| panic!("{code}"));
        assert_eq!(outcome.routing_key, "outcome.rejected");
        let json = outcome.json();
        assert_eq!(json["error"]["code"], *code, "{json}");
        assert_eq!(json["completedAt"], serde_json::Value::Null);
        assert_eq!(outcome.properties.kind().as_ref().unwrap().as_str(), "contacts.deletion.outcome.v1");
        let letter = letters.iter().find(|l| l.body == request.body).unwrap();
        assert_eq!(letter.routing_key, format!("dead.{code}"));
        assert_eq!(letter.header("x-eraser-code").as_deref(), Some(*code));
        assert!(letter.header("x-eraser-reason").is_some());
        assert_eq!(
            letter.header("x-eraser-outcome-id"),
            outcome.properties.message_id().as_ref().map(ToString::to_string)
        );
        assert_eq!(letter.header("x-eraser-undone").as_deref(), *undone, "{code}");
        assert_eq!(letter.properties.message_id(), request.properties.message_id());
    }
    assert_eq!(world.api.lock().ledger.summary.calls, 0, "nothing was sent");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_outcome_leaves_a_dead_letter_that_tells_what_was_not_done() {
    let world = World::new().await;
    let worker = world.worker().await;
    let mut request = Request::new("partial", "p", &["ann@example.org", "nobody", "bob@example.org", "x y@z"]);
    let mut headers = FieldTable::default();
    headers.insert(
        "traceparent".into(),
        AMQPValue::LongString("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    );
    headers.insert("huge".into(), AMQPValue::LongString("h".repeat(100_000).into()));
    request.properties = request.properties.with_headers(headers).with_correlation_id("case-1".into());
    world.vhost.publish(&[request.clone()]).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let mut dead = world.vhost.collect("contacts.deletion.dead").await;
    let seen = outcomes.wait_for(1).await[0].clone();
    assert_eq!(seen.json()["status"], "partial");
    assert_eq!(seen.json()["correlationId"], "case-1");
    assert_eq!(seen.properties.correlation_id().as_ref().unwrap().as_str(), "case-1");
    assert_eq!(seen.json()["metadata"], serde_json::json!({"ticket": "partial"}));
    assert!(seen.header("traceparent").unwrap().starts_with("00-0af7"));
    let letter = dead.wait_for(1).await[0].clone();
    assert_eq!(letter.header("x-eraser-undone").as_deref(), Some("1,3"));
    assert_eq!(letter.body, request.body);
    assert!(letter.header("traceparent").is_some() && letter.header("huge").is_none());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_event_is_a_request_named_by_its_source_and_id() {
    let world = World::new().await;
    let worker = world.worker().await;
    let event = r#"{"specversion":"1.0","id":"7","source":"urn:crm","type":"gdpr","data":{"projectId":"p","emails":["ann@example.org"]}}"#;
    let mut request = Request::raw("", event);
    request.properties = request.properties.with_content_type("application/cloudevents+json".into());
    world.vhost.publish(&[request]).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let outcome = outcomes.wait_for(1).await[0].json();
    assert_eq!((outcome["messageId"].as_str(), outcome["deleted"].as_u64()), (Some("urn:crm 7"), Some(1)));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_project_fails_and_says_so() {
    let world = World::with(migma_eraser::sandbox::Data {
        projects: [("known".to_owned(), vec!["ann@example.org".to_owned()])].into(),
        ..Default::default()
    })
    .await;
    let worker = world.worker().await;
    world.vhost.publish(&[Request::new("known", "known", &["ann@example.org"])]).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(1).await;
    world.vhost.publish(&[Request::new("lost", "unknown", &["ann@example.org"])]).await;
    let outcome = outcomes.wait_for(2).await[1].json();
    assert_eq!(outcome["status"], "failed");
    assert_eq!(outcome["failed"][0]["code"], "PROJECT_NOT_FOUND");
    assert_eq!(outcome["failed"][0]["httpStatus"], 404);
    assert_eq!(outcome["failed"][0]["mayHaveTakenEffect"], false);
    worker.stop().await;
}
