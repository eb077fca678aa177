//! The admin address: `/livez`, `/readyz`, `/metrics`, the status page, and orders to pause and to resume.
//!
//! Never here: an address of a contact, or a secret in any answer.

mod events;
mod guard;
mod page;
mod pausing;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;

pub use self::pausing::{Brakes, Hindrance, Paused};
pub use self::status::{Backlog, Held, Mood, Overview, Status};

/// Whether the worker can do its work now, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether nothing is in its way.
    pub ready: bool,
    /// What is.
    pub reasons: Vec<Reason>,
}

/// One thing that is in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Its name.
    pub reason: &'static str,
    /// Since or until when, or how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Who knows how the worker is.
pub trait Health: Send + Sync {
    /// As of now.
    fn readiness(&self) -> Readiness;
}

/// The admin address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("admin.listen: cannot listen on {address}; free it, or set another")]
pub struct AdminError {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: std::io::Error,
}

/// The admin address, taken and not served yet.
#[derive(Debug)]
pub struct Bound(TcpListener);

/// What is shown, and who obeys.
#[derive(Clone)]
pub struct Doors {
    /// Who knows how the worker is.
    pub health: Arc<dyn Health>,
    /// Who stops calls.
    pub brakes: Arc<dyn Brakes>,
    /// Who knows what the status page shows.
    pub overview: Arc<dyn Overview>,
    /// All metrics.
    pub registry: Arc<Registry>,
}

#[derive(Clone)]
struct Shared {
    health: Arc<dyn Health>,
    brakes: Arc<dyn Brakes>,
    watch: Arc<events::Watch>,
    registry: Arc<Registry>,
    /// Where it listens.
    listen: Option<SocketAddr>,
}

impl Bound {
    /// Takes the address; port 0 takes any.
    ///
    /// # Errors
    /// Where it is taken already.
    pub async fn take(address: SocketAddr) -> Result<Self, AdminError> {
        TcpListener::bind(address).await.map(Self).map_err(|source| AdminError { address, source })
    }

