//! Properties and headers as they come off the wire, and what is published in their place. The input: a byte that says
//! where the message goes, two for the length of a header of ours, then the properties as AMQP writes them.
#![no_main]

mod wire;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use libfuzzer_sys::fuzz_target;
use migma_eraser::amqp;
use migma_eraser::domain::moment::Timestamp;
use migma_eraser::domain::traceparent::TraceParent;
use migma_eraser::ports::{Epoch, Exchange, Head, Publication, Source};

/// RabbitMQ's `frame_max`, unless someone changed it.
const FRAME_MAX: usize = 131_072;
/// Below this, there is room for all headers.
const ROOM: usize = 60_000;
/// The routing key of the returned queue.
const RETURNED: &str = "returned";

fuzz_target!(|data: &[u8]| {
    let Some((&[mode, a, b], properties)) = data.split_first_chunk() else { return };
    let Some(sent) = wire::read(properties) else { return };
    let mut from = Delivery::mock(1, ShortString::default(), ShortString::default(), mode & 1 == 1, b"a@x".to_vec());
    from.properties = sent.clone();
    let delivery = amqp::delivery(from, Source::Requests, Epoch(1));
    assert!(!format!("{delivery:?}").contains('@'));
    let is = |ours: &Option<String>, theirs: &Option<ShortString>| {
        assert_eq!(ours.as_deref(), theirs.as_ref().map(ShortString::as_str));
    };
    let envelope = &delivery.envelope;
    is(&envelope.message_id, sent.message_id());
    is(&envelope.correlation_id, sent.correlation_id());
    is(&envelope.content_type, sent.content_type());
    is(&delivery.reply_to, sent.reply_to());
    let traceparent = envelope.traceparent;
    assert!(traceparent.is_none_or(|place| TraceParent::parse(&place.to_string()) == Some(place)));

    let ours = vec![
        ("x-eraser-code", "GAVE_UP".to_owned()),
        ("x-eraser-undone", "1".repeat(usize::from(u16::from_be_bytes([a, b])))),
    ];
    let (exchange, routing_key) = match mode >> 1 & 3 {
        0 => (Exchange::Parking, "parked"),
        1 => (Exchange::Dead, RETURNED),
        _ => (Exchange::Dead, "dead.GAVE_UP"),
    };
    let comes_back = exchange == Exchange::Parking || routing_key == RETURNED;
    let publication = |head| Publication {
        exchange,
        routing_key: routing_key.to_owned(),
        head,
        payload: envelope.payload.clone(),
        mandatory: true,
    };
    let head = Head::Forwarded { original: delivery.original.clone(), headers: ours.clone() };
    let made = amqp::properties(&publication(head));
    carries_on(&sent, &made, &ours, comes_back, properties.len());

    let own = amqp::properties(&publication(Head::Own {
        message_id: envelope.message_id.clone().unwrap_or_default(),
        correlation_id: envelope.correlation_id.clone(),
        kind: "contacts.deletion.outcome.v1",
        at: envelope.aside_since.unwrap_or(Timestamp::from_millis(i64::MIN)),
        traceparent,
    }));
    assert!(wire::write(&own).len() < 2000, "an outcome's properties are small");
    assert_eq!(own.message_id().as_ref().unwrap().as_str(), envelope.message_id.as_deref().unwrap_or_default());
    let passed = own.headers().as_ref().and_then(|headers| headers.inner().get("traceparent"));
    assert_eq!(passed, traceparent.map(|place| AMQPValue::LongString(place.to_string().into())).as_ref());
});

/// What is forwarded fits a frame and carries all that it may.
fn carries_on(sent: &BasicProperties, made: &BasicProperties, ours: &[(&str, String)], comes_back: bool, size: usize) {
    let written = wire::write(made);
    assert!(written.len() < FRAME_MAX - 1000, "{} bytes fit no frame", written.len());
    let read = wire::read(&written).expect("it can be read again");
    assert_eq!(wire::write(&read), written);

    assert!(made.user_id().is_none() && made.expiration().is_none());
    assert_eq!(*made.delivery_mode(), Some(2));
    macro_rules! kept { ($($get:ident),*) => { $(assert_eq!(made.$get(), sent.$get());)* }; }
    kept!(content_type, content_encoding, priority, correlation_id, reply_to, message_id, timestamp, kind, app_id);

    let none = FieldTable::default();
    let theirs = sent.headers().as_ref().unwrap_or(&none).inner();
    let headers = made.headers().as_ref().unwrap_or(&none).inner();
    let stays = |name: &str| {
        let of_the_broker = ["x-death", "x-first-death-", "x-last-death-"].iter().any(|start| name.starts_with(start));
        name != "CC" && name != "BCC" && !name.starts_with("x-eraser-") && !(comes_back && of_the_broker)
    };
    for (name, value) in headers {
        match ours.iter().find(|(own, _)| *own == name.as_str()) {
            Some((_, text)) => assert!(*value == AMQPValue::LongString(text.as_str().into())),
            // Compared as it is written, for not every number is equal to itself.
            None => assert!(stays(name.as_str()) && theirs.get(name).is_some_and(|sent| same(sent, value))),
        }
    }
    if size + ours.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>() < ROOM {
        let expected = theirs.keys().filter(|name| stays(name.as_str())).count() + ours.len();
        assert_eq!(headers.len(), expected, "there was room");
    }
}

fn same(a: &AMQPValue, b: &AMQPValue) -> bool {
    let written = |value: &AMQPValue| {
        let mut headers = FieldTable::default();
        headers.insert("x".into(), value.clone());
        wire::write(&BasicProperties::default().with_headers(headers))
    };
    written(a) == written(b)
}
