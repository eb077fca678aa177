use proptest::prelude::*;

use super::super::ids::ProjectId;
use super::*;

fn policy() -> Policy {
    Policy {
        default_project: ProjectId::parse("default"),
        allowed_projects: ["default", "p"].into_iter().filter_map(ProjectId::parse).collect(),
        max_message_bytes: 10_000,
    }
}

fn envelope(id: &str, body: &str) -> Envelope {
    let message_id = (!id.is_empty()).then(|| id.to_owned());
    Envelope { message_id, payload: body.to_owned().into(), ..Envelope::default() }
}

fn replay(envelope: &Envelope, code: Option<&str>, undone: Option<&str>) -> Result<Replay, String> {
    DeadLetter { envelope, code, undone }.replay(&policy())
}

fn text(replay: &Replay) -> &str {
    std::str::from_utf8(&replay.payload).unwrap()
}

#[test]
fn only_what_was_not_done_goes_and_all_else_stays_to_the_byte() {
    let body = r#"{ "x":1.00000000000000000001, "emails":["a@x", "b@\u0078" ,"c@x","d@x"],"metadata":{"n":12345678901234567890123, "a":[ ]}}"#;
    let letter = envelope("m", body);
    let made = replay(&letter, Some("GAVE_UP"), Some("1,3")).unwrap();
    let rest =
        r#"{"x":1.00000000000000000001,"emails":["b@\u0078","d@x"],"metadata":{"n":12345678901234567890123, "a":[ ]}}"#;
    assert_eq!((text(&made), made.emails), (rest, 2));
    assert_eq!(made.correlation_id.as_deref(), Some("m"), "who waits for the first request hears of this one");
    let all = replay(&letter, Some("GAVE_UP"), Some("0-3")).unwrap();
    assert_eq!(text(&all), body, "all of it: not a byte is touched");
    assert_eq!(replay(&letter, Some("GAVE_UP"), None).unwrap(), all);
    assert!(!format!("{made:?}").contains("@x"));
}

