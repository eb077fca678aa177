//! Batches: recorded, restated, and found again.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use migma_eraser::domain::fate::{Fate, FirstCall};
use migma_eraser::domain::ids::Fingerprint;
use migma_eraser::domain::key::KeyBase;
use migma_eraser::domain::manifest::{Draft, Member};

use super::super::sample::{self, at, called, deleted, digest, draft, request, span, whole};
use super::{Stand, facts, known, now_and_later, open, record};

pub async fn a_new_journal_is_empty_and_says_so(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    assert!(journal.was_new());
    assert!(open(&journal).await.is_empty());
    assert!(journal.lookup(&[]).await.unwrap().is_empty());
    assert!(known(&journal, "m1").await.is_none());
    let forgotten = journal.forget(at(i64::MAX)).await.unwrap();
    assert_eq!((forgotten.requests, forgotten.more), (0, false));
    journal.tidy().await.unwrap();
}

pub async fn it_was_new_only_where_it_was_empty_when_it_was_opened(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    record(&journal, &whole(&[("m1", 1)])).await;
    assert!(journal.was_new());
    drop(journal);
    assert!(!stand.open().await.was_new());
}

pub async fn a_batch_comes_back_byte_for_byte_after_a_restart(stand: &mut dyn Stand) {
    let odd = Bytes::from_static(b"{\"projectId\":\"\xc3\xa9\",\"emails\":[\"\\u0000a'b\\\"@x.y\"]}\0\xff '';--");
    let draft = Draft {
        project: sample::project("projéct \"1\"; --"),
        body: odd.clone(),
        emails: 1000,
        members: vec![
            Member { request: digest("m2"), spans: vec![span(0, 3, 1), span(7, 0, 2), span(4_000_000_000, 700, 300)] },
            Member { request: digest("m1"), spans: vec![span(u32::MAX, 999, 1)] },
        ],
        requests: vec![request("m1", u32::MAX), request("m2", 5)],
    };
    let fate = Fate { generation: u32::MAX, lost: true, troubled_since: Some(at(-7)), ..called(-5) };
    let journal = stand.open().await;
    let recorded = journal.record(&draft, fate, at(1_795_435_200_123)).await.unwrap().manifest().unwrap();
    drop(journal);

    let journal = stand.open().await;
    let [found] = &open(&journal).await[..] else { panic!("one manifest is open") };
    assert_eq!(facts(found), facts(&recorded));
    assert_eq!((found.body.clone(), found.emails), (odd, 1000));
    assert_eq!((&found.members, &found.project), (&draft.members, &draft.project));
    assert_eq!(found.key, KeyBase::derive(&draft.members));
    assert_eq!(found.fate, fate.recovered());
}

pub async fn what_is_recorded_is_told_at_once_as_it_was_recorded(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let draft = whole(&[("m1", 2), ("m2", 1)]);
    let manifest = journal.record(&draft, called(900), at(1_000)).await.unwrap().manifest().unwrap();
    assert_eq!((manifest.root, manifest.fate), (manifest.id, called(900)));
    assert_eq!((&manifest.project, &manifest.body, manifest.emails), (&draft.project, &draft.body, 3));
    assert_eq!((&manifest.members, manifest.key), (&draft.members, KeyBase::derive(&draft.members)));
    let known = known(&journal, "m1").await.unwrap();
    assert_eq!(known.record, request("m1", 2));
    assert_eq!((known.parts.len(), known.parts[0].manifest), (1, manifest.id));
    assert_eq!((&known.parts[0].spans, known.parts[0].key), (&draft.members[0].spans, manifest.key));
}

pub async fn open_manifests_come_oldest_first(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let mut recorded = Vec::new();
    for name in ["m3", "m1", "m2", "m4"] {
        // Whatever the clock says.
        let now = at(if name == "m1" { 9_000 } else { 1_000 });
        let batch = journal.record(&whole(&[(name, 1)]), called(1_000), now).await.unwrap();
        recorded.push(batch.manifest().unwrap());
    }
    journal.conclude(recorded.remove(1).id, &deleted(2_000)).await.unwrap();
    drop(journal);
    let found: Vec<_> = open(&stand.open().await).await.iter().map(|manifest| facts(manifest)).collect();
    assert_eq!(found, recorded.iter().map(|manifest| facts(manifest)).collect::<Vec<_>>());
}

