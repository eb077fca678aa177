//! The worker and its neighbours side by side, on one broker, with the same queues, in turn; then each bar by itself.
//! `tests/bench/run.sh` starts what it needs. Absolute figures are this machine's mood; ratios within one run are not.

#![allow(unreachable_pub, clippy::expect_used, reason = "a program of tests; nothing is reached from elsewhere")]

mod bars;
mod broker;
mod contenders;
mod forwarder;
mod process;
mod report;
mod sandbox;

use std::time::Duration;

use broker::Broker;
use contenders::{Contender, Running, World};
use report::{Bar, Row};
use sandbox::Sandbox;

type Failed = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "\
usage: tests/bench/run.sh [--requests 200000] [--rounds 5] [--sizes 10000,100000,1000000] \
       [--only speed,permits,cores,idle,flat,restart] [--quick]";

/// What is to be measured, and how much of it.
struct Plan {
    requests: u32,
    rounds: usize,
    only: Option<Vec<String>>,
    sizes: Vec<u32>,
}

impl Plan {
    fn of(arguments: &[String]) -> Result<Self, Failed> {
        let mut plan = Self { requests: 200_000, rounds: 5, only: None, sizes: vec![10_000, 100_000, 1_000_000] };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(USAGE);
            match argument.as_str() {
                "--requests" => plan.requests = value()?.parse()?,
                "--rounds" => plan.rounds = value()?.parse()?,
                "--only" => plan.only = Some(value()?.split(',').map(str::to_owned).collect()),
                "--sizes" => plan.sizes = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--quick" => (plan.requests, plan.rounds, plan.sizes) = (60_000, 3, vec![10_000, 100_000]),
                // Given by cargo.
                "--bench" => {}
                _ => return Err(USAGE.into()),
            }
        }
        Ok(plan)
    }

    fn has(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == part))
    }
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, url] = arguments.as_slice()
        && mode == "forward"
    {
        return forwarder::run(url).await;
    }
    let plan = Plan::of(&arguments)?;
    let mut world = World::new(Broker::new().await?, Sandbox::start()?)?;
    let measured = measure(&plan, &mut world).await;
    world.broker.delete().await?;
    let (rows, bars) = measured?;
    if !rows.is_empty() {
        println!("\n{}", report::contenders(&rows));
        let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/results.svg");
        std::fs::write(picture, report::plot(&rows))?;
        println!("plotted to {picture}");
    }
    println!("\n{}", report::bars(&bars));
    println!("{} of {} bars met", bars.iter().filter(|bar| bar.is_met()).count(), bars.len());
    Ok(())
}

async fn measure(plan: &Plan, world: &mut World) -> Result<(Vec<Row>, Vec<Bar>), Failed> {
    world.make_queues().await?;
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    if plan.has("speed") || plan.has("restart") {
        (rows, bars) = speed(plan, world).await?;
    }
    if plan.has("permits") {
        bars.extend(bars::permits(world).await?);
    }
    if plan.has("cores") {
        bars.extend(bars::half_a_core(world).await?);
    }
    if plan.has("idle") {
        bars.extend(bars::idle(world).await?);
    }
    if plan.has("flat") {
        bars.extend(bars::flat(world, &plan.sizes).await?);
    }
    if plan.has("restart") {
        let usual = rows.first().map_or(f64::NAN, Row::rate);
        bars.extend(bars::restart(world, usual).await?);
    }
    Ok((rows, bars))
}

/// All contenders in turn, round by round.
async fn speed(plan: &Plan, world: &World) -> Result<(Vec<Row>, Vec<Bar>), Failed> {
    let mut rows: Vec<Row> =
        Contender::ALL.iter().map(|c| Row { name: c.name(), rates: Vec::new(), costs: Vec::new() }).collect();
    let (mut most_calls, mut fewest_calls) = (0, 0);
    for round in 1..=plan.rounds {
        for (contender, row) in Contender::ALL.into_iter().zip(&mut rows) {
            let requests = contender.share(plan.requests);
            let series = world.fresh();
            world.broker.purge().await?;
            world.broker.preload(&series, requests).await?;
            world.sandbox.forget().await?;
            let running = world.start(contender).await?;
            let cpu = || match &running {
                Running::Program(process) => Some(process.cpu()),
                Running::Shovel => None,
            };
            let mut before = Some(Duration::ZERO);
            let passage = world.broker.watch(requests, || before = cpu()).await?;
            let cost = cpu()
                .zip(before)
                .map(|(after, before)| after.saturating_sub(before).as_secs_f64() * 1e6 / passage.messages());
            if contender == Contender::Worker {
                most_calls = most_calls.max(world.sandbox.calls().await?);
                fewest_calls = u64::from(requests.div_ceil(1000));
            }
            world.stop(running).await?;
            let each = cost.map_or_else(String::new, |cost| format!(", {cost:.1} us of CPU each"));
            println!("  round {round}, {}: {:.0}/s{each}", contender.name(), passage.rate());
            row.rates.push(passage.rate());
            row.costs.extend(cost);
        }
    }
    let sandbox = world.sandbox.emails_a_second().await?;
    // Within a round the machine's mood is the same: the ratios are made there.
    let ratio = |other: usize| {
        let ratios: Vec<f64> =
            rows[0].rates.iter().zip(&rows[other].rates).map(|(ours, theirs)| ours / theirs).collect();
        report::median(&ratios)
    };
    let calls = f64::from(u32::try_from(most_calls - fewest_calls)?);
    let bars = vec![
        Bar::least("speed, of the bare forwarder's", ratio(1), 0.9, "x"),
        Bar::least("speed, of the shovel's", ratio(2), 0.7, "x"),
        Bar::least("speed, of the Python worker's", ratio(3), 8.0, "x"),
        Bar::most("calls beyond one for each 1000 emails of a backlog, in any round", calls, 2.0, ""),
        Bar::least("emails a second that the sandbox takes, of the worker's speed", sandbox / rows[0].rate(), 3.0, "x"),
    ];
    Ok((rows, bars))
}
