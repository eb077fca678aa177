//! A dead letter as it came: what its headers tell, and the message that asks for the rest of it.
//!
//! Never here: what becomes of it, which is for `domain::replay` and for who looks at it to say.

use std::collections::BTreeMap;

use bytes::Bytes;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Map, Value};

use super::Submission;
use super::message::{self, forwarded, short};
use crate::domain::envelope::Envelope;
use crate::domain::ids::{MessageId, hash, hex};
use crate::domain::moment::Timestamp;
use crate::domain::replay::DeadLetter;
use crate::ports::{Epoch, Original, Source};

/// A message out of the dead queue.
pub struct Letter {
    /// What it was put there with: `dead.<code>`, or `dead.returned` by the broker.
    pub key: String,
    /// The request as its sender wrote it.
    pub envelope: Envelope,
    /// When it was put there, where that is known.
    pub died_at: Option<Timestamp>,
    original: Original,
    receipt: Receipt,
}

/// What a letter is acked by.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    pub(super) channel: usize,
    pub(super) tag: u64,
}

/// Addresses stay out of logs.
impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Letter {{ {}, {} bytes }}", self.key, self.envelope.payload.len())
    }
}

impl Letter {
    pub(super) fn of(delivery: Delivery, channel: usize) -> Self {
        let receipt = Receipt { channel, tag: delivery.delivery_tag };
        let key = delivery.routing_key.to_string();
        let read = message::delivery(delivery, Source::Returned, Epoch(0));
        let mut letter = Self { key, envelope: read.envelope, died_at: None, original: read.original, receipt };
        letter.died_at = match letter.header("x-eraser-dead-at") {
            Some(text) => Timestamp::parse(&text),
            None if letter.code_header().is_none() => letter.last_death(),
            None => None,
        };
        letter
    }

    /// What it is acked by.
    #[must_use]
    pub const fn receipt(&self) -> Receipt {
        self.receipt
    }

    /// Its code, or `returned` where the broker put it there.
    #[must_use]
    pub fn code(&self) -> String {
        self.code_header().unwrap_or_else(|| self.key.strip_prefix("dead.").unwrap_or(&self.key).to_owned())
    }

