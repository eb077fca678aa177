//! Between lapin's messages and ours.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::topology::RETURNED;
use crate::domain::envelope::Envelope;
use crate::domain::moment::Timestamp;
use crate::domain::traceparent::TraceParent;
use crate::ports::{Delivery, Epoch, Exchange, Head, Original, Publication, Source};

/// As `app_id` of everything that we publish of our own.
pub(super) const APP_ID: &str = "migma-eraser";
/// Delivery mode 2: to be kept over a restart of the broker.
pub(super) const PERSISTENT: u8 = 2;
/// The most bytes of headers in a dead letter. A content header must fit one frame (128 KiB by default), and RabbitMQ
/// closes the connection on one that does not (501).
const HEADERS_MAX: usize = 64 * 1024;

/// A delivery as the pipeline takes it.
pub fn delivery(from: lapin::message::Delivery, source: Source, epoch: Epoch) -> Delivery {
    let properties = from.properties;
    let text = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
    let header = |name: &str| match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    };
    Delivery {
        epoch,
        tag: from.delivery_tag,
        source,
        redelivered: from.redelivered,
        envelope: Envelope {
            message_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            content_type: text(properties.content_type()),
            traceparent: header("traceparent").as_deref().and_then(TraceParent::parse),
            aside_since: header("x-eraser-aside-since").and_then(|text| text.parse().ok()).map(Timestamp::from_millis),
            payload: from.data.into(),
        },
        reply_to: text(properties.reply_to()),
        original: Original { properties: properties.into() },
    }
}

/// The properties to publish with: they fit a frame, whatever the sender's were.
#[must_use]
pub fn properties(publication: &Publication) -> BasicProperties {
    match &publication.head {
        Head::Own { message_id, correlation_id, kind, at, traceparent } => {
            let mut properties = BasicProperties::default()
                .with_message_id(short(message_id))
                .with_type(short(kind))
                .with_content_type(short("application/json"))
                .with_app_id(short(APP_ID))
                .with_timestamp(at.as_seconds())
                .with_delivery_mode(PERSISTENT);
            if let Some(correlation_id) = correlation_id {
                properties = properties.with_correlation_id(short(correlation_id));
            }
            if let Some(traceparent) = traceparent {
                let mut headers = FieldTable::default();
                headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.to_string().into()));
                properties = properties.with_headers(headers);
            }
            properties
        }
        Head::Forwarded { original, headers } => {
            let comes_back = publication.exchange == Exchange::Parking || publication.routing_key == RETURNED;
            forwarded(original, headers, comes_back)
        }
    }
}

