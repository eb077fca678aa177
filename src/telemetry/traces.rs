//! Traces by OpenTelemetry: a span for each batch, linked to the traces of its requests, and one for each of its calls.
//!
//! Never here: an address, an API key, or a name that a sender chose, but for a project's, which is redacted; a wait for
//! the collector.

mod export;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanProcessor};
use url::Url;

use self::export::Queue;
use super::Metrics;
use crate::domain::answer::{Doubt, Refusal, Reply, Verdict};
use crate::domain::ids::redacted;
use crate::domain::manifest::{Conclusion, End, Manifest};
use crate::domain::traceparent::TraceParent;
use crate::ports::{Trace, Tracer};

/// The most traces of requests that a batch is linked to; the rest is counted.
const LINKS_MAX: usize = 128;

/// Where traces go, and how many.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The collector's base URL; `/v1/traces` is joined to it.
    pub endpoint: Url,
    /// The share of batches that are traced, 0.0 to 1.0.
    pub sample_ratio: f64,
}

/// Why there can be no exporter.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.otlp_endpoint: traces cannot be exported there")]
pub struct TraceError(#[source] opentelemetry_otlp::ExporterBuildError);

/// Makes spans, and has them exported.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Exports to a collector by OTLP over HTTP, from a thread of its own. The headers, the timeout and the pace are
    /// those of OpenTelemetry's environment variables.
    ///
    /// # Errors
    /// Where the exporter cannot be made.
    pub fn export(settings: &TraceSettings, metrics: &Metrics) -> Result<Self, TraceError> {
        let queue = export::to_collector(&settings.endpoint, metrics).map_err(TraceError)?;
        Ok(Self::through(queue, settings.sample_ratio))
    }

    fn through(queue: Queue<impl SpanProcessor + 'static>, sample_ratio: f64) -> Self {
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio))))
            // Ours stand before: what is linked is counted.
            .with_max_links_per_span(u32::try_from(LINKS_MAX).unwrap_or(u32::MAX))
            .with_resource(resource())
            .build();
        let tracer = provider.tracer("migma-eraser");
        Self { provider, tracer }
    }

    /// Exports what is left, for so long at most. Blocks.
    pub fn close(&self, limit: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(limit) {
            tracing::debug!(error = %error, "the last spans were not exported");
        }
    }
}

/// Who we are; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are obeyed.
fn resource() -> Resource {
    let given = Resource::builder().build();
    let service = given.get(&"service.name".into()).map(|name| name.to_string());
    let named = service.is_some_and(|name| !name.starts_with("unknown_service"));
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if named { resource.build() } else { resource.with_service_name("migma-eraser").build() }
}

impl Tracer for Traces {
    fn follow(&self, manifest: &Manifest, requests: &[TraceParent], parent: Option<TraceParent>) -> Box<dyn Trace> {
        let within =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(context(parent)));
        let attributes = [
            KeyValue::new("migma_eraser.project", redacted(manifest.project.as_str()).into_owned()),
            KeyValue::new("migma_eraser.batch.emails", i64::from(manifest.emails)),
            KeyValue::new("messaging.batch.message_count", count(manifest.members.len())),
        ];
        let span = self.tracer.span_builder("delete batch").with_kind(SpanKind::Internal).with_attributes(attributes);
        let mut batch = Batch {
            tracer: self.tracer.clone(),
            span: self.tracer.build_with_context(span, &within),
            call: None,
            calls: 0,
            linked: HashSet::new(),
            not_linked: HashSet::new(),
        };
        batch.link(requests);
        Box::new(batch)
    }
}

/// A batch on its way. Dropped before its end, its span ends without a result.
struct Batch {
    tracer: SdkTracer,
    span: Span,
    call: Option<Span>,
    calls: i64,
    linked: HashSet<TraceParent>,
    /// Bounded by the requests of a batch, and so by its emails.
    not_linked: HashSet<TraceParent>,
}

