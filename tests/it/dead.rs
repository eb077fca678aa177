//! `dead`: letters listed without a trace, replayed without loss, whatever kills the command, and discarded on a word.

use std::collections::{BTreeMap, BTreeSet};

use lapin::options::{BasicConsumeOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection};
use serde_json::{Value, json};

use crate::support::broker::Seen;
use crate::support::console::{Ended, run, start};
use crate::support::raw::{self, Properties};
use crate::support::relay::Relay;
use crate::support::requests::Numbers;
use crate::support::{PATIENCE, Request, World};

const DEAD: &str = "contacts.deletion.dead";
const REQUESTS: &str = "contacts.deletion.requests";

/// A dead letter as the worker makes them.
fn letter(id: &str, project: &str, code: &str, undone: Option<&str>, at: &str) -> Request {
    let mut request =
        Request::new(id, project, &["ann@example.org", "bob@example.org", "eve@example.org", "joe@example.org"]);
    let mut headers = FieldTable::default();
    let mut set = |name: &str, text: &str| {
        headers.insert(name.into(), AMQPValue::LongString(text.into()));
    };
    set("x-eraser-code", code);
    set("x-eraser-reason", "the reason");
    set("x-eraser-dead-at", at);
    set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    if let Some(undone) = undone {
        set("x-eraser-undone", undone);
    }
    request.properties = request.properties.with_headers(headers);
    request
}

async fn put(world: &World, letters: &[Request]) {
    for letter in letters {
        world.vhost.publish_to(DEAD, "dead.TEST", std::slice::from_ref(letter)).await;
    }
}

fn many(count: usize) -> Vec<Request> {
    (0..count).map(|n| letter(&format!("m-{n:05}"), "p", "GAVE_UP", Some("1,3"), "2026-01-01T00:00:00Z")).collect()
}

fn lines(ended: &Ended) -> Vec<Value> {
    ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(|seen| seen.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default()).collect()
}

/// The name of the request that was there first.
fn first(id: &str) -> &str {
    id.split_once("-of-").map_or(id, |(_, first)| first)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_listed_shown_and_replayed_and_only_the_rest_is_asked_for() {
    let world = World::new().await;
    let worker = world.worker().await;
    world.set_faults(migma_eraser::sandbox::Faults {
        poison_emails: ["eve@example.org".to_owned()].into(),
        ..Default::default()
    });
    let mut request = Request::new("dsr-1", "p", &["ann@example.org", "eve@example.org", "unknown@example.org"]);
    request.properties = request.properties.with_reply_to("answers".into());
    world.vhost.publish(&[request]).await;
    world.vhost.wait_ready(DEAD, 1).await;
    let list = run(&world, &["dead", "list"]).await.with(0);
    let row: Vec<_> = list.out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1], row[2], row[4], row[5]), ("1", "API_REJECTED", "p", "dsr-1", "1"), "{list:?}");
    assert!(row[3].ends_with('s'), "an age in seconds: {row:?}");
    let show = run(&world, &["dead", "show", "dsr-1"]).await.with(0);
    for part in
        ["API_REJECTED", "x-eraser-undone: 1", "\"e***@e***\"", "1 email, as replay-", "reply_to         answers"]
    {
        assert!(show.out.contains(part), "{part}: {show:?}");
    }
    assert!(!show.out.contains("example.org"), "{show:?}");
    let open = run(&world, &["dead", "show", "dsr-1", "--show-addresses", "--json"]).await.with(0).json();
    assert_eq!(open["body"]["emails"][1], "eve@example.org");
    world.set_faults(Default::default());
    let dry = run(&world, &["dead", "replay", "dsr-1", "--dry-run"]).await.with(0);
    assert!(dry.out.contains("1 letter would be replayed; nothing was changed"), "{dry:?}");
    world.vhost.wait_ready(DEAD, 1).await;
    let done = run(&world, &["dead", "replay", "dsr-1", "--yes", "--json"]).await.with(0).json();
    assert_eq!((done["replayed"].as_u64(), done["planned"]["emails"].as_u64()), (Some(1), Some(1)));
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let outcomes = outcomes.wait_for(2).await;
    let second = outcomes[1].json();
    assert_eq!((second["status"].as_str(), second["deleted"].as_u64()), (Some("succeeded"), Some(1)), "{second}");
    assert_eq!(
        (second["correlationId"].as_str(), first(second["messageId"].as_str().unwrap())),
        (Some("dsr-1"), "dsr-1")
    );
    assert_eq!(second["metadata"], json!({"ticket": "dsr-1"}));
    assert_eq!(world.vhost.ready(DEAD).await, 0);
    worker.stop().await;
}

