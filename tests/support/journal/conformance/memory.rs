//! Lookups.

use futures_util::future::join_all;
use migma_eraser::domain::fate::Fate;
use migma_eraser::domain::manifest::{End, split};

use super::super::sample::{at, called, deleted, digest, draft, ended, request, span, whole};
use super::{Stand, known, now_and_later, open, record, remembered};

pub async fn lookup_tells_what_is_under_way_and_nothing_of_the_unknown(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let manifest = record(&journal, &draft(&[("m1", 5, 1..3)])).await;
    let found = journal.lookup(&[digest("m0"), digest("m1"), digest("M1")]).await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), [&digest("m1")]);
    let known = &found[&digest("m1")];
    assert_eq!((&known.record, known.parts.len()), (&request("m1", 5), 1));
    let part = &known.parts[0];
    assert_eq!((part.manifest, part.key, &part.spans), (manifest.id, manifest.key, &vec![span(1, 0, 2)]));
    assert!(part.conclusion.is_none());
}

pub async fn lookup_takes_equal_and_many_ids(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let names: Vec<String> = (0..1_000).map(|n| format!("m{n}")).collect();
    record(&journal, &whole(&names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>())).await;
    let mut ids: Vec<_> = (0..5_000).map(|n| digest(&format!("m{n}"))).collect();
    ids.extend_from_within(..);
    ids.rotate_left(777);
    let found = journal.lookup(&ids).await.unwrap();
    assert_eq!(found.len(), 1_000);
    assert!(names.iter().all(|name| found[&digest(name)].record == request(name, 1)));
}

pub async fn lookup_tells_parts_oldest_manifest_first_and_parents_that_were_split(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let first = record(&journal, &draft(&[("m1", 6, 0..4), ("m2", 1, 0..1)])).await;
    let second = record(&journal, &draft(&[("m3", 1, 0..1), ("m1", 6, 4..6)])).await;
    journal.conclude(second.id, &deleted(4_000)).await.unwrap();
    let halves = split(&first).unwrap();
    let children = journal.split(&first, &ended(End::Split, 5_000), Fate::never_sent(), &halves).await.unwrap();
    journal.conclude(children[1].id, &deleted(6_000)).await.unwrap();
    now_and_later(stand, journal, async |journal| {
        let known = known(journal, "m1").await.unwrap();
        let parts: Vec<_> = known.parts.iter().map(|p| (p.manifest, p.spans.clone(), p.conclusion.clone())).collect();
        let half = |n: usize| halves[n].members[0].spans.clone();
        let expected = vec![
            (first.id, vec![span(0, 0, 4)], Some(ended(End::Split, 5_000))),
            (second.id, vec![span(4, 1, 2)], Some(deleted(4_000))),
            (children[0].id, half(0), None),
            (children[1].id, half(1), Some(deleted(6_000))),
        ];
        assert_eq!(parts, expected);
        let keys = [first.key, second.key, children[0].key, children[1].key];
        assert!(known.parts.iter().map(|part| part.key).eq(keys));
    })
    .await;
}

pub async fn lookup_sees_whatever_was_written_before(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let write_and_look = async |n: i64| {
        let name = format!("m{n}");
        assert!(known(&journal, &name).await.is_none());
        let manifest = record(&journal, &whole(&[(&name, 1)])).await;
        assert!(known(&journal, &name).await.unwrap().parts[0].conclusion.is_none());
        journal.conclude(manifest.id, &deleted(n)).await.unwrap();
        assert_eq!(known(&journal, &name).await.unwrap().parts[0].conclusion, Some(deleted(n)));
    };
    join_all((0..40).map(write_and_look)).await;
}

pub async fn echoes_may_be_absent_or_odd(stand: &mut dyn Stand) {
    let mut batch = whole(&[("m1", 1), ("m2", 1), ("m3", 1)]);
    batch.requests[0].correlation_id = None;
    batch.requests[0].metadata = None;
    batch.requests[1].correlation_id = Some(String::new());
    batch.requests[1].metadata = Some("{ \"b\" : 1.0e2,\n\"a\":\"\\u00e9 \u{e9} '\" }".into());
    batch.requests[2].correlation_id = Some("a\0b".into());
    let journal = stand.open().await;
    let _ = journal.record(&batch, called(1_000), at(1_000)).await.unwrap();
    now_and_later(stand, journal, async |journal| {
        for record in &batch.requests {
            let found = journal.lookup(&[record.digest]).await.unwrap();
            assert_eq!(found[&record.digest].record, *record);
        }
    })
    .await;
}

pub async fn tidying_changes_nothing_that_is_remembered(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let ended = record(&journal, &whole(&[("m1", 3)])).await;
    record(&journal, &whole(&[("m2", 3)])).await;
    journal.conclude(ended.id, &deleted(2_000)).await.unwrap();
    let before = remembered(&known(&journal, "m1").await.unwrap());
    journal.tidy().await.unwrap();
    journal.tidy().await.unwrap();
    now_and_later(stand, journal, async |journal| {
        assert_eq!(remembered(&known(journal, "m1").await.unwrap()), before);
        assert_eq!(open(journal).await.len(), 1);
    })
    .await;
}
