//! A cluster of three nodes: one is killed, one is parted from the others, all are restarted in turn, while three workers
//! on one journal are at work. Each knows the URLs of all nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use migma_eraser::sandbox::{Data, Faults};

use crate::several_workers::all_answered;
use crate::support::broker::Node;
use crate::support::postgres::Schema;
use crate::support::requests::{Request, mixed};
use crate::support::{PATIENCE, Vhost, Worker, World, truth};

const REQUESTS: &str = "contacts.deletion.requests";
const OUTCOMES: &str = "contacts.deletion.outcomes";

struct Cluster {
    nodes: Vec<Arc<Node>>,
    world: World,
    requests: Vec<Request>,
    workers: Vec<Worker>,
}

impl Cluster {
    /// Three workers at work, in such a world.
    async fn start(schema: &Schema) -> Self {
        let nodes = Node::cluster(3).await;
        let world =
            World::on(Vhost::on(Arc::clone(&nodes[0])).await, Data { open_world: true, ..Data::default() }).await;
        world.set_faults(Faults { latency_ms: 50, drop_after: 0.1, ..Faults::default() });
        world.vhost.declare().await;
        let urls: Vec<String> = nodes.iter().map(|node| world.vhost.by_way_of(node).url.clone()).collect();
        let (urls, journal) = (urls.join(","), schema.url());
        let settings = [
            ("AMQP__URL", urls.as_str()),
            ("AMQP__HEARTBEAT", "5s"),
            ("JOURNAL__URL", &journal),
            ("BATCH__MAX_EMAILS", "20"),
            ("RATE_LIMIT__REQUESTS_PER_MINUTE", "900"),
            ("RATE_LIMIT__BURST", "1"),
        ];
        let mut workers = Vec::new();
        for _ in 0..3 {
            workers.push(Worker::start(&world, &settings).await);
        }
        Self { nodes, world, requests: Vec::new(), workers }
    }

    /// Which node has the request queue's leader.
    async fn leader(&self) -> usize {
        let vhost = self.world.vhost.name();
        let queue = self.nodes[0].manage(reqwest::Method::GET, &format!("queues/{vhost}/{REQUESTS}"), None).await;
        let leader = queue["leader"].as_str().unwrap();
        self.nodes.iter().position(|node| node.name() == leader).unwrap()
    }

    /// More requests, by way of this node: each twice.
    async fn publish(&mut self, by_way_of: usize) {
        let requests = mixed(400, &["p", "q"], 300, 300 + self.requests.len() as u64);
        let way = self.world.vhost.by_way_of(&self.nodes[by_way_of]);
        way.publish_at_last(&requests).await;
        way.publish_at_last(&requests).await;
        self.requests.extend(requests);
    }

    /// Waits until work has gone on for a while.
    async fn goes_on(&self) {
        let calls = || self.world.api.lock().ledger.entries.len();
        let (before, start) = (calls(), Instant::now());
        while calls() < before + 20 {
            assert!(start.elapsed() < PATIENCE, "nothing goes on");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_nodes_under_load_loses_no_request() {
    let schema = Schema::fresh().await;
    let mut cluster = Cluster::start(&schema).await;
    cluster.publish(0).await;
    cluster.goes_on().await;

    // The node with the request queue's leader is killed, and comes back.
    let victim = cluster.leader().await;
    let order = Arc::clone(&cluster.nodes[victim]);
    let killed = tokio::spawn(async move { order.order("kill").await });
    cluster.publish((victim + 1) % 3).await;
    cluster.goes_on().await;
    killed.await.unwrap();

    // Another one loses sight of the others; a worker that was there goes to them.
    let victim = cluster.leader().await;
    cluster.nodes[victim].order("cut").await;
    cluster.publish((victim + 2) % 3).await;
    cluster.goes_on().await;
    cluster.nodes[victim].order("heal").await;
    cluster.publish((victim + 2) % 3).await;
    cluster.goes_on().await;

    // As an update of the brokers does.
    for node in &cluster.nodes {
        node.order("restart").await;
    }

    let Cluster { world, requests, workers, .. } = &cluster;
    let mut outcomes = world.vhost.collect(OUTCOMES).await;
    all_answered(&mut outcomes, requests).await;
    world.vhost.wait_ready(REQUESTS, 0).await;
    for worker in workers {
        worker.wait_ready().await;
    }
    let seen = outcomes.drain().await;
    println!(
        "{} requests twice each, a node killed, one parted, three restarted: {} outcomes",
        requests.len(),
        seen.len()
    );
    truth::check(requests, seen, &world.api.lock());
    for worker in cluster.workers {
        worker.stop().await;
    }
}
