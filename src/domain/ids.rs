//! The names of things: requests, projects, outcomes, manifests, API keys. Parsed once, then trusted.
//!
//! Never here: a name that prints an address. A message id that contains `@` shows as its hash ([`MessageId::redacted`]).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The longest message id in bytes: what an AMQP short string holds.
pub const MESSAGE_ID_MAX: usize = 255;

/// The name that a sender gave its request; the same name is the same request.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// Takes 1 to [`MESSAGE_ID_MAX`] bytes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (1..=MESSAGE_ID_MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// The id as it was given. For messages only: logs take [`Self::redacted`].
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a log may show it: itself, or its hash where it could be an address.
    #[must_use]
    pub fn redacted(&self) -> Cow<'_, str> {
        redacted(&self.0)
    }

    /// What the journal keeps of the id.
    #[must_use]
    pub fn digest(&self) -> RequestDigest {
        RequestDigest(hash(&[b"migma-eraser/request/1", self.0.as_bytes()]))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

/// The longest text that a log shows as it is, in bytes. A project's name may be as long as a message.
const SHOWN_MAX: usize = 255;

/// `text` itself, or `sha256:` and a part of its hash where it contains an `@`, is too long, or could forge a line.
#[must_use]
pub fn redacted(text: &str) -> Cow<'_, str> {
    if text.contains('@') || text.len() > SHOWN_MAX || text.chars().any(char::is_control) {
        Cow::Owned(format!("sha256:{}", hex(&hash(&[text.as_bytes()])[..8])))
    } else {
        Cow::Borrowed(text)
    }
}

/// A request's id as the journal and the idempotency key know it: the SHA-256 of its message id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestDigest(pub [u8; 32]);

impl fmt::Debug for RequestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..8]))
    }
}

/// What a request asks for, without saying it: a SHA-256 over its set of emails and its unusable entries.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentDigest(pub [u8; 32]);

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..8]))
    }
}

/// A Migma project; its form is the vendor's affair, so any non-empty string is one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectId(Arc<str>);

impl ProjectId {
    /// Takes any non-empty string.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// The id as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0))
    }
}

/// An API key as the journal knows it: enough to tell two keys apart, too little to use one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of an API key.
    #[must_use]
    pub fn of(api_key: &str) -> Self {
        Self(first_16(&hash(&[b"migma-eraser/api-key/1", api_key.as_bytes()])))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..4]))
    }
}

/// A manifest's number in its journal; a later manifest has a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ManifestId(pub i64);

/// The `message_id` of an outcome: the same for every repeat, so that a consumer can drop repeats.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OutcomeId(String);

impl OutcomeId {
    /// The outcome of a sound request: a fixed function of the request's id.
    #[must_use]
    pub fn of_request(id: &MessageId) -> Self {
        Self::from_hash(&hash(&[b"migma-eraser/outcome/1", id.as_str().as_bytes()]))
    }

    /// The outcome of a message that was rejected: a function of its id, if it had one, and of its content, for
    /// under the same id a sound request may have been, or may yet be, answered with another meaning.
    #[must_use]
    pub fn of_rejected(id: Option<&MessageId>, payload: &[u8]) -> Self {
        let id = id.map_or(&[][..], |id| id.as_str().as_bytes());
        Self::from_hash(&hash(&[b"migma-eraser/rejected/1", id, payload]))
    }

    fn from_hash(hash: &[u8; 32]) -> Self {
        Self(format!("out-{}", hex(&hash[..16])))
    }

    /// As the message property carries it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// SHA-256 over parts, each preceded by its length, so that no two lists of parts meet in one hash.
#[must_use]
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char]).collect()
}

fn first_16(hash: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&hash[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_has_1_to_255_bytes() {
        assert!(MessageId::parse("").is_none());
        assert!(MessageId::parse(&"é".repeat(127)).is_some());
        assert!(MessageId::parse(&"é".repeat(128)).is_none());
    }

    #[test]
    fn a_message_id_that_could_be_an_address_is_logged_as_its_hash() {
        let id = MessageId::parse("ann@example.com").unwrap();
        assert!(!format!("{id:?}").contains("ann"));
        assert!(!format!("{:?}", ProjectId::parse("ann@example.com").unwrap()).contains("ann"));
        assert_eq!(format!("{:?}", MessageId::parse("DSR-1").unwrap()), "DSR-1");
    }

    #[test]
    fn what_a_sender_named_makes_no_line_of_a_log_long_or_two_lines_of_one() {
        for name in ["p".repeat(256), "p\nholding".to_owned(), "\u{1b}[2J".to_owned()] {
            let shown = redacted(&name);
            assert!(shown.starts_with("sha256:") && shown.len() < 30, "{shown}");
        }
    }

    #[test]
    fn the_outcome_of_a_request_and_of_a_rejection_never_share_an_id() {
        let id = MessageId::parse("m1").unwrap();
        let answered = OutcomeId::of_request(&id);
        assert_eq!(answered, OutcomeId::of_request(&id));
        assert_ne!(answered, OutcomeId::of_rejected(Some(&id), b"a"));
        assert_ne!(OutcomeId::of_rejected(Some(&id), b"a"), OutcomeId::of_rejected(Some(&id), b"b"));
        assert_ne!(OutcomeId::of_rejected(None, b"m1a"), OutcomeId::of_rejected(Some(&id), b"a"));
    }
}
