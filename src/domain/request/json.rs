//! The JSON of a request, field by field: a field given twice is a fault, an unknown one is passed over.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::ids::{MessageId, ProjectId};
use super::super::rejection::RejectCode;
use super::Unusable;

/// What is wrong with a text or with a field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub code: RejectCode,
    pub message: String,
}

impl Fault {
    pub(super) fn invalid(message: &str) -> Self {
        Self { code: RejectCode::InvalidRequest, message: message.into() }
    }

    /// serde's own texts quote what they met, so only the place is taken over.
    pub(super) fn malformed(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let what = if text.starts_with(TWICE) {
            "a field is given twice"
        } else if text.starts_with("recursion limit") {
            "the body is nested more than 127 deep"
        } else if text.starts_with("number out of range") {
            "the body has a number that is too large"
        } else {
            "the body is not JSON in UTF-8"
        };
        let message = format!("{what} (line {}, column {})", error.line(), error.column());
        Self { code: RejectCode::MalformedJson, message }
    }

    pub(super) fn unusable(self, id: Option<&MessageId>) -> Box<Unusable> {
        Unusable::new(id.cloned(), self.code, self.message)
    }
}

const TWICE: &str = "a field is given twice";

/// A request's fields, each judged by itself so that the fault names the field.
pub(super) struct Fields {
    pub project: Result<Option<ProjectId>, Fault>,
    pub emails: EmailsField,
    pub metadata: Result<Option<Box<RawValue>>, Fault>,
}

/// The field `emails` as it was met.
pub(super) enum EmailsField {
    Missing,
    NotAList,
    NotAString(usize),
    List(Vec<String>),
}

/// Reads a request's JSON.
pub(super) fn fields(payload: &[u8]) -> Result<Fields, Fault> {
    let found: Result<Object<Raw>, _> = serde_json::from_slice(payload);
    let raw = match found {
        Ok(Object(raw)) => raw,
        Err(error) if error.is_data() && !error.to_string().starts_with(TWICE) => {
            // Well-formed, or we would have been told so; only not an object.
            return match serde_json::from_slice::<IgnoredAny>(payload) {
                Ok(_) => Err(Fault::invalid("the body must be a JSON object")),
                Err(error) => Err(Fault::malformed(&error)),
            };
        }
        Err(error) => return Err(Fault::malformed(&error)),
    };
    Ok(Fields {
        project: match raw.project {
            None | Some(Text::Null) => Ok(None),
            Some(Text::Other) => Err(Fault::invalid("projectId: must be a string")),
            Some(Text::String(text)) => match ProjectId::parse(&text) {
                Some(project) => Ok(Some(project)),
                None => Err(Fault::invalid("projectId: must not be empty")),
            },
        },
        emails: raw.emails.unwrap_or(EmailsField::Missing),
        metadata: metadata(raw.metadata)?,
    })
}

fn metadata(raw: Option<Box<RawValue>>) -> Result<Result<Option<Box<RawValue>>, Fault>, Fault> {
    let Some(raw) = raw else { return Ok(Ok(None)) };
    match raw.get().as_bytes().first() {
        Some(b'n') => Ok(Ok(None)),
        Some(b'{') => match serde_json::from_str::<Distinct>(raw.get()) {
            Ok(_) => Ok(Ok(Some(raw))),
            Err(error) => Err(Fault::malformed(&error)),
        },
        _ => Ok(Err(Fault::invalid("metadata: must be an object"))),
    }
}

#[derive(Default)]
struct Raw {
    project: Option<Text>,
    emails: Option<EmailsField>,
    metadata: Option<Box<RawValue>>,
}

/// What takes the fields of an object one by one, each name once.
pub(super) trait Take: Default {
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

impl Take for Raw {
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "projectId" => self.project = Some(map.next_value()?),
            "emails" => self.emails = Some(map.next_value()?),
            "metadata" => self.metadata = Some(map.next_value()?),
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// A JSON object whose names are distinct.
pub(super) struct Object<T>(pub T);

impl<'de, T: Take> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of<T>(std::marker::PhantomData<T>);
        impl<'de, T: Take> Visitor<'de> for Of<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut seen = HashSet::new();
                let mut out = T::default();
                while let Some(name) = map.next_key::<String>()? {
                    out.take(&name, &mut map)?;
                    if !seen.insert(name) {
                        return Err(serde::de::Error::custom(TWICE));
                    }
                }
                Ok(Object(out))
            }
        }
        deserializer.deserialize_map(Of(std::marker::PhantomData))
    }
}

/// Any JSON value, read to its end, that gives no name twice at any depth.
pub(super) struct Distinct;

#[derive(Default)]
struct Nothing;

impl Take for Nothing {
    fn take<'de, A: MapAccess<'de>>(&mut self, _: &str, map: &mut A) -> Result<(), A::Error> {
        map.next_value::<Distinct>().map(drop)
    }
}

/// A field that ought to be a string.
pub(super) enum Text {
    Null,
    String(String),
    Other,
}

/// Three readings of one value: each implements what it wants and takes the rest as it comes.
macro_rules! any_value {
    ($name:ident, $type:ty, $null:expr, $scalar:expr, |$text:ident| $string:expr, |$seq:ident| $list:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct $name;
                impl<'de> Visitor<'de> for $name {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a value")
                    }
                    fn visit_unit<E>(self) -> Result<Self::Value, E> {
                        Ok($null)
                    }
                    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                        Ok($scalar)
                    }
                    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                        Ok($scalar)
                    }
                    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                        Ok($scalar)
                    }
                    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                        Ok($scalar)
                    }
                    fn visit_str<E>(self, $text: &str) -> Result<Self::Value, E> {
                        Ok($string)
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut $seq: A) -> Result<Self::Value, A::Error> {
                        $list
                    }
                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                        Object::<Nothing>::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                        Ok($scalar)
                    }
                }
                deserializer.deserialize_any($name)
            }
        }
    };
}

any_value!(DistinctVisitor, Distinct, Distinct, Distinct, |_text| Distinct, |seq| {
    while seq.next_element::<Distinct>()?.is_some() {}
    Ok(Distinct)
});

any_value!(TextVisitor, Text, Text::Null, Text::Other, |text| Text::String(text.to_owned()), |seq| {
    while seq.next_element::<Distinct>()?.is_some() {}
    Ok(Text::Other)
});

any_value!(
    EmailsVisitor,
    EmailsField,
    EmailsField::NotAList,
    EmailsField::NotAList,
    |_text| EmailsField::NotAList,
    |seq| {
        let mut texts = Vec::new();
        let mut odd = None;
        while let Some(element) = seq.next_element::<Text>()? {
            match element {
                Text::String(text) => texts.push(text),
                Text::Null | Text::Other => odd = odd.or(Some(texts.len())),
            }
        }
        Ok(odd.map_or(EmailsField::List(texts), EmailsField::NotAString))
    }
);
