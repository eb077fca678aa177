//! The pure path of a request, from its bytes to the bytes of its outcome, over fixed input: no clock, socket or dice.
//!
//! `cargo bench --bench pure` tells the time of each step; `pure count SHAPE BATCHES` does nothing but the path, for
//! tests/bench/count.sh to count its instructions, which do not depend on the machine's mood.

#![allow(clippy::expect_used, reason = "a program of tests over fixed input")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use migma_eraser::domain::acks::AckWindow;
use migma_eraser::domain::answer::{Deletion, not_found};
use migma_eraser::domain::envelope::Envelope;
use migma_eraser::domain::fate::Fate;
use migma_eraser::domain::ids::{Fingerprint, ManifestId};
use migma_eraser::domain::key::KeyBase;
use migma_eraser::domain::manifest::{Conclusion, End, Manifest};
use migma_eraser::domain::moment::{Moment, Timestamp};
use migma_eraser::domain::outcome::Outcome;
use migma_eraser::domain::planner::{Lane, Planner, Ready, Sight};
use migma_eraser::domain::registry::{Met, Registry};
use migma_eraser::domain::request::DeletionRequest;

/// What requests look like.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    requests: usize,
    emails: usize,
}

const SHAPES: [Shape; 2] = [
    Shape { name: "one-email", requests: 1000, emails: 1 },
    Shape { name: "hundred-emails", requests: 10, emails: 100 },
];
/// Names of the steps, in their order.
const STEPS: [&str; 7] = ["parse", "register and queue", "pack", "key", "attribute", "outcome", "acks"];

fn envelope(shape: Shape, n: usize) -> Envelope {
    let emails: Vec<String> = (0..shape.emails).map(|at| format!("\"user{n}-{at}@example.org\"")).collect();
    let payload =
        format!(r#"{{"projectId":"proj_8f2","emails":[{}],"metadata":{{"ticket":"DSR-{n}"}}}}"#, emails.join(","));
    Envelope {
        message_id: Some(format!("dsr-{n}")),
        content_type: Some("application/json".to_owned()),
        payload: Bytes::from(payload),
        ..Envelope::default()
    }
}

/// One batch's way; adds the time of each step.
fn path(shape: Shape, batch: usize, envelopes: &[Envelope], times: &mut [Duration; STEPS.len()]) {
    let mut begun = Instant::now();
    let mut step = 0;
    let mut done = || {
        times[step] += begun.elapsed();
        (step, begun) = (step + 1, Instant::now());
    };
    let (mut registry, mut planner) = (Registry::default(), Planner::new(1000, Duration::ZERO));
    let parsed: Vec<Arc<DeletionRequest>> =
        envelopes.iter().map(|envelope| DeletionRequest::parse(envelope, None).expect("sound").into()).collect();
    done();
    for (tag, request) in (1u64..).zip(parsed) {
        let Err((request, tag)) = registry.attach(request, tag) else { panic!("never seen before") };
        let project = request.project.clone().expect("named");
        let Met::Waits(plan) = registry.admit(request, project, tag) else { panic!("admitted") };
        let lane = Lane { project: plan.project, alone: None };
        planner.queue(lane, &plan.request, &plan.positions, Duration::ZERO);
    }
    done();
    let Ready::Now(lane) = planner.ready(Duration::ZERO, Sight::Nothing, |_| true) else { panic!("a batch waits") };
    let packed = planner.pack(&lane).expect("a batch");
    black_box(registry.start(&packed.members));
    done();
    let key = KeyBase::derive(&packed.members);
    done();
    let id = ManifestId(i64::try_from(batch).unwrap_or(0));
    let now = Moment { steady: Duration::ZERO, wall: Timestamp::from_millis(1_700_000_000_000) };
    let manifest = Manifest {
        id,
        root: id,
        project: packed.project,
        body: packed.body,
        emails: packed.emails,
        members: packed.members,
        key,
        fate: Fate::first_called(now, Fingerprint::of("key")),
    };
    registry.open(id, &manifest.project);
    let deletion = Deletion { deleted: Some(u64::from(manifest.emails)), not_found: Vec::new() };
    let (not_found, count_mismatch) = not_found(&manifest, &deletion);
    let conclusion = Conclusion {
        end: End::Answered { not_found, uncertain: false, count_mismatch },
        generation: 0,
        http_status: Some(200),
        attempts: 1,
        replayed: false,
        request_id: Some("req_0123456789".to_owned()),
        at: now.wall,
    };
    registry.recorded(&manifest.members);
    let completed = registry.conclude(id, manifest.key, &manifest.members, &conclusion);
    assert_eq!(completed.len(), shape.requests);
    done();
    for done in &completed {
        black_box(Outcome::of(&done.request, &done.record, &done.progress).json(now.wall));
    }
    done();
    let tags: Vec<u64> = completed.iter().flat_map(|done| done.deliveries.iter().copied()).collect();
    let mut window = AckWindow::new(Duration::ZERO);
    for tag in tags {
        window.settle(tag, (), Duration::ZERO);
    }
    let _ = black_box(window.acks(Duration::ZERO));
    done();
}

fn run(shape: Shape, batches: usize) -> [Duration; STEPS.len()] {
    let mut times = [Duration::ZERO; STEPS.len()];
    let envelopes: Vec<Envelope> = (0..shape.requests).map(|n| envelope(shape, n)).collect();
    for batch in 0..batches {
        path(shape, batch, &envelopes, &mut times);
    }
    times
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [mode, shape, batches] = arguments.as_slice()
        && mode == "count"
    {
        let shape = SHAPES.into_iter().find(|known| known.name == shape).expect("a shape");
        run(shape, batches.parse().expect("a number"));
        return;
    }
    for shape in SHAPES {
        const BATCHES: usize = 300;
        run(shape, BATCHES / 10);
        let times = run(shape, BATCHES);
        println!("{} requests, nanoseconds a request:", shape.name);
        let requests = u32::try_from(BATCHES * shape.requests).expect("few");
        for (step, time) in STEPS.iter().zip(times) {
            println!("  {step:20} {:>8}", (time / requests).as_nanos());
        }
        println!("  {:20} {:>8}", "all", (times.iter().sum::<Duration>() / requests).as_nanos());
    }
}
