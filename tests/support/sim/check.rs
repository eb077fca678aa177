//! Whether the world is as the outcomes say: the promises, checked against the ledger.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use migma_eraser::domain::email::fold;
use migma_eraser::domain::ids::OutcomeId;
use migma_eraser::domain::request::DeletionRequest;
use migma_eraser::ports::Exchange;
use serde_json::Value;

use super::api::FakeApi;
use super::broker::{FakeBroker, Message};
use super::journal::FakeJournal;

/// All that is wrong.
pub fn violations(broker: &FakeBroker, api: &FakeApi, journal: &FakeJournal) -> Vec<String> {
    let broker = broker.store.lock().unwrap();
    let api = api.store.lock().unwrap();
    let journal = journal.store.0.lock().unwrap();
    let seen = broker.violations.iter().chain(&api.violations).chain(&journal.violations);
    let mut wrong: Vec<String> = seen.cloned().collect();
    wrong.extend(api.conflicts.iter().map(|key| format!("an idempotency conflict on {key}")));
    if !broker.is_empty() {
        wrong.push("messages are left in the queue".into());
    }
    if let Some(row) = journal.rows.values().find(|row| row.conclusion.is_none()) {
        wrong.push(format!("manifest {:?} is left open", row.manifest.id));
    }

    // Every outcome of one id is the same but for the time of its publication, and for how the message that it answers
    // spells the addresses.
    let folded = |json: &Value| json.to_string().to_lowercase();
    let mut outcomes: BTreeMap<String, Value> = BTreeMap::new();
    let mut first_seen: HashMap<String, usize> = HashMap::new();
    for (at, published) in broker.log.iter().enumerate().filter(|(_, p)| p.exchange == Exchange::Outcomes) {
        let id = published.message_id.clone().unwrap_or_default();
        let mut json: Value = serde_json::from_slice(&published.payload).unwrap();
        json.as_object_mut().unwrap().remove("publishedAt");
        first_seen.entry(id.clone()).or_insert(at);
        if let Some(known) = outcomes.get(&id) {
            if folded(known) != folded(&json) {
                wrong.push(format!("two outcomes of one id differ:\n  {known}\n  {json}"));
            }
        } else {
            outcomes.insert(id, json);
        }
    }

    // Each request's emails travel once, but in the children of a batch that was split.
    let mut places: BTreeMap<(migma_eraser::domain::ids::RequestDigest, u32), i64> = BTreeMap::new();
    for row in journal.rows.values().filter(|row| row.manifest.root == row.manifest.id) {
        for member in &row.manifest.members {
            for (at, _) in member.positions() {
                if let Some(other) = places.insert((member.request, at), row.manifest.id.0) {
                    wrong.push(format!(
                        "{:?} email {at} is in batches {other} and {:?}",
                        member.request, row.manifest.id
                    ));
                }
            }
        }
    }

    let deleted_by: BTreeMap<(&str, &str), BTreeSet<&str>> = {
        let mut map: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        for work in &api.ledger {
            for email in &work.deleted {
                map.entry((work.project.as_str(), email.as_str())).or_default().insert(work.key.as_str());
            }
        }
        map
    };

    for (message, log_length) in &broker.acked {
        let id = &message.envelope.message_id;
        let is_aside = |published: &super::broker::Published| {
            published.aside && published.message_id == *id && published.payload == message.envelope.payload
        };
        // What waits elsewhere is in the log too, once more, with its outcome; be it without an id.
        if broker.log[..*log_length].iter().any(is_aside) {
            continue;
        }
        check_message(message, *log_length, &outcomes, &first_seen, &deleted_by, &journal, &mut wrong);
    }
    wrong
}