#[test]
fn an_event_stays_an_event() {
    let body = r#"{"specversion":"1.0","id":"7","source":"/crm","type":"t","data":{"projectId":"p","emails":["a@x","b@x"]},"ext":2.0}"#;
    let content_type = Some("application/cloudevents+json".to_owned());
    let letter = Envelope { content_type, ..envelope("", body) };
    let made = replay(&letter, Some("FORBIDDEN"), Some("1")).unwrap();
    assert_eq!(text(&made), body.replace(r#""a@x","#, ""));
    assert!(made.id.as_str().ends_with("-of-/crm 7"), "{:?}", made.id);
}

#[test]
fn the_same_letter_has_the_same_name_each_time_and_another_letter_another() {
    let letter = envelope("m", r#"{"projectId":"p","emails":["a@x","b@x"]}"#);
    let made = replay(&letter, Some("GAVE_UP"), Some("1")).unwrap();
    assert_eq!(made, replay(&letter, Some("GAVE_UP"), Some("1")).unwrap());
    let other = envelope("n", r#"{"projectId":"p","emails":["a@x","b@x"]}"#);
    for different in [
        replay(&letter, Some("GAVE_UP"), Some("0")).unwrap(),
        replay(&letter, Some("FORBIDDEN"), Some("1")).unwrap(),
        replay(&other, Some("GAVE_UP"), Some("1")).unwrap(),
    ] {
        assert_ne!(made.id, different.id);
    }
    let again = replay(&envelope(made.id.as_str(), text(&made)), Some("GAVE_UP"), None).unwrap();
    assert!(again.id != made.id && again.id.as_str().ends_with("-of-m"), "{:?}", again.id);
    assert_eq!(again.id.as_str().matches("replay-").count(), 1);
}

#[test]
fn a_name_is_never_too_long() {
    for long in ["x".repeat(255), format!("x{}", "é".repeat(127))] {
        let made = replay(&envelope(&long, r#"{"emails":["a@x"]}"#), Some("GAVE_UP"), None).unwrap();
        assert!((250..=255).contains(&made.id.as_str().len()));
    }
}

#[test]
fn what_nobody_has_answered_keeps_its_name() {
    let body = r#"{"projectId":"p","emails":["a@x"]}"#;
    assert_eq!(replay(&envelope("m", body), None, None).unwrap().id.as_str(), "m");
    let nameless = replay(&envelope("", body), None, None).unwrap();
    assert!(nameless.id.as_str().starts_with("replay-"), "{nameless:?}");
    assert_eq!(nameless.correlation_id, None);
}

#[test]
fn what_would_only_be_rejected_again_is_refused_with_the_reason() {
    let sound = r#"{"projectId":"p","emails":["a@x"]}"#;
    for (letter, undone, told) in [
        (envelope("m", "{"), None, "MALFORMED_JSON: the body is not JSON"),
        (envelope("m", r#"{"projectId":"q","emails":["a@x"]}"#), None, "PROJECT_NOT_ALLOWED"),
        (envelope("m", r#"{"projectId":"p","emails":["a@x","b"]}"#), Some("1"), "NO_VALID_EMAIL"),
        (envelope("m", &format!(r#"{{"x":"{}"}}"#, "x".repeat(10_000))), None, "TOO_LARGE"),
        (Envelope { content_type: Some("text/csv".into()), ..envelope("m", sound) }, None, "UNSUPPORTED_CONTENT_TYPE"),
        (envelope("m", sound), Some("2"), "does not have"),
        (envelope("m", sound), Some("x"), "cannot be read"),
        (envelope("m", sound), Some(""), "discard it"),
    ] {
        let refused = replay(&letter, Some("X"), undone).unwrap_err();
        assert!(refused.contains(told), "{refused}");
    }
    for mended in [envelope("", sound), envelope("m", r#"{"emails":["a@x"]}"#)] {
        assert!(replay(&mended, Some("MISSING_MESSAGE_ID"), None).is_ok(), "what was missing is there now");
    }
}

#[test]
fn a_list_tells_whose_it_is_and_how_much_is_left() {
    let summary = |letter: &Envelope, undone| DeadLetter { envelope: letter, code: Some("X"), undone }.summary(None);
    let letter = envelope("m", r#"{"projectId":"p","emails":["a@x","b","c@x"]}"#);
    let told = summary(&letter, Some("0,2"));
    assert_eq!((told.id, told.project, told.undone), (MessageId::parse("m"), Some("p".into()), Some(2)));
    assert_eq!(summary(&letter, None).undone, Some(3));
    let broken = summary(&envelope("m", "{"), None);
    assert_eq!((broken.project, broken.undone), (None, None));
}

proptest! {
    #[test]
    fn whatever_ranges_are_written_are_read_again(mut indices in proptest::collection::btree_set(0usize..500, 0..60)) {
        let list: Vec<String> = (0..500).map(|n| format!("\"u{n}@x\"")).collect();
        let letter = envelope("m", &format!(r#"{{"projectId":"p","emails":[{}]}}"#, list.join(",")));
        let undone = indices.clone();
        let ranges = undone_indices(&letter, |email| {
            let at = email.trim_start_matches('u').trim_end_matches("@x").parse().unwrap_or(0);
            !undone.contains(&at)
        }).unwrap();
        let written: Vec<String> = ranges.iter().map(|r| format!("{}-{}", r.start, r.end - 1)).collect();
        prop_assert_eq!(read(&written.join(",")), Some(ranges));
        if let Ok(made) = replay(&letter, Some("X"), Some(&written.join(","))) {
            for part in text(&made).split('"').filter(|part| part.ends_with("@x")) {
                let at: usize = part[1..part.len() - 2].parse().unwrap();
                prop_assert!(indices.remove(&at));
            }
            prop_assert!(indices.is_empty());
        } else {
            prop_assert!(indices.is_empty());
        }
    }

    #[test]
    fn no_header_is_too_odd_to_be_read(text in "[0-9,-]{0,12}") {
        if let Some(ranges) = read(&text) {
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
