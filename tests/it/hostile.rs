//! Whatever stands in the queue: each message ends in its code and whole in the dead queue, and its neighbours are served.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldTable};

use crate::support::broker::Seen;
use crate::support::partition::Partition;
use crate::support::raw::{self, Properties};
use crate::support::requests::mixed;
use crate::support::{Request, World, truth};

const OUTCOMES: &str = "contacts.deletion.outcomes";
const REQUESTS: &str = "contacts.deletion.requests";
const RETURNED: &str = "contacts.deletion.returned";
const DEAD: &str = "contacts.deletion.dead";

/// Bytes that are no UTF-8, where AMQP takes any and lapin none.
fn unreadable() -> [Properties; 3] {
    let name = b"\xff\xfe";
    let table = [raw::short(name), b"I\0\0\0\x07".to_vec()].concat();
    let nested = [raw::short(b"nested"), b"F".to_vec(), raw::long(&table)].concat();
    [
        Properties::message_id(name),
        Properties::header(name, b"value", b"a-header"),
        Properties {
            flags: raw::HEADERS | raw::MESSAGE_ID,
            bytes: [raw::long(&nested), raw::short(b"nested")].concat(),
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_no_library_can_read_goes_whole_to_the_dead_queue_and_its_neighbours_are_served() {
    let world = World::new().await;
    world.vhost.declare().await;
    let requests = mixed(200, &["p", "q"], 300, 41);
    let body = br#"{"projectId":"p","emails":["eve@poison.example"]}"#;
    let sent = unreadable();
    raw::publish(&world.vhost.url, RETURNED, &sent[0], body).await;
    for (properties, requests) in sent.iter().zip(requests.chunks(50)) {
        world.vhost.publish(requests).await;
        raw::publish(&world.vhost.url, REQUESTS, properties, body).await;
    }
    world.vhost.publish(&requests[150..]).await;
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(requests.len()).await;
    world.vhost.wait_ready(DEAD, 4).await;
    worker.wait_ready().await;
    // The same while it runs.
    raw::publish(&world.vhost.url, REQUESTS, &sent[0], body).await;
    world.vhost.wait_ready(DEAD, 5).await;
    worker.wait_ready().await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    assert_eq!((world.vhost.ready(REQUESTS).await, world.vhost.ready(RETURNED).await), (0, 0));
    let mut letters = Vec::new();
    for _ in 0..5 {
        letters.push(raw::take(&world.vhost.url, DEAD).await);
    }
    assert!(letters.iter().all(|(_, sent)| sent == body), "whole");
    for properties in &sent {
        let id = &properties.bytes[properties.bytes.len() - 3..];
        assert!(letters.iter().any(|(properties, _)| properties.windows(3).any(|bytes| bytes == id)), "{id:?}");
    }
    let log = worker.stop().await;
    assert!(!log.contains("poison.example"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_no_library_can_read_is_put_aside_though_a_node_of_the_broker_says_nothing() {
    let world = World::new().await;
    let mute = Partition::start(&world.vhost.url).await;
    mute.close();
    let urls = format!("{},{}", world.vhost.url, mute.url());
    let worker = world.worker_with(&[("AMQP__URL", &urls), ("AMQP__CONNECT_TIMEOUT", "1s")]).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    let requests = mixed(20, &["p"], 30, 42);
    for (at, requests) in requests.chunks(5).enumerate() {
        raw::publish(&world.vhost.url, REQUESTS, &unreadable()[0], b"{}").await;
        world.vhost.publish(requests).await;
        outcomes.wait_for((at + 1) * 5).await;
    }
    world.vhost.wait_ready(DEAD, 4).await;
    truth::check(&requests, outcomes.drain().await, &world.api.lock());
    let log = worker.stop().await;
    assert!(log.contains("a node cannot be reached") && !log.contains("guest"), "{log}");
}

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Succeeded,
    Partial,
    Rejected(&'static str),
}

const MALFORMED: End = End::Rejected("MALFORMED_JSON");
const INVALID: End = End::Rejected("INVALID_REQUEST");

/// A sound request's fields, and one more.
fn with(more: &str) -> String {
    format!(r#"{{"projectId":"p","emails":["ann@example.org"],{more}}}"#)
}

/// So many values, each the only one in the one around it.
fn nest(open: &str, close: &str, depth: usize) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

fn event(fields: &str, data: &str) -> Vec<u8> {
    format!(r#"{{"specversion":"1.0",{fields},"type":"gdpr","data":{data}}}"#).into_bytes()
}

/// Bodies, each under an id of its own that tells what it is.
fn bodies() -> Vec<(&'static str, Vec<u8>, End)> {
    let arrays = nest("[", "]", 100_000);
    let objects = nest(r#"{"a":"#, "}", 100_000);
    let digits = "9".repeat(100_000);
    let text = "x".repeat(1 << 20);
    let strings = |cases: Vec<(&'static str, String, End)>| {
        cases.into_iter().map(|(name, body, end)| (name, body.into_bytes(), end)).collect::<Vec<_>>()
    };
    let mut bodies = strings(vec![
        ("arrays", arrays.clone(), INVALID),
        ("arrays without end", "[".repeat(100_000), MALFORMED),
        ("objects", objects.clone(), INVALID),
        ("objects without end", r#"{"a":"#.repeat(100_000), MALFORMED),
        ("arrays beside", with(&format!(r#""x":{arrays}"#)), End::Succeeded),
        ("objects beside", with(&format!(r#""x":{objects}"#)), End::Succeeded),
        ("arrays as metadata", with(&format!(r#""metadata":{arrays}"#)), INVALID),
        ("arrays in metadata", with(&format!(r#""metadata":{{"a":{arrays}}}"#)), MALFORMED),
        ("objects as metadata", with(&format!(r#""metadata":{objects}"#)), MALFORMED),
        ("arrays as emails", format!(r#"{{"projectId":"p","emails":{arrays}}}"#), MALFORMED),
        ("objects as an email", format!(r#"{{"projectId":"p","emails":["a@example.org",{objects}]}}"#), MALFORMED),
        ("objects as project", format!(r#"{{"projectId":{objects},"emails":["a@example.org"]}}"#), MALFORMED),
        ("a long string beside", with(&format!(r#""x":"{text}""#)), End::Succeeded),
        ("a long name", with(&format!(r#""{text}":1"#)), End::Succeeded),
        ("a long project", format!(r#"{{"projectId":"{text}","emails":["ann@example.org"]}}"#), End::Succeeded),
        ("long metadata", with(&format!(r#""metadata":{{"x":"{text}"}}"#)), INVALID),
        ("a long email", format!(r#"{{"projectId":"p","emails":["{text}@example.org","a@example.org"]}}"#), End::Partial),
        ("a long number beside", with(&format!(r#""x":-{digits}.{digits}e{digits}"#)), End::Succeeded),
        ("a long number as project", format!(r#"{{"projectId":{digits},"emails":["a@example.org"]}}"#), MALFORMED),
        ("a long number in metadata", with(r#""metadata":{"x":1e999}"#), MALFORMED),
        ("a field twice", with(r#""projectId":"q""#), MALFORMED),
        ("a field twice, once escaped", with(r#""project\u0049d":"q""#), MALFORMED),
        ("an unknown field twice", with(r#""x":1,"x":2"#), MALFORMED),
        ("a field twice in metadata", with(r#""metadata":{"a":[{"b":1,"b":2}]}"#), MALFORMED),
        ("a field twice beside", with(r#""x":{"b":1,"b":2}"#), End::Succeeded),
        ("half a surrogate", r#"{"projectId":"p","emails":["\ud800@example.org"]}"#.into(), MALFORMED),
        ("a byte order mark", format!("\u{feff}{}", with(r#""x":1"#)), MALFORMED),
        ("nothing", String::new(), MALFORMED),
        ("white space", " \r\n\t".into(), MALFORMED),
        ("NUL", "\0".repeat(1000), MALFORMED),
        ("a comma too many", with(""), MALFORMED),
        ("two requests", with(r#""x":1"#).repeat(2), MALFORMED),
        ("null", "null".into(), INVALID),
        ("NaN", with(r#""x":NaN"#), MALFORMED),
        (
            "odd addresses",
            r#"{"projectId":"p","emails":["   ","\n\r\n","a\u0000@example.org","b@example.org\nbcc: c","\u202e@","ann@example.org",
                "@","a@b@c","\u0085x@example.org","\u0000","d@example.org\u0000"]}"#
                .into(),
            End::Partial,
        ),
        ("only spaces", r#"{"projectId":"p","emails":["   ","\t"]}"#.into(), End::Rejected("NO_VALID_EMAIL")),
    ]);
    bodies.push(("no UTF-8", b"{\"projectId\":\"p\",\"emails\":[\"\xff\xfe@example.org\"]}".to_vec(), MALFORMED));
    bodies.push((
        "no UTF-8 in a name",
        b"{\"projectId\":\"p\",\"\xc3\":1,\"emails\":[\"a@example.org\"]}".to_vec(),
        MALFORMED,
    ));
    bodies.push((
        "no UTF-8 in metadata",
        b"{\"projectId\":\"p\",\"emails\":[\"a@example.org\"],\"metadata\":{\"a\":\"\xff\"}}".to_vec(),
        MALFORMED,
    ));
    bodies.push(("UTF-16", with(r#""x":1"#).encode_utf16().flat_map(u16::to_le_bytes).collect(), MALFORMED));
    bodies
}

/// Each message in turn, a sound request behind it; gives the outcomes and dead letters of the former in their order.
async fn sent_beside_good_ones(world: &World, cases: &[(Request, End)]) -> Vec<(Seen, Option<Seen>)> {
    let good: Vec<Request> = (0..cases.len())
        .map(|n| Request::of(&format!("good-{n}"), "p", vec![format!("good{n}@example.org")]))
        .collect();
    let all: Vec<Request> = cases.iter().zip(&good).flat_map(|((bad, _), good)| [bad.clone(), good.clone()]).collect();
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    let mut dead = world.vhost.collect(DEAD).await;
    world.vhost.publish(&all).await;
    let seen = outcomes.wait_for(all.len()).await.to_vec();
    let letters = cases.iter().filter(|(_, end)| *end != End::Succeeded).count();
    let letters = dead.wait_for(letters).await.to_vec();
    let (ours, others): (Vec<Seen>, Vec<Seen>) = seen
        .into_iter()
        .partition(|outcome| outcome.json()["messageId"].as_str().is_some_and(|id| id.starts_with("good-")));
    truth::check(&good, &ours, &world.api.lock());
    assert!(ours.iter().all(|outcome| outcome.routing_key == "outcome.succeeded"));
    let mut ends = Vec::new();
    for (request, end) in cases {
        let correlation = request.properties.correlation_id().clone().unwrap();
        let of_it = |seen: &&Seen| *seen.properties.correlation_id() == Some(correlation.clone());
        let outcome = others.iter().find(of_it).unwrap_or_else(|| panic!("{correlation} has no outcome"));
        let json = outcome.json();
        match end {
            End::Succeeded => assert_eq!(json["status"], "succeeded", "{correlation}: {json}"),
            End::Partial => assert_eq!(json["status"], "partial", "{correlation}: {json}"),
            End::Rejected(code) => assert_eq!(json["error"]["code"], *code, "{correlation}: {json}"),
        }
        let letter = letters.iter().find(of_it);
        assert_eq!(letter.is_some(), *end != End::Succeeded, "{correlation}");
        if let Some(letter) = letter {
            assert!(letter.body == request.body, "{correlation} is whole");
        }
        ends.push((outcome.clone(), letter.cloned()));
    }
    assert_eq!(world.vhost.ready(REQUESTS).await, 0);
    ends
}

fn message(name: &str, body: impl Into<Vec<u8>>) -> Request {
    let request = Request::raw(name, "");
    Request { properties: request.properties.with_correlation_id(name.into()), body: body.into(), ..request }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_body_is_it_ends_in_its_code_and_its_neighbours_are_served() {
    let world = World::new().await;
    let worker = world.worker().await;
    let mut cases: Vec<(Request, End)> =
        bodies().into_iter().map(|(name, body, end)| (message(name, body), end)).collect();
    let sound = r#"{"projectId":"p","emails":["ann@example.org"]}"#;
    let (arrays, source) = (nest("[", "]", 100_000), "s".repeat(10_000));
    let events = [
        ("event: arrays as data", event(r#""id":"1","source":"s""#, &arrays), INVALID),
        (
            "event: arrays in data",
            event(r#""id":"2","source":"s""#, &with(&format!(r#""x":{arrays}"#))),
            End::Succeeded,
        ),
        (
            "event: arrays in metadata",
            event(r#""id":"3","source":"s""#, &with(&format!(r#""metadata":{{"a":{arrays}}}"#))),
            MALFORMED,
        ),
        ("event: arrays as id", event(&format!(r#""id":{arrays},"source":"s""#), sound), MALFORMED),
        ("event: arrays beside", event(&format!(r#""id":"5","source":"s","x":{arrays}"#), sound), End::Succeeded),
        ("event: a field twice in data", event(r#""id":"6","source":"s""#, &with(r#""projectId":"q""#)), MALFORMED),
        ("event: a long name", event(&format!(r#""id":"7","source":"{source}""#), sound), INVALID),
    ];
    for (name, body, end) in events {
        let mut request = message(name, body);
        request.properties = request.properties.with_content_type("application/cloudevents+json".into());
        if !name.ends_with("beside") {
            // Named by source and id.
            request.properties = BasicProperties::default()
                .with_correlation_id(name.into())
                .with_content_type("application/cloudevents+json".into());
        }
        cases.push((request, end));
    }
    sent_beside_good_ones(&world, &cases).await;
    worker.wait_ready().await;
    println!("at most {} MiB", worker.peak_mib());
    let log = worker.stop().await;
    assert!(!log.contains("example.org"), "no address in the log");
    assert!(log.lines().all(|line| line.len() < 10_000), "no line of the log is as long as a sender likes");
}

/// A table with every type of field there is, in a table, in a list.
fn every_type() -> FieldTable {
    let mut table = FieldTable::default();
    let values = [
        AMQPValue::Boolean(true),
        AMQPValue::ShortShortInt(-1),
        AMQPValue::ShortShortUInt(255),
        AMQPValue::ShortInt(-2),
        AMQPValue::ShortUInt(65_535),
        AMQPValue::LongInt(-3),
        AMQPValue::LongUInt(u32::MAX),
        AMQPValue::LongLongInt(i64::MIN),
        AMQPValue::Float(0.5),
        AMQPValue::Double(-0.5),
        AMQPValue::DecimalValue(DecimalValue { scale: 255, value: u32::MAX }),
        AMQPValue::LongString(b"\xff\x00".to_vec().into()),
        AMQPValue::Timestamp(u64::MAX),
        AMQPValue::ByteArray(b"\xff\x00".to_vec().into()),
        AMQPValue::Void,
    ];
    for (at, value) in values.iter().enumerate() {
        table.insert(format!("type-{at}").into(), value.clone());
    }
    let mut outer = table.clone();
    outer.insert("list".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(table)].into()));
    outer.insert("\0\n\u{202e}".into(), AMQPValue::LongString("x-eraser-code: none".into()));
    let deep = (0..100).fold(AMQPValue::Void, |inner, _| AMQPValue::FieldArray(vec![inner].into()));
    outer.insert("deep".into(), deep);
    outer
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_in_its_properties_a_message_ends_in_its_code_and_whole() {
    let world = World::new().await;
    let worker = world.worker().await;
    let sound = r#"{"projectId":"p","emails":["ann@example.org"]}"#;
    let partial = r#"{"projectId":"p","emails":["ann@example.org","nobody"]}"#;
    let mut cases = Vec::new();
    let mut add = |name: &str, body: &str, end, change: &dyn Fn(BasicProperties) -> BasicProperties| {
        let request = message(name, body);
        let properties = change(request.properties);
        cases.push((Request { properties, ..request }, end));
    };
    let long: String = "é".repeat(127) + "x";
    let unsupported = End::Rejected("UNSUPPORTED_CONTENT_TYPE");
    add("255 bytes", sound, End::Succeeded, &|p| p.with_message_id(long.as_str().into()));
    add("controls", partial, End::Partial, &|p| p.with_message_id("\0\n\u{1b}[2J\u{202e}".into()));
    add("no id", sound, End::Rejected("MISSING_MESSAGE_ID"), &|p| p.with_message_id("".into()));
    let types = [
        ("", End::Succeeded),
        ("APPLICATION/JSON ;charset=utf-16;;=", End::Succeeded),
        ("application/json,text/html", unsupported),
        ("application/jsonx", unsupported),
        ("\0", unsupported),
        ("*/*", unsupported),
        (&long, unsupported),
    ];
    for (at, (kind, end)) in types.into_iter().enumerate() {
        add(&format!("type {at}"), sound, end, &|p| p.with_content_type(kind.into()));
    }
    for (name, time) in [("the first second", 0), ("the last second", u64::MAX)] {
        add(name, sound, End::Succeeded, &|p| p.with_timestamp(time));
        add(&format!("{name}, partial"), partial, End::Partial, &|p| p.with_timestamp(time));
    }
    add("odd", partial, End::Partial, &|p| {
        p.with_priority(255)
            .with_expiration("100000000".into())
            .with_delivery_mode(1)
            .with_user_id("guest".into())
            .with_type(long.as_str().into())
            .with_app_id("\0".into())
            .with_cluster_id("x".into())
            .with_content_encoding("gzip".into())
            .with_reply_to("amq.rabbitmq.reply-to.none".into())
    });
    add("every type", partial, End::Partial, &|p| p.with_headers(every_type()));
    add("traceparent", sound, End::Succeeded, &|p| {
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), AMQPValue::FieldTable(every_type()));
        headers.insert("x-eraser-aside-since".into(), AMQPValue::LongString("-9223372036854775808".into()));
        p.with_headers(headers)
    });
    let large = |p: BasicProperties, bytes: &[usize]| {
        let mut headers = FieldTable::default();
        headers.insert("kept".into(), AMQPValue::LongInt(1));
        for (at, bytes) in bytes.iter().enumerate() {
            headers.insert(format!("large-{at}").into(), AMQPValue::LongString("h".repeat(*bytes).into()));
        }
        p.with_headers(headers)
    };
    add("64 KiB in a header", partial, End::Partial, &|p| large(p, &[65_536]));
    add("two of 60 KiB", partial, End::Partial, &|p| large(p, &[61_440, 61_440]));
    add("many of 1 KiB", partial, End::Partial, &|p| large(p, &[1024; 110]));

    let ends = sent_beside_good_ones(&world, &cases).await;
    for ((request, _), (outcome, letter)) in cases.iter().zip(&ends) {
        let name = request.id.as_str();
        let (sent, id) = (&request.properties, request.properties.message_id().clone().unwrap());
        let named = outcome.json()["messageId"].as_str().unwrap_or_default().to_owned();
        assert_eq!(named, id.as_str(), "{name}");
        let Some(letter) = letter else { continue };
        let got = &letter.properties;
        assert_eq!(
            (got.message_id(), got.timestamp(), got.priority(), got.kind(), got.app_id(), got.cluster_id()),
            (sent.message_id(), sent.timestamp(), sent.priority(), sent.kind(), sent.app_id(), sent.cluster_id()),
            "{name}"
        );
        assert_eq!((got.reply_to(), got.content_type()), (sent.reply_to(), sent.content_type()), "{name}");
        let empty = FieldTable::default();
        let headers = got.headers().as_ref().unwrap().inner();
        for (field, value) in sent.headers().as_ref().unwrap_or(&empty).inner() {
            if !field.as_str().starts_with("large-") {
                assert_eq!(headers.get(field), Some(value), "{name}: {field}");
            }
        }
        assert!(headers.contains_key("x-eraser-code"), "{name}");
    }
    let large_ones = |name: &str| {
        let at = cases.iter().position(|(request, _)| request.id == name).unwrap();
        let headers = ends[at].1.as_ref().unwrap().properties.headers().clone().unwrap();
        headers.inner().keys().filter(|name| name.as_str().starts_with("large-")).count()
    };
    assert_eq!((large_ones("64 KiB in a header"), large_ones("two of 60 KiB")), (0, 1));
    assert!((40..64).contains(&large_ones("many of 1 KiB")));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_to_that_leads_nowhere_costs_nobody_anything() {
    let world = World::new().await;
    let worker = world.worker_with(&[("OUTCOME__REPLY_TO", "true")]).await;
    let long = "r".repeat(255);
    let bogus = [
        "no.such.queue",
        "",
        "amq.rabbitmq.reply-to.none",
        "amq.rabbitmq.reply-to.g1h2AA5yZXBseUAxMjM0NTY3OAAAAAAAAAAAAAAAAA==.x",
        "amq.direct",
        "amq.\0\n",
        &long,
    ];
    let mut cases = Vec::new();
    for (at, queue) in bogus.iter().enumerate() {
        let request = message(&format!("bogus-{at}"), r#"{"projectId":"p","emails":["ann@example.org"]}"#);
        let properties = request.properties.with_reply_to((*queue).into());
        cases.push((Request { properties, ..request }, End::Succeeded));
    }
    sent_beside_good_ones(&world, &cases).await;

    // Who can be replied to is, once more, though best effort may lose what met the end of a connection.
    let connection = world.vhost.connect().await;
    let channel = connection.create_channel().await.unwrap();
    channel.queue_declare("replies".into(), Default::default(), FieldTable::default()).await.unwrap();
    let mut replies = world.vhost.collect("replies").await;
    for round in 0.. {
        let request = message(&format!("asks-{round}"), r#"{"projectId":"p","emails":["bob@example.org"]}"#);
        let properties = request.properties.with_reply_to("replies".into());
        world.vhost.publish(&[Request { properties, ..request }]).await;
        if !replies.drain().await.is_empty() {
            break;
        }
        assert!(round < 20, "nobody replies");
    }
    assert_eq!(replies.seen[0].json()["status"], "succeeded");
    worker.wait_ready().await;
    worker.stop().await;
}
