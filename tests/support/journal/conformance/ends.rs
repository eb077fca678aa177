//! Ends: answers, failures, splits.

use migma_eraser::domain::fate::Fate;
use migma_eraser::domain::ids::ManifestId;
use migma_eraser::domain::key::KeyBase;
use migma_eraser::domain::manifest::{Conclusion, End, FailCode, Positions, split};

use super::super::sample::{at, called, deleted, doubtful, ended, positions, whole};
use super::{Stand, facts, known, now_and_later, open, record};

pub async fn every_kind_of_end_is_remembered_as_it_was(stand: &mut dyn Stand) {
    let answered =
        |not_found: Positions, uncertain, count_mismatch| End::Answered { not_found, uncertain, count_mismatch };
    let failed = |code, api_code: Option<&str>, may_have_taken_effect| End::Failed {
        code,
        api_code: api_code.map(Into::into),
        may_have_taken_effect,
    };
    let mut all = vec![
        deleted(2_000),
        ended(answered(positions(&[0, 7, 8, 999]), true, false), i64::MAX),
        ended(answered(positions(&[3]), false, true), -1),
        // Zeros at the end are part of what was given.
        ended(answered(Positions::from_bytes(vec![1, 0, 0]), false, false), 0),
        ended(failed(FailCode::ApiRejected, Some("é'\"\0"), true), 2_000),
        ended(failed(FailCode::ProjectNotFound, None, false), 2_000),
        ended(failed(FailCode::Forbidden, Some(""), false), 2_000),
        ended(failed(FailCode::GaveUp, None, true), 2_000),
        ended(End::Split, 2_000),
    ];
    all.push(Conclusion {
        generation: u32::MAX,
        http_status: None,
        attempts: u32::MAX,
        replayed: true,
        request_id: None,
        ..deleted(2_000)
    });
    all.push(Conclusion { http_status: Some(u16::MAX), request_id: Some(String::new()), ..deleted(2_000) });
    let journal = stand.open().await;
    for (n, conclusion) in all.iter().enumerate() {
        let manifest = record(&journal, &whole(&[(&format!("m{n}"), 2), (&format!("n{n}"), 1)])).await;
        journal.conclude(manifest.id, conclusion).await.unwrap();
    }
    now_and_later(stand, journal, async |journal| {
        for (n, conclusion) in all.iter().enumerate() {
            for name in ["m", "n"] {
                let known = known(journal, &format!("{name}{n}")).await.unwrap();
                assert_eq!(known.parts[0].conclusion.as_ref(), Some(conclusion));
            }
        }
    })
    .await;
}

pub async fn an_ended_manifest_is_open_no_more(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let ended = record(&journal, &whole(&[("m1", 1)])).await;
    let other = record(&journal, &whole(&[("m2", 1)])).await;
    journal.conclude(ended.id, &deleted(2_000)).await.unwrap();
    now_and_later(stand, journal, async |journal| {
        let [found] = &open(journal).await[..] else { panic!("one manifest is open") };
        assert_eq!(facts(found), facts(&other));
        assert!(known(journal, "m2").await.unwrap().parts[0].conclusion.is_none());
    })
    .await;
}

pub async fn ending_twice_keeps_the_first_end(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let manifest = record(&journal, &whole(&[("m1", 1)])).await;
    journal.conclude(manifest.id, &deleted(2_000)).await.unwrap();
    let other = End::Failed { code: FailCode::GaveUp, api_code: None, may_have_taken_effect: true };
    journal.conclude(manifest.id, &ended(other, 3_000)).await.unwrap();
    now_and_later(stand, journal, async |journal| {
        assert_eq!(known(journal, "m1").await.unwrap().parts[0].conclusion, Some(deleted(2_000)));
    })
    .await;
}

pub async fn what_was_never_recorded_cannot_end(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let manifest = record(&journal, &whole(&[("m1", 1)])).await;
    assert!(journal.conclude(ManifestId(manifest.id.0 + 1), &deleted(2_000)).await.is_err());
    assert_eq!(open(&journal).await.len(), 1);
}

