//! The bars, one by one: what is measured, and what it has to be.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};

use crate::Failed;
use crate::broker::{OUTCOMES, REQUESTS};
use crate::contenders::World;
use crate::report::Bar;

/// How long a call takes at a real API.
const LATENCY: Duration = Duration::from_millis(400);

/// With 600 calls a minute allowed and calls of 400 ms: how many of the permits are used.
pub async fn permits(world: &World) -> Result<Vec<Bar>, Failed> {
    const CALLS: u32 = 200;
    const INTERVAL_MS: f64 = 100.0;
    let series = world.fresh();
    world.broker.purge().await?;
    world.broker.preload(&series, (CALLS + 40) * 1000).await?;
    world.sandbox.forget().await?;
    world.sandbox.set_latency(LATENCY).await?;
    let rate = [("RATE_LIMIT__REQUESTS_PER_MINUTE", "600"), ("RATE_LIMIT__BURST", "1")];
    let worker = world.worker(&world.fresh(), &rate)?;
    world.broker.watch(CALLS * 1000, || {}).await?;
    let times = world.sandbox.times().await?;
    worker.stop().await;
    world.sandbox.set_latency(Duration::ZERO).await?;

    // The first calls fall into the time in which the prefetch finds its size.
    let times = &times[10..];
    #[allow(clippy::cast_precision_loss, reason = "a time within one run")]
    let (calls, took) = ((times.len() - 1) as f64, (times[times.len() - 1] - times[0]) as f64);
    let used = calls / (took / INTERVAL_MS) * 100.0;
    // An arrival may be late by what the machine is busy, and the next one not: no more than two together.
    let most = (0..times.len()).map(|at| times[at..].iter().take_while(|t| **t < times[at] + 1000).count()).max();
    Ok(vec![
        Bar::least("permits used, 600 calls a minute, 400 ms a call", used, 98.0, "%"),
        Bar::most(
            "most calls in any second, where 10 are allowed",
            f64::from(u32::try_from(most.unwrap_or(0))?),
            11.0,
            "",
        ),
    ])
}

/// At the highest plan known and one-email requests: how much of a core it takes.
pub async fn half_a_core(world: &World) -> Result<Vec<Bar>, Failed> {
    const REQUESTS: u32 = 250_000;
    /// Requests a second.
    const HIGHEST_PLAN: f64 = 16_667.0;
    let series = world.fresh();
    world.broker.purge().await?;
    world.broker.preload(&series, REQUESTS + 40_000).await?;
    let rate = [("RATE_LIMIT__REQUESTS_PER_MINUTE", "1000"), ("RATE_LIMIT__BURST", "1")];
    let worker = world.worker(&world.fresh(), &rate)?;
    let mut before = Duration::ZERO;
    let passage = world.broker.watch(REQUESTS, || before = worker.cpu()).await?;
    // At that rate: on a machine too busy to reach it, what was used meanwhile would be little and say nothing.
    let cores = worker.cpu().saturating_sub(before).as_secs_f64() / passage.messages() * HIGHEST_PLAN;
    worker.stop().await;
    Ok(vec![
        Bar::least("outcomes a second at 1,000 calls a minute", passage.rate(), HIGHEST_PLAN * 0.98, ""),
        Bar::most("cores that 16,667 one-email requests a second take", cores, 0.5, ""),
    ])
}

