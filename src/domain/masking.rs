//! What a person may see who was not shown addresses: the first letters, and never enough to know somebody by.

use std::borrow::Cow;

use serde_json::Value;

use super::ids::redacted;

/// `ann@example.com` as `a***@e***`; a text without an `@` is cut in the same way.
#[must_use]
pub fn mask(text: &str) -> String {
    let part = |part: &str| part.trim_start().chars().next().map_or_else(|| "***".to_owned(), |c| format!("{c}***"));
    text.split('@').map(part).collect::<Vec<_>>().join("@")
}

/// A free text, in which every word that contains an `@` is masked.
#[must_use]
pub fn mask_words(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let is_end = |c: char| c.is_whitespace() || c.is_control() || "<>()[]{}\"',;".contains(c);
    let words = text.split_inclusive(is_end).map(|word| {
        let body = word.trim_end_matches(is_end);
        if body.contains('@') { format!("{}{}", mask(body), &word[body.len()..]) } else { word.to_owned() }
    });
    Cow::Owned(words.collect())
}

/// An outcome's body without its addresses: ids as a log shows them, listed emails masked, addresses in other texts too.
pub fn mask_outcome(outcome: &mut Value) {
    each_field(outcome, |name, value| match name {
        "messageId" | "correlationId" | "projectId" => redact(value),
        "notFound" | "uncertain" => every_text(value, &mask),
        "invalid" => each_entry(value, "email"),
        "failed" => each_entry(value, "emails"),
        _ => every_text(value, &|text| mask_words(text).into_owned()),
    });
}

/// A request's body without its addresses; of fields that nobody knows no text is shown at all. An event
/// (`CloudEvents`) is a request within `data`.
pub fn mask_request(request: &mut Value) {
    each_field(request, |name, value| match name {
        "projectId" | "id" | "source" => redact(value),
        "specversion" | "type" | "datacontenttype" | "time" | "metadata" => {
            every_text(value, &|text| mask_words(text).into_owned());
        }
        "data" if value.is_object() => mask_request(value),
        _ => every_text(value, &mask),
    });
}

fn each_field(value: &mut Value, mut see: impl FnMut(&str, &mut Value)) {
    let Value::Object(fields) = value else { return every_text(value, &mask) };
    for (name, value) in fields.iter_mut() {
        see(name, value);
    }
    mask_names(fields);
}

fn redact(value: &mut Value) {
    match value {
        Value::String(text) => *text = redacted(text).into_owned(),
        other => every_text(other, &mask),
    }
}

fn each_entry(list: &mut Value, secret: &str) {
    for entry in list.as_array_mut().into_iter().flatten() {
        each_field(entry, |name, value| {
            if name == secret {
                every_text(value, &mask);
            } else {
                every_text(value, &|text| mask_words(text).into_owned());
            }
        });
    }
}

fn every_text(value: &mut Value, mask: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = mask(text),
        Value::Array(list) => list.iter_mut().for_each(|value| every_text(value, mask)),
        Value::Object(fields) => {
            fields.values_mut().for_each(|value| every_text(value, mask));
            mask_names(fields);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A field may be named after somebody too.
fn mask_names(fields: &mut serde_json::Map<String, Value>) {
    if fields.keys().any(|name| name.contains('@')) {
        let old = std::mem::take(fields);
        fields.extend(old.into_iter().map(|(name, value)| (mask_words(&name).into_owned(), value)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_an_address_the_first_letters_are_left() {
        for (text, masked) in [
            ("ann@example.com", "a***@e***"),
            ("not an address", "n***"),
            ("a@b@c", "a***@b***@c***"),
            ("", "***"),
            ("@x", "***@x***"),
            ("änn@x", "ä***@x***"),
        ] {
            assert_eq!(mask(text), masked);
        }
        let words = mask_words("refused <ann@example.com>, and (bob@x.org) too");
        assert_eq!(words, "refused <a***@e***>, and (b***@x***) too");
    }

    #[test]
    fn an_outcome_keeps_its_figures_and_loses_its_addresses_wherever_they_stand() {
        let mut outcome = json!({
            "messageId": "ann@example.com", "correlationId": "c-1", "projectId": "p", "deleted": 7,
            "notFound": ["bob@example.com"], "uncertain": ["eve@example.com"],
            "invalid": [{"email": "Smith, Joe", "reason": "does not have exactly one @"}],
            "failed": [{"emails": ["dan@example.com"], "code": "API_REJECTED", "message": "about dan@example.com"}],
            "metadata": {"ticket": "D-1", "from kim@example.com": ["lee@example.com", 3]}
        });
        mask_outcome(&mut outcome);
        let text = outcome.to_string();
        for name in ["ann", "bob@", "eve@", "Smith", "dan@", "kim@", "lee@", "example"] {
            assert!(!text.contains(name), "{name}: {text}");
        }
        assert_eq!((outcome["deleted"].as_u64(), outcome["metadata"]["ticket"].as_str()), (Some(7), Some("D-1")));
        assert_eq!(outcome["failed"][0]["code"], "API_REJECTED");
        assert_eq!(outcome["notFound"][0], "b***@e***");
    }

    #[test]
    fn of_a_request_s_unknown_fields_no_text_is_shown() {
        let mut request =
            json!({"projectId": "p", "emails": ["ann@x", 3], "name": "Ann Smith", "metadata": {"t": "D-1"}});
        mask_request(&mut request);
        let told = json!({"projectId": "p", "emails": ["a***@x***", 3], "name": "A***", "metadata": {"t": "D-1"}});
        assert_eq!(request, told);
        let mut event = json!({"specversion": "1.0", "source": "urn:crm", "id": "7", "data": {"emails": ["ann@x"]}});
        mask_request(&mut event);
        assert_eq!(event["data"]["emails"][0], "a***@x***");
        let mut list = json!(["ann@x"]);
        mask_request(&mut list);
        assert_eq!(list, json!(["a***@x***"]));
    }
}
