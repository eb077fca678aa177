//! An outcome or a batch event as a line for people.
//!
//! Never a control character from outside, which could draw on the terminal.

use std::fmt::Write as _;

use indicatif::HumanCount;
use serde_json::Value;

use super::super::answer;
use super::super::paint::Paint;

/// The most addresses of one list that are shown below a line.
const SHOWN: usize = 20;

/// `12:00:00 partial    p dsr-1: 1 deleted, 1 failed (GAVE_UP)`, and below it its addresses where they are wanted.
/// `None` where it is no outcome.
pub(super) fn outcome(body: &Value, paint: Paint, with_addresses: bool) -> Option<String> {
    let answer = answer::read(body.to_string().as_bytes())?;
    let counts = answer.counts;
    let told: Vec<String> = [
        (counts.deleted, "deleted"),
        (counts.not_found, "not found"),
        (counts.uncertain, "uncertain"),
        (counts.invalid, "invalid"),
        (counts.failed, "failed"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, name)| format!("{} {name}", HumanCount(count)))
    .collect();
    let mut text = format!(
        "{} {} {} {}: {}",
        time(&body["publishedAt"]),
        paint.status(answer.status, &format!("{:<9}", answer.status.as_str())),
        word(&body["projectId"]),
        word(&body["messageId"]),
        if told.is_empty() { "nothing done".to_owned() } else { told.join(", ") },
    );
    if !answer.codes.is_empty() {
        let codes: Vec<&str> = answer.codes.keys().map(String::as_str).collect();
        let _ = write!(text, " ({})", clean(&codes.join(", ")));
    }
    text.push('\n');
    if with_addresses {
        list(&mut text, "not found", body["notFound"].as_array().into_iter().flatten());
        list(&mut text, "uncertain", body["uncertain"].as_array().into_iter().flatten());
        list(&mut text, "invalid", body["invalid"].as_array().into_iter().flatten().map(|entry| &entry["email"]));
        let failed = body["failed"].as_array().into_iter().flatten();
        list(&mut text, "failed", failed.flat_map(|entry| entry["emails"].as_array().into_iter().flatten()));
    }
    Some(text)
}

/// `12:00:00 call      p: HTTP 200, 2 deleted, 1 not found, 3 emails of 2 requests, 1 attempt, 12 ms; eraser-…`.
pub(super) fn batch(body: &Value) -> String {
    let count = |name: &str| HumanCount(body[name].as_u64().unwrap_or(0));
    let plural = |name: &str, one: &str| if body[name] == 1 { one.to_owned() } else { format!("{one}s") };
    let mut told = vec![match (body["httpStatus"].as_u64(), body["code"].as_str()) {
        (Some(status), None) => format!("HTTP {status}"),
        (Some(status), Some(code)) => format!("HTTP {status} {}", clean(code)),
        (None, code) => format!("no answer {}", clean(code.unwrap_or_default())).trim_end().to_owned(),
    }];
    for (name, label) in
        [("deleted", "deleted"), ("notFound", "not found"), ("uncertain", "uncertain"), ("failed", "failed")]
    {
        if body[name].as_u64().unwrap_or(0) > 0 {
            told.push(format!("{} {label}", count(name)));
        }
    }
    told.push(format!(
        "{} {} of {} {}",
        count("emails"),
        plural("emails", "email"),
        count("requests"),
        plural("requests", "request")
    ));
    told.push(format!("{} {}", count("attempts"), plural("attempts", "attempt")));
    told.push(format!("{} ms", count("durationMs")));
    let (at, key) = (time(&body["completedAt"]), word(&body["idempotencyKey"]));
    format!("{at} {:<9} {}: {}; {key}\n", "call", word(&body["projectId"]), told.join(", "))
}

fn list<'a>(text: &mut String, name: &str, entries: impl Iterator<Item = &'a Value>) {
    let all: Vec<&str> = entries.filter_map(Value::as_str).collect();
    for email in all.iter().take(SHOWN) {
        let _ = writeln!(text, "         {name}: {}", clean(email));
    }
    if all.len() > SHOWN {
        let _ = writeln!(text, "         {name}: {} more; --json shows all", HumanCount((all.len() - SHOWN) as u64));
    }
}

/// The time of day (UTC) of a timestamp.
fn time(value: &Value) -> String {
    value.as_str().and_then(|text| text.get(11..19)).map_or_else(|| "--:--:--".to_owned(), clean)
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| "-".to_owned(), clean)
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_tells_when_whose_and_what_came_of_it() {
        let body = json!({"messageId": "m\u{1b}1", "projectId": "p", "status": "partial", "deleted": 1200, "notFound": ["a@x"],
            "uncertain": [], "invalid": [], "failed": [{"emails": ["b@x"], "code": "GAVE_UP"}], "error": null,
            "publishedAt": "2026-11-24T12:00:00.000Z"});
        let plain = outcome(&body, Paint::of_stdout(), false).unwrap();
        assert!(plain.starts_with("12:00:00 "), "{plain}");
        assert!(plain.contains("p m\u{fffd}1: 1,200 deleted, 1 not found, 1 failed (GAVE_UP)\n"), "{plain}");
        let open = outcome(&body, Paint::of_stdout(), true).unwrap();
        assert!(open.contains("\n         not found: a@x\n         failed: b@x\n"), "{open}");
        assert!(outcome(&json!({"x": 1}), Paint::of_stdout(), false).is_none());
    }

    #[test]
    fn a_call_s_line_tells_its_answer_its_size_and_its_cost() {
        let body = json!({"idempotencyKey": "k", "projectId": "p", "status": "completed", "emails": 3, "requests": 1,
            "deleted": 2, "notFound": 1, "uncertain": 0, "failed": 0, "httpStatus": 200, "code": null, "attempts": 2,
            "durationMs": 12, "completedAt": "2026-11-24T12:00:00.000Z"});
        let line =
            "12:00:00 call      p: HTTP 200, 2 deleted, 1 not found, 3 emails of 1 request, 2 attempts, 12 ms; k\n";
        assert_eq!(batch(&body), line);
    }
}
