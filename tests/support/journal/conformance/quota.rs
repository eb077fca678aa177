//! The daily quota.

use std::sync::Arc;

use futures_util::future::join_all;
use migma_eraser::domain::moment::Timestamp;
use migma_eraser::ports::Journal;

use super::super::sample::at;
use super::Stand;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// 2026-11-23, 12:00.
const NOON: i64 = 1_795_435_200_000;

async fn spend(journal: &Arc<dyn Journal>, quota: u64, now: i64) -> Option<i64> {
    journal.spend(quota, at(now)).await.unwrap().map(Timestamp::as_millis)
}

pub async fn a_quota_fits_so_many_calls_and_names_the_time_of_the_next(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    assert_eq!(spend(&journal, 3, NOON + 5_000).await, None);
    assert_eq!(spend(&journal, 3, NOON + 59_999).await, None);
    assert_eq!(spend(&journal, 3, NOON + MINUTE).await, None);
    let again = NOON + MINUTE + DAY;
    assert_eq!(spend(&journal, 3, NOON + MINUTE).await, Some(again));
    assert_eq!(spend(&journal, 3, again - 1).await, Some(again));
    assert_eq!(spend(&journal, 3, again).await, None);
    assert_eq!(spend(&journal, 3, again).await, None);
    assert_eq!(spend(&journal, 3, again).await, Some(again + MINUTE));
    assert!(spend(&journal, 0, again).await.is_some_and(|at| at > again));
}

pub async fn what_is_spent_is_told_until_it_ceases_to_count(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    assert_eq!(journal.spent(at(NOON)).await.unwrap(), 0);
    for n in 0..3 {
        assert_eq!(spend(&journal, 3, NOON + n * MINUTE).await, None);
    }
    assert!(spend(&journal, 3, NOON + 3 * MINUTE).await.is_some());
    assert_eq!(journal.spent(at(NOON + 3 * MINUTE)).await.unwrap(), 3);
    assert_eq!(journal.spent(at(NOON + DAY + MINUTE - 1)).await.unwrap(), 3);
    assert_eq!(journal.spent(at(NOON + DAY + MINUTE)).await.unwrap(), 2);
}

pub async fn a_quota_outlives_a_restart(stand: &mut dyn Stand) {
    for n in 0..3 {
        assert_eq!(spend(&stand.open().await, 3, NOON + n).await, None);
    }
    assert_eq!(spend(&stand.open().await, 3, NOON + 3).await, Some(NOON + MINUTE + DAY));
}

pub async fn no_24_hours_ever_see_more_calls_than_the_quota(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let mut made: Vec<i64> = Vec::new();
    let mut now = NOON;
    for n in 0..400 {
        match spend(&journal, 10, now).await {
            None => {
                made.push(now);
                assert!(made.iter().filter(|call| **call > now - DAY).count() <= 10);
                // An uneven pace, and now and then a burst.
                now += if n % 7 == 0 { 0 } else { (n * 7_919_017) % (3 * 60 * MINUTE) };
            }
            Some(again) => {
                assert!(now < again && again <= now + DAY + MINUTE);
                now = again;
            }
        }
    }
    assert!(made.len() > 150);
}

pub async fn a_clock_that_goes_back_gives_no_calls_for_free(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    assert_eq!(spend(&journal, 3, NOON).await, None);
    // Two hours back: the call still counts, and so do those made now once the clock is right again.
    let back = NOON - 120 * MINUTE;
    assert_eq!(spend(&journal, 3, back).await, None);
    assert_eq!(spend(&journal, 3, back + 30 * MINUTE).await, None);
    assert!(spend(&journal, 3, back + 60 * MINUTE).await.is_some());
    assert_eq!(spend(&journal, 3, NOON + DAY).await, Some(NOON + MINUTE + DAY));
    drop(journal);
    assert_eq!(spend(&stand.open().await, 3, NOON + MINUTE + DAY).await, None);
}

pub async fn a_clock_that_was_far_ahead_does_not_stop_calls_for_ever(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    assert_eq!(spend(&journal, 2, NOON).await, None);
    assert_eq!(spend(&journal, 2, NOON + 3_650 * DAY).await, None);
    // Both were made before now, and count as long as a call made now.
    let again = spend(&journal, 2, NOON + MINUTE).await.unwrap();
    assert!(again <= NOON + 2 * MINUTE + DAY, "{again}");
    assert_eq!(spend(&journal, 2, NOON + 2 * MINUTE + DAY).await, None);
    assert_eq!(spend(&journal, 2, NOON + 2 * MINUTE + DAY).await, None);
    assert!(spend(&journal, 2, NOON + 2 * MINUTE + DAY).await.is_some());
}

pub async fn a_smaller_quota_counts_what_was_spent_under_a_larger_one(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    for n in 0..5 {
        assert_eq!(spend(&journal, 10, NOON + n * MINUTE).await, None);
    }
    // Of five only two may still count: that is so once the fourth does not.
    assert_eq!(spend(&journal, 2, NOON + 10 * MINUTE).await, Some(NOON + 4 * MINUTE + DAY));
    assert_eq!(spend(&journal, 2, NOON + 4 * MINUTE + DAY).await, None);
}

pub async fn concurrent_spenders_share_one_quota(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let answers = join_all((0..50).map(|n| spend(&journal, 20, NOON + n))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 20);
    drop(journal);
    assert!(spend(&stand.open().await, 20, NOON + MINUTE).await.is_some());
}

pub async fn forgetting_does_not_forget_calls_that_count(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    assert_eq!(spend(&journal, 1, NOON).await, None);
    for before in [NOON, NOON + DAY] {
        journal.forget(at(before)).await.unwrap();
        assert!(spend(&journal, 1, NOON + DAY).await.is_some());
    }
    journal.forget(at(NOON + MINUTE + DAY)).await.unwrap();
    assert_eq!(spend(&journal, 1, NOON + MINUTE + DAY).await, None);
}