/// With nothing else to do: how long a request takes to its outcome.
pub async fn idle(world: &World) -> Result<Vec<Bar>, Failed> {
    const SAMPLES: usize = 120;
    const LINGER_MS: f64 = 250.0;
    world.broker.purge().await?;
    let worker = world.worker(&world.fresh(), &[])?;
    let connection = Connection::connect(&world.broker.url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let consume = channel.basic_consume(
        OUTCOMES.into(),
        "".into(),
        BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() },
        FieldTable::default(),
    );
    let mut outcomes = consume.await?;
    let series = world.fresh();
    let mut took = Vec::with_capacity(SAMPLES);
    // The first ones wait for the start, and for the prefetch to find its size.
    for n in 0..SAMPLES + 5 {
        let body = format!(r#"{{"projectId":"p","emails":["{series}-{n}@example.org"]}}"#);
        let properties = BasicProperties::default().with_message_id(format!("{series}-{n}").into());
        let begun = Instant::now();
        let options = BasicPublishOptions::default();
        channel.basic_publish("".into(), REQUESTS.into(), options, body.as_bytes(), properties).await?;
        outcomes.next().await.ok_or("no more outcomes")??;
        if n >= 5 {
            took.push(begun.elapsed().as_secs_f64() * 1000.0 - LINGER_MS);
        }
        tokio::time::sleep(Duration::from_millis(20 + (n as u64 * 37) % 80)).await;
    }
    worker.stop().await;
    took.sort_by(f64::total_cmp);
    Ok(vec![
        Bar::most("idle, request to outcome beyond the linger, p50", took[SAMPLES / 2], 15.0, "ms"),
        Bar::most("idle, request to outcome beyond the linger, p99", took[SAMPLES * 99 / 100], 50.0, "ms"),
    ])
}

/// Whatever the backlog: what a request costs, and the most memory.
pub async fn flat(world: &World, sizes: &[u32]) -> Result<Vec<Bar>, Failed> {
    let mut costs = Vec::new();
    let mut bars = Vec::new();
    for &size in sizes {
        let series = world.fresh();
        world.broker.purge().await?;
        world.broker.preload(&series, size).await?;
        let worker = world.worker(&world.fresh(), &[])?;
        let mut before = Duration::ZERO;
        let passage = world.broker.watch(size, || before = worker.cpu()).await?;
        let cost = worker.cpu().saturating_sub(before).as_secs_f64() * 1e6 / passage.messages();
        let peak = worker.peak_mib();
        worker.stop().await;
        println!("  backlog {size}: {:.0}/s, {cost:.1} us of CPU a request, peak {peak:.0} MiB", passage.rate());
        costs.push(cost);
        if size >= 1_000_000 {
            bars.push(Bar::most("peak memory, backlog of 1,000,000", peak, 80.0, "MiB"));
        }
    }
    if let (Some(first), Some(last)) = (costs.first(), costs.last()) {
        let name = format!("CPU a request, backlog of {} against {}", sizes[sizes.len() - 1], sizes[0]);
        bars.push(Bar::most(&name, last / first, 1.1, "x"));
    }
    Ok(bars)
}

/// After a crash with 100,000 requests under way: how soon the first outcome comes, and how fast the others.
pub async fn restart(world: &mut World, usual_rate: f64) -> Result<Vec<Bar>, Failed> {
    /// As many as one life can hold at a time: the prefetch of AMQP ends at 65,535.
    const EACH: u32 = 50_000;
    let journal = world.fresh();
    let series = [world.fresh(), world.fresh()];
    let room = ("AMQP__BUFFER_BYTES", "512MiB");
    // Calls that never come back keep their manifests open.
    let stuck = [("MIGMA__MAX_IN_FLIGHT", "1000"), ("MIGMA__REQUEST_TIMEOUT", "10m"), room];
    for (series, lives) in series.iter().zip(1..) {
        world.broker.purge().await?;
        world.broker.preload(series, EACH).await?;
        world.sandbox.replace()?;
        world.sandbox.set_latency(Duration::from_mins(10)).await?;
        let worker = world.worker(&journal, &stuck)?;
        // An earlier life's calls are made again first.
        while world.sandbox.calls().await? < u64::from(lives * EACH / 1000) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        worker.kill();
        // What it held comes back to the queue, and must be there before the queue is emptied.
        while world.broker.depth(REQUESTS).await? < EACH {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    world.sandbox.replace()?;
    world.broker.purge().await?;
    for series in &series {
        world.broker.preload(series, EACH).await?;
    }
    let begun = Instant::now();
    let worker = world.worker(&journal, &[room])?;
    let passage = world.broker.watch(2 * EACH, || {}).await?;
    worker.stop().await;
    let first = (passage.first.0 - begun).as_secs_f64();
    let calls = f64::from(u32::try_from(world.sandbox.calls().await?)?);
    Ok(vec![
        Bar::most("restart with 100,000 unsettled requests: first outcome", first, 2.0, "s"),
        Bar::least("outcomes a second then, against a worker without a past", passage.rate() / usual_rate, 1.0, "x"),
        Bar::most("calls then, where 100 were under way", calls, 102.0, ""),
    ])
}
