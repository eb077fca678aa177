//! Headers that are nested as deep as a frame has room for: the AMQP library reads them by recursion.

use crate::support::World;
use crate::support::raw::{self, Properties};

const OUTCOMES: &str = "contacts.deletion.outcomes";
const REQUESTS: &str = "contacts.deletion.requests";
const DEAD: &str = "contacts.deletion.dead";

/// One header: values of this kind, each the only one in the one around it, `around` bytes for each.
fn nested(kind: u8, name: &[u8], depth: usize, id: &[u8]) -> Properties {
    let around = 1 + 4 + name.len();
    let mut field = raw::short(b"n");
    for left in (1..=depth).rev() {
        // A table names what is in it, an array does not.
        field.push(kind);
        field.extend(u32::try_from((left - 1) * around + name.len() + 1).unwrap().to_be_bytes());
        field.extend(name);
    }
    field.push(b'V');
    Properties { flags: raw::HEADERS | raw::MESSAGE_ID, bytes: [raw::long(&field), raw::short(id)].concat() }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_as_deep_as_a_frame_allows_do_not_end_the_worker() {
    let world = World::new().await;
    let worker = world.worker().await;
    worker.wait_ready().await;
    let good = br#"{"projectId":"p","emails":["ann@example.org"]}"#;
    for (properties, body) in [
        (nested(b'A', b"", 26_000, b"arrays"), &good[..]),
        (nested(b'F', b"\x00", 21_000, b"tables"), good),
        // Small enough to go on to the dead queue.
        (nested(b'A', b"", 12_000, b"letter"), b"[]"),
    ] {
        raw::publish(&world.vhost.url, REQUESTS, &properties, body).await;
    }
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    let told = outcomes.wait_for(3).await.iter().map(|outcome| {
        let json = outcome.json();
        format!("{} {}", json["messageId"].as_str().unwrap(), json["status"].as_str().unwrap())
    });
    let mut told: Vec<String> = told.collect();
    told.sort();
    assert_eq!(told, ["arrays succeeded", "letter rejected", "tables succeeded"]);
    world.vhost.wait_ready(DEAD, 1).await;
    let (letter, _) = raw::take(&world.vhost.url, DEAD).await;
    assert!(letter.len() > 60_000, "its headers go with it");
    worker.wait_ready().await;
    // By the same process that it was at the start.
    drop(worker.stop().await);
}
