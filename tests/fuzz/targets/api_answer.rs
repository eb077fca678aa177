//! An answer of the API: in the head of the input `status`, `sent` (how many emails), `body: lost` and the HTTP headers;
//! its body behind.
#![no_main]

mod input;

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use input::Input;
use libfuzzer_sys::fuzz_target;
use migma_eraser::api;
use migma_eraser::domain::answer::{Doubt, Refusal, Reply, Verdict};
use migma_eraser::domain::attempt::{Circumstances, Decision, History, decide};
use migma_eraser::domain::attribution::{CallRecord, Progress};
use migma_eraser::domain::email::fold;
use migma_eraser::domain::envelope::Envelope;
use migma_eraser::domain::fate::Fate;
use migma_eraser::domain::gates::Gates;
use migma_eraser::domain::ids::{Fingerprint, ManifestId};
use migma_eraser::domain::key::KeyBase;
use migma_eraser::domain::manifest::{Conclusion, End, Manifest, Member, RequestRecord, body};
use migma_eraser::domain::moment::{Moment, Timestamp};
use migma_eraser::domain::outcome::{BatchEvent, Outcome};
use migma_eraser::domain::request::DeletionRequest;
use serde_json::{Map, Value, json};

const NOW: Moment = Moment { wall: Timestamp::from_millis(1_795_435_200_000), steady: Duration::from_secs(1) };

fuzz_target!(|data: &[u8]| {
    let input = Input::of(data);
    let status: u16 = input.get("status").and_then(|text| text.parse().ok()).unwrap_or(200);
    let sent: u16 = input.get("sent").and_then(|text| text.parse().ok()).unwrap_or(3).clamp(1, 20);
    let body = if input.get("body") == Some("lost") { Err(&Doubt::Reset) } else { Ok(input.body) };
    let mut headers = HeaderMap::new();
    for (name, value) in input.head() {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.insert(name, value);
        }
    }
    let reply = api::reply(status, &headers, body, sent, UNIX_EPOCH + Duration::from_secs(1_795_435_200));
    is_plausible(&reply, status, body.ok(), sent);
    is_attributed(&reply, sent);
});

