//! When a request has come to its end, as the journal knows it.

use crate::domain::manifest::{End, KnownRequest};
use crate::domain::moment::Timestamp;

/// When the last of its emails came to its end; `None` where some has not, be it in a manifest or in none yet.
pub(super) fn ended(known: &KnownRequest) -> Option<Timestamp> {
    let mut last = None;
    let mut ranges = Vec::new();
    for part in &known.parts {
        match &part.conclusion {
            Some(conclusion) if conclusion.end != End::Split => {
                last = last.max(Some(conclusion.at));
                ranges.extend(part.spans.iter().map(|span| {
                    let from = u64::from(span.request_at);
                    (from, from + u64::from(span.len))
                }));
            }
            // A part that was split lives on in others.
            _ => {}
        }
    }
    ranges.sort_unstable();
    let mut covered = 0;
    for (from, to) in ranges {
        if from > covered {
            return None;
        }
        covered = covered.max(to);
    }
    (covered >= u64::from(known.record.emails)).then_some(last).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{ContentDigest, ManifestId, ProjectId, RequestDigest};
    use crate::domain::key::KeyBase;
    use crate::domain::manifest::{Conclusion, KnownPart, Positions, RequestRecord, Span};

    fn answered() -> End {
        End::Answered { not_found: Positions::default(), uncertain: false, count_mismatch: false }
    }

    /// Of parts: the first position, how many, and how and when they ended.
    #[allow(clippy::unwrap_used, clippy::type_complexity)]
    fn known(emails: u32, parts: &[(u32, u16, Option<(End, i64)>)]) -> KnownRequest {
        let conclusion = |(end, at): &(End, i64)| Conclusion {
            end: end.clone(),
            generation: 0,
            http_status: None,
            attempts: 1,
            replayed: false,
            request_id: None,
            at: Timestamp::from_millis(*at),
        };
        let part = |(request_at, len, end): &(u32, u16, Option<(End, i64)>)| KnownPart {
            manifest: ManifestId(1),
            key: KeyBase([0; 32]),
            spans: vec![Span { request_at: *request_at, body_at: 0, len: *len }],
            conclusion: end.as_ref().map(conclusion),
        };
        let record = RequestRecord {
            digest: RequestDigest([0; 32]),
            content: ContentDigest([0; 32]),
            project: ProjectId::parse("p").unwrap(),
            emails,
            correlation_id: None,
            metadata: None,
        };
        KnownRequest { record, parts: parts.iter().map(part).collect() }
    }

    #[test]
    fn the_last_end_counts_once_all_emails_are_covered() {
        let end = |at| Some((answered(), at));
        assert_eq!(ended(&known(3, &[(2, 1, end(9)), (0, 2, end(7))])), Some(Timestamp::from_millis(9)));
        assert_eq!(ended(&known(3, &[(2, 1, end(9)), (0, 1, end(7))])), None);
        assert_eq!(ended(&known(4, &[(2, 1, end(9)), (0, 2, end(7))])), None);
        assert_eq!(ended(&known(3, &[(2, 1, None), (0, 2, end(7))])), None);
        assert_eq!(ended(&known(3, &[])), None);
    }

    #[test]
    fn a_split_is_no_end() {
        assert_eq!(ended(&known(1, &[(0, 1, Some((End::Split, 5)))])), None);
        let both = known(1, &[(0, 1, Some((End::Split, 5))), (0, 1, Some((answered(), 3)))]);
        assert_eq!(ended(&both), Some(Timestamp::from_millis(3)));
    }
}
