//! Migma's bulk-delete endpoint over HTTP: one POST, one attempt, and what came of it.
//!
//! Never here: a retry, a redirect that is followed, a wait for better times (those are decisions, and decisions are
//! made in [`crate::domain::attempt`]); an email address or the API key in a log line or an error.
//!
//! `answer` sorts what an answer says, `retry_after` reads how long the server wants to be left alone, and the
//! client here tells what never left from what may have arrived.

mod answer;
mod retry_after;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Certificate, Client, Response, redirect, retry};
use tokio::time::Instant;
use url::Url;

use self::answer::Sorted;
use crate::domain::answer::{Doubt, Reply, Verdict};
use crate::domain::manifest::{Journaled, Manifest};
use crate::domain::traceparent::TraceParent;
use crate::ports::{Api, ApiKey};

/// The most of an answer that is read: a thousand addresses at their longest are a tenth of it.
const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// How long an idle connection is kept: less than the minute after which common load balancers drop theirs, so that a
/// call seldom meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(45);

/// Said of a certificate that is not trusted, after what is wrong with it.
const DISTRUST: &str =
    "; migma.ca_file must name the certificate's authority, and migma.base_url the host that it is made out to";

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Where the API is, and how long one attempt may take.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// `migma.base_url`; the endpoint's path is joined to its own.
    pub base_url: Url,
    /// From the first step of connecting to the last byte of the answer.
    pub request_timeout: Duration,
    /// For the connection alone: name, TCP, TLS.
    pub connect_timeout: Duration,
    /// Certificates to trust beside the platform's (PEM).
    pub ca_file: Option<PathBuf>,
    /// The header `User-Agent`.
    pub user_agent: String,
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The base URL is none that a path can be joined to.
    #[error("the API's base URL must be http:// or https://, without user, query or fragment")]
    BaseUrl,
    /// The CA file cannot be read.
    #[error("cannot read the API's CA file {}", path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The CA file holds nothing to trust.
    #[error("no certificate can be read from the API's CA file {}", path.display())]
    CaContents {
        /// Which.
        path: PathBuf,
        /// Why not; `None` where there is simply none in it.
        source: Option<reqwest::Error>,
    },
    /// The process has no default `rustls` provider.
    #[error("no TLS provider is installed")]
    NoTlsProvider,
    /// The HTTP client cannot be made.
    #[error("cannot make the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl ApiError {
    /// Whether the configuration is to blame.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::BaseUrl | Self::CaFile { .. } | Self::CaContents { .. })
    }
}

/// The endpoint.
pub struct MigmaApi {
    client: Client,
    endpoint: Url,
}

impl MigmaApi {
    /// Makes the client; nothing is sent. A default `rustls` provider must have been installed.
    ///
    /// # Errors
    ///
    /// Where the settings cannot be used.
    pub fn new(settings: ApiSettings) -> Result<Self, ApiError> {
        let endpoint = endpoint(&settings.base_url)?;
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(ApiError::NoTlsProvider);
        }
        let mut builder = Client::builder()
            .user_agent(settings.user_agent)
            .timeout(settings.request_timeout)
            .read_timeout(settings.request_timeout)
            .connect_timeout(settings.connect_timeout)
            .pool_idle_timeout(IDLE)
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(retry::never());
        if endpoint.scheme() == "http" {
            // Plain text stays on this machine: a proxy that the environment names would read the key.
            builder = builder.no_proxy();
        }
        if let Some(path) = settings.ca_file {
            builder = builder.tls_certs_merge(certificates(path)?);
        }
        let client = builder.build().map_err(ApiError::Client)?;
        Ok(Self { client, endpoint })
    }

    async fn send(&self, manifest: &Manifest, key: &ApiKey, trace: Option<TraceParent>) -> Result<Response, Lost> {
        // Both are checked where they are made; should one be no header value after all, nothing is sent.
        let unfit = |_| Lost { verdict: Verdict::Unsent, cause: "the API key is no header value".to_owned() };
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.expose())).map_err(unfit)?;
        authorization.set_sensitive(true);
        let idempotency_key = HeaderValue::from_str(manifest.idempotency_key().as_str()).map_err(unfit)?;
        let mut request = self
            .client
            .post(self.endpoint.clone())
            .header(AUTHORIZATION, authorization)
            .header(IDEMPOTENCY_KEY, idempotency_key)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .body(manifest.body.clone());
        if let Some(trace) = trace {
            request = request.header(TRACEPARENT, trace.to_string());
        }
        request.send().await.map_err(|error| {
            // A builder's error comes before any connection. A pooled connection that ended under the call counts
            // as none of these: what was written may have arrived.
            let verdict = if error.is_connect() || error.is_builder() {
                Verdict::Unsent
            } else {
                Verdict::Unknown(doubt(&error))
            };
            let error = error.without_url();
            let cure = if is_about_certificate(&error) { DISTRUST } else { "" };
            Lost { verdict, cause: chain(&error) + cure }
        })
    }
}

