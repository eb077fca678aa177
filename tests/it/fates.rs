//! What is said of emails whose call was lost, whatever comes after it: never "not found" where that call may have
//! deleted them, and never "failed" without `mayHaveTakenEffect`.

use std::time::Duration;

use migma_eraser::sandbox::Faults;
use migma_eraser::sandbox::faults::Next;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::support::{PATIENCE, Request, World, truth};

const OUTCOMES: &str = "contacts.deletion.outcomes";
const ANN: &str = "ann@example.org";
const NOBODY: &str = "unknown1@example.org";

/// The outcome of a request for these emails where the calls meet this in turn, and nothing after it.
async fn outcome_after(next: &[Next], emails: &[&str], settings: &[(&str, &str)]) -> Value {
    let world = World::new().await;
    world.set_faults(Faults { next: next.iter().cloned().collect(), ..Faults::default() });
    let worker = world.worker_with(settings).await;
    let request = Request::new("doubtful-1", "p", emails);
    world.vhost.publish(std::slice::from_ref(&request)).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(1).await;
    let left = world.api.lock().faults.next.len();
    assert!(left == 0 || settings.iter().any(|(key, _)| *key == "RETRY__GIVE_UP_AFTER"), "{left} faults were not met");
    truth::check(&[request], outcomes.drain().await, &world.api.lock());
    worker.stop().await;
    outcomes.seen[0].json()
}

/// Nothing is known of any email of it.
fn assert_all_uncertain(outcome: &Value) {
    assert_eq!(outcome["status"], "succeeded");
    assert_eq!((&outcome["deleted"], &outcome["notFound"]), (&json!(0), &json!([])));
    assert_eq!(outcome["uncertain"], json!([ANN, NOBODY]));
}