fn check_message(
    message: &Message,
    log_length: usize,
    outcomes: &BTreeMap<String, Value>,
    first_seen: &HashMap<String, usize>,
    deleted_by: &BTreeMap<(&str, &str), BTreeSet<&str>>,
    journal: &super::journal::Store,
    wrong: &mut Vec<String>,
) {
    let parsed = DeletionRequest::parse(&message.envelope, None);
    let id = message.envelope.message_id.as_deref().and_then(migma_eraser::domain::ids::MessageId::parse);
    let rejected = OutcomeId::of_rejected(id.as_ref(), &message.envelope.payload);
    let answered = id.as_ref().map(OutcomeId::of_request);
    let seen = |outcome: &OutcomeId| first_seen.get(outcome.as_str()).is_some_and(|at| *at < log_length);
    let was_rejected = seen(&rejected);
    let was_answered = parsed.is_ok() && answered.as_ref().is_some_and(&seen);
    if !was_rejected && !was_answered {
        wrong.push(format!("message {} was acked before its outcome was out", message.number));
        return;
    }
    let (Ok(request), Some(answered)) = (parsed, answered) else { return };
    let Some(record) = journal.requests.get(&request.digest) else {
        wrong.push(format!("message {} is sound, and was rejected", message.number));
        return;
    };
    if record.content != request.content || Some(&record.project) != request.project.as_ref() {
        // Another request of the same name: this one must have been told so.
        if !was_rejected {
            wrong.push(format!("message {} is another request of a known name and was not rejected", message.number));
        }
        return;
    }
    let Some(outcome) = outcomes.get(answered.as_str()) else {
        wrong.push(format!("{:?} has no outcome", request.id));
        return;
    };
    check_truth(&request, outcome, deleted_by, journal, wrong);
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str()).map(|t| fold(t).into_owned()).collect()
}

fn check_truth(
    request: &DeletionRequest,
    outcome: &Value,
    deleted_by: &BTreeMap<(&str, &str), BTreeSet<&str>>,
    journal: &super::journal::Store,
    wrong: &mut Vec<String>,
) {
    let not_found: BTreeSet<String> = texts(&outcome["notFound"]).into_iter().collect();
    let uncertain: BTreeSet<String> = texts(&outcome["uncertain"]).into_iter().collect();
    let mut failed: BTreeMap<String, bool> = BTreeMap::new();
    for entry in outcome["failed"].as_array().into_iter().flatten() {
        for email in texts(&entry["emails"]) {
            failed.insert(email, entry["mayHaveTakenEffect"].as_bool().unwrap());
        }
    }
    let mut deleted = 0u64;
    let project = outcome["projectId"].as_str().unwrap();
    for (at, email) in (0u32..).zip(request.emails.iter()) {
        let folded = email.folded().into_owned();
        let lists = usize::from(not_found.contains(&folded))
            + usize::from(uncertain.contains(&folded))
            + usize::from(failed.contains_key(&folded));
        if lists > 1 {
            wrong.push(format!("{:?}: an email is in {lists} lists", request.id));
        }
        // Which calls that carried this email of this request really deleted it?
        let keys: Vec<String> = journal
            .carriers(request.digest, at)
            .iter()
            .flat_map(|(row, _)| {
                (0..=row.manifest.fate.generation).map(|g| row.manifest.key.generation(g).as_str().to_owned())
            })
            .collect();
        let really = deleted_by
            .get(&(project, folded.as_str()))
            .is_some_and(|by| keys.iter().any(|key| by.contains(key.as_str())));
        if lists == 0 {
            deleted += 1;
            if !really {
                wrong.push(format!("{:?}: email {at} is told deleted, and no call of its own did it", request.id));
            }
        } else if really && not_found.contains(&folded) {
            wrong.push(format!("{:?}: email {at} is told not found, and a call of its own deleted it", request.id));
        } else if really && failed.get(&folded) == Some(&false) {
            wrong.push(format!(
                "{:?}: email {at} is told failed without effect, and a call of its own deleted it",
                request.id
            ));
        }
    }
    if outcome["deleted"].as_u64() != Some(deleted) {
        wrong.push(format!("{:?}: deleted is {}, its lists leave {deleted}", request.id, outcome["deleted"]));
    }
    if outcome["countMismatch"] != Value::Bool(false) {
        wrong.push(format!("{:?}: the count does not match", request.id));
    }
}
