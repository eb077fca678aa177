//! Traces as a collector sees them: OTLP over HTTP, decoded from its protobuf; and a collector that is no help.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

use crate::support::{PATIENCE, Request, Worker, World, quiet_port};

const OUTCOMES: &str = "contacts.deletion.outcomes";
const A: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const B: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// What a collector, and an API, were told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(HeaderMap, Bytes)>>>);

impl Told {
    fn all(&self) -> Vec<(HeaderMap, Bytes)> {
        self.0.lock().unwrap().clone()
    }

    /// All spans that a collector took.
    fn spans(&self) -> Vec<Span> {
        let exports = self.all().into_iter().map(|(_, body)| ExportTraceServiceRequest::decode(body).unwrap());
        let scopes = exports.flat_map(|export| export.resource_spans).flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    async fn wait_spans(&self, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let start = Instant::now();
        loop {
            let spans = self.spans();
            if enough(&spans) {
                return spans;
            }
            assert!(start.elapsed() < PATIENCE, "{spans:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Serves until the test ends; its base URL.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn collector(told: &Told) -> String {
    let take = |State(told): State<Told>, headers: HeaderMap, body: Bytes| async move {
        told.0.lock().unwrap().push((headers, body));
    };
    serve(Router::new().route("/v1/traces", post(take)).with_state(told.clone())).await
}

/// An API that deletes everything, and keeps the headers of each call.
async fn api(told: &Told) -> String {
    let delete = |State(told): State<Told>, headers: HeaderMap, body: Bytes| async move {
        let call: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let deleted = call["emails"].as_array().unwrap().len();
        told.0.lock().unwrap().push((headers, body));
        axum::Json(serde_json::json!({"success": true, "data": {"deleted": deleted, "notFound": []}}))
    };
    serve(Router::new().route("/v1/contacts/bulk-delete", post(delete)).with_state(told.clone())).await
}

fn with_traceparent(mut request: Request, traceparent: &str) -> Request {
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.into()));
    request.properties = request.properties.with_headers(headers);
    request
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn attribute<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    attributes.iter().find(|pair| pair.key == name)?.value.as_ref()?.value.as_ref()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_seen_by_the_collector_linked_to_its_requests_and_goes_on_to_the_api_and_the_outcomes() {
    let world = World::new().await;
    world.vhost.declare().await;
    let (seen, calls) = (Told::default(), Told::default());
    let requests = [
        with_traceparent(Request::new("a@example.org", "p@x", &["ann@example.org"]), A),
        with_traceparent(Request::new("b", "p@x", &["bob@example.org", "ann@example.org"]), B),
        with_traceparent(Request::new("broken", "p@x", &["eve@example.org"]), &A.to_uppercase()),
        Request::new("none", "p@x", &["joe@example.org"]),
    ];
    world.vhost.publish(&requests).await;
    let settings = [
        ("TELEMETRY__OTLP_ENDPOINT", collector(&seen).await),
        ("MIGMA__BASE_URL", api(&calls).await),
        ("BATCH__MAX_EMAILS", "4".to_owned()),
        ("BATCH__LINGER", "30s".to_owned()),
    ];
    let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
    let environment =
        [("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20t0ken"), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let worker = Worker::start_in(&world, &settings, &environment).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    outcomes.wait_for(4).await;
    // A repeat is answered with the same, and by no other call.
    world.vhost.publish(&requests[..1]).await;
    let answers = outcomes.wait_for(5).await.to_vec();
    let traces_of = |id: &str| -> Vec<_> {
        answers.iter().filter(|o| o.json()["messageId"] == id).map(|o| o.header("traceparent")).collect()
    };
    assert_eq!(traces_of("a@example.org"), [Some(A.to_owned()), Some(A.to_owned())]);
    assert_eq!(traces_of("b"), [Some(B.to_owned())]);
    assert_eq!((traces_of("broken"), traces_of("none")), (vec![None], vec![None]));

    let spans = seen.wait_spans(|spans| spans.len() >= 2).await;
    let [call, batch] = &spans[..] else { panic!("two spans: {spans:?}") };
    assert_eq!((batch.name.as_str(), call.name.as_str()), ("delete batch", "POST /v1/contacts/bulk-delete"));
    let links: HashSet<_> = batch.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect();
    let place = |text: &str| (text[3..35].to_owned(), text[36..52].to_owned());
    assert_eq!(links, [place(A), place(B)].into());
    assert_eq!((&call.trace_id, &call.parent_span_id), (&batch.trace_id, &batch.span_id));
    assert_eq!(attribute(&batch.attributes, "migma_eraser.batch.emails"), Some(&Value::IntValue(4)));
    assert_eq!(attribute(&call.attributes, "http.response.status_code"), Some(&Value::IntValue(200)));
    let made = calls.all();
    let [(headers, _)] = &made[..] else { panic!("one call: {}", made.len()) };
    assert_eq!(headers["traceparent"], format!("00-{}-{}-01", hex(&call.trace_id), hex(&call.span_id)));

    let (headers, export) = seen.all()[0].clone();
    assert_eq!(headers["authorization"], "Bearer t0ken");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let resource = ExportTraceServiceRequest::decode(export).unwrap().resource_spans.remove(0).resource.unwrap();
    let service = attribute(&resource.attributes, "service.name");
    assert_eq!(service, Some(&Value::StringValue("migma-eraser".to_owned())));
    for (_, export) in seen.all() {
        // Not the sign alone: ids are random bytes, and it is one of 256.
        let text = String::from_utf8_lossy(&export);
        assert!(!text.contains("@example.org") && !text.contains("p@x"), "{text:?}");
    }
    let metrics = worker.metrics().await;
    assert!(metrics.contains("migma_eraser_spans_total{result=\"lost\"} 0"), "{metrics}");
    let log = worker.stop().await;
    assert!(!log.contains("t0ken"));
}

/// The worker does its work, counts what was lost, says so once, and ends in order.
async fn goes_on_without(endpoint: &str) {
    let world = World::new().await;
    let settings = [("TELEMETRY__OTLP_ENDPOINT", endpoint), ("BATCH__MAX_EMAILS", "1")];
    let environment = [("OTEL_BSP_SCHEDULE_DELAY", "50"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "300")];
    let worker = Worker::start_in(&world, &settings, &environment).await;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    let mut lost = 0;
    for round in 1.. {
        world.vhost.publish(&[Request::new(&format!("m{round}"), "p", &["ann@example.org"])]).await;
        outcomes.wait_for(round).await;
        let metrics = worker.metrics().await;
        let line = metrics.lines().find_map(|l| l.strip_prefix("migma_eraser_spans_total{result=\"lost\"} "));
        let lost_now = line.unwrap().parse::<u64>().unwrap();
        // At least two exports have failed.
        if lost > 0 && lost_now > lost {
            break;
        }
        lost = lost.max(lost_now);
        assert!(round < 10_000, "{metrics}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.wait_ready().await;
    let log = worker.stop().await;
    assert_eq!(log.lines().filter(|line| line.contains("traces cannot be exported")).count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_stops_nothing_and_is_told_of_once() {
    let (_kept, port) = quiet_port();
    goes_on_without(&format!("http://127.0.0.1:{port}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_stops_nothing_and_is_told_of_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    goes_on_without(&endpoint).await;
}
