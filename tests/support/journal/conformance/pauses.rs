//! Pauses: ordered by somebody, ended by somebody, and by nothing between.

use migma_eraser::domain::ids::ProjectId;
use migma_eraser::domain::pauses::{KEPT, Pause};

use super::super::sample::at;
use super::{Stand, now_and_later};

const DAY: i64 = 24 * 3_600_000;

fn pause(project: Option<&str>, since: i64, until: Option<i64>) -> Pause {
    let reason = Some(format!("since {since}"));
    Pause { project: project.and_then(ProjectId::parse), since: at(since), until: until.map(at), reason }
}

pub async fn a_pause_outlives_a_restart_and_so_does_its_end(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    assert_eq!(journal.pauses().await.unwrap(), []);
    let (all, p) = (pause(None, 5, None), Pause { reason: None, ..pause(Some("p"), 6, None) });
    journal.pause(&all).await.unwrap();
    journal.pause(&p).await.unwrap();
    let both = [all, p.clone()];
    now_and_later(stand, journal, async |journal| assert_eq!(journal.pauses().await.unwrap(), both)).await;
    let journal = stand.open().await;
    journal.resume(None, at(9)).await.unwrap();
    let left = [pause(None, 5, Some(9)), p];
    now_and_later(stand, journal, async |journal| assert_eq!(journal.pauses().await.unwrap(), left)).await;
}

pub async fn a_pause_ordered_twice_stays_as_it_was_first(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    for project in [None, Some("p"), Some("q")] {
        journal.pause(&pause(project, 5, None)).await.unwrap();
        journal.pause(&pause(project, 7, None)).await.unwrap();
    }
    let first = [pause(None, 5, None), pause(Some("p"), 5, None), pause(Some("q"), 5, None)];
    assert_eq!(journal.pauses().await.unwrap(), first);
}

pub async fn what_is_resumed_can_be_paused_again_and_ends_no_other(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    journal.pause(&pause(Some("p"), 1, None)).await.unwrap();
    journal.pause(&pause(Some("q"), 2, None)).await.unwrap();
    let p = ProjectId::parse("p").unwrap();
    for _ in 0..2 {
        journal.resume(Some(&p), at(3)).await.unwrap();
        journal.resume(None, at(4)).await.unwrap();
    }
    journal.pause(&pause(Some("p"), 5, None)).await.unwrap();
    let all = [pause(Some("p"), 1, Some(3)), pause(Some("q"), 2, None), pause(Some("p"), 5, None)];
    assert_eq!(journal.pauses().await.unwrap(), all);
}

pub async fn a_pause_is_forgotten_only_long_after_its_end(stand: &mut dyn Stand) {
    let journal = stand.open().await;
    let kept = i64::try_from(KEPT.as_millis()).unwrap();
    journal.pause(&pause(None, DAY, None)).await.unwrap();
    journal.resume(None, at(2 * DAY)).await.unwrap();
    journal.pause(&pause(Some("p"), 3 * DAY, None)).await.unwrap();
    journal.resume(None, at(2 * DAY + kept)).await.unwrap();
    assert_eq!(journal.pauses().await.unwrap().len(), 2);
    journal.resume(None, at(2 * DAY + kept + 1)).await.unwrap();
    journal.forget(at(9 * kept)).await.unwrap();
    assert_eq!(journal.pauses().await.unwrap(), [pause(Some("p"), 3 * DAY, None)]);
}
