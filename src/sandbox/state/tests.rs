use super::*;

fn api() -> State {
    let contacts = ["ann@x.de", "bob@x.de"].map(str::to_owned).to_vec();
    State::new("k", Data { projects: [("p".to_owned(), contacts)].into(), ..Data::default() }, 1)
}

fn call(state: &mut State, key: &str, project: &str, emails: &[&str], now: u64) -> Reply {
    let body = json!({"projectId": project, "emails": emails}).to_string();
    let call = Call { authorization: Some("Bearer k"), idempotency_key: Some(key), body: body.as_bytes() };
    let pending = state.begin(call, now);
    state.finish(pending, now)
}

fn answer(reply: Reply) -> (u16, serde_json::Value, bool) {
    let Reply::Answer(answer) = reply else { panic!("dropped") };
    let replayed = answer.headers.iter().any(|(name, _)| *name == "Idempotent-Replayed");
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default(), replayed)
}

#[test]
fn contacts_are_deleted_and_unknown_emails_are_named_as_they_were_sent() {
    let mut api = api();
    let (status, body, _) = answer(call(&mut api, "1", "p", &["ANN@x.de", "Eve@x.de"], 0));
    assert_eq!((status, &body["data"]), (200, &json!({"deleted": 1, "notFound": ["Eve@x.de"]})));
    assert_eq!(api.contacts("p").unwrap(), ["bob@x.de"]);
    assert_eq!(api.ledger.entries[0].deleted, ["ann@x.de"]);
}

#[test]
fn one_key_and_body_is_replayed_for_a_day_and_another_body_is_a_conflict() {
    let mut api = api();
    let first = answer(call(&mut api, "1", "p", &["ann@x.de"], 0));
    let again = answer(call(&mut api, "1", "p", &["ann@x.de"], REPLAY_MS - 1));
    assert_eq!((first.0, first.1), (again.0, again.1));
    assert!(again.2 && !first.2);
    assert_eq!(answer(call(&mut api, "1", "p", &["bob@x.de"], 1)).0, 409);
    let (_, late, replayed) = answer(call(&mut api, "1", "p", &["ann@x.de"], REPLAY_MS));
    assert_eq!((&late["data"]["deleted"], replayed), (&json!(0), false));
}

#[test]
fn a_refusal_is_cached_under_its_key_and_a_429_is_not() {
    let mut api = api();
    api.faults.forbidden_projects.insert("p".into());
    assert_eq!(answer(call(&mut api, "1", "p", &["ann@x.de"], 0)).0, 403);
    api.faults = Faults { next: [Next::RetryAfter(3)].into(), ..Faults::default() };
    assert_eq!(answer(call(&mut api, "2", "p", &["ann@x.de"], 0)).0, 429);
    assert_eq!(answer(call(&mut api, "1", "p", &["ann@x.de"], 0)).0, 403);
    assert_eq!(answer(call(&mut api, "2", "p", &["ann@x.de"], 0)).0, 200);
}

#[test]
fn an_answer_that_is_dropped_after_the_work_is_replayed() {
    let mut api = api();
    api.faults.next = [Next::DropAfter].into();
    assert_eq!(call(&mut api, "1", "p", &["ann@x.de"], 0), Reply::Dropped);
    let (status, body, replayed) = answer(call(&mut api, "1", "p", &["ann@x.de"], 0));
    assert_eq!((status, &body["data"]["deleted"], replayed), (200, &json!(1), true));
}

#[test]
fn a_repeat_meets_the_call_that_still_runs() {
    let mut api = api();
    let body = json!({"projectId": "p", "emails": ["ann@x.de"]}).to_string();
    let first = Call { authorization: Some("Bearer k"), idempotency_key: Some("1"), body: body.as_bytes() };
    let running = api.begin(first, 0);
    let (status, body, _) = answer(call(&mut api, "1", "p", &["ann@x.de"], 0));
    assert_eq!((status, body["code"].as_str().unwrap()), (409, "IDEMPOTENCY_IN_PROGRESS"));
    assert_eq!(answer(api.finish(running, 1)).0, 200);
}

#[test]
fn what_the_api_cannot_take_is_refused_with_its_status() {
    let mut api = api();
    let many: Vec<String> = (0..1001).map(|n| format!("u{n}@x.de")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(answer(call(&mut api, "1", "p", &many, 0)).0, 400);
    assert_eq!(answer(call(&mut api, "2", "p", &[], 0)).0, 400);
    assert_eq!(answer(call(&mut api, "3", "q", &["ann@x.de"], 0)).0, 404);
    let stranger = Call { authorization: Some("Bearer other"), idempotency_key: None, body: b"{}" };
    let pending = api.begin(stranger, 0);
    assert_eq!(answer(api.finish(pending, 0)).0, 401);
}

#[test]
fn the_rate_limit_lets_so_many_through_and_no_more() {
    let mut api = api();
    api.faults.rate_limit = Some(super::super::faults::RateLimit { per_second: 2.0, burst: 1.0 });
    let statuses: Vec<u16> =
        (0..5u64).map(|n| answer(call(&mut api, &n.to_string(), "p", &["ann@x.de"], 10_000 + n * 250)).0).collect();
    assert_eq!(statuses, [200, 429, 200, 429, 200]);
}
