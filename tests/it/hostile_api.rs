//! Whatever answers in the API's place: every outcome is true, and what is no answer is asked for again.
//!
//! Each call here does its work before its answer is replaced, so that an outcome tells whether the worker believed what
//! it heard, or asked again under the same key and heard what was really done.

use serde_json::{Value, json};

use crate::support::meddler::{Instead, Meddler};
use crate::support::{Request, World, truth};

const OUTCOMES: &str = "contacts.deletion.outcomes";
const DEAD: &str = "contacts.deletion.dead";

/// An answer with its length.
fn answer(head: &str, body: impl AsRef<[u8]>) -> Instead {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
    Instead::Bytes([head.as_bytes(), body].concat())
}

fn raw(text: &str) -> Instead {
    Instead::Bytes(text.as_bytes().to_vec())
}

/// A report that everything is gone, which would be a lie.
const ALL_DELETED: &str = r#"{"success":true,"data":{"deleted":2,"notFound":[]}}"#;

/// What the API would never say, and nobody may believe.
fn no_answers() -> Vec<(&'static str, Instead)> {
    let html = "<html><body>OK</body></html>";
    let huge = format!(r#"{{"success":true,"data":{{"deleted":2,"notFound":[]}},"x":"{}"}}"#, "x".repeat(5 << 20));
    let deep = format!(r#"{{"success":true,"x":{}}}"#, "[".repeat(100_000));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut cases = vec![
        ("200 with HTML", answer("200 OK\r\ncontent-type: text/html", html)),
        ("200 with HTML that claims to be JSON", answer("200 OK\r\ncontent-type: application/json", html)),
        ("200 with nothing", answer("200 OK", "")),
        ("too large", answer("200 OK", huge)),
        ("too large by its own word", raw("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{")),
        ("of a length that is none", raw("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}")),
        ("of two lengths", raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 51\r\n\r\n{}")),
        ("endless", Instead::Endless(chunked.into(), [b"10000\r\n", &[b' '; 0x10000][..], b"\r\n"].concat())),
        ("an endless head", Instead::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(1000))),
        ("an endless line", Instead::Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'y'; 0x10000])),
        ("endless hints", Instead::Endless(vec![], b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100))),
        ("dripping", Instead::Drip(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_vec(), vec![b' '; 1000])),
        ("a dripping head", Instead::Drip(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".repeat(100))),
        ("cut short", raw("HTTP/1.1 200 OK\r\ncontent-length: 51\r\n\r\n{\"success\":true,")),
        ("a bad chunk", raw(&format!("{chunked}zz\r\n{ALL_DELETED}\r\n0\r\n\r\n"))),
        ("gzip", answer("200 OK\r\ncontent-encoding: gzip", [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0x56])),
        ("no HTTP", raw("SSH-2.0-OpenSSH_9.9\r\n")),
        ("HTTP/2", raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        ("101", raw("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")),
        ("204", raw("HTTP/1.1 204 No Content\r\n\r\n")),
        ("205", answer("205 Reset Content", "")),
        ("206, a part", answer("206 Partial Content\r\ncontent-range: bytes 0-9/51", &ALL_DELETED[..10])),
        ("301", answer("301 Moved Permanently\r\nlocation: http://127.0.0.1:9/", "")),
        ("304", raw("HTTP/1.1 304 Not Modified\r\n\r\n")),
        ("304 with a report", answer("304 Not Modified", ALL_DELETED)),
        ("307", answer("307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/", ALL_DELETED)),
        ("status 099", answer("099 Odd", ALL_DELETED)),
        ("status 999", answer("999 Odd", ALL_DELETED)),
        ("500 with a report", answer("500 Internal Server Error", ALL_DELETED)),
        ("404 of a proxy", answer("404 Not Found", html)),
        ("403 of a proxy", answer("403 Forbidden", r#"{"message":"Forbidden"}"#)),
        ("deep", answer("200 OK", deep)),
    ];
    let bodies = [
        "null",
        "[]",
        "7",
        "\"success\"",
        "{}",
        "\u{feff}{}",
        r#"{"success":"true","data":{"deleted":2,"notFound":[]}}"#,
        r#"{"success":1,"data":{"deleted":2,"notFound":[]}}"#,
        r#"{"success":true,"data":[]}"#,
        r#"{"success":true,"data":{"deleted":2,"notFound":"none"}}"#,
        r#"{"success":true,"data":{"deleted":1,"notFound":[null]}}"#,
        r#"{"success":true,"data":{"deleted":1,"notFound":[{"email":"x"}]}}"#,
        r#"{"success":true,"data":{"deleted":1}}"#,
        r#"{"success":true,"data":{"deleted":-2}}"#,
        r#"{"success":true,"data":{"deleted":2.0}}"#,
        r#"{"success":true,"data":{"deleted":1e400,"notFound":[]}}"#,
        r#"{"success":true,"data":{"deleted":2,"notFound":[]}} and more"#,
        r#"{"success":false,"data":{"deleted":2,"notFound":[]}}"#,
    ];
    cases.extend(bodies.map(|body| (body, answer("200 OK", body))));
    cases
}

struct Scene {
    world: World,
    meddler: Meddler,
    requests: Vec<Request>,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let meddler = Meddler::start(world.api.address).await;
        Self { world, meddler, requests: Vec::new() }
    }

    /// Publishes a request, of one contact and one address that is none, whose call hears this.
    async fn ask(&mut self, instead: Instead) {
        let at = self.requests.len();
        let emails = vec![format!("user{at}@example.org"), format!("unknown{at}@example.org")];
        let request = Request::of(&format!("m-{at}"), "p", emails);
        self.meddler.answer(instead);
        self.world.vhost.publish(std::slice::from_ref(&request)).await;
        self.requests.push(request);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_would_never_say_is_not_believed_and_asked_for_again() {
    let mut scene = Scene::new().await;
    let url = scene.meddler.url();
    let settings = [("MIGMA__BASE_URL", url.as_str()), ("MIGMA__REQUEST_TIMEOUT", "1s")];
    let worker = scene.world.worker_with(&settings).await;
    let mut outcomes = scene.world.vhost.collect(OUTCOMES).await;
    for (at, (name, instead)) in no_answers().into_iter().enumerate() {
        scene.ask(instead).await;
        let outcome = outcomes.wait_for(at + 1).await[at].json();
        let not_found = json!([format!("unknown{at}@example.org")]);
        assert_eq!(
            (&outcome["status"], &outcome["deleted"], &outcome["notFound"], &outcome["uncertain"]),
            (&json!("succeeded"), &json!(1), &not_found, &json!([])),
            "{name}: {outcome}"
        );
        assert_eq!(outcome["requests"].as_array().unwrap().len(), 1, "{name}: under one key");
        assert!(outcome["requests"][0]["attempts"].as_u64().unwrap() > 1, "{name}: asked again");
        assert_eq!(outcome["countMismatch"], false, "{name}");
        assert!(scene.meddler.is_done(), "{name}");
    }
    truth::check(&scene.requests, outcomes.drain().await, &scene.world.api.lock());
    assert_eq!(scene.world.vhost.ready(DEAD).await, 0);
    worker.wait_ready().await;
    println!("at most {} MiB", worker.peak_mib());
    let log = worker.stop().await;
    assert!(!log.contains("example.org"), "no address in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_with_odd_counts_or_strangers_is_taken_for_what_it_says_of_ours() {
    let mut scene = Scene::new().await;
    let url = scene.meddler.url();
    let worker = scene.world.worker_with(&[("MIGMA__BASE_URL", &url)]).await;
    let mut outcomes = scene.world.vhost.collect(OUTCOMES).await;
    let strangers: Vec<String> = (0..100_000).map(|n| format!("stranger{n}@never.sent")).collect();
    let report = |deleted: &str, not_found: &[&str]| {
        format!(r#"{{"success":true,"data":{{"deleted":{deleted},"notFound":{}}},"success2":1}}"#, json!(not_found))
    };
    let many: Vec<&str> = strangers.iter().map(String::as_str).chain(["UNKNOWN0@example.org"]).collect();
    // Deleted, what was not found, and whether the two disagree.
    let mut cases = vec![(report("1", &many), true)];
    for (at, deleted) in ["-1", "1.5", "1e300", "18446744073709551615", "\"1\"", "null", "2", "0"].iter().enumerate() {
        cases.push((report(deleted, &[&format!("unknown{}@example.org", at + 1)]), true));
    }
    let at = cases.len();
    cases.push((report("1", &[&format!("unknown{at}@example.org"), &format!("Unknown{at}@EXAMPLE.org")]), true));
    let at = cases.len();
    cases.push((report("1", &[&format!(" unknown{at}@example.org\n")]), false));
    for (at, (body, mismatch)) in cases.into_iter().enumerate() {
        scene.ask(answer("200 OK", body.clone())).await;
        let outcome = outcomes.wait_for(at + 1).await[at].json();
        let found: (&Value, &Value) = (&outcome["deleted"], &outcome["notFound"]);
        assert_eq!(found, (&json!(1), &json!([format!("unknown{at}@example.org")])), "{body:.200}: {outcome}");
        assert_eq!(outcome["countMismatch"], mismatch, "{body:.200}");
        assert_eq!(outcome["requests"][0]["attempts"], 1, "{body:.200}");
        assert!(scene.meddler.is_done(), "{body:.200}");
    }
    truth::check(&scene.requests, outcomes.drain().await, &scene.world.api.lock());
    let log = worker.stop().await;
    assert!(!log.contains("never.sent") && !log.contains("example.org"), "no address in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_before_an_answer_or_claims_of_it_what_is_not_so_does_no_harm() {
    let mut scene = Scene::new().await;
    let url = scene.meddler.url();
    let worker = scene.world.worker_with(&[("MIGMA__BASE_URL", &url)]).await;
    let mut outcomes = scene.world.vhost.collect(OUTCOMES).await;
    let heads = [
        ("100 and 103 first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", "200 OK"),
        ("a claim of gzip", "", "200 OK\r\ncontent-encoding: gzip"),
        ("a claim of another kind", "", "200 OK\r\ncontent-type: image/png; charset=utf-16"),
        (
            "odd headers",
            "",
            "200 OK\r\nretry-after: -1\r\ndate: never\r\nidempotent-replayed: \u{ff}\r\nset-cookie: a=b",
        ),
        ("201", "", "201 Created"),
    ];
    for (at, (name, before, head)) in heads.into_iter().enumerate() {
        let body = format!(
            r#"{{"success":true,"data":{{"deleted":1,"notFound":["unknown{at}@example.org"]}},"metadata":"x"}}"#
        );
        let Instead::Bytes(bytes) = answer(head, body) else { unreachable!() };
        scene.ask(Instead::Bytes([before.as_bytes(), &bytes].concat())).await;
        let outcome = outcomes.wait_for(at + 1).await[at].json();
        assert_eq!((&outcome["deleted"], &outcome["countMismatch"]), (&json!(1), &json!(false)), "{name}: {outcome}");
        assert!(scene.meddler.is_done(), "{name}");
    }
    truth::check(&scene.requests, outcomes.drain().await, &scene.world.api.lock());
    worker.stop().await;
}
