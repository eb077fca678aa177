//! The client against a server that writes exact bytes, and sees exactly what arrives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::domain::answer::{Deletion, Refusal};
use crate::domain::email::Email;
use crate::domain::fate::Fate;
use crate::domain::ids::{ManifestId, ProjectId, RequestDigest};
use crate::domain::key::KeyBase;
use crate::domain::manifest::{Member, Span, body};

const SECRET: &str = "mk_live_do-not-print";

fn manifest() -> Journaled<Manifest> {
    let project = ProjectId::parse("proj_1").unwrap();
    let emails = ["ann@example.com", "bob@example.com"].map(|email| Email::parse(email).unwrap());
    let members =
        vec![Member { request: RequestDigest([7; 32]), spans: vec![Span { request_at: 0, body_at: 0, len: 2 }] }];
    Journaled::attest(Manifest {
        id: ManifestId(1),
        root: ManifestId(1),
        body: body(&project, emails.iter()),
        project,
        emails: 2,
        key: KeyBase::derive(&members),
        members,
        fate: Fate::never_sent(),
    })
}

fn settings(base_url: &str) -> ApiSettings {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ApiSettings {
        base_url: Url::parse(base_url).unwrap(),
        request_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(10),
        ca_file: None,
        user_agent: "migma-eraser/test".to_owned(),
    }
}

async fn call(api: &MigmaApi) -> Reply {
    api.delete(&manifest(), &ApiKey::new(SECRET), None).await
}

/// What the server does with a request once it has read it.
#[derive(Clone)]
enum Then {
    /// Writes this and keeps the connection.
    Answer(String),
    /// Writes this and closes the connection.
    Close(String),
    /// Writes this, and then nothing more, for ever.
    Stall(String),
}

/// Answers the first request with the first step and so on, over whatever connections they come.
struct Server {
    at: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(steps: Vec<Then>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<usize>>::default());
        let (seen, count) = (Arc::clone(&requests), Arc::clone(&connections));
        let steps = Arc::new(Mutex::new(steps.into_iter()));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *count.lock().unwrap() += 1;
                tokio::spawn(converse(stream, Arc::clone(&steps), Arc::clone(&seen)));
            }
        });
        Self { at, requests, connections, task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(mut stream: TcpStream, steps: Arc<Mutex<std::vec::IntoIter<Then>>>, seen: Arc<Mutex<Vec<String>>>) {
    while let Some(request) = read_request(&mut stream).await {
        seen.lock().unwrap().push(request);
        let step = steps.lock().unwrap().next();
        match step {
            Some(Then::Answer(bytes)) => stream.write_all(bytes.as_bytes()).await.unwrap(),
            Some(Then::Stall(bytes)) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                return std::future::pending().await;
            }
            Some(Then::Close(bytes)) => {
                // The client may have gone before the end.
                let _ = stream.write_all(bytes.as_bytes()).await;
                let _ = stream.shutdown().await;
                return;
            }
            None => return,
        }
    }
}

/// One request with its body; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.trim().parse::<usize>().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// The reply to a call that meets this, once.
async fn met(then: Then) -> (Reply, Vec<String>) {
    let server = Server::start(vec![then]).await;
    let reply = call(&MigmaApi::new(settings(&server.url())).unwrap()).await;
    (reply, server.requests())
}

async fn answered(status: &str, headers: &str, body: &str) -> Reply {
    met(Then::Answer(http(status, headers, body))).await.0
}

const DELETED: &str = r#"{"success":true,"data":{"deleted":1,"notFound":["bob@example.com"]}}"#;
const ERROR: &str = r#"{"success":false,"error":"no such ann@example.com","code":"SOME_CODE"}"#;

fn one_deleted() -> Verdict {
    Verdict::Deleted(Deletion { deleted: Some(1), not_found: vec!["bob@example.com".to_owned()] })
}

