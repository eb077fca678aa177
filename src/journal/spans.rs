//! Spans as few bytes: three variable-length numbers each (LEB128), in their order.

use crate::domain::manifest::Span;

/// The bytes of these spans.
pub(super) fn encode(spans: &[Span]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(spans.len() * 4);
    for span in spans {
        push(&mut bytes, span.request_at);
        push(&mut bytes, u32::from(span.body_at));
        push(&mut bytes, u32::from(span.len));
    }
    bytes
}

/// The spans of these bytes; `None` where [`encode`] did not make them.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<Span>> {
    let mut spans = Vec::with_capacity(bytes.len() / 3);
    while !bytes.is_empty() {
        let request_at = take(&mut bytes)?;
        let body_at = take(&mut bytes)?.try_into().ok()?;
        let len = take(&mut bytes)?.try_into().ok()?;
        spans.push(Span { request_at, body_at, len });
    }
    Some(spans)
}

fn push(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        // Seven bits, and a mark that more follow.
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0u32;
    for place in 0..5 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u32::from(byte & 0x7f);
        number |= bits.checked_shl(7 * place).filter(|shifted| shifted >> (7 * place) == bits)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn spans_come_back_as_they_were(spans in proptest::collection::vec(any::<(u32, u16, u16)>(), 0..20)) {
            let spans: Vec<Span> =
                spans.into_iter().map(|(request_at, body_at, len)| Span { request_at, body_at, len }).collect();
            prop_assert_eq!(decode(&encode(&spans)), Some(spans));
        }

        #[test]
        fn damaged_bytes_give_none_or_spans_and_never_a_panic(bytes: Vec<u8>) {
            if let Some(spans) = decode(&bytes) {
                prop_assert_eq!(decode(&encode(&spans)), Some(spans));
            }
        }
    }

    #[test]
    fn one_email_takes_few_bytes() {
        assert_eq!(encode(&[Span { request_at: 0, body_at: 999, len: 1 }]).len(), 4);
        assert_eq!(decode(&[0x80]), None);
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0]), None);
    }
}
