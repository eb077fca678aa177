//! Pauses over the admin address: `GET /pauses`, `POST /pause`, `POST /resume`. Never a decision about calls: it asks
//! [`Brakes`].

use async_trait::async_trait;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Shared, guard};

/// The longest order in bytes.
pub(super) const ORDER_MAX: usize = 64 << 10;

/// A pause in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Paused {
    /// Which project's; `None` for everybody's.
    pub project: Option<String>,
    /// Since when: RFC 3339.
    pub since: String,
    /// Why.
    pub reason: Option<String>,
}

/// Why an order was not carried out, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The worker is about to start, and sends nothing yet.
    Starting,
    /// What it names is no project.
    NoProject,
    /// The journal did not confirm it, and may have kept it all the same; the worker's log says why.
    Journal,
}

/// Who stops calls and lets them go on.
#[async_trait]
pub trait Brakes: Send + Sync {
    /// The token that an order needs, read anew; `None` where there is none. Blocks for as long as its file does.
    ///
    /// # Errors
    /// It cannot be read: why, without it.
    fn token(&self) -> Result<Option<String>, String>;

    /// The pauses in force.
    ///
    /// # Errors
    /// [`Hindrance::Starting`].
    fn pauses(&self) -> Result<Vec<Paused>, Hindrance>;

    /// Stops a project's calls, or everybody's; tells the pauses in force then.
    ///
    /// # Errors
    /// Why it was not done.
    async fn pause(&self, project: Option<String>, reason: Option<String>) -> Result<Vec<Paused>, Hindrance>;

    /// Ends the pause of a project, or that of everything; tells the pauses in force then.
    ///
    /// # Errors
    /// Why it was not done.
    async fn resume(&self, project: Option<String>) -> Result<Vec<Paused>, Hindrance>;
}

#[derive(Serialize)]
struct InForce {
    pauses: Vec<Paused>,
}

#[derive(Serialize)]
struct Trouble<'a> {
    error: &'a str,
    cure: &'a str,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    project: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resume {
    project: Option<String>,
}

pub(super) async fn list(State(shared): State<Shared>) -> Response {
    answer(shared.brakes.pauses())
}

pub(super) async fn pause(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    match admit(&shared, &headers, &body).await {
        Ok(Pause { project, reason }) => answer(shared.brakes.pause(project, reason).await),
        Err(refused) => refused,
    }
}

pub(super) async fn resume(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    match admit(&shared, &headers, &body).await {
        Ok(Resume { project }) => answer(shared.brakes.resume(project).await),
        Err(refused) => refused,
    }
}

async fn admit<T: serde::de::DeserializeOwned>(
    shared: &Shared,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<T, Response> {
    let brakes = std::sync::Arc::clone(&shared.brakes);
    let token = tokio::task::spawn_blocking(move || brakes.token()).await;
    let token = match token {
        Ok(Ok(token)) => token,
        Ok(Err(why)) => {
            warn!(why, "the admin token cannot be read; orders are refused");
            return Err(tell(StatusCode::SERVICE_UNAVAILABLE, "the worker cannot read its token", "see its log"));
        }
        Err(_) => return Err(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
    };
    guard::check(shared.listen, token.as_deref(), headers)
        .map_err(|denied| tell(denied.status, denied.error, denied.cure))?;
    let cure = r#"send {"project": "...", "reason": "..."}, each of them optional; {"project": "..."} to resume"#;
    serde_json::from_slice(body).map_err(|_| tell(StatusCode::BAD_REQUEST, "that is no order", cure))
}

fn answer(done: Result<Vec<Paused>, Hindrance>) -> Response {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match done {
        Ok(pauses) => axum::Json(InForce { pauses }).into_response(),
        Err(Hindrance::Starting) => {
            tell(unavailable, "the worker is starting, and sends nothing yet", "see /readyz, and ask again")
        }
        Err(Hindrance::NoProject) => tell(StatusCode::BAD_REQUEST, "that is no project", "name one, or leave it out"),
        Err(Hindrance::Journal) => tell(
            unavailable,
            "the journal did not confirm it: it may have been kept or not",
            "see /pauses in some seconds, and the worker's log, and order it again; where calls must stop at once, stop the worker",
        ),
    }
}

fn tell(status: StatusCode, error: &str, cure: &str) -> Response {
    (status, axum::Json(Trouble { error, cure })).into_response()
}
