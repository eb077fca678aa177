//! A request's body with some of its emails alone: all else stays as it was written, to the byte.
//!
//! Never a number, a name or an order changed: `metadata` is echoed as its sender gave it.

use std::fmt;
use std::ops::Range;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Form;

/// An object's fields in their order, each value as it was written.
struct AsWritten(Vec<(String, Box<RawValue>)>);

impl AsWritten {
    fn field(&mut self, name: &str) -> Option<&mut Box<RawValue>> {
        self.0.iter_mut().find(|(found, _)| found == name).map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for AsWritten {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = AsWritten;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AsWritten, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(AsWritten(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Serialize for AsWritten {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The body with those entries of `emails` alone that stand at these indices. `None` where the body cannot be read, or
/// has no such entries.
pub(super) fn pick(form: &Form, payload: &[u8], indices: &[Range<usize>]) -> Option<Vec<u8>> {
    let mut body: AsWritten = serde_json::from_slice(payload).ok()?;
    match form {
        Form::Plain => pick_from(&mut body, indices)?,
        Form::CloudEvent => {
            let data = body.field("data")?;
            let mut request: AsWritten = serde_json::from_str(data.get()).ok()?;
            pick_from(&mut request, indices)?;
            *data = serde_json::value::to_raw_value(&request).ok()?;
        }
    }
    serde_json::to_vec(&body).ok()
}

fn pick_from(request: &mut AsWritten, indices: &[Range<usize>]) -> Option<()> {
    let emails = request.field("emails")?;
    let all: Vec<&RawValue> = serde_json::from_str(emails.get()).ok()?;
    let mut picked = Vec::new();
    for range in indices {
        picked.extend_from_slice(all.get(range.clone())?);
    }
    *emails = serde_json::value::to_raw_value(&picked).ok()?;
    Some(())
}