impl Batch {
    fn link(&mut self, requests: &[TraceParent]) {
        for request in requests {
            if self.linked.contains(request) {
                continue;
            }
            if self.linked.len() < LINKS_MAX {
                self.linked.insert(*request);
                self.span.add_link(context(*request), Vec::new());
            } else {
                self.not_linked.insert(*request);
            }
        }
    }
}

impl Trace for Batch {
    fn here(&self) -> Option<TraceParent> {
        place(self.span.span_context())
    }

    fn call(&mut self, manifest: &Manifest) -> Option<TraceParent> {
        let within = Context::new().with_remote_span_context(self.span.span_context().clone());
        let attributes = [
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("http.request.resend_count", self.calls),
            KeyValue::new("migma_eraser.idempotency_key", manifest.idempotency_key().as_str().to_owned()),
        ];
        let span = self.tracer.span_builder("POST /v1/contacts/bulk-delete");
        let span = span.with_kind(SpanKind::Client).with_attributes(attributes);
        let span = self.tracer.build_with_context(span, &within);
        self.calls += 1;
        let place = place(span.span_context());
        self.call = Some(span);
        place
    }

    fn called(&mut self, reply: &Reply) {
        let Some(mut span) = self.call.take() else { return };
        if let Some(status) = reply.status {
            span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        if let Some(error) = error_type(&reply.verdict) {
            span.set_attribute(KeyValue::new("error.type", error));
            span.set_status(Status::error(error));
        }
        span.end();
    }

    fn ended(&mut self, conclusion: &Conclusion, requests: &[TraceParent]) {
        self.link(requests);
        if !self.not_linked.is_empty() {
            let rest = KeyValue::new("migma_eraser.batch.requests_not_linked", count(self.not_linked.len()));
            self.span.set_attribute(rest);
        }
        let result = match &conclusion.end {
            End::Answered { not_found, uncertain, .. } => {
                let name = if *uncertain { "migma_eraser.batch.uncertain" } else { "migma_eraser.batch.not_found" };
                self.span.set_attribute(KeyValue::new(name, i64::from(not_found.len())));
                "done"
            }
            End::Failed { code, .. } => {
                self.span.set_attribute(KeyValue::new("error.type", code.as_str()));
                self.span.set_status(Status::error(code.as_str()));
                "failed"
            }
            End::Split => "split",
        };
        self.span.set_attribute(KeyValue::new("migma_eraser.batch.result", result));
        self.span.set_attribute(KeyValue::new("migma_eraser.batch.attempts", i64::from(conclusion.attempts)));
        self.span.end();
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn context(place: TraceParent) -> SpanContext {
    let (trace_id, span_id) = (place.trace_id().to_be_bytes(), place.span_id().to_be_bytes());
    let flags = TraceFlags::new(place.flags());
    SpanContext::new(TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id), flags, true, TraceState::default())
}

fn place(context: &SpanContext) -> Option<TraceParent> {
    let trace_id = u128::from_be_bytes(context.trace_id().to_bytes());
    TraceParent::new(trace_id, u64::from_be_bytes(context.span_id().to_bytes()), context.trace_flags().to_u8())
}

/// What an answer failed of; `None` where the work is done.
const fn error_type(verdict: &Verdict) -> Option<&'static str> {
    Some(match verdict {
        Verdict::Deleted(_) => return None,
        Verdict::Throttled => "throttled",
        Verdict::Refused(Refusal::Key) => "key_refused",
        Verdict::Refused(Refusal::Forbidden) => "forbidden",
        Verdict::Refused(Refusal::Project) => "project_not_found",
        Verdict::Refused(Refusal::Conflict) => "conflict",
        Verdict::Refused(Refusal::Body) => "refused",
        Verdict::Unsent => "unsent",
        Verdict::Unknown(Doubt::Timeout) => "timeout",
        Verdict::Unknown(Doubt::Reset) => "reset",
        Verdict::Unknown(Doubt::Server) => "server",
        Verdict::Unknown(Doubt::Busy) => "busy",
        Verdict::Unknown(Doubt::Unsuccessful) => "unsuccessful",
        Verdict::Unknown(Doubt::Garbage) => "garbage",
    })
}
