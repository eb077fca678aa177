//! An email address: parsed, never judged further. Whether such a contact exists is for the API to say.

use std::borrow::Cow;
use std::fmt;

/// The longest address in bytes that is taken (64 + `@` + 255, RFC 5321 section 4.5.3.1).
pub const EMAIL_MAX_BYTES: usize = 320;

/// An address as its sender spelled it, trimmed.
#[derive(Clone, PartialEq, Eq)]
pub struct Email(Box<str>);

/// Why a text is no address. Its `Display` never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum EmailFault {
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
    /// More than [`EMAIL_MAX_BYTES`].
    #[error("is longer than 320 bytes")]
    TooLong,
    /// White space or a control character within.
    #[error("contains white space or a control character")]
    Blank,
    /// No `@`, or more than one.
    #[error("does not have exactly one @")]
    At,
    /// Nothing before or nothing behind the `@`.
    #[error("has nothing on one side of its @")]
    Half,
}

impl Email {
    /// Trims `text` and takes it where it looks like an address: one `@` between two non-empty parts, no white space
    /// or control character, at most [`EMAIL_MAX_BYTES`] bytes.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, EmailFault> {
        let text = text.trim();
        if text.is_empty() {
            return Err(EmailFault::Empty);
        }
        if text.len() > EMAIL_MAX_BYTES {
            return Err(EmailFault::TooLong);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(EmailFault::Blank);
        }
        let mut parts = text.split('@');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(local), Some(host), None) if !local.is_empty() && !host.is_empty() => Ok(Self(text.into())),
            (Some(_), Some(_), None) => Err(EmailFault::Half),
            _ => Err(EmailFault::At),
        }
    }

    /// The spelling, for the API and for outcomes; never for a log.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form by which two spellings are one email.
    #[must_use]
    pub fn folded(&self) -> Cow<'_, str> {
        fold(&self.0)
    }
}

/// The form in which spellings that differ in letter case alone are equal: each letter in lower case, by itself.
///
/// Letter by letter, for Rust's and JavaScript's lower case of a word's last `Σ` depends on its neighbours; both of
/// its small forms count as one, as in Unicode's case folding. `ß` and `ss` stay two: those are different letters.
#[must_use]
pub fn fold(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return Cow::Borrowed(text);
    }
    if text.is_ascii() {
        return Cow::Owned(text.to_ascii_lowercase());
    }
    Cow::Owned(text.chars().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c }).collect())
}

/// An address must not reach a log by way of `{:?}`.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_email_is_trimmed_and_has_one_at_between_two_parts() {
        assert_eq!(Email::parse("  ann@example.com\n").unwrap().as_str(), "ann@example.com");
        for (text, fault) in [
            ("", EmailFault::Empty),
            (" \t", EmailFault::Empty),
            ("ann", EmailFault::At),
            ("a@b@c", EmailFault::At),
            ("@example.com", EmailFault::Half),
            ("ann@", EmailFault::Half),
            ("an n@example.com", EmailFault::Blank),
            ("ann@exam\u{0}ple.com", EmailFault::Blank),
            ("ann@example.com\r\nbcc:x", EmailFault::Blank),
        ] {
            assert_eq!(Email::parse(text).unwrap_err(), fault, "{text:?}");
        }
    }

    #[test]
    fn an_email_has_at_most_320_bytes() {
        let longest = format!("{}@x", "a".repeat(EMAIL_MAX_BYTES - 2));
        assert!(Email::parse(&longest).is_ok());
        assert_eq!(Email::parse(&format!("a{longest}")).unwrap_err(), EmailFault::TooLong);
    }

    #[test]
    fn spellings_that_differ_in_letter_case_alone_are_one_email() {
        for (a, b) in [("Ann@Example.COM", "ann@example.com"), ("ÄNN@x.de", "änn@x.de"), ("ΟΔΟΣ@x", "οδος@x")]
        {
            assert_eq!(fold(a), fold(b));
        }
        assert_ne!(fold("straße@x"), fold("strasse@x"));
    }

    #[test]
    fn an_email_does_not_show_itself_in_debug_output() {
        assert!(!format!("{:?}", Email::parse("ann@example.com")).contains("ann"));
    }

    proptest! {
        #[test]
        fn folding_twice_is_folding_once(text in "\\PC{0,40}") {
            let once = fold(&text).into_owned();
            prop_assert_eq!(fold(&once).into_owned(), once.clone());
        }
    }
}
