//! A delivery as it came, before anybody believes it: properties and bytes.

use bytes::Bytes;

use super::moment::Timestamp;
use super::traceparent::TraceParent;

/// What the worker reads of a message. Text that is no UTF-8 arrives here as `None`: the broker adapter decides that.
#[derive(Clone, Default)]
pub struct Envelope {
    /// The property `message_id`.
    pub message_id: Option<String>,
    /// The property `correlation_id`.
    pub correlation_id: Option<String>,
    /// The property `content_type`.
    pub content_type: Option<String>,
    /// The header `traceparent`, where it is sound; it goes on with every outcome of this message.
    pub traceparent: Option<TraceParent>,
    /// The header `x-eraser-aside-since`: when the worker first put it aside, for its project was held.
    pub aside_since: Option<Timestamp>,
    /// The body.
    pub payload: Bytes,
}

/// Addresses stay out of logs.
impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Envelope {{ {} bytes }}", self.payload.len())
    }
}