    /// The address that was taken.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    /// Serves until it is dropped.
    pub async fn serve(self, doors: Doors) {
        let Doors { health, brakes, overview, registry } = doors;
        let watch = Arc::new(events::Watch::new(overview));
        let listen = self.address();
        let router = Router::new()
            .route("/", get(events::page))
            .route("/events", get(events::events))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/pauses", get(pausing::list))
            .route("/pause", post(pausing::pause))
            .route("/resume", post(pausing::resume))
            .layer(DefaultBodyLimit::max(pausing::ORDER_MAX))
            .with_state(Shared { health, brakes, watch, registry, listen });
        // It ends with its listener alone.
        let _ = axum::serve(self.0, router).await;
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let readiness = shared.health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(readiness)).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    // Some gauges look at files: a disk that does not answer must not hold up a thread of the runtime.
    let encoded = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &shared.registry).map(|()| text)
    });
    match encoded.await {
        Ok(Ok(text)) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Held;

    impl Health for Held {
        fn readiness(&self) -> Readiness {
            Readiness { ready: false, reasons: vec![Reason { reason: "api_down", detail: None }] }
        }
    }

    /// Obeys, and remembers.
    #[derive(Default)]
    struct Obedient {
        token: Option<&'static str>,
        pauses: std::sync::Mutex<Vec<Paused>>,
    }

    #[async_trait::async_trait]
    impl Brakes for Obedient {
        fn token(&self) -> Result<Option<String>, String> {
            Ok(self.token.map(str::to_owned))
        }
        fn pauses(&self) -> Result<Vec<Paused>, Hindrance> {
            Ok(self.pauses.lock().unwrap().clone())
        }
        async fn pause(&self, project: Option<String>, reason: Option<String>) -> Result<Vec<Paused>, Hindrance> {
            self.pauses.lock().unwrap().push(Paused { project, since: "now".into(), reason });
            self.pauses()
        }
        async fn resume(&self, project: Option<String>) -> Result<Vec<Paused>, Hindrance> {
            self.pauses.lock().unwrap().retain(|paused| paused.project != project);
            self.pauses()
        }
    }

    impl Overview for Held {
        fn status(&self) -> Status {
            Status {
                now: "2026-11-23T12:00:00.000Z".into(),
                version: "1",
                mood: Mood::Waits,
                words: vec!["The API fails.".into()],
                reasons: vec!["api_down"],
                rate: 0,
                calls_a_minute: 600,
                in_flight: (0, 8),
                quota: None,
                max_emails: 1000,
                backlog: Backlog::default(),
                holds: Vec::new(),
                pauses: Vec::new(),
                minutes: Vec::new(),
                failures: Vec::new(),
            }
        }
    }

    async fn served(listen: [u8; 4], token: Option<&'static str>) -> (String, Arc<Obedient>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bound = Bound::take((listen, 0).into()).await.unwrap();
        let url = format!("http://127.0.0.1:{}", bound.address().unwrap().port());
        let mut registry = Registry::default();
        let _ = crate::telemetry::Metrics::register(&mut registry);
        let brakes = Arc::new(Obedient { token, ..Obedient::default() });
        let doors = Doors {
            health: Arc::new(Held),
            brakes: Arc::clone(&brakes) as _,
            overview: Arc::new(Held),
            registry: Arc::new(registry),
        };
        tokio::spawn(bound.serve(doors));
        (url, brakes)
    }

    async fn order(url: String, headers: &[(&'static str, &str)], body: &str) -> (u16, String) {
        let mut request = reqwest::Client::new().post(url).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn orders_are_obeyed_and_what_is_in_force_is_told() {
        let (url, _) = served([127, 0, 0, 1], None).await;
        let paused = r#"{"pauses":[{"project":"p","since":"now","reason":"r"}]}"#;
        let body = r#"{"project":"p","reason":"r"}"#;
        assert_eq!(order(format!("{url}/pause"), &[], body).await, (200, paused.to_owned()));
        assert_eq!(reqwest::get(format!("{url}/pauses")).await.unwrap().text().await.unwrap(), paused);
        let ended = (200, r#"{"pauses":[]}"#.to_owned());
        assert_eq!(order(format!("{url}/resume"), &[], r#"{"project":"p"}"#).await, ended);
        for wrong in ["", "[]", r#"{"project":1}"#, r#"{"projct":"p"}"#] {
            assert_eq!(order(format!("{url}/pause"), &[], wrong).await.0, 400, "{wrong}");
        }
        assert_eq!(reqwest::get(format!("{url}/pause")).await.unwrap().status(), 405);
    }

    #[tokio::test]
    async fn what_listens_to_all_obeys_nobody_without_a_token_and_still_shows() {
        let (url, brakes) = served([0, 0, 0, 0], None).await;
        let (status, told) = order(format!("{url}/pause"), &[], "{}").await;
        assert!(status == 403 && told.contains("MIGMA_ERASER_ADMIN_TOKEN"), "{status} {told}");
        assert_eq!(order(format!("{url}/resume"), &[], "{}").await.0, 403);
        assert_eq!(reqwest::get(format!("{url}/pauses")).await.unwrap().status(), 200);
        assert_eq!(brakes.pauses().unwrap(), []);
        let (url, brakes) = served([0, 0, 0, 0], Some("s3cret")).await;
        assert_eq!(order(format!("{url}/pause"), &[("authorization", "Bearer other")], "{}").await.0, 401);
        assert_eq!(brakes.pauses().unwrap(), []);
        assert_eq!(order(format!("{url}/pause"), &[("authorization", "Bearer s3cret")], "{}").await.0, 200);
        assert_eq!(brakes.pauses().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_page_says_what_is_and_its_events_what_changes_to_so_many_at_a_time() {
        let (url, _) = served([127, 0, 0, 1], None).await;
        let page = reqwest::get(&url).await.unwrap();
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && page.headers()["cache-control"] == "no-store", "{policy}");
        assert!(page.text().await.unwrap().contains("The API fails."));
        let mut watchers = Vec::new();
        let refused = loop {
            let mut answer = reqwest::get(format!("{url}/events")).await.unwrap();
            if answer.status() != 200 {
                break answer;
            }
            assert_eq!(answer.headers()["content-type"], "text/event-stream");
            assert_eq!(answer.headers()["x-accel-buffering"], "no");
            let first = answer.chunk().await.unwrap().unwrap();
            assert!(first.starts_with(b"data: [[\"state\",") && first.ends_with(b"\n\n"));
            watchers.push(answer);
        };
        assert_eq!((refused.status().as_u16(), watchers.len()), (503, 32));
        assert_eq!(reqwest::get(format!("{url}/livez")).await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn it_lives_tells_why_it_is_not_ready_and_shows_its_metrics() {
        let (url, _) = served([127, 0, 0, 1], None).await;
        assert_eq!(reqwest::get(format!("{url}/livez")).await.unwrap().status(), 200);
        let ready = reqwest::get(format!("{url}/readyz")).await.unwrap();
        assert_eq!(ready.status(), 503);
        assert_eq!(ready.text().await.unwrap(), r#"{"ready":false,"reasons":[{"reason":"api_down"}]}"#);
        let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
        assert!(text.contains("migma_eraser_stepped_aside_total 0"), "{text}");
    }
}
