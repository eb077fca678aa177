//! Answers as the API words them.

use serde_json::{Value, json};

/// What a caller gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// An HTTP answer.
    Answer(Answer),
    /// The connection ends without one.
    Dropped,
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers beside `Content-Type`.
    pub headers: Vec<(&'static str, String)>,
    /// The content type.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// JSON under this status.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        Self { status, headers: Vec::new(), content_type: "application/json", body }
    }

    /// The API's own error.
    #[must_use]
    pub fn error(status: u16, code: &str, text: &str) -> Self {
        Self::json(status, &json!({"success": false, "error": text, "code": code}))
    }

    /// The API's error for a status that was asked for by number.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        let (code, text) = match status {
            401 => ("UNAUTHORIZED", "The API key is not valid"),
            403 => ("FORBIDDEN", "The API key lacks audience:write"),
            404 => ("PROJECT_NOT_FOUND", "No such project"),
            409 => ("IDEMPOTENCY_CONFLICT", "The Idempotency-Key was reused with a different request body"),
            429 => ("RATE_LIMITED", "Too many requests"),
            500.. => ("INTERNAL", "Something went wrong"),
            _ => ("BAD_REQUEST", "The request was refused"),
        };
        Self::error(status, code, text)
    }

    /// A page that some proxy would show.
    #[must_use]
    pub fn page(status: u16) -> Self {
        let body = b"<html><body><h1>Bad gateway</h1></body></html>".to_vec();
        Self { status, headers: Vec::new(), content_type: "text/html", body }
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}
