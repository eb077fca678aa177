//! A `CloudEvent` in structured mode: the body of the input, with `message_id` in its head or not.
#![no_main]

mod input;
mod request;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use migma_eraser::domain::envelope::Envelope;
use migma_eraser::domain::request::DeletionRequest;
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    let input = input::Input::of(data);
    let envelope = Envelope {
        message_id: input.get("message_id").map(str::to_owned),
        content_type: Some("application/cloudevents+json; charset=utf-8".to_owned()),
        payload: Bytes::copy_from_slice(input.body),
        ..Envelope::default()
    };
    let event: Option<Map<String, Value>> = serde_json::from_slice(input.body).ok();
    let fields = event.as_ref().and_then(|event| event.get("data")).and_then(Value::as_object);
    let Some(read) = request::check(&envelope, fields) else { return };
    let Some(event) = event else { return };

    // Named by the property, or else by both fields together, so that both can be told from the name again.
    match &envelope.message_id {
        Some(id) if (1..=255).contains(&id.len()) => assert_eq!(read.id.as_str(), id),
        _ => {
            let (source, id) = read.id.as_str().split_once(' ').unwrap();
            assert!(event["source"] == source && event["id"] == id && !source.is_empty() && !id.is_empty());
        }
    }

    // What it carries is the same request by itself. Metadata aside: written anew it may be longer.
    let mut data = event["data"].clone();
    data.as_object_mut().unwrap().remove("metadata");
    let plain = Envelope {
        message_id: Some(read.id.as_str().to_owned()),
        payload: data.to_string().into(),
        ..Envelope::default()
    };
    let Ok(plain) = DeletionRequest::parse(&plain, None) else { panic!("not the same without its event") };
    assert!(plain.digest == read.digest && plain.content == read.content && plain.project == read.project);
});
