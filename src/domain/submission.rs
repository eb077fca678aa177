//! A list of addresses on its way to become requests: cut into portions, each with a name of its own.
//!
//! A portion's message id is made of what stands in it, of its place in the list, and of the terms (project, metadata,
//! label). So the same list gives the same ids, whoever reads it and however often: what was submitted before is answered
//! again, and nothing is deleted twice. By portion and not by the whole list, for three reasons: a list that comes
//! through a pipe is never stored, addresses and all, to be read twice; what was cut short goes on where it stood; and
//! where one line is mended, one request is new, for lines that are no addresses keep their places.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::email::Email;
use super::envelope::Envelope;
use super::ids::{MessageId, ProjectId, hash, hex};
use super::rejection::Rejection;
use super::request::DeletionRequest;

/// What all requests of a submission have in common.
#[derive(Clone, Debug)]
pub struct Terms {
    project: ProjectId,
    metadata: Option<Box<RawValue>>,
    label: String,
}

/// A request that is ready to be published.
#[derive(Clone)]
pub struct Portion {
    /// Its name.
    pub id: MessageId,
    /// Its body.
    pub payload: Bytes,
    /// How many addresses it holds.
    pub emails: u64,
}

/// Addresses stay out of logs.
impl std::fmt::Debug for Portion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Portion {{ {:?}, emails: {} }}", self.id, self.emails)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    project_id: &'a str,
    emails: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

impl Terms {
    /// The terms, once the worker would take them: `metadata` is a JSON object of at most 4 KiB. A submission under
    /// another label is another one, whatever else is equal.
    ///
    /// # Errors
    /// What the worker would say of a request on these terms.
    pub fn new(project: ProjectId, metadata: Option<&str>, label: &str) -> Result<Self, Rejection> {
        let probe = format!(
            r#"{{"projectId":{},"emails":["a@b"],"metadata":{}}}"#,
            serde_json::Value::from(project.as_str()),
            metadata.unwrap_or("null")
        );
        let envelope = Envelope { message_id: Some("probe".into()), payload: probe.into(), ..Envelope::default() };
        let request = DeletionRequest::parse(&envelope, None).map_err(|unusable| unusable.rejection)?;
        Ok(Self { project, metadata: request.metadata, label: label.to_owned() })
    }

    fn portion(&self, place: u64, emails: &[Email]) -> Option<Portion> {
        let texts: Vec<&str> = emails.iter().map(Email::as_str).collect();
        let metadata = self.metadata.as_deref();
        let number = place.to_string();
        let mut parts = vec![
            &b"migma-eraser/submit/1"[..],
            self.label.as_bytes(),
            self.project.as_str().as_bytes(),
            metadata.map_or("", RawValue::get).as_bytes(),
            number.as_bytes(),
        ];
        parts.extend(texts.iter().map(|text| text.as_bytes()));
        let id = MessageId::parse(&format!("submit-{}-{number}", hex(&hash(&parts)[..16])))?;
        let body = Body { project_id: self.project.as_str(), emails: texts, metadata };
        // Strings, and JSON that was parsed before: there is nothing that JSON could not say.
        Some(Portion { id, payload: serde_json::to_vec(&body).ok()?.into(), emails: emails.len() as u64 })
    }
}

/// Cuts a list into portions of so many entries.
#[derive(Debug)]
pub struct Slicer {
    terms: Terms,
    size: usize,
    place: u64,
    entries: usize,
    emails: Vec<Email>,
}

impl Slicer {
    /// Portions of `size` entries, at least one.
    #[must_use]
    pub fn new(terms: Terms, size: usize) -> Self {
        Self { terms, size: size.max(1), place: 0, entries: 0, emails: Vec::new() }
    }

    /// Takes the next entry, `None` for one that is no address and only keeps its place. Gives a portion when it is
    /// full, unless no address stands in it.
    pub fn add(&mut self, entry: Option<Email>) -> Option<Portion> {
        self.entries += 1;
        self.emails.extend(entry);
        if self.entries < self.size { None } else { self.cut() }
    }

