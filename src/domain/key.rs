//! The idempotency key: from the message ids of a batch and the positions of their emails, and from nothing else.
//!
//! Never here: the body's bytes, a clock, chance. After a crash the same batch must find its own key again.

use std::fmt;

use sha2::{Digest, Sha256};

use super::ids::hex;
use super::manifest::Member;

/// The longest key that the API takes, in characters.
pub const KEY_MAX_CHARS: usize = 100;

/// What all keys of one manifest have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyBase(pub [u8; 32]);

/// The header value of a call.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IdempotencyKey(String);

impl KeyBase {
    /// Derives the base for these members, in their order.
    #[must_use]
    pub fn derive(members: &[Member]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"migma-eraser/key/1");
        hasher.update((members.len() as u64).to_be_bytes());
        for member in members {
            hasher.update(member.request.0);
            hasher.update((member.spans.len() as u64).to_be_bytes());
            for span in &member.spans {
                hasher.update(span.request_at.to_be_bytes());
                hasher.update(span.body_at.to_be_bytes());
                hasher.update(span.len.to_be_bytes());
            }
        }
        Self(hasher.finalize().into())
    }

    /// The key of a generation: 0 for the first, one more each time a cached refusal must be left behind.
    #[must_use]
    pub fn generation(&self, generation: u32) -> IdempotencyKey {
        IdempotencyKey(format!("eraser-{}-{generation}", hex(&self.0)))
    }
}

impl fmt::Debug for KeyBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..8]))
    }
}

impl IdempotencyKey {
    /// The header value: at most [`KEY_MAX_CHARS`] ASCII characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::RequestDigest;
    use crate::domain::manifest::Span;

    fn members() -> impl Strategy<Value = Vec<Member>> {
        let span = (0..4u32, 0..4u16, 1..3u16).prop_map(|(request_at, body_at, len)| Span { request_at, body_at, len });
        let member = (0..3u8, proptest::collection::vec(span, 1..3))
            .prop_map(|(id, spans)| Member { request: RequestDigest([id; 32]), spans });
        proptest::collection::vec(member, 1..4)
    }

    proptest! {
        #[test]
        fn a_key_has_at_most_100_characters(members in members(), generation: u32) {
            prop_assert!(KeyBase::derive(&members).generation(generation).as_str().len() <= KEY_MAX_CHARS);
        }

        #[test]
        fn keys_are_equal_for_equal_batches_and_different_otherwise(batches in proptest::collection::vec(members(), 2..40)) {
            let mut seen: HashMap<IdempotencyKey, (Vec<Member>, u32)> = HashMap::new();
            for (at, batch) in batches.into_iter().enumerate() {
                let generation = u32::try_from(at % 3).unwrap();
                let key = KeyBase::derive(&batch).generation(generation);
                prop_assert_eq!(&key, &KeyBase::derive(&batch.clone()).generation(generation));
                if let Some(other) = seen.insert(key, (batch.clone(), generation)) {
                    prop_assert_eq!(other, (batch, generation));
                }
            }
        }
    }
}
