//! A plain message, its properties in the head of the input.
#![no_main]

mod input;
mod request;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use migma_eraser::domain::envelope::Envelope;

fuzz_target!(|data: &[u8]| {
    let input = input::Input::of(data);
    let property = |name| input.get(name).map(str::to_owned);
    let envelope = Envelope {
        message_id: Some(property("message_id").unwrap_or_else(|| "m1".to_owned())),
        correlation_id: property("correlation_id"),
        content_type: property("content_type"),
        payload: Bytes::copy_from_slice(input.body),
        ..Envelope::default()
    };
    let fields = serde_json::from_slice(input.body).ok();
    let event = envelope.content_type.as_ref().is_some_and(|kind| kind.to_ascii_lowercase().contains("cloudevents"));
    let read = request::check(&envelope, if event { None } else { fields.as_ref() });
    if let (Some(read), false) = (read, event) {
        assert_eq!(Some(read.id.as_str()), envelope.message_id.as_deref());
        assert_eq!(read.correlation_id, envelope.correlation_id);
    }
});