/// The sender's properties but for three: `user_id`, for the broker refuses another's; `expiration`, for the message
/// must not vanish, nor come back from its wait at once; the headers `CC` and `BCC`, for they would send it elsewhere.
///
/// Where it is to come back, it goes without the broker's own account of where it has been (`x-death` and its like): a
/// message that expires for the second time on its way to a queue where it died before is dropped as a cycle.
pub(super) fn forwarded(original: &Original, ours: &[(&'static str, String)], comes_back: bool) -> BasicProperties {
    let sent = &original.properties;
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    macro_rules! keep {
        ($($get:ident $with:ident),*) => {
            $(if let Some(value) = sent.$get() { properties = properties.$with(value.clone()); })*
        };
    }
    keep!(
        content_type with_content_type, content_encoding with_content_encoding, priority with_priority,
        correlation_id with_correlation_id, reply_to with_reply_to, message_id with_message_id,
        timestamp with_timestamp, kind with_type, app_id with_app_id, cluster_id with_cluster_id
    );
    let mut room = HEADERS_MAX;
    let mut kept = FieldTable::default();
    for (name, value) in ours {
        let size = name.len() + value.len() + 8;
        if size <= room {
            room -= size;
            kept.insert((*name).into(), AMQPValue::LongString(value.as_str().into()));
        }
    }
    if let Some(headers) = sent.headers() {
        let mut theirs: Vec<_> = headers
            .inner()
            .iter()
            .filter(|(name, _)| {
                let name = name.as_str();
                let of_the_broker = ["x-death", "x-first-death-", "x-last-death-"].iter().any(|p| name.starts_with(p));
                !(matches!(name, "CC" | "BCC") || name.starts_with("x-eraser-") || (comes_back && of_the_broker))
            })
            .map(|(name, value)| (size(value) + name.as_str().len(), name, value))
            .collect();
        // Small ones first: what no longer fits is what is largest.
        theirs.sort_by_key(|(size, ..)| *size);
        for (size, name, value) in theirs {
            if size + 8 <= room {
                room -= size + 8;
                kept.insert(name.clone(), value.clone());
            }
        }
    }
    properties.with_headers(kept)
}

/// An upper bound of a header's size on the wire, in bytes.
fn size(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::ShortString(text) => text.as_str().len() + 2,
        AMQPValue::LongString(text) => text.as_bytes().len() + 5,
        AMQPValue::ByteArray(bytes) => bytes.as_slice().len() + 5,
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(size).sum::<usize>() + 5,
        AMQPValue::FieldTable(table) => {
            table.inner().iter().map(|(name, value)| name.as_str().len() + 1 + size(value)).sum::<usize>() + 5
        }
        _ => 13,
    }
}

/// At most 255 bytes, cut at a character.
pub(super) fn short(text: &str) -> ShortString {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortString::try_new(&text[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(headers: FieldTable, ours: &[(&'static str, String)]) -> FieldTable {
        let properties =
            BasicProperties::default().with_headers(headers).with_user_id("bob".into()).with_expiration("1".into());
        let made = forwarded(&Original { properties: properties.into() }, ours, false);
        assert!(made.user_id().is_none() && made.expiration().is_none());
        made.headers().clone().unwrap()
    }

    #[test]
    fn a_dead_letter_keeps_its_sender_s_headers_beside_ours() {
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), AMQPValue::LongString("00-1".into()));
        headers.insert("CC".into(), AMQPValue::LongString("x".into()));
        let made = letter(headers, &[("x-eraser-code", "TOO_LARGE".into())]);
        assert!(made.inner().contains_key("traceparent") && made.inner().contains_key("x-eraser-code"));
        assert!(!made.inner().contains_key("CC"));
    }

    #[test]
    fn headers_that_no_longer_fit_a_frame_are_left_out_the_largest_first() {
        let mut headers = FieldTable::default();
        headers.insert("small".into(), AMQPValue::LongInt(1));
        headers.insert("large".into(), AMQPValue::LongString("x".repeat(100_000).into()));
        let made = letter(headers, &[("x-eraser-code", "GAVE_UP".into()), ("x-eraser-undone", "1,".repeat(50_000))]);
        assert!(made.inner().contains_key("small") && made.inner().contains_key("x-eraser-code"));
        assert!(!made.inner().contains_key("large") && !made.inner().contains_key("x-eraser-undone"));
    }

    #[test]
    fn what_comes_back_goes_without_the_broker_s_account_of_its_deaths() {
        let mut headers = FieldTable::default();
        for name in ["x-death", "x-first-death-queue", "x-last-death-reason", "x-eraser-aside-since", "mine"] {
            headers.insert(name.into(), AMQPValue::LongString("1".into()));
        }
        let original = Original { properties: BasicProperties::default().with_headers(headers).into() };
        let ours = [("x-eraser-aside-since", "2".to_owned())];
        let made = forwarded(&original, &ours, true).headers().clone().unwrap();
        assert_eq!(made.inner().keys().map(ShortString::as_str).collect::<Vec<_>>(), ["mine", "x-eraser-aside-since"]);
        assert_eq!(made.inner()["x-eraser-aside-since"], AMQPValue::LongString("2".into()));
        assert!(forwarded(&original, &[], false).headers().as_ref().unwrap().inner().contains_key("x-death"));
    }
}
