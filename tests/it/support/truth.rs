//! Whether every outcome is true: held against the requests that were published and the API's ledger.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use migma_eraser::sandbox::State;
use serde_json::Value;

use super::Request;
use super::broker::Seen;

/// Panics with everything that is wrong.
pub fn check(requests: &[Request], outcomes: &[Seen], api: &State) {
    let wrong = violations(requests, outcomes, api);
    assert!(
        wrong.is_empty(),
        "{} things are wrong:\n{}",
        wrong.len(),
        wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
    );
}

/// Everything that is wrong with sound requests, each of an id of its own or repeated to the letter.
pub fn violations(requests: &[Request], outcomes: &[Seen], api: &State) -> Vec<String> {
    let mut wrong = Vec::new();
    let summary = &api.ledger.summary;
    if summary.conflicts > 0 {
        wrong.push(format!("{} idempotency conflicts", summary.conflicts));
    }
    if summary.max_emails > 1000 || summary.with_repeats > 0 {
        wrong.push(format!("a call of {} emails; {} calls with repeats", summary.max_emails, summary.with_repeats));
    }
    let mut by_id: HashMap<String, Value> = HashMap::new();
    for seen in outcomes {
        let mut json = seen.json();
        json.as_object_mut().unwrap().remove("publishedAt");
        let id = json["messageId"].as_str().unwrap_or_default().to_owned();
        if let Some(known) = by_id.get(&id)
            && *known != json
        {
            wrong.push(format!("two outcomes of {id} differ:\n  {known}\n  {json}"));
        }
        by_id.insert(id, json);
    }
    // Contact → the keys under which it was deleted.
    let mut deleted_by: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for entry in &api.ledger.entries {
        for email in &entry.deleted {
            let key = entry.idempotency_key.as_deref().unwrap_or("none");
            deleted_by.entry((&entry.project_id, email)).or_default().insert(key);
        }
    }
    for request in requests {
        match by_id.get(&request.id) {
            None => wrong.push(format!("{} has no outcome", request.id)),
            Some(outcome) => judge(request, outcome, &deleted_by, &mut wrong),
        }
    }
    wrong
}

fn judge(
    request: &Request,
    outcome: &Value,
    deleted_by: &BTreeMap<(&str, &str), BTreeSet<&str>>,
    wrong: &mut Vec<String>,
) {
    let texts = |value: &Value| -> BTreeSet<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_lowercase).collect()
    };
    let (not_found, uncertain) = (texts(&outcome["notFound"]), texts(&outcome["uncertain"]));
    let failed: BTreeSet<String> =
        outcome["failed"].as_array().into_iter().flatten().flat_map(|f| texts(&f["emails"])).collect();
    let keys: BTreeSet<&str> = outcome["requests"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|call| call["idempotencyKey"].as_str())
        .collect();
    let distinct: BTreeSet<String> =
        request.emails.iter().filter(|e| e.contains('@')).map(|e| e.to_lowercase()).collect();
    let mut deleted = 0;
    for email in &distinct {
        let lists = [&not_found, &uncertain, &failed].iter().filter(|list| list.contains(email)).count();
        let really = deleted_by
            .get(&(request.project.as_str(), email.as_str()))
            .is_some_and(|by| by.iter().any(|key| keys.contains(key)));
        match lists {
            0 => {
                deleted += 1;
                if !really {
                    wrong.push(format!("{}: an email is told deleted, and none of its calls did it", request.id));
                }
            }
            1 if really && not_found.contains(email) => {
                wrong.push(format!("{}: an email is told not found, and one of its calls deleted it", request.id));
            }
            1 => {}
            _ => wrong.push(format!("{}: an email is in {lists} lists", request.id)),
        }
    }
    if outcome["deleted"].as_u64() != Some(deleted) {
        wrong.push(format!("{}: deleted is {}, its lists leave {deleted}", request.id, outcome["deleted"]));
    }
}

/// The fewest calls for a backlog: for each project, its distinct emails by thousands, rounded up.
pub fn fewest_calls(requests: &[Request]) -> u64 {
    let mut distinct: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for request in requests {
        distinct.entry(&request.project).or_default().extend(request.emails.iter().map(|e| e.to_lowercase()));
    }
    distinct.values().map(|emails| emails.len().div_ceil(1000) as u64).sum()
}
