//! Where a message stands in a trace (W3C Trace Context, `traceparent`): read strictly, for it goes on to others.

use std::fmt;

/// A place in a trace: what a `traceparent` says that is sound.
///
/// Printed as version 00, whatever version it came in: what later versions append is not ours to pass on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// The flags that version 00 knows: sampled, and a trace id made by chance.
const KNOWN_FLAGS: u8 = 0b11;

impl TraceParent {
    /// A place by its numbers; `None` where one of them is 0, which means none.
    #[must_use]
    pub const fn new(trace_id: u128, span_id: u64, flags: u8) -> Option<Self> {
        if trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self { trace_id, span_id, flags: flags & KNOWN_FLAGS })
    }

    /// Reads a header. `None` where it is not to the letter what the standard says: then there is no trace.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = text.split('-');
        let mut next = |length: usize| parts.next().filter(|part| part.len() == length && lower_hex(part));
        let (version, trace_id, span_id, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        // A later version may append parts of its own, this one does not; ff is none.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let (trace_id, span_id) = (u128::from_str_radix(trace_id, 16).ok()?, u64::from_str_radix(span_id, 16).ok()?);
        Self::new(trace_id, span_id, u8::from_str_radix(flags, 16).ok()?)
    }

    /// The whole trace's number; not 0.
    #[must_use]
    pub const fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The number of the span that it came from; not 0.
    #[must_use]
    pub const fn span_id(&self) -> u64 {
        self.span_id
    }

    /// 1 where it is sampled; 2 more where the trace's number was made by chance.
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.flags
    }
}

/// As the header has it.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOUND: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_sound_header_goes_on_as_it_came() {
        assert_eq!(TraceParent::parse(SOUND).unwrap().to_string(), SOUND);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known_and_goes_on_as_this_one() {
        for later in [SOUND.replacen("00", "cc", 1), format!("{}-what", SOUND.replacen("00", "01", 1))] {
            assert_eq!(TraceParent::parse(&later).unwrap().to_string(), SOUND);
        }
        assert_eq!(TraceParent::parse(&format!("{}ff", &SOUND[..53])).unwrap().flags(), 3);
    }

    #[test]
    fn whatever_is_not_to_the_letter_is_no_trace() {
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01what",
            "00-ann@example.com-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(trace_id in 1u128.., span_id in 1u64.., flags in 0u8..4) {
            let place = TraceParent::new(trace_id, span_id, flags).unwrap();
            prop_assert_eq!(TraceParent::parse(&place.to_string()), Some(place));
        }

        #[test]
        fn whatever_comes_gives_no_panic(text in ".{0,60}") {
            let _ = TraceParent::parse(&text);
        }
    }
}
