//! Which minutes of calls count against a daily quota.

use crate::domain::moment::Timestamp;

/// In milliseconds.
pub(super) const MINUTE: i64 = 60_000;
/// In milliseconds.
pub(super) const DAY: i64 = 24 * 60 * MINUTE;

/// The first minute whose calls still count.
pub(super) fn first_counting(now: i64) -> i64 {
    now.saturating_sub(DAY).div_euclid(MINUTE)
}

/// When so many of these calls have ceased to count: calls by minute, the oldest first.
pub(super) fn freed(now: i64, mut surplus: u64, calls: &[(i64, i64)]) -> Timestamp {
    let mut at = now.saturating_add(DAY);
    for (minute, calls) in calls {
        at = end_of(*minute);
        surplus = surplus.saturating_sub(u64::try_from(*calls).unwrap_or(0));
        if surplus == 0 {
            break;
        }
    }
    Timestamp::from_millis(at)
}

/// When a minute's calls cease to count.
fn end_of(minute: i64) -> i64 {
    (minute + 1) * MINUTE + DAY
}
