//! A request inside a `CloudEvent`, structured mode, JSON format
//! (CloudEvents 1.0.2, <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>).

use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use super::super::ids::MessageId;
use super::json::{self, Fault, Fields, Object, Take, Text};

/// What is taken of an event.
pub(super) struct Event {
    /// The name that `source` and `id` give it together.
    pub id: Option<MessageId>,
    /// The request.
    pub data: Result<Fields, Fault>,
}

#[derive(Default)]
struct Raw {
    specversion: Option<Text>,
    id: Option<Text>,
    source: Option<Text>,
    datacontenttype: Option<Text>,
    data: Option<Box<RawValue>>,
    data_base64: bool,
}

impl Take for Raw {
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "specversion" => self.specversion = Some(map.next_value()?),
            "id" => self.id = Some(map.next_value()?),
            "source" => self.source = Some(map.next_value()?),
            "datacontenttype" => self.datacontenttype = Some(map.next_value()?),
            "data" => self.data = Some(map.next_value()?),
            "data_base64" => {
                map.next_value::<IgnoredAny>()?;
                self.data_base64 = true;
            }
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// Reads an event.
pub(super) fn parse(payload: &[u8]) -> Result<Event, Fault> {
    let Object(raw): Object<Raw> = serde_json::from_slice(payload).map_err(|error| {
        if serde_json::from_slice::<IgnoredAny>(payload).is_ok() && error.is_data() && !payload_is_object(payload) {
            Fault::invalid("the body must be a JSON object")
        } else {
            Fault::malformed(&error)
        }
    })?;
    match &raw.specversion {
        Some(Text::String(version)) if version == "1.0" => {}
        _ => return Err(Fault::invalid("specversion: must be \"1.0\"")),
    }
    let id = name(raw.source.as_ref(), raw.id.as_ref())?;
    Ok(Event { id, data: data(&raw) })
}

fn payload_is_object(payload: &[u8]) -> bool {
    payload.trim_ascii_start().first() == Some(&b'{')
}

fn data(raw: &Raw) -> Result<Fields, Fault> {
    if raw.data_base64 {
        return Err(Fault::invalid("data_base64: is not taken; put the request into data as JSON"));
    }
    match &raw.datacontenttype {
        None | Some(Text::Null) => {}
        Some(Text::String(kind)) if kind.to_ascii_lowercase().starts_with("application/json") => {}
        Some(_) => return Err(Fault::invalid("datacontenttype: must be application/json or absent")),
    }
    match &raw.data {
        Some(data) if data.get().starts_with('{') => json::fields(data.get().as_bytes()),
        Some(_) => Err(Fault::invalid("data: must be an object")),
        None => Err(Fault::invalid("data: is missing; it holds the request")),
    }
}

/// `source` and `id` joined by a space: a source is a URI reference, which has none, so no two pairs meet.
fn name(source: Option<&Text>, id: Option<&Text>) -> Result<Option<MessageId>, Fault> {
    let (source, id) = match (source, id) {
        (Some(Text::String(source)), Some(Text::String(id))) => (source, id),
        (None | Some(Text::Null | Text::String(_)), None | Some(Text::Null | Text::String(_))) => return Ok(None),
        (Some(Text::Other), _) => return Err(Fault::invalid("source: must be a string")),
        (_, Some(Text::Other)) => return Err(Fault::invalid("id: must be a string")),
    };
    if source.is_empty() || id.is_empty() {
        return Ok(None);
    }
    if source.chars().any(char::is_whitespace) {
        return Err(Fault::invalid("source: must be a URI reference without white space"));
    }
    MessageId::parse(&format!("{source} {id}"))
        .map(Some)
        .ok_or_else(|| Fault::invalid("source and id: together must not exceed 254 bytes; set the property message_id"))
}