    /// The reason, as its header tells it, or as the broker does.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.header("x-eraser-reason").or_else(|| {
            let reason = self.deaths()?.first().and_then(|death| field(death, "reason").and_then(string))?;
            Some(match reason.as_str() {
                "delivery_limit" => "it was delivered again and again, and never answered (delivery_limit)".to_owned(),
                "expired" => "it expired before it was answered".to_owned(),
                other => format!("the broker took it off its queue ({other})"),
            })
        })
    }

    /// The header `x-eraser-undone`.
    #[must_use]
    pub fn undone(&self) -> Option<String> {
        self.header("x-eraser-undone")
    }

    /// Hands it, as the domain sees it, to `see`.
    pub fn seen<T>(&self, see: impl FnOnce(DeadLetter<'_>) -> T) -> T {
        let (code, undone) = (self.code_header(), self.undone());
        see(DeadLetter { envelope: &self.envelope, code: code.as_deref(), undone: undone.as_deref() })
    }

    /// What names this letter where its request has no name: the same for letters that are equal in all that matters.
    #[must_use]
    pub fn mark(&self) -> String {
        let at = self.died_at.map(|at| at.to_string()).unwrap_or_default();
        let (id, undone) = (self.envelope.message_id.as_deref().unwrap_or_default(), self.undone().unwrap_or_default());
        let parts = [self.key.as_bytes(), id.as_bytes(), at.as_bytes(), undone.as_bytes(), &self.envelope.payload];
        format!("letter:{}", &hex(&hash(&parts))[..16])
    }

    /// All headers, as JSON.
    #[must_use]
    pub fn headers(&self) -> Map<String, Value> {
        self.original.properties.headers().as_ref().map(table).unwrap_or_default()
    }

    /// Properties that are set, other than headers.
    #[must_use]
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let of = &self.original.properties;
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        [
            ("message_id", text(of.message_id())),
            ("correlation_id", text(of.correlation_id())),
            ("content_type", text(of.content_type())),
            ("reply_to", text(of.reply_to())),
            ("type", text(of.kind())),
            ("app_id", text(of.app_id())),
            ("timestamp", of.timestamp().map(|seconds| moment(seconds).to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// The message that asks for the rest of it: all that its sender gave, but for what belongs to its past.
    #[must_use]
    pub fn submission(&self, id: &MessageId, correlation_id: Option<&str>, payload: Bytes) -> Submission {
        let mut properties = forwarded(&self.original, &[], true).with_message_id(short(id.as_str()));
        if let Some(correlation_id) = correlation_id {
            properties = properties.with_correlation_id(short(correlation_id));
        }
        let mut headers: BTreeMap<ShortString, AMQPValue> =
            properties.headers().as_ref().map(|headers| headers.inner().clone()).unwrap_or_default();
        // The broker's counts belong to the queue that it leaves.
        headers.retain(|name, _| !matches!(name.as_str(), "x-delivery-count" | "x-acquired-count"));
        Submission { original: Original { properties: properties.with_headers(headers.into()).into() }, payload }
    }

    fn code_header(&self) -> Option<String> {
        self.header("x-eraser-code")
    }

    fn header(&self, name: &str) -> Option<String> {
        string(field(self.original.properties.headers().as_ref()?, name)?)
    }

    /// The broker's account of where it died, the last time first.
    fn deaths(&self) -> Option<Vec<&FieldTable>> {
        let AMQPValue::FieldArray(deaths) = field(self.original.properties.headers().as_ref()?, "x-death")? else {
            return None;
        };
        let tables = deaths.as_slice().iter().filter_map(|death| match death {
            AMQPValue::FieldTable(table) => Some(table),
            _ => None,
        });
        Some(tables.collect())
    }

    fn last_death(&self) -> Option<Timestamp> {
        match field(self.deaths()?.first()?, "time")? {
            AMQPValue::Timestamp(seconds) => Some(moment(*seconds)),
            _ => None,
        }
    }
}

fn moment(seconds: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
}

fn field<'a>(table: &'a FieldTable, name: &str) -> Option<&'a AMQPValue> {
    table.inner().get(name)
}

fn string(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn table(from: &FieldTable) -> Map<String, Value> {
    from.inner().iter().map(|(name, value)| (name.to_string(), json(value))).collect()
}

fn json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(is) => Value::from(*is),
        AMQPValue::ShortShortInt(n) => Value::from(*n),
        AMQPValue::ShortShortUInt(n) => Value::from(*n),
        AMQPValue::ShortInt(n) => Value::from(*n),
        AMQPValue::ShortUInt(n) => Value::from(*n),
        AMQPValue::LongInt(n) => Value::from(*n),
        AMQPValue::LongUInt(n) => Value::from(*n),
        AMQPValue::LongLongInt(n) => Value::from(*n),
        AMQPValue::Float(n) => Value::from(*n),
        AMQPValue::Double(n) => Value::from(*n),
        AMQPValue::DecimalValue(_) | AMQPValue::Void => Value::Null,
        AMQPValue::ShortString(text) => Value::from(text.as_str()),
        AMQPValue::LongString(text) => Value::from(String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::ByteArray(bytes) => Value::from(format!("{} bytes", bytes.as_slice().len())),
        AMQPValue::Timestamp(seconds) => Value::from(moment(*seconds).to_string()),
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(inner) => Value::Object(table(inner)),
    }
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;

    fn letter(key: &str, headers: Vec<(&str, AMQPValue)>) -> Letter {
        let headers: BTreeMap<ShortString, AMQPValue> =
            headers.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let properties = BasicProperties::default().with_message_id("m".into()).with_headers(headers.into());
        let delivery =
            Delivery { properties, data: b"{}".to_vec(), ..Delivery::mock(1, "".into(), key.into(), true, vec![]) };
        Letter::of(delivery, 0)
    }

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn what_the_broker_put_there_is_told_by_its_own_account() {
        let mut death = FieldTable::default();
        death.insert("reason".into(), text("delivery_limit"));
        death.insert("time".into(), AMQPValue::Timestamp(1_795_435_200));
        let deaths = AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into());
        let letter = letter("dead.returned", vec![("x-death", deaths)]);
        assert_eq!((letter.code().as_str(), letter.undone()), ("returned", None));
        assert!(letter.reason().unwrap().contains("delivery_limit"));
        assert_eq!(letter.died_at.unwrap().to_string(), "2026-11-23T12:00:00.000Z");
        assert!(letter.seen(|seen| seen.code.is_none()));
    }

    #[test]
    fn what_is_sent_again_keeps_what_its_sender_gave_and_nothing_of_its_past() {
        let headers = vec![
            ("traceparent", text("00-1")),
            ("x-eraser-code", text("GAVE_UP")),
            ("x-eraser-dead-at", text("2026-11-23T12:00:00.000Z")),
            ("x-delivery-count", AMQPValue::LongLongInt(3)),
        ];
        let letter = letter("dead.GAVE_UP", headers);
        assert_eq!(letter.died_at, Timestamp::parse("2026-11-23T12:00:00Z"));
        let id = MessageId::parse("replay-1").unwrap();
        let made = letter.submission(&id, Some("c"), Bytes::new()).original.properties;
        assert_eq!(made.message_id().as_ref().map(ShortString::as_str), Some("replay-1"));
        assert_eq!(made.correlation_id().as_ref().map(ShortString::as_str), Some("c"));
        let kept: Vec<_> =
            made.headers().iter().flat_map(|headers| headers.inner().keys()).map(ShortString::as_str).collect();
        assert_eq!(kept, ["traceparent"]);
    }
}