#[tokio::test]
async fn a_call_is_one_post_of_the_journaled_bytes_under_its_key() {
    let (reply, requests) = met(Then::Answer(http("200 OK", "", DELETED))).await;
    assert_eq!((reply.verdict, reply.status), (one_deleted(), Some(200)));
    assert!(!reply.replayed && reply.retry_after.is_none() && reply.request_id.is_none());

    let [request] = &requests[..] else { panic!("{} requests", requests.len()) };
    let (head, sent) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(sent.as_bytes(), &manifest().body[..]);
    assert!(head.starts_with("POST /v1/contacts/bulk-delete HTTP/1.1\r\n"));
    let mut headers: Vec<_> = head.lines().skip(1).filter(|line| !line.starts_with("host:")).collect();
    headers.sort_unstable();
    let key = format!("idempotency-key: {}", manifest().idempotency_key().as_str());
    let expected = [
        "accept-encoding: identity",
        "accept: application/json",
        "authorization: Bearer mk_live_do-not-print",
        "content-length: 69",
        "content-type: application/json",
        &key,
        "user-agent: migma-eraser/test",
    ];
    assert_eq!(headers, expected);
}

#[test]
fn the_endpoints_path_follows_the_base_urls_own() {
    let joined = |base: &str| endpoint(&Url::parse(base).unwrap()).map(String::from);
    for base in ["https://api.migma.ai", "https://api.migma.ai/"] {
        assert_eq!(joined(base).unwrap(), "https://api.migma.ai/v1/contacts/bulk-delete");
    }
    for base in ["http://127.0.0.1:9/a/b", "http://127.0.0.1:9/a/b/"] {
        assert_eq!(joined(base).unwrap(), "http://127.0.0.1:9/a/b/v1/contacts/bulk-delete");
    }
    for base in ["mailto:ann", "ftp://host/", "https://user@host/", "https://host/?a=b", "https://host/#a"] {
        assert!(matches!(joined(base), Err(ApiError::BaseUrl)), "{base}");
    }
}

#[tokio::test]
async fn a_replay_is_told_by_its_header_and_a_call_by_its_name() {
    let body = r#"{"success":true,"data":{"deleted":2,"notFound":[]},"metadata":{"requestId":"req_1"}}"#;
    let reply = answered("200 OK", "Idempotent-Replayed: true\r\n", body).await;
    assert!(reply.replayed);
    assert_eq!(reply.request_id.as_deref(), Some("req_1"));
    assert!(!answered("200 OK", "Idempotent-Replayed: false\r\n", body).await.replayed);
}

#[tokio::test]
async fn refusals_carry_the_apis_machine_code_and_no_address() {
    let statuses = [
        ("400 Bad Request", Refusal::Body),
        ("401 Unauthorized", Refusal::Key),
        ("403 Forbidden", Refusal::Forbidden),
        ("404 Not Found", Refusal::Project),
        ("409 Conflict", Refusal::Conflict),
        ("422 Unprocessable Content", Refusal::Body),
    ];
    for (status, refusal) in statuses {
        let reply = answered(status, "", ERROR).await;
        assert_eq!(reply.verdict, Verdict::Refused(refusal));
        assert_eq!(reply.status, status[..3].parse().ok());
        assert_eq!(reply.api_code.as_deref(), Some("SOME_CODE"));
        assert!(!format!("{reply:?}").contains('@'));
    }
}

#[tokio::test]
async fn retry_after_is_kept_whatever_the_status() {
    let seconds = |n| Some(Duration::from_secs(n));
    let reply = answered("429 Too Many Requests", "Retry-After: 7\r\n", "slow down").await;
    assert_eq!((reply.verdict, reply.retry_after), (Verdict::Throttled, seconds(7)));

    let headers = "Date: Mon, 23 Nov 2026 12:00:00 GMT\r\nRetry-After: Mon, 23 Nov 2026 12:00:30 GMT\r\n";
    let reply = answered("503 Service Unavailable", headers, "<html>").await;
    assert_eq!((reply.verdict, reply.retry_after), (Verdict::Unknown(Doubt::Server), seconds(30)));

    let reply = answered("408 Request Timeout", "Retry-After: 86400\r\n", "").await;
    assert_eq!((reply.verdict, reply.retry_after), (Verdict::Unknown(Doubt::Busy), seconds(3600)));
}

