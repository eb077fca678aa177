//! Forgetting.

use std::sync::Arc;

use migma_eraser::domain::fate::Fate;
use migma_eraser::domain::manifest::{End, FailCode, Member, split};
use migma_eraser::ports::Journal;

use super::super::sample::{address, at, called, deleted, digest, draft, ended, request, span, whole};
use super::{Stand, facts, known, now_and_later, open, record, remembered};

/// Forgets until there is no more; how many.
async fn forget_all(journal: &Arc<dyn Journal>, before: i64) -> u64 {
    let mut sum = 0;
    for _ in 0..1_000 {
        let step = journal.forget(at(before)).await.unwrap();
        sum += step.requests;
        if !step.more {
            return sum;
        }
    }
    panic!("forgetting does not come to an end");
}

pub async fn a_request_is_forgotten_only_once_its_end_is_old_enough(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let answered = record(&journal, &whole(&[("m1", 2), ("m2", 1)])).await;
    let failed = record(&journal, &whole(&[("m3", 1)])).await;
    journal.conclude(answered.id, &deleted(5_000)).await.unwrap();
    let failure = End::Failed { code: FailCode::ApiRejected, api_code: None, may_have_taken_effect: false };
    journal.conclude(failed.id, &ended(failure, 6_000)).await.unwrap();
    assert_eq!(forget_all(&journal, 5_000).await, 0);
    assert!(known(&journal, "m1").await.is_some());
    assert_eq!(forget_all(&journal, 5_001).await, 2);
    now_and_later(stand, journal, async |journal| {
        assert!(known(journal, "m1").await.is_none() && known(journal, "m2").await.is_none());
        assert!(known(journal, "m3").await.is_some());
    })
    .await;
    assert_eq!(forget_all(&stand.open().await, 6_001).await, 1);
}

pub async fn a_request_under_way_is_never_forgotten(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    record(&journal, &whole(&[("m1", 1)])).await;
    assert_eq!(forget_all(&journal, i64::MAX).await, 0);
    assert_eq!(open(&journal).await.len(), 1);
    assert!(known(&journal, "m1").await.is_some());
}

pub async fn a_request_with_emails_in_no_manifest_is_never_forgotten(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    for part in [0..2, 3..6] {
        let manifest = record(&journal, &draft(&[("m1", 6, part)])).await;
        journal.conclude(manifest.id, &deleted(2_000)).await.unwrap();
        assert_eq!(forget_all(&journal, i64::MAX).await, 0);
    }
    let before = remembered(&known(&journal, "m1").await.unwrap());
    drop(journal);
    let journal = stand.open().await;
    assert_eq!(forget_all(&journal, i64::MAX).await, 0);
    assert_eq!(remembered(&known(&journal, "m1").await.unwrap()), before);
    // The one that was missing.
    let last = record(&journal, &draft(&[("m1", 6, 2..3)])).await;
    assert_eq!(forget_all(&journal, i64::MAX).await, 0);
    journal.conclude(last.id, &deleted(3_000)).await.unwrap();
    assert_eq!(forget_all(&journal, 3_000).await, 0);
    assert_eq!(forget_all(&journal, 3_001).await, 1);
    assert!(known(&journal, "m1").await.is_none());
}

pub async fn the_last_end_of_a_spread_request_counts(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let first = record(&journal, &draft(&[("m1", 4, 0..2)])).await;
    let second = record(&journal, &draft(&[("m1", 4, 2..4), ("m2", 1, 0..1)])).await;
    journal.conclude(first.id, &deleted(2_000)).await.unwrap();
    assert_eq!(forget_all(&journal, 10_000).await, 0);
    journal.conclude(second.id, &deleted(9_000)).await.unwrap();
    assert_eq!(forget_all(&journal, 9_000).await, 0);
    assert_eq!(known(&journal, "m1").await.unwrap().parts.len(), 2);
    assert_eq!(forget_all(&journal, 9_001).await, 2);
}

pub async fn a_split_is_no_end(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let parent = record(&journal, &whole(&[("m1", 1), ("m2", 1)])).await;
    let halves = split(&parent).unwrap();
    let children = journal.split(&parent, &ended(End::Split, 2_000), Fate::never_sent(), &halves).await.unwrap();
    assert_eq!(forget_all(&journal, i64::MAX).await, 0);
    journal.conclude(children[0].id, &deleted(3_000)).await.unwrap();
    assert_eq!(forget_all(&journal, 3_000).await, 0);
    assert_eq!(forget_all(&journal, 9_000).await, 1);
    assert!(known(&journal, "m1").await.is_none());
    let parts = known(&journal, "m2").await.unwrap().parts;
    assert_eq!(parts.iter().map(|part| part.manifest).collect::<Vec<_>>(), [parent.id, children[1].id]);
    assert_eq!(facts(&open(&journal).await[0]), facts(&children[1]));
    journal.conclude(children[1].id, &deleted(4_000)).await.unwrap();
    assert_eq!(forget_all(&journal, 9_000).await, 1);
    // Nothing is left, the parent included.
    drop(journal);
    assert!(stand.open().await.was_new());
}

