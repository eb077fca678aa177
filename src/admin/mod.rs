//! The small HTTP server on `admin.listen`: `/livez`, `/readyz`, `/metrics`.
//!
//! Never here: a way to change anything, or a secret; who reaches the port may read all that it says. The server knows
//! nothing of the worker but [`Health`] and a registry of metrics, and the worker never waits for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::domain::moment::Timestamp;

/// The media type of `/metrics`.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long answers under way may hold up the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the server could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken, or none of ours.
    #[error("cannot listen on {listen} for admin requests")]
    Bind {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// It ended before it was told to.
    #[error("the admin server has ended")]
    Serve(#[source] std::io::Error),
}

/// Who knows how the worker is.
pub trait Health: Send + Sync {
    /// Whether requests are being worked on. Must not block.
    fn readiness(&self) -> Readiness;
}

/// Whether requests are being worked on, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether they are.
    pub ready: bool,
    /// What stands in the way, or is worth knowing although nothing does.
    pub reasons: Vec<Reason>,
}

/// Something that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// One of our own words, such as `api_down`.
    pub reason: &'static str,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// In words; no address, no key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The admin server, before it has a port.
#[derive(Clone, Copy, Debug)]
pub struct Admin;

impl Admin {
    /// Takes the port. Nothing is answered before [`Bound::serve`].
    ///
    /// # Errors
    ///
    /// Where the port cannot be had.
    pub async fn bind(listen: SocketAddr) -> Result<Bound, AdminError> {
        let fault = |source| AdminError::Bind { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(fault)?;
        let at = listener.local_addr().map_err(fault)?;
        Ok(Bound { listener, at })
    }
}

/// The admin server with its port.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    at: SocketAddr,
}

impl Bound {
    /// Where it listens: the real port where 0 was asked for.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.at
    }

    /// Answers until `shutdown`, then finishes what it is answering; a client that does not come to an end is left.
    ///
    /// # Errors
    ///
    /// Where it ends by itself.
    pub async fn serve(
        self,
        health: Arc<dyn Health>,
        registry: Arc<Registry>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), AdminError> {
        let (tell, told) = oneshot::channel::<()>();
        let shutdown = async {
            shutdown.await;
            let _ = tell.send(());
        };
        let server = axum::serve(self.listener, router(health, registry)).with_graceful_shutdown(shutdown);
        let patience = async {
            let _ = told.await;
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            biased;
            end = server => end.map_err(AdminError::Serve),
            () = patience => Ok(()),
        }
    }
}

fn router(health: Arc<dyn Health>, registry: Arc<Registry>) -> Router {
    let ready = Router::new().route("/readyz", get(readyz)).with_state(health);
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(registry);
    Router::new().route("/livez", get(async || "ok\n")).merge(ready).merge(metrics)
}

async fn readyz(State(health): State<Arc<dyn Health>>) -> Response {
    let readiness = health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        // Writing to a string does not fail; a metric that cannot be put into words would.
        Err(std::fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    struct Says(Mutex<Readiness>);

    impl Health for Says {
        fn readiness(&self) -> Readiness {
            self.0.lock().unwrap().clone()
        }
    }

    async fn ask(at: SocketAddr, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn it_says_whether_the_worker_lives_and_is_ready_and_its_numbers() {
        let says = Arc::new(Says(Mutex::new(Readiness { ready: true, reasons: vec![] })));
        let mut registry = Registry::default();
        Metrics::default().register(&mut registry);
        let bound = Admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let at = bound.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let health: Arc<dyn Health> = Arc::clone(&says) as _;
        let server = tokio::spawn(bound.serve(health, Arc::new(registry), async { drop(stopped.await) }));

        let (head, body) = ask(at, "GET /livez").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(body, "ok\n");

        let (head, body) = ask(at, "GET /readyz").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(body, r#"{"ready":true,"reasons":[]}"#);

        let since = Some(Timestamp::from_millis(0));
        let down = Reason { reason: "api_down", since, detail: None };
        *says.0.lock().unwrap() = Readiness { ready: false, reasons: vec![down] };
        let (head, body) = ask(at, "GET /readyz").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(body, r#"{"ready":false,"reasons":[{"reason":"api_down","since":"1970-01-01T00:00:00.000Z"}]}"#);

        let (head, body) = ask(at, "GET /metrics").await;
        assert!(head.to_lowercase().contains("content-type: application/openmetrics-text"), "{head}");
        assert!(body.contains("migma_eraser_unsettled_deliveries 0\n") && body.ends_with("# EOF\n"), "{body}");

        for request in ["POST /readyz", "DELETE /metrics"] {
            assert!(ask(at, request).await.0.starts_with("HTTP/1.1 405 "));
        }
        assert!(ask(at, "GET /").await.0.starts_with("HTTP/1.1 404 "));

        // Nor does a client that has begun to ask, and never ends, hold it up.
        let mut slow = TcpStream::connect(at).await.unwrap();
        slow.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let bound = Admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let error = Admin::bind(bound.local_addr()).await.unwrap_err();
        assert!(error.to_string().contains(&bound.local_addr().to_string()), "{error}");
    }
}