/// The verdict says no more than the answer does.
fn is_plausible(reply: &Reply, status: u16, body: Option<&[u8]>, sent: u16) {
    assert_eq!(reply.status, Some(status));
    assert!(reply.retry_after.is_none_or(|wait| wait <= Duration::from_hours(1)));
    assert!(!format!("{reply:?}").contains('@'), "an address could be logged");
    for token in [&reply.api_code, &reply.request_id].into_iter().flatten() {
        assert!((1..=128).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    let object: Option<Map<String, Value>> = body.and_then(|body| serde_json::from_slice(body).ok());
    let success = object.as_ref().and_then(|object| object.get("success"));
    match &reply.verdict {
        Verdict::Deleted(deletion) => {
            assert!((200..300).contains(&status) && success == Some(&Value::Bool(true)));
            let data = &object.as_ref().unwrap()["data"];
            if let Some(count) = deletion.deleted {
                assert!(count <= 1 << 53 && data["deleted"].as_u64() == Some(count), "an absurd count");
            }
            match data.get("notFound") {
                Some(Value::Array(list)) => assert_eq!(json!(list), json!(deletion.not_found)),
                other => {
                    assert!(other.is_none_or(Value::is_null) && deletion.deleted == Some(u64::from(sent)));
                    assert!(deletion.not_found.is_empty());
                }
            }
        }
        Verdict::Throttled => assert_eq!(status, 429),
        Verdict::Refused(refusal) => {
            assert!((400..500).contains(&status) && ![408, 425, 429].contains(&status));
            assert!(success == Some(&Value::Bool(false)) || object.unwrap()["error"].is_string());
            assert_eq!(*refusal == Refusal::Key, status == 401);
        }
        Verdict::Unknown(Doubt::Unsuccessful) => assert!(success == Some(&Value::Bool(false))),
        Verdict::Unknown(_) => {}
        Verdict::Unsent => panic!("an answer came, so the call has left"),
    }
}

/// Every email that was sent ends in exactly one place, and no other in any.
fn is_attributed(reply: &Reply, sent: u16) {
    let names: Vec<String> = (0..sent).map(|n| format!("a{n:02}@x.de")).collect();
    let envelope = Envelope {
        message_id: Some("m1".to_owned()),
        payload: json!({"projectId": "p", "emails": names}).to_string().into(),
        ..Envelope::default()
    };
    let Ok(request) = DeletionRequest::parse(&envelope, None) else { panic!("the request is sound") };
    let project = request.project.clone().unwrap();
    let mut member = Member { request: request.digest, spans: Vec::new() };
    (0..sent).for_each(|at| member.push(u32::from(at), at));
    let key = KeyBase::derive(std::slice::from_ref(&member));
    let manifest = Manifest {
        id: ManifestId(1),
        root: ManifestId(1),
        project: project.clone(),
        body: body(&project, request.emails.iter()),
        emails: sent,
        members: vec![member.clone()],
        key,
        fate: Fate::first_called(NOW, Fingerprint::of("sk_1")),
    };
    let mut gates = Gates::new(8);
    let departure = gates.leave(&project);
    gates.back(&project, departure);
    let circumstances = Circumstances { left: NOW, departure, give_up_after: Duration::from_secs(1) };
    let decision = decide(&manifest, manifest.fate, &mut History::default(), reply, &mut gates, circumstances);
    let deleted = matches!(reply.verdict, Verdict::Deleted(_));
    let end = match decision {
        Decision::Finish(end) => end,
        Decision::Split { .. } | Decision::Again { .. } => return assert!(!deleted, "what is done is not done again"),
    };
    assert_eq!(matches!(end, End::Answered { .. }), deleted, "a success that is none");

    let conclusion = Conclusion {
        end,
        generation: 0,
        http_status: reply.status,
        attempts: 1,
        replayed: reply.replayed,
        request_id: reply.request_id.clone(),
        at: NOW.wall,
    };
    let mut progress = Progress::new(request.len());
    progress.start(&member.spans);
    progress.conclude(&CallRecord::of(manifest.id, key, &conclusion), &member.spans, &conclusion);
    assert!(progress.is_complete() && !progress.is_under_way());
    let record = RequestRecord {
        digest: request.digest,
        content: request.content,
        project,
        emails: request.len(),
        correlation_id: None,
        metadata: None,
    };
    let outcome = Outcome::of(&request, &record, &progress);
    let counts = outcome.counts;
    let total = counts.deleted + counts.not_found + counts.uncertain + counts.invalid + counts.failed;
    assert_eq!(total, u64::from(sent));
    let told: Value = serde_json::from_slice(&outcome.json(NOW.wall)).unwrap();
    let lists = ["notFound", "uncertain"].into_iter().flat_map(|list| told[list].as_array().unwrap());
    let failed = told["failed"].as_array().unwrap().iter().flat_map(|entry| entry["emails"].as_array().unwrap());
    let mut seen = BTreeSet::new();
    for email in lists.chain(failed) {
        let email = email.as_str().unwrap();
        assert!(names.iter().any(|name| name == email), "it was never sent");
        assert!(seen.insert(email), "it is told twice");
    }
    if let Verdict::Deleted(deletion) = &reply.verdict {
        let named = |name: &str| deletion.not_found.iter().any(|text| fold(text.trim()) == name);
        let missing = names.iter().filter(|name| named(name)).count() as u64;
        assert_eq!(counts.not_found + counts.uncertain, missing);
        assert_eq!(counts.deleted, u64::from(sent) - missing);
        // A count that does not tell what the list tells is never passed over.
        assert!(told["countMismatch"] == true || deletion.deleted == Some(counts.deleted));
    }
    let event = BatchEvent::of(&manifest, &conclusion, 1).json();
    assert!(!event.contains(&b'@'), "a batch event has no addresses");
}
