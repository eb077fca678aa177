//! Whether every outcome is true: held against the requests that were published and the API's ledger. Shared by the
//! tests and the demo, so that both mean the same by it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use migma_eraser::sandbox::{Entry, Summary};
use serde_json::Value;

/// A sound request, of an id of its own or repeated to the letter.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub id: &'a str,
    pub project: &'a str,
    pub emails: &'a [String],
}

/// Everything that is wrong.
pub fn violations(asked: &[Asked<'_>], outcomes: &[Value], entries: &[Entry], summary: &Summary) -> Vec<String> {
    let mut wrong = Vec::new();
    if summary.conflicts > 0 {
        wrong.push(format!("{} idempotency conflicts", summary.conflicts));
    }
    if summary.max_emails > 1000 || summary.with_repeats > 0 {
        wrong.push(format!("a call of {} emails; {} calls with repeats", summary.max_emails, summary.with_repeats));
    }
    let mut by_id: HashMap<String, Value> = HashMap::new();
    for outcome in outcomes.iter().filter(|outcome| outcome["status"] != "rejected") {
        let mut outcome = outcome.clone();
        if let Some(fields) = outcome.as_object_mut() {
            fields.remove("publishedAt");
        }
        let id = outcome["messageId"].as_str().unwrap_or_default().to_owned();
        if let Some(known) = by_id.get(&id)
            && *known != outcome
        {
            wrong.push(format!("two outcomes of {id} differ:\n  {known}\n  {outcome}"));
        }
        by_id.insert(id, outcome);
    }
    // Contact → the keys under which it was deleted.
    let mut deleted_by: DeletedBy<'_> = BTreeMap::new();
    for entry in entries {
        for email in &entry.deleted {
            let key = entry.idempotency_key.as_deref().unwrap_or("none");
            deleted_by.entry((&entry.project_id, email)).or_default().insert(key);
        }
    }
    for request in asked {
        match by_id.get(request.id) {
            None => wrong.push(format!("{} has no outcome", request.id)),
            Some(outcome) => judge(request, outcome, &deleted_by, &mut wrong),
        }
    }
    wrong
}

type DeletedBy<'a> = BTreeMap<(&'a str, &'a str), BTreeSet<&'a str>>;

fn judge(request: &Asked<'_>, outcome: &Value, deleted_by: &DeletedBy<'_>, wrong: &mut Vec<String>) {
    let texts = |value: &Value| -> BTreeSet<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(fold).collect()
    };
    let (not_found, uncertain) = (texts(&outcome["notFound"]), texts(&outcome["uncertain"]));
    let failed: BTreeSet<String> =
        outcome["failed"].as_array().into_iter().flatten().flat_map(|f| texts(&f["emails"])).collect();
    let invalid: BTreeSet<String> =
        outcome["invalid"].as_array().into_iter().flatten().filter_map(|i| i["email"].as_str()).map(fold).collect();
    let keys: BTreeSet<&str> = outcome["requests"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|call| call["idempotencyKey"].as_str())
        .collect();
    let distinct: BTreeSet<String> = request.emails.iter().map(|e| fold(e)).collect();
    let mut deleted = 0;
    for email in &distinct {
        let lists = [&not_found, &uncertain, &failed, &invalid].iter().filter(|list| list.contains(email)).count();
        let really = deleted_by
            .get(&(request.project, email.as_str()))
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
    let told = not_found.len() + uncertain.len() + failed.len() + invalid.len();
    if outcome["deleted"].as_u64() != Some(deleted) || told + usize::try_from(deleted).unwrap_or(0) != distinct.len() {
        wrong.push(format!("{}: deleted is {}, its lists leave {deleted}", request.id, outcome["deleted"]));
    }
}

fn fold(text: &str) -> String {
    text.trim().to_lowercase()
}

/// The fewest calls for a backlog: for each project, its distinct addresses by thousands, rounded up.
pub fn fewest_calls(asked: &[Asked<'_>]) -> u64 {
    let mut distinct: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for request in asked {
        let addresses = request.emails.iter().filter(|e| migma_eraser::domain::email::Email::parse(e).is_ok());
        distinct.entry(request.project).or_default().extend(addresses.map(|e| fold(e)));
    }
    distinct.values().map(|emails| emails.len().div_ceil(1000) as u64).sum()
}
