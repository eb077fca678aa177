//! What an answer says about the work: status and body in, [`Verdict`] out. Pure.
//!
//! The rule: only an answer that the API itself would give says that something was done, or that nothing was. A proxy's
//! page, another shape, half a body: unknown. Nothing of a body is passed on but numbers, addresses for matching, and
//! tokens that cannot hold an address.

use serde_json::{Map, Value};

use crate::domain::answer::{Deletion, Doubt, Refusal, Verdict, machine_code};

/// No count of ours is beyond it, and no number in JSON is exact beyond it.
const COUNT_MAX: u64 = 1 << 53;
/// The longest name of a call that is passed on.
const REQUEST_ID_MAX: usize = 128;

/// An answer, sorted.
#[derive(Debug)]
pub(super) struct Sorted {
    pub(super) verdict: Verdict,
    pub(super) api_code: Option<String>,
    pub(super) request_id: Option<String>,
}

/// Sorts an answer to a call with so many emails. A body that could not be read to its end comes as the reason.
pub(super) fn sort(status: u16, body: Result<&[u8], &Doubt>, sent: u16) -> Sorted {
    let body = body.map(|bytes| serde_json::from_slice::<Map<String, Value>>(bytes).ok());
    let object = body.as_ref().ok().and_then(Option::as_ref);
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let api_code = text(object.and_then(|object| object.get("code"))).and_then(|code| machine_code(&code));
    let request_id = text(object.and_then(|object| object.get("metadata")?.get("requestId"))).filter(|id| is_token(id));
    Sorted { verdict: verdict(status, &body, sent), api_code, request_id }
}

fn verdict(status: u16, body: &Result<Option<Map<String, Value>>, &Doubt>, sent: u16) -> Verdict {
    // These say all they have to say by their status.
    match status {
        429 => return Verdict::Throttled,
        408 | 425 => return Verdict::Unknown(Doubt::Busy),
        500..=599 => return Verdict::Unknown(Doubt::Server),
        _ => {}
    }
    match body {
        Err(doubt) => Verdict::Unknown(**doubt),
        Ok(Some(object)) => match status {
            200..=299 => done(object, sent),
            400..=499 if is_own_voice(object) => Verdict::Refused(refusal(status)),
            _ => Verdict::Unknown(Doubt::Garbage),
        },
        Ok(None) => Verdict::Unknown(Doubt::Garbage),
    }
}

/// A 2xx.
fn done(object: &Map<String, Value>, sent: u16) -> Verdict {
    match object.get("success").and_then(Value::as_bool) {
        Some(true) => object
            .get("data")
            .and_then(Value::as_object)
            .and_then(|data| deletion(data, sent))
            .map_or(Verdict::Unknown(Doubt::Garbage), Verdict::Deleted),
        Some(false) => Verdict::Unknown(Doubt::Unsuccessful),
        None => Verdict::Unknown(Doubt::Garbage),
    }
}

/// The report. `None` where it does not tell which emails were not found: a list that is missing may be left out only
/// where the count says that there is nothing to list.
fn deletion(data: &Map<String, Value>, sent: u16) -> Option<Deletion> {
    let deleted = data.get("deleted").and_then(Value::as_u64).filter(|count| *count <= COUNT_MAX);
    let not_found = match data.get("notFound") {
        Some(Value::Array(list)) => list.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()?,
        None | Some(Value::Null) if deleted == Some(u64::from(sent)) => Vec::new(),
        _ => return None,
    };
    Some(Deletion { deleted, not_found })
}

/// Whether a 4xx is an error of the API, and not of something on the way to it.
fn is_own_voice(object: &Map<String, Value>) -> bool {
    object.get("success") == Some(&Value::Bool(false)) || object.get("error").is_some_and(Value::is_string)
}

const fn refusal(status: u16) -> Refusal {
    match status {
        401 => Refusal::Key,
        403 => Refusal::Forbidden,
        404 => Refusal::Project,
        409 => Refusal::Conflict,
        _ => Refusal::Body,
    }
}