pub async fn a_forgotten_request_leaves_its_companions(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let first = record(&journal, &draft(&[("m1", 1, 0..1), ("m2", 2, 0..1)])).await;
    let second = record(&journal, &draft(&[("m2", 2, 1..2)])).await;
    journal.conclude(first.id, &deleted(2_000)).await.unwrap();
    let before = remembered(&known(&journal, "m2").await.unwrap());
    assert_eq!(forget_all(&journal, 9_000).await, 1);
    drop(journal);
    let journal = stand.open().await;
    assert!(known(&journal, "m1").await.is_none());
    assert_eq!(remembered(&known(&journal, "m2").await.unwrap()), before);
    assert_eq!(open(&journal).await[0].id, second.id);
    journal.conclude(second.id, &deleted(3_000)).await.unwrap();
    assert_eq!(forget_all(&journal, 9_000).await, 1);
}

pub async fn forgetting_goes_in_steps_and_tells_when_it_is_through(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    for batch in 0..3 {
        let names: Vec<String> = (0..900).map(|n| format!("m{batch}.{n}")).collect();
        let requests: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let manifest = record(&journal, &whole(&requests)).await;
        journal.conclude(manifest.id, &deleted(1_000 + batch)).await.unwrap();
    }
    let first = journal.forget(at(1_002)).await.unwrap();
    assert!(first.more && 0 < first.requests && first.requests < 1_800, "a limited number at a time: {first:?}");
    assert_eq!(first.requests + forget_all(&journal, 1_002).await, 1_800);
    assert_eq!(forget_all(&journal, 1_002).await, 0);
    assert_eq!(forget_all(&stand.open().await, 1_003).await, 900);
}

pub async fn ends_that_came_in_another_order_than_their_times_are_forgotten_too(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let first = record(&journal, &draft(&[("m1", 2, 0..1)])).await;
    let second = record(&journal, &draft(&[("m1", 2, 1..2), ("m2", 1, 0..1)])).await;
    journal.conclude(first.id, &deleted(8_000)).await.unwrap();
    assert_eq!(forget_all(&journal, 9_000).await, 0);
    // The clock has gone back since.
    journal.conclude(second.id, &deleted(3_000)).await.unwrap();
    assert_eq!(forget_all(&journal, 5_000).await, 1);
    assert!(known(&journal, "m2").await.is_none());
    assert_eq!(forget_all(&journal, 8_000).await, 0);
    assert_eq!(forget_all(&journal, 8_001).await, 1);
    drop(journal);
    assert!(stand.open().await.was_new());
}

pub async fn emails_that_share_a_position_are_each_forgotten(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let mut batch = whole(&[("m0", 1)]);
    for n in 1..1_500 {
        let name = format!("m{n}");
        batch.members.push(Member { request: digest(&name), spans: vec![span(0, 0, 1)] });
        batch.requests.push(request(&name, 1));
    }
    assert!(batch.body.ends_with(format!("[\"{}\"]}}", address("m0", 0)).as_bytes()));
    let manifest = journal.record(&batch, called(1_000), at(1_000)).await.unwrap().manifest().unwrap();
    journal.conclude(manifest.id, &deleted(2_000)).await.unwrap();
    assert_eq!(forget_all(&journal, 2_001).await, 1_500);
    drop(journal);
    assert!(stand.open().await.was_new());
}

pub async fn a_forgotten_request_is_new_again(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let first = record(&journal, &whole(&[("m1", 1)])).await;
    journal.conclude(first.id, &deleted(2_000)).await.unwrap();
    assert_eq!(forget_all(&journal, 3_000).await, 1);
    let mut again = whole(&[("m1", 1)]);
    again.requests[0].correlation_id = Some("another".into());
    let second = record(&journal, &again).await;
    let known = known(&journal, "m1").await.unwrap();
    assert_eq!((known.record, known.parts.len()), (again.requests.remove(0), 1));
    assert_eq!((known.parts[0].manifest, known.parts[0].conclusion.clone()), (second.id, None));
}