#[tokio::test]
async fn what_the_api_would_not_say_says_nothing() {
    for (status, body) in [("200 OK", "<html>"), ("204 No Content", ""), ("403 Forbidden", "<html>blocked</html>")] {
        assert_eq!(answered(status, "", body).await.verdict, Verdict::Unknown(Doubt::Garbage));
    }
    assert_eq!(answered("200 OK", "", ERROR).await.verdict, Verdict::Unknown(Doubt::Unsuccessful));
}

#[tokio::test]
async fn no_redirect_is_followed_and_no_second_request_carries_the_key() {
    let elsewhere = Server::start(vec![Then::Answer(http("200 OK", "", DELETED))]).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("Location: {}/\r\n", elsewhere.url());
        let (reply, requests) = met(Then::Answer(http(status, &location, ""))).await;
        assert_eq!(reply.verdict, Verdict::Unknown(Doubt::Garbage));
        assert_eq!(requests.len(), 1);
    }
    assert_eq!(*elsewhere.connections.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_connection_that_ends_before_the_answer_leaves_the_fate_unknown() {
    let whole = http("200 OK", "", DELETED);
    for cut in [0, 5, whole.find("\r\n\r\n").unwrap(), whole.len() - 1] {
        let (reply, requests) = met(Then::Close(whole[..cut].to_owned())).await;
        assert_eq!(reply.verdict, Verdict::Unknown(Doubt::Reset), "after {cut} bytes");
        assert_eq!(requests.len(), 1, "one attempt, after {cut} bytes");
    }
}

#[tokio::test]
async fn a_used_connection_that_ends_under_a_call_leaves_its_fate_unknown() {
    let server = Server::start(vec![Then::Answer(http("200 OK", "", DELETED)), Then::Close(String::new())]).await;
    let api = MigmaApi::new(settings(&server.url())).unwrap();
    assert_eq!(call(&api).await.verdict, one_deleted());
    assert_eq!(call(&api).await.verdict, Verdict::Unknown(Doubt::Reset));
    assert_eq!(server.requests().len(), 2);
    assert_eq!(*server.connections.lock().unwrap(), 1);
}

#[tokio::test]
async fn bytes_that_are_no_http_leave_the_fate_unknown() {
    let (reply, _) = met(Then::Close("SSH-2.0-hello\r\n\r\n".to_owned())).await;
    assert_eq!((reply.verdict, reply.status), (Verdict::Unknown(Doubt::Reset), None));
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_leaves_the_fate_unknown() {
    let whole = http("200 OK", "", DELETED);
    let late = async |cut: usize| {
        let server = Server::start(vec![Then::Stall(whole[..cut].to_owned())]).await;
        let settings = ApiSettings { request_timeout: Duration::from_secs(1), ..settings(&server.url()) };
        let reply = call(&MigmaApi::new(settings).unwrap()).await;
        assert_eq!(reply.verdict, Verdict::Unknown(Doubt::Timeout), "after {cut} bytes");
        assert_eq!(reply.status, (cut > 5).then_some(200));
        assert!(reply.took >= Duration::from_secs(1));
    };
    tokio::join!(late(0), late(5), late(whole.len() - 1));
}

#[tokio::test]
async fn a_status_that_says_it_all_needs_no_body() {
    let cut =
        |status: &str| Then::Close(format!("HTTP/1.1 {status}\r\ncontent-length: 99\r\nRetry-After: 3\r\n\r\n{{"));
    let (reply, _) = met(cut("429 Too Many Requests")).await;
    assert_eq!((reply.verdict, reply.retry_after), (Verdict::Throttled, Some(Duration::from_secs(3))));
    assert_eq!(met(cut("502 Bad Gateway")).await.0.verdict, Verdict::Unknown(Doubt::Server));
    // An error without its end is nobody's voice.
    assert_eq!(met(cut("400 Bad Request")).await.0.verdict, Verdict::Unknown(Doubt::Reset));
}

#[tokio::test]
async fn an_answer_beyond_all_measure_is_not_read() {
    let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", ANSWER_MAX + 1);
    let (reply, _) = met(Then::Stall(announced)).await;
    assert_eq!(reply.verdict, Verdict::Unknown(Doubt::Garbage));

    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    let endless = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", chunk.repeat(5));
    let (reply, _) = met(Then::Close(endless)).await;
    assert_eq!(reply.verdict, Verdict::Unknown(Doubt::Garbage));
}

#[tokio::test]
async fn where_no_connection_is_made_nothing_has_left() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for base in [format!("http://{gone}"), format!("https://{}.invalid", "a".repeat(64))] {
        let reply = call(&MigmaApi::new(settings(&base)).unwrap()).await;
        assert_eq!((reply.verdict, reply.status), (Verdict::Unsent, None), "{base}");
    }
}

#[tokio::test]
async fn where_tls_fails_or_takes_too_long_nothing_has_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());

    let api = MigmaApi::new(settings(&base)).unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    };
    let (reply, _stream) = tokio::join!(call(&api), server);
    assert_eq!(reply.verdict, Verdict::Unsent);

    let settings = ApiSettings { connect_timeout: Duration::from_millis(200), ..settings(&base) };
    let api = MigmaApi::new(settings).unwrap();
    let (reply, _stream) = tokio::join!(call(&api), listener.accept());
    assert_eq!(reply.verdict, Verdict::Unsent);
}

