//! Everything at once, on real processes: the worker and the broker are killed, connections are cut by a relay, the API
//! changes its mood, and load goes on. At the end every request must have an outcome, all outcomes of one request must be
//! equal, the ledger must agree, what was not done must stand whole in the dead queue, and no log at trace level may hold
//! an address, the key or the password.
//!
//!     tests/chaos.sh --seed 7 --minutes 15
//!
//! A seed fixes what goes wrong and when; what the worker is at in that moment differs from run to run.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::match_wild_err_arm,
    clippy::default_trait_access
)]

mod load;
mod plan;
mod process;
mod relay;
#[path = "../it/support/mod.rs"]
mod support;
#[path = "../support/truth.rs"]
mod truth;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser as _;
use migma_eraser::sandbox::Data;

use load::{Outcomes, PER_MINUTE, Published, Publisher};
use plan::{Blow, Mood, Step};
use process::Processes;
use relay::{Flow, Relay};
use support::broker::Node;
use support::{Vhost, World};

/// The password of the worker's own user; logs are searched for it.
const PASSWORD: &str = "pw_secret_of_the_chaos";
/// How long nothing may happen at the end before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_mins(2);

/// Kills and cuts at random, for as long as wanted.
#[derive(clap::Parser)]
struct Arguments {
    /// What goes wrong and when follows from this.
    #[arg(long)]
    seed: Option<u64>,
    /// How long things go wrong; the end comes when all is answered.
    #[arg(long, default_value_t = 15)]
    minutes: u64,
}

/// What was done to it.
#[derive(Default)]
struct Counts {
    worker_kills: usize,
    worker_stops: usize,
    broker_kills: usize,
    cuts: usize,
    moods: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("chaos: seed {seed}, {} minutes", arguments.minutes);
    let wrong = Chaos::start(seed).await.run(arguments.minutes).await;
    if wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    for line in wrong.iter().take(40) {
        println!("WRONG: {line}");
    }
    println!(
        "{} things are wrong; again with: tests/chaos.sh --seed {seed} --minutes {}",
        wrong.len(),
        arguments.minutes
    );
    ExitCode::FAILURE
}

/// All that runs.
struct Chaos {
    node: Arc<Node>,
    world: World,
    broker: Arc<Relay>,
    api: Arc<Relay>,
    workers: Processes,
    outcomes: Outcomes,
    seed: u64,
    counts: Counts,
}

impl Chaos {
    async fn start(seed: u64) -> Self {
        let node = Node::private(&[]).await;
        let vhost = Vhost::on(Arc::clone(&node)).await;
        vhost.add_user("chaos", PASSWORD).await;
        vhost.declare().await;
        let world = World::on(vhost, Data { open_world: true, ..Data::default() }).await;
        world.set_faults(Mood::Well.faults(&load::always()));
        let direct = url::Url::parse(&world.vhost.url).unwrap();
        let broker = Arc::new(Relay::to(([127, 0, 0, 1], direct.port().unwrap()).into()).await);
        let api_port = url::Url::parse(&world.api.url()).unwrap().port().unwrap();
        let api = Arc::new(Relay::to(([127, 0, 0, 1], api_port).into()).await);
        let workers = Processes::new(&[
            ("AMQP__URL", format!("amqp://chaos:{PASSWORD}@{}{}", broker.address(), direct.path())),
            ("MIGMA__BASE_URL", format!("http://{}", api.address())),
            ("MIGMA__REQUEST_TIMEOUT", "2s".to_owned()),
        ]);
        let outcomes = Outcomes::read(world.vhost.url.clone());
        Self { node, world, broker, api, workers, outcomes, seed, counts: Counts::default() }
    }

    async fn run(mut self, minutes: u64) -> Vec<String> {
        let start = Instant::now();
        let publisher = Publisher::new(self.world.vhost.url.clone(), self.seed);
        let load = tokio::spawn(publisher.publish(PER_MINUTE * minutes as usize));
        self.workers.start(&self.world);
        for minute in 0..minutes {
            for Step { after, blow } in plan::minute(self.seed, minute) {
                tokio::time::sleep(after).await;
                self.workers.expect_alive(&self.world);
                self.strike(blow).await;
            }
            println!("after minute {}: {} outcomes", minute + 1, self.outcomes.count());
        }
        self.api.set(Flow::Open);
        self.broker.set(Flow::Open);
        self.world.set_faults(Mood::Well.faults(&load::always()));
        let published = load.await.unwrap();
        self.workers.expect_alive(&self.world);
        let mut wrong = self.settle(&published).await;
        wrong.extend(self.workers.stop(&self.world).await);
        wrong.extend(self.workers.take_wrong());
        wrong.extend(self.judge(&published).await);
        self.tell(&published, &wrong, start.elapsed());
        wrong
    }