pub async fn children_inherit_their_line_and_have_keys_of_their_own(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    record(&journal, &whole(&[("before", 1)])).await;
    let parent = record(&journal, &whole(&[("m1", 2), ("m2", 2)])).await;
    let drafts = split(&parent).unwrap();
    let children = journal.split(&parent, &ended(End::Split, 5_000), doubtful(), &drafts).await.unwrap();
    assert_eq!(children.len(), 2);
    assert!(parent.id < children[0].id && children[0].id < children[1].id);
    for (child, draft) in children.iter().zip(&drafts) {
        assert_eq!((child.root, child.fate), (parent.root, doubtful()));
        assert_eq!((&child.project, &child.body, child.emails), (&draft.project, &draft.body, draft.emails));
        assert_eq!((&child.members, child.key), (&draft.members, KeyBase::derive(&draft.members)));
        assert_ne!(child.key, parent.key);
    }
    now_and_later(stand, journal, async |journal| {
        let found = open(journal).await;
        assert_eq!(found.len(), 3);
        assert!(found[1..].iter().zip(&children).all(|(found, child)| facts(found) == facts(child)));
        assert_eq!(found[1].fate, doubtful());
    })
    .await;
}

pub async fn grandchildren_keep_the_first_root(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let first = record(&journal, &whole(&[("m1", 4)])).await;
    let halves = split(&first).unwrap();
    let children = journal.split(&first, &ended(End::Split, 5_000), Fate::never_sent(), &halves).await.unwrap();
    let quarters = split(&children[1]).unwrap();
    let grandchildren = journal.split(&children[1], &ended(End::Split, 6_000), doubtful(), &quarters).await.unwrap();
    drop(journal);
    let found = open(&stand.open().await).await;
    assert_eq!(
        found.iter().map(|m| m.id).collect::<Vec<_>>(),
        [children[0].id, grandchildren[0].id, grandchildren[1].id]
    );
    assert!(found.iter().all(|m| m.root == first.id));
    assert_eq!(found.iter().map(|m| m.fate.lost).collect::<Vec<_>>(), [false, true, true]);
}

pub async fn a_split_is_all_or_nothing(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let parent = record(&journal, &whole(&[("m1", 1), ("m2", 1)])).await;
    let mut drafts = split(&parent).unwrap();
    // The second half cannot be kept: nobody remembers its request.
    drafts[1].members = whole(&[("stranger", 1)]).members;
    assert!(journal.split(&parent, &ended(End::Split, 5_000), Fate::never_sent(), &drafts).await.is_err());
    now_and_later(stand, journal, async |journal| {
        let [found] = &open(journal).await[..] else { panic!("the parent alone is open") };
        assert_eq!(facts(found), facts(&parent));
        let known = known(journal, "m1").await.unwrap();
        assert!(known.parts.len() == 1 && known.parts[0].conclusion.is_none());
    })
    .await;
    let journal = stand.open().await;
    let drafts = split(&parent).unwrap();
    assert_eq!(journal.split(&parent, &ended(End::Split, 5_000), Fate::never_sent(), &drafts).await.unwrap().len(), 2);
}

/// So a caller may try again where it did not hear whether it was done.
pub async fn splitting_twice_gives_the_same_children(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let parent = record(&journal, &whole(&[("m1", 1), ("m2", 1)])).await;
    let drafts = split(&parent).unwrap();
    let first = journal.split(&parent, &ended(End::Split, 5_000), doubtful(), &drafts).await.unwrap();
    let again = journal.split(&parent, &ended(End::Split, 6_000), doubtful(), &drafts).await.unwrap();
    assert!(again.len() == 2 && first.iter().zip(&again).all(|(a, b)| facts(a) == facts(b)));
    assert_eq!(open(&journal).await.len(), 2);
    let part = known(&journal, "m1").await.unwrap().parts.remove(0);
    assert_eq!(part.conclusion, Some(ended(End::Split, 5_000)));
}

pub async fn what_ended_otherwise_is_not_split(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let parent = journal.record(&whole(&[("m1", 1), ("m2", 1)]), called(1), at(1)).await.unwrap().manifest().unwrap();
    let drafts = split(&parent).unwrap();
    journal.conclude(parent.id, &deleted(2_000)).await.unwrap();
    assert!(journal.split(&parent, &ended(End::Split, 5_000), Fate::never_sent(), &drafts).await.is_err());
    assert!(open(&journal).await.is_empty());
    assert_eq!(known(&journal, "m1").await.unwrap().parts.len(), 1);
}