#[async_trait]
impl Api for MigmaApi {
    async fn delete(&self, manifest: &Journaled<Manifest>, key: &ApiKey, trace: Option<TraceParent>) -> Reply {
        let start = Instant::now();
        let mut response = match self.send(manifest, key, trace).await {
            Ok(response) => response,
            Err(lost) => {
                tell(manifest, &lost.cause);
                return Reply {
                    verdict: lost.verdict,
                    status: None,
                    api_code: None,
                    replayed: false,
                    request_id: None,
                    retry_after: None,
                    took: start.elapsed(),
                };
            }
        };
        let status = response.status().as_u16();
        let body = match read(&mut response).await {
            Ok(body) => Ok(body),
            Err((doubt, cause)) => {
                tell(manifest, &cause);
                Err(doubt)
            }
        };
        Reply {
            took: start.elapsed(),
            ..reply(status, response.headers(), body.as_deref(), manifest.emails, SystemTime::now())
        }
    }
}

/// What an answer to a call with so many emails says, at this time; how long it took is for the caller to tell. Pure. A
/// body that could not be read to its end comes as the reason.
#[must_use]
pub fn reply(status: u16, headers: &HeaderMap, body: Result<&[u8], &Doubt>, emails: u16, now: SystemTime) -> Reply {
    let Sorted { verdict, api_code, request_id } = answer::sort(status, body, emails);
    let header = |name| text(headers, name);
    Reply {
        verdict,
        status: Some(status),
        api_code,
        replayed: header(IDEMPOTENT_REPLAYED).is_some_and(|value| value.eq_ignore_ascii_case("true")),
        request_id,
        retry_after: retry_after::parse(header(RETRY_AFTER), header(DATE), now),
        took: Duration::ZERO,
    }
}

/// A call without an answer.
struct Lost {
    verdict: Verdict,
    cause: String,
}

/// Reads an answer's body, or tells why there is none.
async fn read(response: &mut Response) -> Result<Bytes, (Doubt, String)> {
    let too_large = || (Doubt::Garbage, format!("the answer is larger than {ANSWER_MAX} bytes"));
    if response.content_length().is_some_and(|length| length > ANSWER_MAX as u64) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    let broken = |error: reqwest::Error| (doubt(&error), chain(&error.without_url()));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn doubt(error: &reqwest::Error) -> Doubt {
    if error.is_timeout() { Doubt::Timeout } else { Doubt::Reset }
}

/// Why a call has no answer is known here alone.
fn tell(manifest: &Manifest, cause: &str) {
    let key = manifest.idempotency_key();
    tracing::warn!(idempotency_key = key.as_str(), cause, "a call to the API has no answer");
}

/// An error and all that caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn is_about_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(of_tls) = error.downcast_ref::<rustls::Error>() {
        return matches!(of_tls, rustls::Error::InvalidCertificate(_));
    }
    // What stands in an io::Error is not its source: that is what stands under it.
    let within = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match within {
        Some(within) => is_about_certificate(within),
        None => error.source().is_some_and(is_about_certificate),
    }
}

/// A header's text, where it is one.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// The endpoint's address: the base URL's own path, with or without a slash at its end, and the endpoint's after it.
fn endpoint(base: &Url) -> Result<Url, ApiError> {
    let plain = base.username().is_empty()
        && base.password().is_none()
        && base.query().is_none()
        && base.fragment().is_none()
        && matches!(base.scheme(), "http" | "https");
    let mut url = base.clone();
    match url.path_segments_mut() {
        Ok(mut path) if plain => path.pop_if_empty().extend(["v1", "contacts", "bulk-delete"]),
        _ => return Err(ApiError::BaseUrl),
    };
    Ok(url)
}

fn certificates(path: PathBuf) -> Result<Vec<Certificate>, ApiError> {
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(source) => return Err(ApiError::CaFile { path, source }),
    };
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if certificates.is_empty() => Err(ApiError::CaContents { path, source: None }),
        Ok(certificates) => Ok(certificates),
        Err(source) => Err(ApiError::CaContents { path, source: Some(source) }),
    }
}
