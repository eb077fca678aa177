//! What became of each email of a request, gathered from the ends of the manifests that carried it.
//!
//! The same parts give the same result in whatever order they come, in memory or read back from a journal.

use std::sync::Arc;

use super::ids::ManifestId;
use super::key::{IdempotencyKey, KeyBase};
use super::manifest::{Conclusion, End, FailCode, Span, positions};
use super::moment::Timestamp;

/// Where an email stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In no lane and no manifest.
    Fresh,
    /// In a lane.
    Queued,
    /// In a manifest that has not ended.
    UnderWay,
    /// Deleted by the call that carried it.
    Deleted,
    /// Unknown to the API.
    NotFound,
    /// Not found, though an earlier call may have deleted it.
    Uncertain,
    /// Not processed: an index into [`Progress::failures`].
    Failed(u16),
}

impl Standing {
    const fn is_final(self) -> bool {
        !matches!(self, Self::Fresh | Self::Queued | Self::UnderWay)
    }
}

/// Why some emails failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub code: FailCode,
    /// The last HTTP status.
    pub http_status: Option<u16>,
    /// The API's machine code.
    pub api_code: Option<String>,
    /// Whether a call of unknown fate may have deleted some all the same.
    pub may_have_taken_effect: bool,
}

/// A call that carried emails of the request. Requests that one call completes share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRecord {
    /// The manifest.
    pub manifest: ManifestId,
    /// The key that it ended under.
    pub key: IdempotencyKey,
    /// The last HTTP status.
    pub http_status: Option<u16>,
    /// Calls made.
    pub attempts: u32,
    /// Whether the API replayed an earlier answer.
    pub replayed: bool,
    /// The API's name for the call.
    pub request_id: Option<String>,
}

impl CallRecord {
    /// The call that this end of a manifest came with, whose keys are derived from `key`.
    #[must_use]
    pub fn of(manifest: ManifestId, key: KeyBase, conclusion: &Conclusion) -> Arc<Self> {
        Arc::new(Self {
            manifest,
            key: key.generation(conclusion.generation),
            http_status: conclusion.http_status,
            attempts: conclusion.attempts,
            replayed: conclusion.replayed,
            request_id: conclusion.request_id.clone(),
        })
    }
}

/// A request's emails, one standing each.
#[derive(Clone, Debug)]
pub struct Progress {
    standings: Box<[Standing]>,
    open: u32,
    under_way: u32,
    failures: Vec<Failure>,
    calls: Vec<Arc<CallRecord>>,
    count_mismatch: bool,
    completed_at: Option<Timestamp>,
}

impl Progress {
    /// All fresh.
    #[must_use]
    pub fn new(emails: u32) -> Self {
        Self {
            standings: vec![Standing::Fresh; emails as usize].into(),
            open: emails,
            under_way: 0,
            failures: Vec::new(),
            calls: Vec::new(),
            count_mismatch: false,
            completed_at: None,
        }
    }

