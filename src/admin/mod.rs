//! The admin address: `/livez`, `/readyz`, `/metrics`. Never here: an address of a contact, or a secret.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;

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

#[derive(Clone)]
struct Shared {
    health: Arc<dyn Health>,
    registry: Arc<Registry>,
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
    pub async fn serve(self, health: Arc<dyn Health>, registry: Arc<Registry>) {
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Shared { health, registry });
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
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shared.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
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

    #[tokio::test]
    async fn it_lives_tells_why_it_is_not_ready_and_shows_its_metrics() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bound = Bound::take(([127, 0, 0, 1], 0).into()).await.unwrap();
        let url = format!("http://{}", bound.address().unwrap());
        let mut registry = Registry::default();
        let metrics = crate::telemetry::Metrics::register(&mut registry);
        metrics.deliveries.inc();
        tokio::spawn(bound.serve(Arc::new(Held), Arc::new(registry)));
        assert_eq!(reqwest::get(format!("{url}/livez")).await.unwrap().status(), 200);
        let ready = reqwest::get(format!("{url}/readyz")).await.unwrap();
        assert_eq!(ready.status(), 503);
        assert_eq!(ready.text().await.unwrap(), r#"{"ready":false,"reasons":[{"reason":"api_down"}]}"#);
        let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
        assert!(text.contains("migma_eraser_deliveries_total 1"), "{text}");
    }
}