/// Many at once, for a broker with much to do is late with what a channel returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_leaves_the_queue_as_it_was_order_included_however_often_it_is_taken() {
    let looks = (0..6).map(|_| tokio::spawn(look_again_and_again()));
    futures_util::future::try_join_all(looks).await.unwrap();
}

async fn look_again_and_again() {
    let world = World::new().await;
    world.vhost.declare().await;
    // More than one channel holds.
    let letters = many(1203);
    world.vhost.publish_to(DEAD, "dead.TEST", &letters).await;
    let sent: Vec<_> = letters.iter().map(|letter| letter.id.as_str()).collect();
    for _ in 0..8 {
        let listed = lines(&run(&world, &["dead", "list", "--json"]).await.with(0));
        let shown: Vec<_> = listed.iter().map(|line| line["messageId"].as_str().unwrap()).collect();
        assert!(shown == sent, "the order is kept");
    }
    run(&world, &["dead", "show", "m-00700"]).await.with(0);
    let mut dead = world.vhost.collect(DEAD).await;
    assert!(ids(dead.wait_for(1203).await) == sent, "and for others too");
}

/// RabbitMQ 4.x drops what is returned for the twentieth time, unless a policy says otherwise (README); an argument of ours
/// would stand above any policy.
#[tokio::test(flavor = "multi_thread")]
async fn the_dead_queue_is_declared_without_a_limit_so_that_a_policy_may_set_one() {
    let world = World::new().await;
    world.vhost.declare().await;
    let declared = world.vhost.definitions().await;
    let dead = declared["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == DEAD).unwrap();
    assert_eq!(dead["arguments"], json!({"x-queue-type": "quorum"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_go_by_code_project_and_age() {
    let world = World::new().await;
    world.vhost.declare().await;
    put(
        &world,
        &[
            letter("old", "p", "GAVE_UP", Some("0"), "2026-01-01T00:00:00Z"),
            letter("new", "p", "FORBIDDEN", Some("0-3"), "2999-01-01T00:00:00Z"),
            letter("other", "q", "GAVE_UP", None, "some time"),
        ],
    )
    .await;
    for (filters, found) in [
        (&[][..], &["old", "new", "other"][..]),
        (&["--code", "gave_up"], &["old", "other"]),
        (&["--code", "FORBIDDEN,GAVE_UP", "--project", "p"], &["old", "new"]),
        (&["--older-than", "7d"], &["old"]),
        (&["--newer-than", "1h"], &["new"]),
        (&["--project", "none"], &[]),
    ] {
        let listed = run(&world, &[&["dead", "list", "--json"], filters].concat()).await.with(0);
        let names: Vec<_> = lines(&listed).iter().map(|line| line["messageId"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, found, "{filters:?}");
    }
    let discarded = run(&world, &["dead", "discard", "--code", "GAVE_UP", "--older-than", "1d", "--yes"]).await.with(0);
    assert!(discarded.out.contains("discarded: 1 letter\n"), "{discarded:?}");
    let mut dead = world.vhost.collect(DEAD).await;
    assert_eq!(ids(dead.wait_for(2).await), ["new", "other"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_undone_is_asked_for_and_without_anybody_to_ask_refused() {
    let world = World::new().await;
    world.vhost.declare().await;
    put(&world, &many(1)).await;
    for change in ["replay", "discard"] {
        let ended = run(&world, &["dead", change, "m-00000"]).await.with(2);
        assert!(ended.err.contains("there is no terminal to ask on") && ended.err.contains("--dry-run"), "{ended:?}");
        let ended = run(&world, &["dead", change, "--yes"]).await.with(2);
        assert!(ended.err.contains("say which"), "{ended:?}");
        run(&world, &["dead", change, "--all", "m", "--yes"]).await.with(2);
        run(&world, &["dead", change, "--older-than", "week", "--yes"]).await.with(2);
        let ended = run(&world, &["dead", change, "nobody", "--yes"]).await.with(1);
        assert!(ended.out.contains("not found: nobody"), "{ended:?}");
    }
    assert!(run(&world, &["dead", "show", "nobody"]).await.with(1).err.contains("none of 1 dead letter has"));
    world.vhost.wait_ready(DEAD, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_only_be_rejected_again_stays_and_the_rest_goes() {
    let world = World::new().await;
    let worker = world.worker().await;
    let mut nameless = Request::new("", "p", &["ann@example.org"]);
    nameless.properties = BasicProperties::default();
    world.vhost.publish(&[Request::raw("broken", "{\"emails\":[\"ann@example.org\""), nameless]).await;
    world.vhost.wait_ready(DEAD, 2).await;
    let ended = run(&world, &["dead", "replay", "--all", "--yes"]).await.with(1);
    assert!(ended.out.contains("refused: broken (MALFORMED_JSON): MALFORMED_JSON: the body is not JSON"), "{ended:?}");
    assert!(ended.out.contains("replayed: 1 letter\n"), "{ended:?}");
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    outcomes.wait_until("a success", |seen| seen.iter().any(|seen| seen.json()["status"] == "succeeded")).await;
    let listed = lines(&run(&world, &["dead", "list", "--json"]).await.with(0));
    assert_eq!((listed.len(), listed[0]["messageId"].as_str()), (1, Some("broken")));
    let show = run(&world, &["dead", "show", "broken"]).await.with(0);
    assert!(show.out.contains("refused: MALFORMED_JSON") && show.out.contains("that are no JSON"), "{show:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_put_there_keeps_its_id_and_is_answered() {
    let world = World::new().await;
    world.vhost.declare().await;
    // Delivered too often, in the queue of those that travel alone.
    world.vhost.publish_to(DEAD, "returned", &[Request::new("killer", "p", &["ann@example.org"])]).await;
    let connection: Connection = world.vhost.connect().await;
    let channel = connection.create_channel().await.unwrap();
    let mut consumer = channel
        .basic_consume(
            "contacts.deletion.returned".into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    for _ in 0..=5 {
        let delivery = futures_util::StreamExt::next(&mut consumer).await.unwrap().unwrap();
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        channel.basic_nack(delivery.delivery_tag, options).await.unwrap();
    }
    connection.close(200, "OK".into()).await.unwrap();
    world.vhost.wait_ready(DEAD, 1).await;
    let listed =
        lines(&run(&world, &["dead", "list", "--code", "returned", "--newer-than", "1h", "--json"]).await.with(0));
    assert_eq!(
        (listed[0]["messageId"].as_str(), listed[0]["undone"].as_u64()),
        (Some("killer"), Some(1)),
        "{listed:?}"
    );
    assert!(listed[0]["reason"].as_str().unwrap().contains("delivery_limit"));
    let show = run(&world, &["dead", "show", "killer"]).await.with(0);
    assert!(show.out.contains("1 email, as killer") && show.out.contains("x-death"), "{show:?}");
    run(&world, &["dead", "replay", "killer", "--yes"]).await.with(0);
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let outcome = outcomes.wait_for(1).await[0].json();
    assert_eq!((outcome["messageId"].as_str(), outcome["status"].as_str()), (Some("killer"), Some("succeeded")));
    assert_eq!(world.vhost.ready(DEAD).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_no_library_can_read_is_passed_over_and_can_be_discarded() {
    let world = World::new().await;
    world.vhost.declare().await;
    put(&world, &many(2)).await;
    raw::publish(&world.vhost.url, DEAD, &Properties::message_id(b"\xff\xfe"), b"{}").await;
    put(&world, &[letter("behind", "p", "GAVE_UP", None, "2026-01-01T00:00:00Z")]).await;
    let ended = run(&world, &["dead", "list"]).await.with(0);
    assert!(
        ended.err.contains("1 letter passed over that cannot be read") && ended.out.contains("behind"),
        "{ended:?}"
    );
    assert!(ended.out.contains("3 in all"), "{ended:?}");
    world.vhost.wait_ready(DEAD, 4).await;
    run(&world, &["dead", "replay", "behind", "--yes"]).await.with(0);
    world.vhost.wait_ready(REQUESTS, 1).await;
    world.vhost.wait_ready(DEAD, 3).await;
    run(&world, &["dead", "discard", "--unreadable"]).await.with(2);
    let ended = run(&world, &["dead", "discard", "--unreadable", "--yes"]).await.with(0);
    assert!(ended.out.contains("gone: 1 letter that could not be read"), "{ended:?}");
    world.vhost.wait_ready(DEAD, 2).await;
    assert!(run(&world, &["dead", "list"]).await.with(0).out.contains("2 in all"));
}

/// The message ids of everything that is in a queue.
async fn names(world: &World, queue: &str) -> Vec<String> {
    let count = world.vhost.ready(queue).await as usize;
    let mut collector = world.vhost.collect(queue).await;
    ids(collector.wait_for(count).await)
}

/// Every letter is dead, or asked for again, or both; each under one name, whatever happened.
async fn nothing_is_lost(world: &World, letters: &[Request]) {
    let asked = names(world, REQUESTS).await;
    let dead = names(world, DEAD).await;
    let mut by_first: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for id in &asked {
        by_first.entry(first(id)).or_default().insert(id);
    }
    assert!(by_first.values().all(|names| names.len() == 1), "a second replay is the same request");
    for letter in letters {
        let id = letter.id.as_str();
        assert!(by_first.contains_key(id) || dead.iter().any(|dead| dead == id), "{id} is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_killed_between_confirm_and_ack_loses_nothing_and_the_next_one_is_the_same_request() {
    let world = World::new().await;
    world.vhost.declare().await;
    let letters = many(3);
    put(&world, &letters).await;
    // Acks do not come through: they lie on the way when the command is killed.
    let relay = Relay::start(&world.vhost.url, Relay::ACK).await;
    let mut command = crate::support::worker::command(&world);
    let command = command.env("MIGMA_ERASER__AMQP__URL", relay.url());
    let killed = crate::support::console::start_with(command, &["dead", "replay", "--all", "--yes"], "");
    world.vhost.wait_ready(REQUESTS, 3).await;
    relay.met().await;
    killed.signal("KILL");
    killed.ended().await.with(-1);
    drop(relay);
    world.vhost.wait_ready(DEAD, 3).await;
    run(&world, &["dead", "replay", "--all", "--yes"]).await.with(0);
    world.vhost.wait_ready(REQUESTS, 6).await;
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let outcomes: Vec<_> = outcomes.wait_for(6).await.iter().map(Seen::json).collect();
    assert!(outcomes.iter().all(|outcome| outcome["status"] == "succeeded" && outcome["deleted"] == 2), "{outcomes:?}");
    let ids: BTreeSet<_> = outcomes.iter().map(|outcome| outcome["messageId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(world.vhost.ready(DEAD).await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_killed_at_any_moment_loses_nothing() {
    let world = World::new().await;
    world.vhost.declare().await;
    let letters = many(2000);
    world.vhost.publish_to(DEAD, "dead.TEST", &letters).await;
    let mut numbers = Numbers(11);
    let mut cut_short = 0;
    for _ in 0..40 {
        let before = world.vhost.ready(REQUESTS).await;
        if before >= 1900 {
            break;
        }
        let running = start(&world, &["dead", "replay", "--all", "--yes"], "");
        // In the middle of what it does, however quick the machine is.
        let enough = before + 1 + numbers.below(100) as u32;
        let patience = std::time::Instant::now();
        while world.vhost.ready(REQUESTS).await < enough {
            assert!(patience.elapsed() < PATIENCE, "it does not go on");
        }
        running.signal("KILL");
        cut_short += usize::from(running.ended().await.code == -1);
    }
    assert!(cut_short > 0, "it was killed in the middle");
    println!("killed {cut_short} times in the middle");
    run(&world, &["dead", "replay", "--all", "--yes"]).await.with(0);
    nothing_is_lost(&world, &letters).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commands_at_once_lose_nothing() {
    let world = World::new().await;
    world.vhost.declare().await;
    let letters = many(1500);
    world.vhost.publish_to(DEAD, "dead.TEST", &letters).await;
    let mut done = 0;
    let replay = ["dead", "replay", "--all", "--yes", "--json"];
    let running: Vec<_> =
        [&replay[..], &replay[..], &["dead", "list"]].iter().map(|line| start(&world, line, "")).collect();
    for running in running {
        let ended = running.ended().await;
        assert!((0..=1).contains(&ended.code), "{ended:?}");
        let report: Value = serde_json::from_str(&ended.out).unwrap_or_default();
        done += report["replayed"].as_u64().unwrap_or(0) as usize;
    }
    let left = world.vhost.ready(DEAD).await as usize;
    // The broker may lose an ack with the end of its channel; then both of them take that letter, as one request.
    assert!(done + left >= 1500, "each letter is taken away by one of them: {done}, {left}");
    nothing_is_lost(&world, &letters).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_queue_takes_stays_where_it_is() {
    let world = World::new().await;
    world.vhost.declare().await;
    put(&world, &many(3)).await;
    let channel = world.vhost.connect().await.create_channel().await.unwrap();
    channel.queue_delete(REQUESTS.into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    let ended = run(&world, &["dead", "replay", "--all", "--yes"]).await.with(1);
    assert!(ended.err.contains("no queue takes messages with the key 'request.replay'"), "{ended:?}");
    assert!(ended.err.contains("replayed for certain: 0 letters"), "{ended:?}");
    world.vhost.wait_ready(DEAD, 3).await;
}
