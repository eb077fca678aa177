//! A dead letter on its way back to work: what of it is still to be done, and under which name.
//!
//! The name is a fixed function of the letter: so a second replay, after the first one was killed between its confirm and
//! its ack, is the same request with the same content, and is answered without a call. Never sent: what the worker, as it
//! is configured here, would only reject again.

use std::ops::Range;

use bytes::Bytes;

use super::envelope::Envelope;
use super::ids::{MESSAGE_ID_MAX, MessageId, ProjectId, hash, hex};
use super::request::{DeletionRequest, Policy, Unusable, undone_indices, with_entries};

/// What every name of a replay begins with.
const PREFIX: &str = "replay-";
/// What stands between a replay's own part of its name and the name of the request that it repeats.
const OF: &str = "-of-";
/// Hexadecimal digits of a replay's own part.
const DIGITS: usize = 32;

/// A message out of the dead queue.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// The message as its sender wrote it.
    pub envelope: &'a Envelope,
    /// The header `x-eraser-code`; `None` where the broker put it there, before anybody answered it.
    pub code: Option<&'a str>,
    /// The header `x-eraser-undone`.
    pub undone: Option<&'a str>,
}

/// A request that does what a dead letter left undone.
#[derive(Clone, PartialEq, Eq)]
pub struct Replay {
    /// Its name.
    pub id: MessageId,
    /// The correlation id of the first request, or else its name, so that whoever waits for that hears of this.
    pub correlation_id: Option<String>,
    /// Its body.
    pub payload: Bytes,
    /// Distinct emails that it asks to delete.
    pub emails: u32,
}

/// Addresses stay out of logs.
impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replay {{ {:?}, emails: {} }}", self.id, self.emails)
    }
}

/// What a list shows of a dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The request's name, where it has one.
    pub id: Option<MessageId>,
    /// The project that it names, or the default.
    pub project: Option<String>,
    /// Entries of its list that were not done; `None` where the list cannot be read.
    pub undone: Option<u64>,
}

impl DeadLetter<'_> {
    /// What a list shows of it, where `default` is the project of requests that name none.
    #[must_use]
    pub fn summary(&self, default: Option<&ProjectId>) -> Summary {
        let (id, project) = match DeletionRequest::parse(self.envelope, default) {
            Ok(request) => (Some(request.id), request.project),
            Err(unusable) => (unusable.id, unusable.project),
        };
        let ranges = match self.undone {
            Some(text) => read(text),
            None => undone_indices(self.envelope, |_| false),
        };
        Summary {
            id,
            project: project.map(|project| project.as_str().to_owned()),
            undone: ranges.map(|ranges| ranges.iter().map(|range| range.len() as u64).sum()),
        }
    }

    /// The request that does the rest. One that nobody has answered keeps its name: whatever was done for it is known by
    /// that name.
    ///
    /// # Errors
    /// Why it would not help, with the cure.
    pub fn replay(&self, policy: &Policy) -> Result<Replay, String> {
        let whole = self.envelope.payload.clone();
        let payload: Bytes = match self.undone.map(read) {
            None => whole,
            Some(None) => return Err("its header x-eraser-undone cannot be read".to_owned()),
            Some(Some(ranges)) if ranges.is_empty() => return Err("nothing of it is left to do; discard it".to_owned()),
            Some(Some(ranges)) if undone_indices(self.envelope, |_| false).is_some_and(|all| all == ranges) => whole,
            Some(Some(ranges)) => with_entries(self.envelope, &ranges)
                .ok_or("its header x-eraser-undone names entries that its list does not have")?
                .into(),
        };
        let old = match DeletionRequest::parse(self.envelope, None) {
            Ok(request) => Some(request.id),
            Err(unusable) => unusable.id,
        };
        let id = match (&old, self.code) {
            (Some(old), None) => old.clone(),
            _ => self.name(old.as_ref(), &payload).ok_or("no name can be made for it")?,
        };
        let correlation_id = self.envelope.correlation_id.clone().or_else(|| old.map(|old| old.as_str().to_owned()));
        let again = Envelope {
            message_id: Some(id.as_str().to_owned()),
            correlation_id: correlation_id.clone(),
            payload: payload.clone(),
            ..self.envelope.clone()
        };
        let told =
            |rejection: super::rejection::Rejection| format!("{}: {}", rejection.code.as_str(), rejection.message);
        policy.admit_size(&again).map_err(told)?;
        let request = DeletionRequest::parse(&again, policy.default_project.as_ref())
            .map_err(|unusable: Box<Unusable>| told(unusable.rejection))?;
        policy.admit(&request).map_err(told)?;
        Ok(Replay { id, correlation_id, payload, emails: request.len() })
    }

    /// A letter's replay, and the replay of that one's letter, name the request that was there first.
    fn name(&self, old: Option<&MessageId>, payload: &[u8]) -> Option<MessageId> {
        let text = old.map_or("", MessageId::as_str);
        let own = hash(&[b"migma-eraser/replay/1", text.as_bytes(), self.code.unwrap_or_default().as_bytes(), payload]);
        let mut name = format!("{PREFIX}{}", &hex(&own)[..DIGITS]);
        if old.is_some() {
            name.push_str(OF);
            name.push_str(first(text));
        }
        let mut end = name.len().min(MESSAGE_ID_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        MessageId::parse(&name[..end])
    }
}

/// The name of the request that was there first.
fn first(name: &str) -> &str {
    let rest = name.strip_prefix(PREFIX).and_then(|rest| rest.split_at_checked(DIGITS));
    match rest {
        Some((own, rest)) if own.bytes().all(|b| b.is_ascii_hexdigit()) => rest.strip_prefix(OF).unwrap_or(name),
        _ => name,
    }
}

/// Index ranges such as `0,4-7`, in order and apart from each other; `None` where the text is something else.
fn read(text: &str) -> Option<Vec<Range<usize>>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        if to < from || to == usize::MAX || ranges.last().is_some_and(|last| from < last.end) {
            return None;
        }
        ranges.push(from..to + 1);
    }
    Some(ranges)
}

#[cfg(test)]
mod tests;