#[tokio::test]
async fn its_place_in_a_trace_goes_with_a_call_and_nothing_where_there_is_none() {
    let answer = || http("200 OK", "", r#"{"success":true,"data":{"deleted":2,"notFound":[]}}"#);
    let server = Server::start(vec![Then::Answer(answer()), Then::Answer(answer())]).await;
    let api = MigmaApi::new(settings(&server.url())).unwrap();
    let place = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    api.delete(&manifest(), &ApiKey::new(SECRET), place).await;
    api.delete(&manifest(), &ApiKey::new(SECRET), None).await;
    let seen = server.requests();
    assert!(seen[0].contains("\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"));
    assert!(!seen[1].contains("traceparent"));
}

#[tokio::test]
async fn a_key_that_is_no_header_value_is_never_sent() {
    let server = Server::start(vec![]).await;
    let api = MigmaApi::new(settings(&server.url())).unwrap();
    let reply = api.delete(&manifest(), &ApiKey::new("two\r\nlines"), None).await;
    assert_eq!(reply.verdict, Verdict::Unsent);
    assert_eq!(*server.connections.lock().unwrap(), 0);
}

#[tokio::test]
async fn neither_key_nor_address_nor_url_shows_in_what_is_told_of_a_failure() {
    let server = Server::start(vec![Then::Close("HTTP/1.1 ann@example.com\r\n\r\n".to_owned())]).await;
    let api = MigmaApi::new(settings(&format!("{}/secret-path", server.url()))).unwrap();
    let lost = api.send(&manifest(), &ApiKey::new(SECRET), None).await.err().unwrap();
    for told in ["mk_live", "@", "secret-path"] {
        assert!(!lost.cause.contains(told), "{}", lost.cause);
    }
    assert!(lost.cause.contains("error sending request"), "{}", lost.cause);
}

#[test]
fn a_ca_file_must_hold_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let with = |name: &str, contents: Option<&str>| {
        let path = folder.path().join(name);
        if let Some(contents) = contents {
            std::fs::write(&path, contents).unwrap();
        }
        MigmaApi::new(ApiSettings { ca_file: Some(path), ..settings("https://127.0.0.1") }).err().unwrap()
    };
    assert!(matches!(with("missing", None), ApiError::CaFile { .. }));
    assert!(matches!(with("empty", Some("")), ApiError::CaContents { .. }));
    let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    assert!(matches!(with("broken", Some(broken)), ApiError::CaContents { .. }));
}