/// Letters, digits and `_.-` alone: no address can hide in it.
fn is_token(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=REQUEST_ID_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> Verdict {
        sort(status, Ok(body.as_bytes()), 2).verdict
    }

    fn deleted(deleted: Option<u64>, not_found: &[&str]) -> Verdict {
        let not_found = not_found.iter().map(|&text| text.to_owned()).collect();
        Verdict::Deleted(Deletion { deleted, not_found })
    }

    const GARBAGE: Verdict = Verdict::Unknown(Doubt::Garbage);
    const ERROR: &str = r#"{"success":false,"error":"no"}"#;

    #[test]
    fn a_report_is_taken_as_it_is() {
        let body = r#"{"success":true,"data":{"deleted":1,"notFound":["Bob@Example.com"],"more":1},"metadata":{}}"#;
        assert_eq!(of(200, body), deleted(Some(1), &["Bob@Example.com"]));
        assert_eq!(of(202, body), deleted(Some(1), &["Bob@Example.com"]));
    }

    #[test]
    fn an_absurd_count_is_no_count() {
        for count in ["-1", "1.5", "\"2\"", "null", "9007199254740993", "1e300", "[]"] {
            let body = format!(r#"{{"success":true,"data":{{"deleted":{count},"notFound":[]}}}}"#);
            assert_eq!(of(200, &body), deleted(None, &[]), "{count}");
        }
        assert_eq!(of(200, r#"{"success":true,"data":{"notFound":[]}}"#), deleted(None, &[]));
    }

    #[test]
    fn a_list_may_be_missing_only_where_all_were_deleted() {
        assert_eq!(of(200, r#"{"success":true,"data":{"deleted":2}}"#), deleted(Some(2), &[]));
        assert_eq!(of(200, r#"{"success":true,"data":{"deleted":2,"notFound":null}}"#), deleted(Some(2), &[]));
        assert_eq!(of(200, r#"{"success":true,"data":{"deleted":1}}"#), GARBAGE);
        assert_eq!(of(200, r#"{"success":true,"data":{}}"#), GARBAGE);
    }

    #[test]
    fn a_2xx_of_another_shape_says_nothing() {
        for body in [
            "",
            "OK",
            "<html>",
            "[]",
            "null",
            "{}",
            r#"{"data":{"deleted":2,"notFound":[]}}"#,
            r#"{"success":"true","data":{"deleted":2,"notFound":[]}}"#,
            r#"{"success":true}"#,
            r#"{"success":true,"data":null}"#,
            r#"{"success":true,"data":{"deleted":2,"notFound":{}}}"#,
            r#"{"success":true,"data":{"deleted":1,"notFound":[1]}}"#,
            r#"{"success":true,"data":{"deleted":1,"#,
        ] {
            assert_eq!(of(200, body), GARBAGE, "{body}");
        }
        assert_eq!(sort(200, Ok(b"\xff\xfe"), 2).verdict, GARBAGE);
        assert_eq!(of(200, &"[".repeat(100_000)), GARBAGE);
    }

    #[test]
    fn success_false_is_not_a_refusal() {
        assert_eq!(of(200, ERROR), Verdict::Unknown(Doubt::Unsuccessful));
    }

    #[test]
    fn the_apis_own_4xx_are_told_apart() {
        let refused = Verdict::Refused;
        assert_eq!(of(400, ERROR), refused(Refusal::Body));
        assert_eq!(of(401, ERROR), refused(Refusal::Key));
        assert_eq!(of(403, r#"{"error":"no"}"#), refused(Refusal::Forbidden));
        assert_eq!(of(404, r#"{"success":false}"#), refused(Refusal::Project));
        assert_eq!(of(409, ERROR), refused(Refusal::Conflict));
        assert_eq!(of(413, ERROR), refused(Refusal::Body));
        assert_eq!(of(422, ERROR), refused(Refusal::Body));
    }

    #[test]
    fn a_4xx_of_somebody_on_the_way_says_nothing() {
        for status in [400, 401, 403, 404, 407, 409, 422] {
            for body in ["", "<html>Forbidden</html>", "[]", r#"{"message":"Forbidden"}"#, r#"{"error":{"code":1}}"#] {
                assert_eq!(of(status, body), GARBAGE, "{status} {body}");
            }
        }
    }

    #[test]
    fn some_answers_need_no_body() {
        for body in [Ok(&b"<html>"[..]), Ok(ERROR.as_bytes()), Err(&Doubt::Reset)] {
            assert_eq!(sort(429, body, 2).verdict, Verdict::Throttled);
            assert_eq!(sort(408, body, 2).verdict, Verdict::Unknown(Doubt::Busy));
            assert_eq!(sort(425, body, 2).verdict, Verdict::Unknown(Doubt::Busy));
            assert_eq!(sort(500, body, 2).verdict, Verdict::Unknown(Doubt::Server));
            assert_eq!(sort(503, body, 2).verdict, Verdict::Unknown(Doubt::Server));
        }
        assert_eq!(sort(400, Err(&Doubt::Timeout), 2).verdict, Verdict::Unknown(Doubt::Timeout));
        assert_eq!(sort(200, Err(&Doubt::Reset), 2).verdict, Verdict::Unknown(Doubt::Reset));
    }

    #[test]
    fn redirects_and_unknown_classes_say_nothing() {
        for status in [300, 302, 307, 304, 600, 999] {
            assert_eq!(of(status, ERROR), GARBAGE, "{status}");
        }
    }

    #[test]
    fn codes_and_request_ids_pass_only_as_plain_tokens() {
        let body = r#"{"success":false,"error":"x","code":"NO_SCOPE","metadata":{"requestId":"req_8.f-2"}}"#;
        let sorted = sort(403, Ok(body.as_bytes()), 2);
        assert_eq!(sorted.api_code.as_deref(), Some("NO_SCOPE"));
        assert_eq!(sorted.request_id.as_deref(), Some("req_8.f-2"));

        let body = r#"{"success":false,"code":"ann@example.com","metadata":{"requestId":"ann@example.com"}}"#;
        let sorted = sort(403, Ok(body.as_bytes()), 2);
        assert_eq!((sorted.api_code, sorted.request_id), (None, None));

        for id in [format!("\"{}\"", "a".repeat(129)), "7".into(), "\"\"".into()] {
            let body = format!(r#"{{"success":false,"metadata":{{"requestId":{id}}}}}"#);
            assert_eq!(sort(403, Ok(body.as_bytes()), 2).request_id, None);
        }
        assert_eq!(sort(403, Ok(br#"{"metadata":"x","code":5}"#), 2).request_id, None);
    }
}