pub async fn numbers_rise_and_never_repeat(stand: &mut dyn Stand) {
    let mut last = None;
    for life in 0..3 {
        let journal = stand.open().await;
        for batch in 0..3 {
            let manifest = record(&journal, &whole(&[(&format!("m{life}.{batch}"), 1)])).await;
            assert!(Some(manifest.id) > last);
            last = Some(manifest.id);
            journal.conclude(manifest.id, &deleted(2_000)).await.unwrap();
        }
        assert_eq!(journal.forget(at(3_000)).await.unwrap().requests, 3);
    }
}

pub async fn a_batch_recorded_again_is_there_once(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let batch = whole(&[("m1", 2), ("m2", 1)]);
    let first = record(&journal, &batch).await;
    let again = record(&journal, &batch).await;
    assert_eq!((first.id, &first.body, first.key), (again.id, &again.body, again.key));
    now_and_later(stand, journal, async |journal| {
        assert_eq!(open(journal).await.len(), 1);
        assert_eq!(known(journal, "m1").await.unwrap().parts.len(), 1);
    })
    .await;
}

pub async fn a_request_recorded_again_stays_as_it_was_first_recorded(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let first = record(&journal, &draft(&[("m1", 4, 0..2), ("m2", 2, 0..1)])).await;
    let mut again = draft(&[("m3", 1, 0..1), ("m1", 4, 2..4)]);
    again.requests[1].correlation_id = None;
    again.requests[1].metadata = Some("{}".into());
    let second = record(&journal, &again).await;
    // Nor need it be given again.
    let mut third = draft(&[("m2", 2, 1..2)]);
    third.requests.clear();
    let third = record(&journal, &third).await;
    now_and_later(stand, journal, async |journal| {
        let m1 = known(journal, "m1").await.unwrap();
        assert_eq!(m1.record, request("m1", 4));
        assert_eq!(m1.parts.iter().map(|part| part.manifest).collect::<Vec<_>>(), [first.id, second.id]);
        assert_eq!((&m1.parts[0].spans, &m1.parts[1].spans), (&vec![span(0, 0, 2)], &vec![span(2, 1, 2)]));
        let m2 = known(journal, "m2").await.unwrap();
        assert_eq!(m2.parts.iter().map(|part| part.manifest).collect::<Vec<_>>(), [first.id, third.id]);
        assert_eq!(known(journal, "m3").await.unwrap().record, request("m3", 1));
        let found = open(journal).await;
        assert_eq!(found[1].members, again.members, "in the order of the batch");
    })
    .await;
}

pub async fn a_batch_that_cannot_be_recorded_leaves_nothing_behind(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let mut bad = whole(&[("m1", 1), ("m2", 1)]);
    bad.requests.pop();
    let error = journal.record(&bad, called(1_000), at(1_000)).await.unwrap_err();
    assert!(!format!("{error} {:?}", error.source).contains('@'));
    let twice =
        Draft { members: [whole(&[("m3", 1)]).members, whole(&[("m3", 1)]).members].concat(), ..whole(&[("m3", 1)]) };
    assert!(journal.record(&twice, called(1_000), at(1_000)).await.is_err());
    now_and_later(stand, journal, async |journal| {
        assert!(open(journal).await.is_empty());
        assert!(known(journal, "m1").await.is_none());
        assert!(known(journal, "m3").await.is_none());
    })
    .await;
    record(&stand.open().await, &whole(&[("m1", 1), ("m2", 1)])).await;
}

