//! Why a message is unusable, told so that its sender can mend it: the field and the cure, never the content.

use serde::Serialize;

/// The codes of a rejected message, as outcomes and dead letters carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RejectCode {
    /// Not JSON, or a field given twice.
    MalformedJson,
    /// A field is missing or has the wrong type.
    InvalidRequest,
    /// Nothing names the request.
    MissingMessageId,
    /// The list of emails is empty.
    NoEmails,
    /// No entry of the list of emails is an address.
    NoValidEmail,
    /// The project is not among `migma.allowed_projects`.
    ProjectNotAllowed,
    /// The id was seen with another project or another set of emails.
    MessageIdReused,
    /// More bytes than `amqp.max_message_bytes`.
    TooLarge,
    /// Neither plain JSON nor a structured `CloudEvent`.
    UnsupportedContentType,
}

impl RejectCode {
    /// Each of them.
    pub const ALL: [Self; 9] = [
        Self::MalformedJson,
        Self::InvalidRequest,
        Self::MissingMessageId,
        Self::NoEmails,
        Self::NoValidEmail,
        Self::ProjectNotAllowed,
        Self::MessageIdReused,
        Self::TooLarge,
        Self::UnsupportedContentType,
    ];

    /// The code as messages carry it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "MALFORMED_JSON",
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::MissingMessageId => "MISSING_MESSAGE_ID",
            Self::NoEmails => "NO_EMAILS",
            Self::NoValidEmail => "NO_VALID_EMAIL",
            Self::ProjectNotAllowed => "PROJECT_NOT_ALLOWED",
            Self::MessageIdReused => "MESSAGE_ID_REUSED",
            Self::TooLarge => "TOO_LARGE",
            Self::UnsupportedContentType => "UNSUPPORTED_CONTENT_TYPE",
        }
    }
}

/// An unusable message: nothing was sent for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which rule it broke.
    pub code: RejectCode,
    /// Which field, and the cure. Never quotes an address.
    pub message: String,
}

impl Rejection {
    /// A rejection with its text.
    #[must_use]
    pub fn new(code: RejectCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The id is another request's.
    #[must_use]
    pub fn message_id_reused() -> Self {
        Self::new(
            RejectCode::MessageIdReused,
            "message_id: names another request, with another project or other emails; give each request its own",
        )
    }
}
