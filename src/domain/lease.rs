//! Leases: how several workers on one journal keep a manifest with one of them at a time.
//!
//! A worker's lease runs out by the journal's clock, and is renewed every few seconds. The worker's own view of it ends
//! sooner, for it counts from before the renewal was asked for. What rests on a lease is that no two workers send one
//! manifest at the same time. What does not rest on it is the truth: a worker that stood still and wakes up late sends,
//! at worst, a body under a key that its successor knows to be of unknown fate, and writes nothing, for the journal
//! knows whose each manifest is. So a clock that steps, or stands, costs a call and no outcome.

use std::time::Duration;

/// How long a lease lasts from its renewal.
pub const LEASE: Duration = Duration::from_secs(10);

/// How often it is renewed: several times, so that one renewal that is lost costs nothing.
pub const RENEWAL: Duration = Duration::from_secs(2);

/// How long a call takes at most from its leave to its first byte.
const SENDING: Duration = Duration::from_secs(1);

/// What clocks may differ by in their pace over a lease and a call.
const MARGIN: Duration = Duration::from_secs(2);

/// Whether a call may leave, with so much of the lease left in the worker's own view; `None`: nobody else could take its
/// manifests.
#[must_use]
pub fn may_send(left: Option<Duration>) -> bool {
    left.is_none_or(|left| left > SENDING)
}

/// How long a worker's manifests stay its own after its lease has run out: a call that left in time, and takes no longer
/// than `request_timeout`, has ended by then.
#[must_use]
pub const fn afterglow(request_timeout: Duration) -> Duration {
    request_timeout.saturating_add(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_may_always_send_and_others_while_their_lease_outlasts_the_sending() {
        assert!(may_send(None));
        assert!(may_send(Some(LEASE)) && may_send(Some(SENDING + Duration::from_millis(1))));
        assert!(!may_send(Some(SENDING)) && !may_send(Some(Duration::ZERO)));
    }

    #[test]
    fn a_call_that_left_on_the_last_occasion_has_ended_before_its_manifest_passes_on() {
        let timeout = Duration::from_secs(30);
        // The worker's view ends no later than the journal's, give or take the pace of clocks.
        // It left before `LEASE - SENDING`.
        assert!(LEASE + timeout + MARGIN < LEASE + afterglow(timeout) + SENDING);
    }

    #[test]
    fn a_renewal_that_is_lost_costs_nothing() {
        assert!(RENEWAL * 3 + SENDING < LEASE);
    }
}