pub async fn a_large_batch_with_many_requests_and_gaps_comes_back_whole(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    // 1000 requests side by side, then 1100 more that name the same contacts, then one with a gap after each email.
    let names: Vec<String> = (0..2_100).map(|n| format!("m{n}")).collect();
    let mut batch = whole(&names[..1000].iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
    for (n, name) in (0u16..).zip(&names[1000..]) {
        batch.members.push(Member { request: digest(name), spans: vec![span(0, n % 1000, 1)] });
        batch.requests.push(request(name, 1));
    }
    let spans: Vec<_> = (0..500).map(|n| span(u32::from(n) * 1_000, n * 2, 1)).collect();
    batch.members.push(Member { request: digest("gaps"), spans });
    batch.requests.push(request("gaps", 500_000));
    let recorded = record(&journal, &batch).await;
    drop(journal);

    let journal = stand.open().await;
    let [found] = &open(&journal).await[..] else { panic!("one manifest is open") };
    assert_eq!(facts(found), facts(&recorded));
    let digests: Vec<_> = batch.members.iter().map(|member| member.request).collect();
    let all = journal.lookup(&digests).await.unwrap();
    assert_eq!(all.len(), 2_101);
    for (member, record) in batch.members.iter().zip(&batch.requests) {
        assert_eq!(all[&member.request].record, *record);
        assert_eq!(all[&member.request].parts[0].spans, member.spans);
    }
}

pub async fn a_restated_fate_outlives_a_restart(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let other = record(&journal, &whole(&[("m1", 1)])).await;
    let before = record(&journal, &whole(&[("m2", 1)])).await;
    let next_key = Fate { generation: 1, unknown: true, lost: true, first_call: None, troubled_since: Some(at(40)) };
    let after = journal.restate(&before, next_key).await.unwrap();
    assert_eq!((after.fate, after.id, &after.body), (next_key, before.id, &before.body));
    assert_eq!(facts(&open(&journal).await[1]), facts(&after));

    let first = FirstCall { at: at(7_000), fingerprint: Fingerprint([9; 16]), steady: None };
    let called_again = Fate { first_call: Some(first), unknown: false, ..next_key };
    let after = journal.restate(&after, called_again).await.unwrap();
    drop(journal);
    let found = open(&stand.open().await).await;
    assert_eq!(found[1].fate, called_again.recovered());
    assert_eq!((facts(&found[0]), facts(&found[1])), (facts(&other), facts(&after)));
}

pub async fn an_ended_manifest_is_not_restated(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let manifest = record(&journal, &whole(&[("m1", 1)])).await;
    journal.conclude(manifest.id, &deleted(2_000)).await.unwrap();
    assert!(journal.restate(&manifest, called(3_000)).await.is_err());
    assert!(open(&journal).await.is_empty());
}

pub async fn a_dropped_call_writes_all_or_nothing_and_never_later(stand: &mut dyn Stand) {
    let names: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    let journal = stand.open().await;
    for (n, name) in names.iter().enumerate() {
        let whole = whole(&[(name, 1), (&format!("{name}.companion"), 2)]);
        let mut call = journal.record(&whole, called(1_000), at(1_000));
        // Polled so many times, then dropped.
        for _ in 0..n % 4 {
            if call.as_mut().now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // A successor that reads what is open has read it all: nothing of the dead comes after it.
    let found: Vec<_> = open(&journal).await.iter().map(|manifest| facts(manifest)).collect();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    record(&journal, &whole(&[("last", 1)])).await;
    let mut later = open(&journal).await;
    assert_eq!(later.pop().unwrap().members[0].request, digest("last"));
    assert_eq!(later.iter().map(|manifest| facts(manifest)).collect::<Vec<_>>(), found);
    drop(journal);

    let journal = stand.open().await;
    assert_eq!(open(&journal).await.len(), found.len() + 1);
    for name in names {
        let companion = known(&journal, &format!("{name}.companion")).await;
        assert_eq!(known(&journal, &name).await.is_some(), companion.is_some());
    }
}

pub async fn many_writers_at_once_lose_nothing(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let write = |n: i64| {
        let journal = Arc::clone(&journal);
        async move {
            let manifest = record(&journal, &whole(&[(&format!("m{n}"), 1)])).await;
            // One that fails harms no other.
            assert!(journal.conclude(migma_eraser::domain::ids::ManifestId(i64::MAX), &deleted(1)).await.is_err());
            if n % 2 == 0 {
                journal.conclude(manifest.id, &deleted(n)).await.unwrap();
            }
            (manifest.id, n)
        }
    };
    let written = join_all((0..60).map(write)).await;
    drop(journal);
    let journal = stand.open().await;
    assert_eq!(open(&journal).await.len(), 30);
    for (id, n) in written {
        let part = known(&journal, &format!("m{n}")).await.unwrap().parts.remove(0);
        assert_eq!((part.manifest, part.conclusion), (id, (n % 2 == 0).then(|| deleted(n))));
    }
}
