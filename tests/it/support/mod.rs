//! The world of a test: a broker with a vhost of its own, the sandbox, the worker as a process, and the truth.

#[allow(dead_code, reason = "tests/container needs none")]
pub mod authority;
pub mod broker;
#[allow(dead_code, reason = "tests/container needs none")]
pub mod console;
#[allow(dead_code, reason = "tests/container needs none")]
pub mod meddler;
#[allow(dead_code, reason = "tests/container needs none")]
pub mod partition;
#[allow(dead_code, reason = "tests/container needs none")]
pub mod postgres;
#[allow(dead_code, reason = "tests/container needs none")]
pub mod raw;
#[allow(dead_code, reason = "tests/container needs none")]
pub mod relay;
pub mod requests;
pub mod truth;
pub mod worker;

use std::time::Duration;

use migma_eraser::sandbox::{Data, Faults, Running, State};

pub use broker::Vhost;
pub use requests::Request;
pub use worker::Worker;

/// How long anything may take on a loaded machine before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// The API key of all tests; logs are searched for it.
pub const API_KEY: &str = "sk_secret_of_the_tests";

/// Looks again and again until it is so.
#[allow(dead_code, reason = "tests/container needs none")]
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let start = std::time::Instant::now();
    while !so().await {
        assert!(start.elapsed() < PATIENCE, "it never is so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port on which nobody listens until the test does, and that nobody else is given while the socket is kept.
pub fn quiet_port() -> (tokio::net::TcpSocket, u16) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// A broker, an API in which every contact exists that does not begin with `unknown`, and no worker yet.
pub struct World {
    pub vhost: Vhost,
    pub api: Running,
    pub folder: tempfile::TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Data { open_world: true, ..Data::default() }).await
    }

    pub async fn with(data: Data) -> Self {
        Self::on(broker::fresh_vhost().await, data).await
    }

    pub async fn on(vhost: Vhost, data: Data) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = migma_eraser::sandbox::start(([127, 0, 0, 1], 0).into(), State::new(API_KEY, data, 7)).await.unwrap();
        Self { vhost, api, folder: tempfile::tempdir().unwrap() }
    }

    pub fn set_faults(&self, faults: Faults) {
        self.api.lock().faults = faults;
    }

    /// A worker on this world's journal, ready.
    pub async fn worker(&self) -> Worker {
        self.worker_with(&[]).await
    }

    /// The same with settings, such as `("BATCH__LINGER", "1s")`.
    pub async fn worker_with(&self, settings: &[(&str, &str)]) -> Worker {
        Worker::start(self, settings).await
    }
}
