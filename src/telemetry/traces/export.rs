//! The way of spans to the collector: a bounded queue, a thread of its own, and a count of what came through.
//!
//! Whatever the collector does, nobody waits for it: what does not fit the queue is lost, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use tracing::{info, warn};
use url::Url;

use crate::telemetry::Metrics;

/// The most spans that wait for the collector.
const QUEUE_MAX: usize = 2048;

/// Spans on their way, and what became of the others.
#[derive(Debug)]
struct Account {
    waiting: AtomicUsize,
    failing: AtomicBool,
    metrics: Metrics,
}

/// A processor that takes no more spans than it can hold.
#[derive(Debug)]
pub(super) struct Queue<P> {
    next: P,
    account: Arc<Account>,
}

/// An exporter whose successes and failures are counted.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    account: Arc<Account>,
}

/// To this collector.
pub(super) fn to_collector(base: &Url, metrics: &Metrics) -> Result<Queue<BatchSpanProcessor>, ExporterBuildError> {
    let endpoint = format!("{}/v1/traces", base.as_str().trim_end_matches('/'));
    let exporter =
        OtlpExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_endpoint(endpoint).build()?;
    Ok(to(exporter, metrics))
}

/// To this exporter, from a thread of its own.
pub(super) fn to<E: SpanExporter + 'static>(exporter: E, metrics: &Metrics) -> Queue<BatchSpanProcessor> {
    let account =
        Arc::new(Account { waiting: AtomicUsize::new(0), failing: AtomicBool::new(false), metrics: metrics.clone() });
    let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE_MAX).build();
    let counted = Counted { exporter, account: Arc::clone(&account) };
    Queue { next: BatchSpanProcessor::builder(counted).with_batch_config(config).build(), account }
}

impl<P: SpanProcessor> SpanProcessor for Queue<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.next.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.account.waiting.fetch_add(1, Ordering::AcqRel) < QUEUE_MAX {
            self.next.on_end(span);
        } else {
            self.account.waiting.fetch_sub(1, Ordering::AcqRel);
            self.account.metrics.spans.of("lost").inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(limit)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        let account = &self.account;
        account.waiting.fetch_sub(spans, Ordering::AcqRel);
        let failed = exported.is_err();
        account.metrics.spans.of(if failed { "lost" } else { "exported" }).inc_by(spans as u64);
        let failed_before = account.failing.swap(failed, Ordering::AcqRel);
        match &exported {
            Err(error) if !failed_before => warn!(error = %error, "traces cannot be exported; nothing waits for them"),
            Ok(()) if failed_before => info!("traces are exported again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(limit)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