    /// What is left at the end.
    pub fn finish(&mut self) -> Option<Portion> {
        self.cut()
    }

    fn cut(&mut self) -> Option<Portion> {
        let emails = std::mem::take(&mut self.emails);
        let place = self.place;
        self.place += 1;
        self.entries = 0;
        if emails.is_empty() { None } else { self.terms.portion(place, &emails) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(project: &str, metadata: Option<&str>, label: &str) -> Terms {
        Terms::new(ProjectId::parse(project).unwrap(), metadata, label).unwrap()
    }

    fn ids(terms: Terms, size: usize, entries: &[&str]) -> Vec<String> {
        let mut slicer = Slicer::new(terms, size);
        let mut portions: Vec<_> = entries.iter().filter_map(|text| slicer.add(Email::parse(text).ok())).collect();
        portions.extend(slicer.finish());
        portions.iter().map(|portion| portion.id.as_str().to_owned()).collect()
    }

    #[test]
    fn the_same_list_on_the_same_terms_has_the_same_ids_and_no_two_portions_share_one() {
        let list = ["a@x", "b@x", "a@x", "b@x", "c@x"];
        let first = ids(terms("p", None, ""), 2, &list);
        assert_eq!(first, ids(terms("p", None, ""), 2, &list));
        assert_eq!(first.len(), 3);
        assert_ne!(first[0], first[1], "the same addresses at another place");
    }

    #[test]
    fn whatever_differs_in_the_terms_makes_another_submission() {
        let list = ["a@x", "b@x"];
        let all = [
            ids(terms("p", None, ""), 2, &list),
            ids(terms("q", None, ""), 2, &list),
            ids(terms("p", Some(r#"{"t":1}"#), ""), 2, &list),
            ids(terms("p", None, "again"), 2, &list),
            ids(terms("p", None, ""), 2, &["b@x", "a@x"]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one), "{at}");
        }
    }

    #[test]
    fn a_line_that_is_mended_or_appended_changes_the_request_that_it_stands_in_alone() {
        let list = ["a@x", "b at x", "c@x", "d@x", "e@x"];
        let before = ids(terms("p", None, ""), 2, &list);
        let mended = ids(terms("p", None, ""), 2, &["a@x", "b@x", "c@x", "d@x", "e@x"]);
        assert_ne!(before[0], mended[0]);
        assert_eq!(before[1..], mended[1..]);
        let longer = ids(terms("p", None, ""), 2, &["a@x", "b at x", "c@x", "d@x", "e@x", "f@x", "g@x"]);
        assert_eq!(before[..2], longer[..2]);
        assert_eq!(longer.len(), 4);
    }

    #[test]
    fn a_portion_is_a_request_that_the_worker_takes() {
        let mut slicer = Slicer::new(terms("p", Some(r#"{"ticket":"D-1"}"#), ""), 10);
        assert!(slicer.add(Email::parse("Ann@x").ok()).is_none() && slicer.add(None).is_none());
        let portion = slicer.finish().unwrap();
        assert_eq!((portion.emails, slicer.finish().is_none()), (1, true));
        let envelope = Envelope {
            message_id: Some(portion.id.as_str().to_owned()),
            payload: portion.payload.clone(),
            ..Envelope::default()
        };
        let request = DeletionRequest::parse(&envelope, None).unwrap();
        assert_eq!((request.emails[0].as_str(), request.project.unwrap().as_str()), ("Ann@x", "p"));
        assert_eq!(request.metadata.unwrap().get(), r#"{"ticket":"D-1"}"#);
        assert!(!format!("{portion:?}").contains("Ann"));
    }

    #[test]
    fn metadata_that_the_worker_would_refuse_is_refused_at_once() {
        let project = ProjectId::parse("p").unwrap();
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(5000));
        for wrong in ["[]", "{", r#"{"a":1,"a":2}"#, r#"{},"emails":[]"#, &long] {
            assert!(Terms::new(project.clone(), Some(wrong), "").is_err(), "{wrong}");
        }
    }
}