    async fn strike(&mut self, blow: Blow) {
        match blow {
            Blow::KillWorker => {
                self.workers.kill();
                self.workers.start(&self.world);
                self.counts.worker_kills += 1;
            }
            Blow::StopWorker => {
                let wrong = self.workers.stop(&self.world).await;
                self.workers.remember(wrong);
                self.workers.start(&self.world);
                self.counts.worker_stops += 1;
            }
            Blow::KillBroker => {
                let node = Arc::clone(&self.node);
                tokio::spawn(async move { node.order("kill").await });
                self.counts.broker_kills += 1;
            }
            Blow::CutBroker => self.cut(&Arc::clone(&self.broker)),
            Blow::LoseConfirms(pause) => self.disturb(&Arc::clone(&self.broker), Flow::Deaf, pause).await,
            Blow::StallBroker(pause) => self.disturb(&Arc::clone(&self.broker), Flow::Stalled, pause).await,
            Blow::LoseAnswers(pause) => self.disturb(&Arc::clone(&self.api), Flow::Deaf, pause).await,
            Blow::CloseApi(pause) => self.disturb(&Arc::clone(&self.api), Flow::Closed, pause).await,
            Blow::Api(mood) => {
                self.world.set_faults(mood.faults(&load::always()));
                self.counts.moods += 1;
            }
        }
    }

    fn cut(&mut self, relay: &Relay) {
        relay.cut();
        self.counts.cuts += 1;
    }

    async fn disturb(&mut self, relay: &Relay, flow: Flow, pause: Duration) {
        relay.set(flow);
        tokio::time::sleep(pause).await;
        self.cut(relay);
        relay.set(Flow::Open);
    }

    /// Waits until everything is answered, as long as answers come.
    async fn settle(&mut self, published: &Published) -> Vec<String> {
        let (mut last, mut since) = (usize::MAX, Instant::now());
        loop {
            let missing = self.outcomes.missing(published);
            if missing == 0 {
                return Vec::new();
            }
            if missing < last {
                (last, since) = (missing, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                return vec![format!("{missing} requests are still without an outcome")];
            }
            self.workers.expect_alive(&self.world);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn judge(&self, published: &Published) -> Vec<String> {
        let asked: Vec<truth::Asked<'_>> = published
            .sound
            .iter()
            .map(|request| truth::Asked { id: &request.id, project: &request.project, emails: &request.emails })
            .collect();
        let outcomes = self.outcomes.all();
        let mut wrong = {
            let api = self.world.api.lock();
            truth::violations(&asked, &outcomes, &api.ledger.entries, &api.ledger.summary)
        };
        let mut letters: HashMap<String, Vec<u8>> = HashMap::new();
        for letter in self.world.vhost.collect("contacts.deletion.dead").await.drain().await {
            let id = letter.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
            letters.insert(id, letter.body.clone());
        }
        let bodies: HashMap<&str, &[u8]> =
            published.sound.iter().map(|request| (request.id.as_str(), request.body.as_slice())).collect();
        for (id, status) in self.outcomes.with_dead_letter() {
            match (letters.get(&id), bodies.get(id.as_str())) {
                (None, _) => wrong.push(format!("{id} is {status} and has no dead letter")),
                (Some(letter), Some(body)) if letter != body => {
                    wrong.push(format!("the dead letter of {id} is changed"));
                }
                _ => {}
            }
        }
        for queue in ["requests", "returned", "parked"] {
            let left = self.world.vhost.ready(&format!("contacts.deletion.{queue}")).await;
            if left > 0 {
                wrong.push(format!("{left} messages are left in {queue}"));
            }
        }
        wrong
    }

    fn tell(&self, published: &Published, wrong: &[String], took: Duration) {
        let Counts { worker_kills, worker_stops, broker_kills, cuts, moods } = self.counts;
        let api = self.world.api.lock();
        let summary = &api.ledger.summary;
        let lost = wrong.iter().filter(|line| line.contains("has no outcome")).count();
        let dropped = summary.by_status.get(&0).copied().unwrap_or_default();
        println!("took              {} s", took.as_secs());
        println!(
            "requests          {} sound, {} broken, in {} messages",
            published.sound.len(),
            published.broken.len(),
            published.messages
        );
        println!("worker            {worker_kills} SIGKILLs, {worker_stops} stops in order");
        println!("broker            {broker_kills} SIGKILLs; {cuts} times connections were cut");
        println!(
            "API               {moods} moods; {} calls, {} did their work, {} were replayed, {dropped} dropped",
            summary.calls, summary.performed, summary.replayed
        );
        println!(
            "outcomes          {}, {} of them repeats",
            self.outcomes.count(),
            self.outcomes.count().saturating_sub(published.sound.len() + published.broken.len())
        );
        println!("dead letters      for {} requests", self.outcomes.with_dead_letter().len());
        println!("logs              {} KiB searched for addresses, key and password", self.workers.searched_kib());
        println!("lost {lost}, conflicts {}, untrue or otherwise wrong {}", summary.conflicts, wrong.len() - lost);
    }
}