/// It failed with this code, and may be done all the same.
fn assert_failed_in_doubt(outcome: &Value, code: &str) {
    assert_eq!(outcome["status"], "failed");
    assert_eq!((&outcome["failed"][0]["code"], &outcome["failed"][0]["emails"]), (&json!(code), &json!([ANN])));
    assert_eq!(outcome["failed"][0]["mayHaveTakenEffect"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_and_a_403_leave_what_is_not_found_uncertain() {
    assert_all_uncertain(&outcome_after(&[Next::DropAfter, Next::Status(403)], &[ANN, NOBODY], &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_alone_leaves_no_doubt() {
    let outcome = outcome_after(&[Next::Status(403)], &[ANN, NOBODY], &[]).await;
    assert_eq!((&outcome["deleted"], &outcome["notFound"]), (&json!(1), &json!([NOBODY])));
    assert_eq!(outcome["uncertain"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_and_a_split_leave_what_is_not_found_uncertain() {
    assert_all_uncertain(&outcome_after(&[Next::DropAfter, Next::Status(400)], &[ANN, NOBODY], &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_and_a_refused_key_leave_what_is_not_found_uncertain() {
    assert_all_uncertain(&outcome_after(&[Next::DropAfter, Next::Status(401)], &[ANN, NOBODY], &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_after_key_in_conflict_leaves_what_is_not_found_uncertain() {
    let conflicts = vec![Next::Status(409); 6];
    let outcome = outcome_after(&conflicts, &[ANN, NOBODY], &[]).await;
    // The call that holds the key was none of ours, so Ann was still there for the next one.
    assert_eq!((&outcome["deleted"], &outcome["notFound"]), (&json!(1), &json!([])));
    assert_eq!(outcome["uncertain"], json!([NOBODY]));
}

#[tokio::test(flavor = "multi_thread")]
async fn success_false_replayed_three_times_leaves_what_the_next_key_does_not_find_uncertain() {
    let outcome =
        outcome_after(&[Next::Unsuccessful, Next::Unsuccessful, Next::Unsuccessful], &[ANN, NOBODY], &[]).await;
    assert_eq!((&outcome["deleted"], &outcome["notFound"]), (&json!(1), &json!([])));
    assert_eq!(outcome["uncertain"], json!([NOBODY]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_and_a_rejection_have_failed_and_may_be_done() {
    let outcome = outcome_after(&[Next::DropAfter, Next::Status(400)], &[ANN], &[]).await;
    assert_failed_in_doubt(&outcome, "API_REJECTED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_and_an_unknown_project_have_failed_and_may_be_done() {
    let outcome = outcome_after(&[Next::DropAfter, Next::Status(404)], &[ANN], &[]).await;
    assert_failed_in_doubt(&outcome, "PROJECT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_and_a_403_for_too_long_have_failed_and_may_be_done() {
    let next: Vec<Next> = std::iter::once(Next::DropAfter).chain(vec![Next::Status(403); 50]).collect();
    let outcome = outcome_after(&next, &[ANN], &[("RETRY__GIVE_UP_AFTER", "1s")]).await;
    assert_failed_in_doubt(&outcome, "FORBIDDEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_after_errors_that_it_alone_meets_may_be_done() {
    let world = World::new().await;
    let poison = Faults { poison_emails: [ANN.to_owned()].into(), poison_status: Some(500), ..Faults::default() };
    world.set_faults(poison);
    let worker = world.worker_with(&[("RETRY__GIVE_UP_AFTER", "1s"), ("BATCH__LINGER", "1ms")]).await;
    let request = Request::new("doubtful-1", "p", &[ANN]);
    world.vhost.publish(std::slice::from_ref(&request)).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    // Others are served meanwhile: only so can it be told from an outage.
    let mut others = 0;
    let start = std::time::Instant::now();
    while !outcomes.seen.iter().any(|outcome| outcome.json()["messageId"] == "doubtful-1") {
        assert!(start.elapsed() < PATIENCE, "it is never given up");
        others += 1;
        let other = Request::of(&format!("other-{others}"), "q", vec![format!("other{others}@example.org")]);
        world.vhost.publish(&[other]).await;
        outcomes
            .wait_until("the other one's", |seen| {
                seen.iter().any(|o| o.json()["messageId"] == format!("other-{others}"))
            })
            .await;
    }
    let outcome = outcomes.seen.iter().find(|outcome| outcome.json()["messageId"] == "doubtful-1").unwrap().json();
    assert_failed_in_doubt(&outcome, "GAVE_UP");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_that_is_asked_for_after_the_window_leaves_what_is_not_found_uncertain() {
    let world = World::new().await;
    world.set_faults(Faults { drop_after: 1.0, ..Faults::default() });
    // It lost the answer, and dies before it asks again.
    let worker = world.worker_with(&[("RETRY__INITIAL_INTERVAL", "1h"), ("RETRY__MAX_INTERVAL", "1h")]).await;
    let request = Request::new("late-1", "p", &[ANN, NOBODY]);
    world.vhost.publish(std::slice::from_ref(&request)).await;
    let start = std::time::Instant::now();
    while world.api.lock().ledger.summary.performed == 0 {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worker.kill9();
    // A day goes by: for the API, and for what the journal says.
    world.api.lock().forget_answers();
    let journal = format!("sqlite://{}", world.folder.path().join("journal/eraser.db").display());
    let mut journal = sqlx::SqliteConnection::connect(&journal).await.unwrap();
    let day: i64 = 24 * 3600 * 1000;
    let moved = sqlx::query("UPDATE manifests SET first_call_at = first_call_at - ? WHERE first_call_at IS NOT NULL")
        .bind(day)
        .execute(&mut journal)
        .await
        .unwrap();
    assert_eq!(moved.rows_affected(), 1);
    journal.close().await.unwrap();

    world.set_faults(Faults::default());
    let worker = world.worker().await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    let outcome = outcomes.wait_for(1).await[0].json();
    assert_all_uncertain(&outcome);
    truth::check(&[request], outcomes.drain().await, &world.api.lock());
    worker.stop().await;
}
