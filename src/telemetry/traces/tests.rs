//! Spans as they leave for a collector, and a collector that does not take them.

use std::sync::{Arc, Condvar, Mutex};

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prometheus_client::registry::Registry;

use super::export::to;
use super::*;
use crate::domain::fate::Fate;
use crate::domain::ids::{ManifestId, ProjectId, RequestDigest};
use crate::domain::key::KeyBase;
use crate::domain::manifest::{FailCode, Member, Positions};
use crate::domain::moment::Timestamp;

/// How the collector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Takes,
    Refuses,
    Hangs,
}

/// A collector in memory.
#[derive(Clone, Debug)]
struct Collector(Arc<(Mutex<Taken>, Condvar)>);

/// How the collector is, and what it took.
type Taken = (Mood, Vec<SpanData>);

impl Collector {
    fn new(mood: Mood) -> Self {
        Self(Arc::new((Mutex::new((mood, Vec::new())), Condvar::new())))
    }

    fn becomes(&self, mood: Mood) {
        self.0.0.lock().unwrap().0 = mood;
        self.0.1.notify_all();
    }

    fn spans(&self) -> Vec<SpanData> {
        self.0.0.lock().unwrap().1.clone()
    }
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (state, bell) = &*self.0;
        let mut state = bell.wait_while(state.lock().unwrap(), |(mood, _)| *mood == Mood::Hangs).unwrap();
        if state.0 == Mood::Refuses {
            return Err(OTelSdkError::InternalFailure("refused".to_owned()));
        }
        state.1.extend(batch);
        Ok(())
    }
}

struct Stand {
    traces: Traces,
    collector: Collector,
    metrics: Metrics,
}

fn stand(mood: Mood, sample_ratio: f64) -> Stand {
    let (collector, metrics) = (Collector::new(mood), Metrics::register(&mut Registry::default()));
    let traces = Traces::through(to(collector.clone(), &metrics), sample_ratio);
    Stand { traces, collector, metrics }
}

impl Stand {
    fn flush(&self) -> Vec<SpanData> {
        let _ = self.traces.provider.force_flush();
        self.collector.spans()
    }

    fn count(&self, result: &str) -> u64 {
        self.metrics.spans.of(result).get()
    }
}

fn manifest() -> Manifest {
    let members = vec![Member { request: RequestDigest([7; 32]), spans: vec![] }];
    Manifest {
        id: ManifestId(1),
        root: ManifestId(1),
        project: ProjectId::parse("ann@example.com").unwrap(),
        body: bytes::Bytes::from_static(br#"{"emails":["bob@example.com"]}"#),
        emails: 1,
        key: KeyBase::derive(&members),
        members,
        fate: Fate::never_sent(),
    }
}

fn reply(verdict: Verdict, status: u16) -> Reply {
    Reply {
        verdict,
        status: Some(status),
        api_code: None,
        replayed: false,
        request_id: None,
        retry_after: None,
        took: Duration::ZERO,
    }
}

fn conclusion(end: End) -> Conclusion {
    let at = Timestamp::from_millis(0);
    Conclusion { end, generation: 0, http_status: Some(200), attempts: 2, replayed: false, request_id: None, at }
}

fn answered() -> Conclusion {
    conclusion(End::Answered { not_found: Positions::default(), uncertain: false, count_mismatch: false })
}

fn places(range: std::ops::Range<u64>) -> Vec<TraceParent> {
    range.map(|n| TraceParent::new(u128::from(n) + 1, n + 1, 1).unwrap()).collect()
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == name).map(|pair| pair.value.to_string())
}

#[test]
fn a_batch_is_a_span_and_each_of_its_calls_one_within_and_goes_on_from_there() {
    let stand = stand(Mood::Takes, 1.0);
    let manifest = manifest();
    let mut trace = stand.traces.follow(&manifest, &places(0..1), None);
    let first = trace.call(&manifest).unwrap();
    trace.called(&reply(Verdict::Unknown(Doubt::Server), 503));
    let second = trace.call(&manifest).unwrap();
    trace.called(&reply(Verdict::Refused(Refusal::Body), 400));
    trace.ended(
        &conclusion(End::Failed { code: FailCode::ApiRejected, api_code: None, may_have_taken_effect: false }),
        &[],
    );
    let spans = stand.flush();
    let [call, again, batch] = &spans[..] else { panic!("three spans: {spans:?}") };
    assert_eq!(context_of(call), Some(first));
    assert_eq!(context_of(again), Some(second));
    for call in [call, again] {
        assert_eq!(call.span_context.trace_id(), batch.span_context.trace_id());
        assert_eq!(call.parent_span_id, batch.span_context.span_id());
        assert_eq!(call.span_kind, SpanKind::Client);
        assert!(attribute(call, "migma_eraser.idempotency_key").unwrap().starts_with("eraser-"));
    }
    assert_eq!(attribute(call, "http.response.status_code").as_deref(), Some("503"));
    assert_eq!(
        (attribute(call, "error.type").as_deref(), call.status.clone()),
        (Some("server"), Status::error("server"))
    );
    assert_eq!(attribute(again, "http.request.resend_count").as_deref(), Some("1"));
    assert_eq!(batch.parent_span_id, SpanId::INVALID);
    assert_eq!(attribute(batch, "migma_eraser.batch.result").as_deref(), Some("failed"));
    assert_eq!(batch.status, Status::error("API_REJECTED"));
    assert_eq!(stand.count("exported"), 3);
}