    /// Whether every email has come to its end.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.open == 0
    }

    /// Whether some email is in a manifest that has not ended.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        self.under_way > 0
    }

    /// Moves all that is fresh into a lane; returns the positions.
    pub fn queue_fresh(&mut self) -> Vec<u32> {
        let mut queued = Vec::new();
        for (at, standing) in (0u32..).zip(self.standings.iter_mut()) {
            if *standing == Standing::Fresh {
                *standing = Standing::Queued;
                queued.push(at);
            }
        }
        queued
    }

    /// Takes all that is queued back out of its lane.
    pub fn unqueue(&mut self) {
        for standing in &mut self.standings {
            if *standing == Standing::Queued {
                *standing = Standing::Fresh;
            }
        }
    }

    /// These emails are in a manifest now. Such as have come to their end already stay there. Returns whether some were
    /// in a lane.
    pub fn start(&mut self, spans: &[Span]) -> bool {
        let mut queued = false;
        for (at, _) in positions(spans) {
            if let Some(standing @ (Standing::Fresh | Standing::Queued)) = self.standings.get_mut(at as usize) {
                queued |= *standing == Standing::Queued;
                *standing = Standing::UnderWay;
                self.under_way += 1;
            }
        }
        queued
    }

    /// These emails are in no manifest after all.
    pub fn back_out(&mut self, spans: &[Span]) {
        for (at, _) in positions(spans) {
            if let Some(standing @ Standing::UnderWay) = self.standings.get_mut(at as usize) {
                *standing = Standing::Fresh;
                self.under_way -= 1;
            }
        }
    }

    /// A manifest that carried these emails has ended, with this call.
    pub fn conclude(&mut self, call: &Arc<CallRecord>, spans: &[Span], conclusion: &Conclusion) {
        if self.calls.iter().any(|known| known.manifest == call.manifest) {
            return;
        }
        self.calls.push(Arc::clone(call));
        match &conclusion.end {
            End::Split => return,
            End::Answered { not_found, uncertain, count_mismatch } => {
                self.count_mismatch |= *count_mismatch;
                for (at, body_at) in positions(spans) {
                    let standing = match (not_found.contains(body_at), uncertain) {
                        (false, _) => Standing::Deleted,
                        (true, false) => Standing::NotFound,
                        (true, true) => Standing::Uncertain,
                    };
                    self.settle(at, standing);
                }
            }
            End::Failed { code, api_code, may_have_taken_effect } => {
                let failure = Failure {
                    code: *code,
                    http_status: conclusion.http_status,
                    api_code: api_code.clone(),
                    may_have_taken_effect: *may_have_taken_effect,
                };
                let index = self.failures.iter().position(|known| *known == failure).unwrap_or_else(|| {
                    self.failures.push(failure);
                    self.failures.len() - 1
                });
                // Few reasons, many emails: an index beyond u16 would need 65,536 different reasons.
                let index = u16::try_from(index).unwrap_or(u16::MAX);
                for (at, _) in positions(spans) {
                    self.settle(at, Standing::Failed(index));
                }
            }
        }
        self.completed_at = self.completed_at.max(Some(conclusion.at));
    }

    fn settle(&mut self, at: u32, to: Standing) {
        let Some(standing) = self.standings.get_mut(at as usize) else { return };
        if standing.is_final() {
            return;
        }
        if *standing == Standing::UnderWay {
            self.under_way -= 1;
        }
        *standing = to;
        self.open -= 1;
    }

    /// Where each email stands, by position.
    #[must_use]
    pub fn standings(&self) -> &[Standing] {
        &self.standings
    }

    /// The reasons that [`Standing::Failed`] points at.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// The calls that carried the request, oldest manifest first.
    #[must_use]
    pub fn calls(&self) -> Vec<&CallRecord> {
        let mut calls: Vec<_> = self.calls.iter().map(Arc::as_ref).collect();
        calls.sort_by_key(|call| call.manifest);
        calls
    }

    /// Whether the API's count differed from its list in some call.
    #[must_use]
    pub const fn count_mismatch(&self) -> bool {
        self.count_mismatch
    }

    /// When the last answer came.
    #[must_use]
    pub const fn completed_at(&self) -> Option<Timestamp> {
        self.completed_at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::RequestDigest;
    use crate::domain::manifest::{Member, Positions};

    fn conclusion(end: End, at: i64) -> Conclusion {
        Conclusion {
            end,
            generation: 0,
            http_status: Some(200),
            attempts: 1,
            replayed: false,
            request_id: None,
            at: Timestamp::from_millis(at),
        }
    }

    fn end() -> impl Strategy<Value = End> {
        prop_oneof![
            (proptest::collection::vec(0..40u16, 0..20), any::<bool>()).prop_map(|(at, uncertain)| {
                let mut not_found = Positions::default();
                for at in at {
                    not_found.insert(at);
                }
                End::Answered { not_found, uncertain, count_mismatch: false }
            }),
            (any::<bool>()).prop_map(|may| End::Failed {
                code: FailCode::GaveUp,
                api_code: None,
                may_have_taken_effect: may
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_email_ends_in_exactly_one_list_whatever_the_order_of_the_answers(
            ends in proptest::collection::vec(end(), 1..6),
            turn in 0..6usize,
        ) {
            // The request's emails are dealt out to the manifests like cards, so that spans have gaps.
            let emails = 40u32;
            let parts: Vec<(Member, &End)> = ends.iter().enumerate().map(|(n, end)| {
                let mut member = Member { request: RequestDigest([0; 32]), spans: vec![] };
                for (body_at, at) in (0u16..).zip((0..emails).filter(|at| *at as usize % ends.len() == n)) {
                    member.push(at, body_at);
                }
                (member, end)
            }).collect();
            let run = |turn: usize| {
                let mut progress = Progress::new(emails);
                progress.queue_fresh();
                let mut order: Vec<usize> = (0..parts.len()).collect();
                order.rotate_left(turn % parts.len());
                for n in order {
                    let (member, end) = &parts[n];
                    let _ = progress.start(&member.spans);
                    let key = KeyBase::derive(std::slice::from_ref(member));
                    let number = i64::try_from(n).unwrap();
                    let conclusion = conclusion((*end).clone(), number);
                    let call = CallRecord::of(ManifestId(number), key, &conclusion);
                    progress.conclude(&call, &member.spans, &conclusion);
                }
                progress
            };
            let (a, b) = (run(0), run(turn));
            prop_assert!(a.is_complete() && b.is_complete());
            prop_assert!(!a.is_under_way());
            prop_assert_eq!(a.completed_at(), b.completed_at());
            prop_assert_eq!(a.calls(), b.calls());
            for (x, y) in a.standings().iter().zip(b.standings()) {
                prop_assert!(x.is_final());
                if let (Standing::Failed(i), Standing::Failed(j)) = (x, y) { prop_assert_eq!(&a.failures()[usize::from(*i)], &b.failures()[usize::from(*j)]) } else { prop_assert_eq!(x, y) }
            }
        }
    }
}
