//! [`crate::truth`] for what these tests publish and collect.

use migma_eraser::sandbox::State;
use serde_json::Value;

use super::Request;
use super::broker::Seen;
use crate::truth::{Asked, violations};

fn asked(requests: &[Request]) -> Vec<Asked<'_>> {
    requests.iter().map(|r| Asked { id: &r.id, project: &r.project, emails: &r.emails }).collect()
}

/// Panics with everything that is wrong.
pub fn check(requests: &[Request], outcomes: &[Seen], api: &State) {
    let outcomes: Vec<Value> = outcomes.iter().map(Seen::json).collect();
    let wrong = violations(&asked(requests), &outcomes, &api.ledger.entries, &api.ledger.summary);
    let shown = wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} things are wrong:\n{shown}", wrong.len());
}

/// The fewest calls for these requests as a backlog.
pub fn fewest_calls(requests: &[Request]) -> u64 {
    crate::truth::fewest_calls(&asked(requests))
}
