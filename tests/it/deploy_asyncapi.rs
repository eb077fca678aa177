//! `deploy/asyncapi.yaml` is what the worker takes and sends: its schemas are the program's own, and real messages hold.

use migma_eraser::cli::schema;
use migma_eraser::sandbox::Faults;
use serde_json::Value;

use crate::support::{Request, World};

const PAGE: &str = include_str!("../../deploy/asyncapi.yaml");

/// The text of a schema in the page, without its indentation.
fn embedded(name: &str) -> String {
    let start = format!("    # migma-eraser schema {name}\n    {name}:\n");
    let from = PAGE.find(&start).unwrap_or_else(|| panic!("{name} is not in the page")) + start.len();
    PAGE[from..]
        .lines()
        .take_while(|line| line.starts_with("      "))
        .flat_map(|line| [line.strip_prefix("      ").unwrap(), "\n"])
        .collect()
}

fn validator(name: &str) -> jsonschema::Validator {
    jsonschema::draft202012::new(&serde_json::from_str(&embedded(name)).unwrap()).unwrap()
}

#[track_caller]
fn holds(validator: &jsonschema::Validator, message: &Value) {
    let errors: Vec<String> = validator.iter_errors(message).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{message}: {errors:?}");
}

#[test]
fn its_schemas_are_those_that_the_program_prints() {
    for (name, text) in [("request", schema::REQUEST), ("outcome", schema::OUTCOME), ("batch", schema::BATCH)] {
        assert_eq!(embedded(name), text, "{name}: paste the output of `migma-eraser schema {name}`, six spaces deep");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_messages_of_every_kind_hold() {
    let world = World::new().await;
    world.vhost.declare().await;
    world.vhost.bind("batches", "contacts.deletion.outcomes", "batch.#").await;
    world.set_faults(Faults { poison_emails: ["eve@example.org".to_owned()].into(), ..Faults::default() });
    let mut requests = vec![
        Request::new("succeeded", "p", &["ann@example.org", "unknown@example.org"]),
        Request::new("partial", "p", &["bob@example.org", "no address"]),
        Request::new("failed", "p", &["eve@example.org"]),
    ];
    let valid = validator("request");
    for request in &requests {
        holds(&valid, &serde_json::from_slice(&request.body).unwrap());
    }
    requests.push(Request::raw("rejected", "{"));
    world.vhost.publish(&requests).await;
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let valid = validator("outcome");
    for seen in outcomes.wait_for(requests.len()).await {
        let outcome = seen.json();
        holds(&valid, &outcome);
        assert_eq!(outcome["status"], outcome["messageId"], "{outcome}");
        assert_eq!(seen.routing_key, format!("outcome.{}", outcome["status"].as_str().unwrap()));
        let properties = &seen.properties;
        assert!(properties.message_id().is_some() && properties.timestamp().is_some());
        for (is, wanted) in [
            (properties.kind(), "contacts.deletion.outcome.v1"),
            (properties.content_type(), "application/json"),
            (properties.app_id(), "migma-eraser"),
        ] {
            assert_eq!(is.as_ref().unwrap().as_str(), wanted);
            assert!(PAGE.contains(&format!("{{ const: {wanted} }}")), "{wanted}");
        }
    }
    let mut batches = world.vhost.collect("batches").await;
    let ends = |seen: &[crate::support::broker::Seen], end| seen.iter().any(|seen| seen.routing_key == end);
    let valid = validator("batch");
    let enough = |seen: &[_]| ends(seen, "batch.completed") && ends(seen, "batch.failed");
    for seen in batches.wait_until("both kinds of batch events", enough).await {
        holds(&valid, &seen.json());
    }
    let mut dead = world.vhost.collect("contacts.deletion.dead").await;
    for letter in dead.wait_for(3).await {
        for header in ["x-eraser-code", "x-eraser-reason", "x-eraser-outcome-id"] {
            assert!(letter.header(header).is_some() && PAGE.contains(&format!("{header}:")), "{header}");
        }
    }
    worker.stop().await;
}