fn context_of(span: &SpanData) -> Option<TraceParent> {
    place(&span.span_context)
}

#[test]
fn no_address_is_in_a_span() {
    let stand = stand(Mood::Takes, 1.0);
    let mut trace = stand.traces.follow(&manifest(), &places(0..2), None);
    trace.call(&manifest());
    let deletion = crate::domain::answer::Deletion { deleted: Some(0), not_found: vec!["bob@example.com".to_owned()] };
    trace.called(&reply(Verdict::Deleted(deletion), 200));
    trace.ended(&answered(), &[]);
    let spans = stand.flush();
    assert_eq!(spans.len(), 2);
    assert!(!format!("{spans:?}").contains('@'), "{spans:?}");
}

#[test]
fn a_batch_is_linked_to_so_many_requests_each_once_and_counts_the_rest() {
    let stand = stand(Mood::Takes, 1.0);
    let mut trace = stand.traces.follow(&manifest(), &places(0..100), None);
    // Again, and more, as requests come after a restart.
    trace.ended(&answered(), &places(0..200));
    let spans = stand.flush();
    let linked: Vec<_> = spans[0].links.iter().filter_map(|link| place(&link.span_context)).collect();
    assert_eq!(linked, places(0..128));
    assert_eq!(attribute(&spans[0], "migma_eraser.batch.requests_not_linked").as_deref(), Some("72"));
    assert_eq!(spans[0].links.dropped_count, 0);
}

#[test]
fn the_parts_of_a_split_batch_are_within_it() {
    let stand = stand(Mood::Takes, 1.0);
    let mut whole = stand.traces.follow(&manifest(), &[], None);
    whole.ended(&conclusion(End::Split), &[]);
    let mut part = stand.traces.follow(&manifest(), &[], whole.here());
    part.ended(&answered(), &[]);
    let spans = stand.flush();
    assert_eq!(spans[1].parent_span_id, spans[0].span_context.span_id());
    assert_eq!(attribute(&spans[0], "migma_eraser.batch.result").as_deref(), Some("split"));
}

#[test]
fn a_batch_that_is_not_sampled_says_so_to_the_api_and_to_nobody_else() {
    let stand = stand(Mood::Takes, 0.0);
    let mut trace = stand.traces.follow(&manifest(), &places(0..1), None);
    assert_eq!(trace.call(&manifest()).unwrap().flags() & 1, 0);
    trace.called(&reply(Verdict::Throttled, 429));
    trace.ended(&answered(), &[]);
    assert!(stand.flush().is_empty());
    assert_eq!(stand.count("exported") + stand.count("lost"), 0);
}

#[test]
fn a_collector_that_hangs_costs_spans_and_no_time() {
    let stand = stand(Mood::Hangs, 1.0);
    // More than the queue holds, and nobody takes any: this would never end if one of them waited.
    for _ in 0..3000 {
        drop(stand.traces.follow(&manifest(), &[], None));
    }
    assert_eq!(stand.count("lost"), 3000 - 2048);
    stand.collector.becomes(Mood::Takes);
    assert_eq!(stand.flush().len(), 2048);
    assert_eq!(stand.count("exported"), 2048);
    drop(stand.traces.follow(&manifest(), &[], None));
    assert_eq!(stand.flush().len(), 2049, "there is room again");
}

#[test]
fn spans_that_a_collector_refuses_are_counted_and_the_next_go_out_again() {
    let stand = stand(Mood::Refuses, 1.0);
    drop(stand.traces.follow(&manifest(), &[], None));
    assert!(stand.flush().is_empty());
    assert_eq!((stand.count("lost"), stand.count("exported")), (1, 0));
    stand.collector.becomes(Mood::Takes);
    drop(stand.traces.follow(&manifest(), &[], None));
    assert_eq!(stand.flush().len(), 1);
    assert_eq!((stand.count("lost"), stand.count("exported")), (1, 1));
}
