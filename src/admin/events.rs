//! The page as it is now, and what changes of it: `/` and `/events`. One look at the worker a second at most, however
//! many watch, and a bound on how many.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Shared;
use super::page::{self, Fragment};
use super::status::{Overview, Status};

/// How often what is shown is looked at anew.
const EVERY: Duration = Duration::from_secs(1);
/// How often a silent stream shows that it is there: proxies close what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many may watch at a time.
const WATCHERS: usize = 32;

/// The latest look, shared by all who watch.
pub(super) struct Watch {
    overview: Arc<dyn Overview>,
    latest: Mutex<Option<(Instant, Arc<Status>)>>,
    places: Arc<Semaphore>,
}

impl Watch {
    pub(super) fn new(overview: Arc<dyn Overview>) -> Self {
        Self { overview, latest: Mutex::default(), places: Arc::new(Semaphore::new(WATCHERS)) }
    }

    fn look(&self) -> Arc<Status> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            // Not quite: two looks a second apart ought to be two.
            Some((at, status)) if at.elapsed() < EVERY * 9 / 10 => Arc::clone(status),
            _ => {
                let status = Arc::new(self.overview.status());
                *latest = Some((Instant::now(), Arc::clone(&status)));
                status
            }
        }
    }
}

/// The whole page.
pub(super) async fn page(State(shared): State<Shared>) -> Response {
    let policy = HeaderValue::from_str(&page::POLICY).ok();
    let mut answer = (
        [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ],
        page::document(&shared.watch.look()),
    )
        .into_response();
    match policy {
        Some(policy) => drop(answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy)),
        // It is made of ASCII.
        None => *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    answer
}

/// What changes of it, once a second: the changed parts as `[[id, html], ...]`; at first all of them.
pub(super) async fn events(State(shared): State<Shared>) -> Response {
    let Ok(place) = Arc::clone(&shared.watch.places).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")], "too many watch\n").into_response();
    };
    let stream = changes(shared.watch, place);
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Proxies that know it pass each event on at once.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response()
}

fn changes(watch: Arc<Watch>, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, Infallible>> {
    let told: Vec<Fragment> = Vec::new();
    stream::unfold((watch, place, told), |(watch, place, mut told)| async move {
        loop {
            if !told.is_empty() {
                tokio::time::sleep(EVERY).await;
            }
            let now = page::fragments(&watch.look());
            let changed: Vec<&Fragment> = now.iter().filter(|part| !told.contains(part)).collect();
            let event = (!changed.is_empty()).then(|| Event::default().json_data(&changed));
            told = now;
            if let Some(Ok(event)) = event {
                return Some((Ok(event), (watch, place, told)));
            }
        }
    })
}
