//! Which minutes of calls count against a daily quota.

/// In milliseconds.
pub(super) const MINUTE: i64 = 60_000;
/// In milliseconds.
pub(super) const DAY: i64 = 24 * 60 * MINUTE;

/// The first minute whose calls still count.
pub(super) fn first_counting(now: i64) -> i64 {
    now.saturating_sub(DAY).div_euclid(MINUTE)
}

/// When a minute's calls cease to count.
pub(super) fn end_of(minute: i64) -> i64 {
    (minute + 1) * MINUTE + DAY
}
