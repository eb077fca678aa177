//! `deploy/rabbitmq/definitions.json` on a real broker: what the worker would declare, with users who may no more than
//! they must. And the broker's own metrics that rules and dashboard ask for.

use std::collections::BTreeSet;

use migma_eraser::sandbox::{Data, Faults};
use reqwest::Method;
use serde_json::{Value, json};

use crate::deploy_telemetry::{DASHBOARD, RULES, names};
use crate::support::broker::Node;
use crate::support::{Request, Vhost, World};

const FILE: &str = include_str!("../../deploy/rabbitmq/definitions.json");
const PASSWORD: &str = "of-the-tests";

/// What stands there, whatever the vhost is called and whatever a newer broker tells besides.
fn topology(definitions: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (kind, fields) in [
        ("exchanges", &["name", "type", "durable", "auto_delete", "internal", "arguments"][..]),
        ("queues", &["name", "durable", "auto_delete", "arguments"]),
        ("bindings", &["source", "destination", "destination_type", "routing_key", "arguments"]),
    ] {
        for item in definitions[kind].as_array().unwrap() {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| match &item[field] {
                    // In whatever order.
                    Value::Object(map) => format!("{:?}", map.iter().collect::<std::collections::BTreeMap<_, _>>()),
                    value => value.to_string(),
                })
                .collect();
            all.insert(format!("{kind}: {}", fields.join(" ")));
        }
    }
    all
}

async fn refused(vhost: &Vhost, queue: &str) -> bool {
    let channel = vhost.connect().await.create_channel().await.unwrap();
    channel
        .basic_consume(queue.into(), "".into(), Default::default(), Default::default())
        .await
        .is_err_and(|error| error.to_string().contains("ACCESS_REFUSED"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_definitions_are_what_the_worker_declares_and_its_users_may_what_they_must() {
    let node = Node::private(&[("NODE_PROMETHEUS", "1")]).await;
    let file: Value = serde_json::from_str(FILE).unwrap();
    let declared = Vhost::on(std::sync::Arc::clone(&node)).await;
    declared.declare().await;
    assert_eq!(topology(&file), topology(&declared.definitions().await), "left the file's, right the worker's");

    node.manage(Method::POST, "definitions", Some(file.clone())).await;
    for user in file["users"].as_array().unwrap() {
        assert_eq!(user["password_hash"], "", "a password in the file");
        let user = user["name"].as_str().unwrap();
        let with_password = json!({"password": PASSWORD, "tags": ""});
        node.manage(Method::PUT, &format!("users/{user}"), Some(with_password)).await;
    }
    let of = |user: &str| Vhost::at(node.url_of(user, PASSWORD, "contacts"));

    let world = World::on(of("eraser-worker"), Data { open_world: true, ..Data::default() }).await;
    world.set_faults(Faults { forbidden_projects: ["held".to_owned()].into(), ..Faults::default() });
    let settings = [("AMQP__DECLARE_TOPOLOGY", "false"), ("RETRY__GIVE_UP_AFTER", "1s")];
    let worker = world.worker_with(&settings).await;
    // One that is done, one that becomes a dead letter, one that steps aside first.
    let requests = [
        Request::new("done", "p", &["ann@example.org"]),
        Request::new("partial", "p", &["bob@example.org", "no address"]),
        Request::new("aside", "held", &["eve@example.org"]),
    ];
    of("eraser-upstream").publish(&requests).await;
    let mut outcomes = of("eraser-outcomes").collect("contacts.deletion.outcomes").await;
    outcomes.wait_for(requests.len()).await;
    let mut dead = of("eraser-operator").collect("contacts.deletion.dead").await;
    dead.wait_for(2).await;
    let metrics = worker.metrics().await;
    assert!(metrics.lines().any(|line| line == "migma_eraser_stepped_aside_total 1"), "{metrics}");
    worker.stop().await;

    for (user, queue) in [
        ("eraser-upstream", "contacts.deletion.outcomes"),
        ("eraser-upstream", "contacts.deletion.requests"),
        ("eraser-outcomes", "contacts.deletion.dead"),
        ("eraser-worker", "contacts.deletion.dead"),
        ("eraser-operator", "contacts.deletion.requests"),
    ] {
        assert!(refused(&of(user), queue).await, "{user} may read {queue}");
    }

    let families = "family=queue_coarse_metrics&family=queue_consumer_count";
    let shown = node.measurements(&format!("/metrics/detailed?{families}")).await;
    let prometheus = include_str!("../../deploy/prometheus/prometheus.yml");
    assert!(prometheus.contains("family: [queue_coarse_metrics, queue_consumer_count]"), "what is scraped");
    let asked: BTreeSet<String> = [RULES, DASHBOARD].iter().flat_map(|text| names(text, "rabbitmq_")).collect();
    assert!(asked.len() >= 2, "{asked:?}");
    for name in asked {
        assert!(shown.lines().any(|line| line.starts_with(&format!("{name}{{"))), "the broker has no {name}");
    }
}
