//! The API's door: HTTP/1.1 on a listener, and beside the API its `/_sandbox` side for faults, contacts and ledger.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State as Shared};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use hyper::service::Service as _;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::answer::{Answer, Reply};
use super::faults::Faults;
use super::ledger::Summary;
use super::state::{Call, Data, State};

/// A stand-in that listens; it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    /// The API's state, for who runs it in the same process.
    pub state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Running {
    /// `http://address`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The API's state.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits for ever.
    pub async fn join(mut self) {
        let _ = (&mut self.server).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Starts to listen; port 0 takes any.
///
/// # Errors
/// Where the address cannot be listened on.
pub async fn start(listen: SocketAddr, state: State) -> std::io::Result<Running> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let state = Arc::new(Mutex::new(state));
    let router = router(Arc::clone(&state));
    let server = tokio::spawn(serve(listener, router));
    Ok(Running { address, state, server })
}

/// Marks an answer that is not to be sent: its connection ends instead.
#[derive(Clone, Copy, Debug)]
struct Dropped;

async fn serve(listener: TcpListener, router: Router) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let service = TowerToHyperService::new(router.clone());
        let service = hyper::service::service_fn(move |request| {
            let answering = service.call(request);
            async move {
                match answering.await {
                    Ok(response) if response.extensions().get::<Dropped>().is_none() => Ok(response),
                    // A service that fails ends its connection without an answer.
                    Ok(_) => Err("dropped"),
                    Err(never) => match never {},
                }
            }
        });
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Api = Arc<Mutex<State>>;

fn router(state: Api) -> Router {
    Router::new()
        .route("/v1/contacts/bulk-delete", post(bulk_delete))
        .route("/_sandbox/faults", get(faults).put(set_faults).delete(clear_faults))
        .route("/_sandbox/contacts", put(add_contacts).post(add_contacts))
        .route("/_sandbox/contacts/{project}", get(contacts))
        .route("/_sandbox/api-key", put(set_api_key))
        .route("/_sandbox/ledger", get(ledger).delete(clear_ledger))
        .route("/_sandbox/summary", get(summary))
        .layer(DefaultBodyLimit::max(256 << 20))
        .with_state(state)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

async fn bulk_delete(Shared(api): Shared<Api>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    // On its own task: the API goes on working when its caller hangs up.
    let worked = tokio::spawn(async move {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let call = Call { authorization: text("authorization"), idempotency_key: text("idempotency-key"), body: &body };
        let pending = lock(&api).begin(call, now());
        if pending.latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(pending.latency_ms)).await;
        }
        lock(&api).finish(pending, now())
    });
    match worked.await {
        Ok(Reply::Answer(answer)) => respond(answer),
        Ok(Reply::Dropped) | Err(_) => {
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(Dropped);
            response
        }
    }
}

fn respond(answer: Answer) -> Response<Body> {
    let mut builder = Response::builder().status(answer.status).header("content-type", answer.content_type);
    for (name, value) in answer.headers {
        builder = builder.header(name, value);
    }
    builder.body(Body::from(answer.body)).unwrap_or_default()
}

async fn faults(Shared(api): Shared<Api>) -> Json<Faults> {
    Json(lock(&api).faults.clone())
}

async fn set_faults(Shared(api): Shared<Api>, Json(faults): Json<Faults>) -> StatusCode {
    lock(&api).faults = faults;
    StatusCode::NO_CONTENT
}

async fn clear_faults(Shared(api): Shared<Api>) -> StatusCode {
    lock(&api).faults = Faults::default();
    StatusCode::NO_CONTENT
}

async fn add_contacts(Shared(api): Shared<Api>, Json(data): Json<Data>) -> StatusCode {
    lock(&api).add(data);
    StatusCode::NO_CONTENT
}

async fn contacts(Shared(api): Shared<Api>, Path(project): Path<String>) -> Response<Body> {
    match lock(&api).contacts(&project) {
        Some(contacts) => Json(contacts).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn set_api_key(Shared(api): Shared<Api>, key: String) -> StatusCode {
    lock(&api).set_api_key(key.trim());
    StatusCode::NO_CONTENT
}

#[derive(serde::Deserialize)]
struct Filter {
    project: Option<String>,
    key: Option<String>,
}

/// One JSON object a line, in order of the work.
async fn ledger(Shared(api): Shared<Api>, Query(filter): Query<Filter>) -> Result<Vec<u8>, Infallible> {
    let api = lock(&api);
    let mut lines = Vec::new();
    for entry in &api.ledger.entries {
        let project = filter.project.as_ref().is_none_or(|project| *project == entry.project_id);
        let key = filter.key.is_none() || filter.key == entry.idempotency_key;
        if project && key && serde_json::to_writer(&mut lines, entry).is_ok() {
            lines.push(b'\n');
        }
    }
    Ok(lines)
}

async fn clear_ledger(Shared(api): Shared<Api>) -> StatusCode {
    lock(&api).ledger = super::ledger::Ledger::default();
    StatusCode::NO_CONTENT
}

async fn summary(Shared(api): Shared<Api>) -> Json<Summary> {
    Json(lock(&api).ledger.summary.clone())
}

#[cfg(test)]
mod tests {
    use super::super::faults::Next;
    use super::*;

    async fn sandbox() -> (Running, reqwest::Client) {
        // A provider that is installed already serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let data = Data { open_world: true, ..Data::default() };
        let running = start(([127, 0, 0, 1], 0).into(), State::new("k", data, 1)).await.unwrap();
        (running, reqwest::Client::new())
    }

    fn delete(running: &Running, client: &reqwest::Client, key: &str) -> reqwest::RequestBuilder {
        client
            .post(format!("{}/v1/contacts/bulk-delete", running.url()))
            .header("authorization", "Bearer k")
            .header("idempotency-key", key)
            .body(r#"{"projectId":"p","emails":["ann@x.de","unknown@x.de"]}"#)
    }

    #[tokio::test]
    async fn it_answers_over_http_and_shows_its_ledger() {
        let (running, client) = sandbox().await;
        let response = delete(&running, &client, "1").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.text().await.unwrap().contains(r#""deleted":1,"notFound":["unknown@x.de"]"#));
        let again = delete(&running, &client, "1").send().await.unwrap();
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        let ledger = client.get(format!("{}/_sandbox/ledger?project=p", running.url())).send().await.unwrap();
        assert_eq!(ledger.text().await.unwrap().lines().count(), 1);
    }

    #[tokio::test]
    async fn a_dropped_answer_ends_its_connection_and_the_work_stays_done() {
        let (running, client) = sandbox().await;
        let url = format!("{}/_sandbox/faults", running.url());
        let set = client.put(url).header("content-type", "application/json").body(r#"{"next":["drop_after"]}"#);
        assert_eq!(set.send().await.unwrap().status(), 204);
        assert_eq!(running.lock().faults.next, [Next::DropAfter]);
        assert!(delete(&running, &client, "1").send().await.is_err());
        assert_eq!(running.lock().ledger.summary.deleted, 1);
        assert_eq!(delete(&running, &client, "1").send().await.unwrap().status(), 200);
    }
}
