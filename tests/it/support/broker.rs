//! The broker: `TEST_AMQP_URL` with `TEST_MANAGEMENT_URL`, or a private node that lives as long as this process.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;

use super::{PATIENCE, Request};

/// Where a broker serves.
pub struct Node {
    amqp: String,
    management: String,
    amqps: Option<String>,
    prometheus: Option<String>,
    /// In a cluster.
    name: Option<String>,
    process: Option<Mutex<Process>>,
}

/// It ends when its standard input does, at the latest with this process.
struct Process {
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// A node of a test's own, with these variables in its environment (see tests/node.sh).
    pub async fn private(environment: &[(&str, &str)]) -> Arc<Self> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        tokio::task::spawn_blocking(|| Arc::new(Self::start(environment))).await.unwrap()
    }

    fn start(environment: Vec<(String, String)>) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node.sh");
        let mut command = Command::new(script);
        let speaks_tls = environment.iter().any(|(name, _)| name == "NODE_TLS_DIR");
        let is_in_a_cluster = environment.iter().any(|(name, _)| name == "NODE_COOKIE");
        let is_measured = environment.iter().any(|(name, _)| name == "NODE_PROMETHEUS");
        let command = command.envs(environment);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut read = |name: &str| {
            let line = answers
                .next()
                .expect("a broker: set TEST_AMQP_URL and TEST_MANAGEMENT_URL, or install rabbitmq-server")
                .unwrap();
            line.strip_prefix(name).unwrap().trim_start_matches('=').to_owned()
        };
        let (amqp, management) = (read("TEST_AMQP_URL"), read("TEST_MANAGEMENT_URL"));
        let prometheus = is_measured.then(|| read("TEST_PROMETHEUS_URL"));
        let amqps = speaks_tls.then(|| read("TEST_AMQPS_URL"));
        let name = is_in_a_cluster.then(|| read("TEST_NODE_NAME"));
        Self {
            amqp,
            management,
            amqps,
            prometheus,
            name,
            process: Some(Mutex::new(Process { _child: child, orders, answers })),
        }
    }

    /// Nodes of one cluster; all of them are up.
    #[allow(dead_code, reason = "tests/container needs none")]
    pub async fn cluster(size: usize) -> Vec<Arc<Self>> {
        let cookie = format!("cookie{}", std::process::id());
        let mut nodes = vec![Self::private(&[("NODE_COOKIE", &cookie)]).await];
        while nodes.len() < size {
            let first = nodes[0].name().to_owned();
            nodes.push(Self::private(&[("NODE_COOKIE", &cookie), ("NODE_JOIN", &first)]).await);
        }
        nodes
    }

    /// What the other nodes of its cluster call it.
    #[allow(dead_code, reason = "tests/container needs none")]
    pub fn name(&self) -> &str {
        self.name.as_ref().expect("a node of a cluster")
    }

    /// Orders something of a private node (see tests/node.sh), and waits until it is done.
    pub async fn order(self: &Arc<Self>, what: &'static str) {
        let node = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let mut process = node.process.as_ref().expect("a private node").lock().unwrap();
            writeln!(process.orders, "{what}").unwrap();
            process.answers.next().unwrap().unwrap()
        });
        assert_eq!(done.await.unwrap(), "done");
    }

    /// Where this user connects to this vhost.
    #[allow(dead_code, reason = "tests/container needs none")]
    pub fn url_of(&self, user: &str, password: &str, vhost: &str) -> String {
        self.amqp.replace("guest:guest", &format!("{user}:{password}")) + "/" + vhost
    }

    /// What the prometheus plugin tells, on a node with `NODE_PROMETHEUS`.
    #[allow(dead_code, reason = "tests/container needs none")]
    pub async fn measurements(&self, path: &str) -> String {
        let url = format!("{}{path}", self.prometheus.as_ref().expect("a node with NODE_PROMETHEUS"));
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    /// Asks the management API; panics where it refuses.
    pub async fn manage(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/api/{path}", self.management);
        let mut request = reqwest::Client::new().request(method, url).basic_auth("guest", Some("guest"));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default()
    }
}

/// The node that most tests share.
fn node() -> Arc<Node> {
    static NODE: OnceLock<Arc<Node>> = OnceLock::new();
    Arc::clone(NODE.get_or_init(|| {
        if let (Ok(amqp), Ok(management)) = (std::env::var("TEST_AMQP_URL"), std::env::var("TEST_MANAGEMENT_URL")) {
            return Arc::new(Node { amqp, management, amqps: None, prometheus: None, name: None, process: None });
        }
        Arc::new(Node::start(vec![]))
    }))
}

/// A vhost of a test's own; gone with it.
pub struct Vhost {
    /// `None` where it is not ours to delete.
    own: Option<(Arc<Node>, String)>,
    pub url: String,
}

pub async fn fresh_vhost() -> Vhost {
    Vhost::on(tokio::task::spawn_blocking(node).await.unwrap()).await
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let Some((node, name)) = &self.own else { return };
        let url = format!("{}/api/vhosts/{name}", node.management);
        // On a thread of its own: a test's runtime may be on its way down.
        let _ = std::thread::spawn(move || {
            let delete =
                async move { reqwest::Client::new().delete(url).basic_auth("guest", Some("guest")).send().await };
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(delete).map(drop)
        })
        .join();
    }
}

impl Vhost {
    /// Somebody else's: the container's.
    #[allow(dead_code, reason = "tests/container uses it")]
    pub fn at(url: String) -> Self {
        Self { own: None, url }
    }

    /// A new one on this node.
    pub async fn on(node: Arc<Node>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        node.manage(reqwest::Method::PUT, &format!("vhosts/{name}"), None).await;
        let grant = serde_json::json!({"configure": ".*", "write": ".*", "read": ".*"});
        node.manage(reqwest::Method::PUT, &format!("permissions/{name}/guest"), Some(grant)).await;
        Self { url: format!("{}/{name}", node.amqp), own: Some((node, name)) }
    }

    #[allow(dead_code, reason = "tests/chaos uses it")]
    /// A user of this vhost alone, so that a test can look for its password.
    pub async fn add_user(&self, name: &str, password: &str) {
        let (node, vhost) = self.own.as_ref().unwrap();
        let user = serde_json::json!({"password": password, "tags": ""});
        node.manage(reqwest::Method::PUT, &format!("users/{name}"), Some(user)).await;
        let grant = serde_json::json!({"configure": ".*", "write": ".*", "read": ".*"});
        node.manage(reqwest::Method::PUT, &format!("permissions/{vhost}/{name}"), Some(grant)).await;
    }

    /// What stands in this vhost, as the broker exports it.
    #[allow(dead_code, reason = "tests/container needs none")]
    pub async fn definitions(&self) -> Value {
        let (node, name) = self.own.as_ref().unwrap();
        node.manage(reqwest::Method::GET, &format!("definitions/{name}"), None).await
    }

    /// What the broker calls it.
    #[allow(dead_code, reason = "tests/container needs none")]
    pub fn name(&self) -> &str {
        &self.own.as_ref().unwrap().1
    }

    /// The same by way of another node of its cluster.
    #[allow(dead_code, reason = "tests/container needs none")]
    pub fn by_way_of(&self, node: &Node) -> Self {
        let (_, name) = self.own.as_ref().unwrap();
        Self::at(node.url_of("guest", "guest", name))
    }

    /// The same by TLS, on a node that was given certificates.
    pub fn amqps_url(&self) -> String {
        let (node, name) = self.own.as_ref().unwrap();
        format!("{}/{name}", node.amqps.as_ref().expect("a node with NODE_TLS_DIR"))
    }

    pub async fn connect(&self) -> Connection {
        Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap()
    }

    /// Declares what a worker would, so that a test can publish before there is one.
    pub async fn declare(&self) {
        migma_eraser::ports::Broker::close(&self.adapter().await).await;
    }

    /// The worker's own way to the broker, without the worker.
    pub async fn adapter(&self) -> migma_eraser::amqp::RabbitMq {
        let settings = migma_eraser::amqp::AmqpSettings {
            urls: vec![self.url.clone()],
            ca_file: None,
            names: migma_eraser::amqp::Names::with_prefix("contacts.deletion"),
            declare_topology: true,
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            buffer_bytes: 1 << 20,
            max_message_bytes: 1 << 20,
            max_prefetch: 1,
        };
        migma_eraser::amqp::RabbitMq::connect(settings).await.unwrap()
    }

    /// Publishes requests and waits until the broker has them.
    pub async fn publish(&self, requests: &[Request]) {
        self.publish_to("contacts.deletion", "request.gdpr", requests).await;
    }

    /// The same by way of any exchange and key.
    pub async fn publish_to(&self, exchange: &str, routing_key: &str, requests: &[Request]) {
        let taken = self.offer(exchange, routing_key, requests).await;
        assert!(taken.iter().all(|taken| *taken), "the broker takes the request");
    }

    /// Publishes requests until the broker has all of them: it may refuse some while a node of its cluster is lost.
    #[allow(dead_code, reason = "tests/container needs none")]
    pub async fn publish_at_last(&self, requests: &[Request]) {
        let (mut left, start) = (requests.to_vec(), Instant::now());
        while !left.is_empty() {
            assert!(start.elapsed() < PATIENCE, "the broker refuses {} requests", left.len());
            let mut taken = self.offer("contacts.deletion", "request.gdpr", &left).await.into_iter();
            left.retain(|_| taken.next() == Some(false));
        }
    }

    /// Publishes each once; whether the broker took it.
    async fn offer(&self, exchange: &str, routing_key: &str, requests: &[Request]) -> Vec<bool> {
        let connection = self.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let mut confirms = Vec::new();
        for request in requests {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let confirm = channel
                .basic_publish(exchange.into(), routing_key.into(), options, &request.body, request.properties.clone())
                .await
                .unwrap();
            confirms.push(confirm);
        }
        let mut taken = Vec::new();
        for confirm in confirms {
            let confirmed = confirm.await.unwrap();
            taken.push(confirmed.is_ack() && confirmed.take_message().is_none());
        }
        let _ = connection.close(200, "OK".into()).await;
        taken
    }

    /// A queue of a test's own, bound to an exchange.
    #[allow(dead_code, reason = "tests/container needs none")]
    pub async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let connection = self.connect().await;
        let channel = connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
        let options = lapin::options::QueueBindOptions::default();
        channel
            .queue_bind(queue.into(), exchange.into(), routing_key.into(), options, FieldTable::default())
            .await
            .unwrap();
        let _ = connection.close(200, "OK".into()).await;
    }

    /// Messages that are ready in a queue.
    pub async fn ready(&self, queue: &str) -> u32 {
        let connection = self.connect().await;
        let channel = connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
        let count = found.message_count();
        let _ = connection.close(200, "OK".into()).await;
        count
    }

    /// Waits until so many messages are ready in a queue.
    pub async fn wait_ready(&self, queue: &str, count: u32) {
        let start = Instant::now();
        let mut ready = 0;
        while start.elapsed() < PATIENCE {
            ready = self.ready(queue).await;
            if ready == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{queue} has {ready} messages ready, not {count}");
    }

    /// Ends every connection to this vhost, as a network would.
    pub async fn cut_connections(&self) -> usize {
        let (node, name) = self.own.as_ref().unwrap();
        let mut cut = 0;
        let found = node.manage(reqwest::Method::GET, &format!("vhosts/{name}/connections"), None).await;
        for connection in found.as_array().into_iter().flatten() {
            let name = connection["name"].as_str().unwrap_or_default().replace(' ', "%20").replace('>', "%3E");
            let url = format!("{}/api/connections/{name}", node.management);
            let gone = reqwest::Client::new().delete(url).basic_auth("guest", Some("guest")).send().await.unwrap();
            cut += usize::from(gone.status().is_success());
        }
        cut
    }

    /// Ends both connections of a worker.
    pub async fn cut_both_connections(&self) {
        self.cut_at_least(2).await;
    }

    /// Ends all connections, once the broker shows so many: that is a moment after they are made.
    pub async fn cut_at_least(&self, count: usize) {
        let start = std::time::Instant::now();
        while self.cut_connections().await < count {
            assert!(start.elapsed() < PATIENCE, "the broker never shows {count} connections at once");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Takes what comes out of a queue, until the test is over.
    pub async fn collect(&self, queue: &str) -> Collector {
        let connection = self.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.basic_qos(5000, BasicQosOptions::default()).await.unwrap();
        let consumer = channel
            .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await
            .unwrap();
        Collector { _connection: connection, channel, consumer, seen: Vec::new() }
    }
}

/// A message that came out of a queue.
#[derive(Clone, Debug)]
pub struct Seen {
    pub routing_key: String,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        match self.properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
            _ => None,
        }
    }
}

/// What came out of a queue so far.
pub struct Collector {
    _connection: Connection,
    channel: Channel,
    consumer: lapin::Consumer,
    pub seen: Vec<Seen>,
}

impl Collector {
    /// Waits until so many messages have come out since the start.
    pub async fn wait_for(&mut self, count: usize) -> &[Seen] {
        self.wait_until(&format!("{count} messages"), |seen| seen.len() >= count).await
    }

    /// Waits until what came out is enough.
    pub async fn wait_until(&mut self, what: &str, enough: impl Fn(&[Seen]) -> bool) -> &[Seen] {
        while !enough(&self.seen) {
            match tokio::time::timeout(PATIENCE, self.consumer.next()).await {
                Ok(Some(Ok(message))) => self.take(message).await,
                Ok(ended) => panic!("the queue ended: {ended:?}"),
                Err(_) => panic!("waited in vain for {what}; {} came", self.seen.len()),
            }
        }
        &self.seen
    }

    /// What is there already, without waiting for more than the broker needs to hand it over.
    pub async fn drain(&mut self) -> &[Seen] {
        while let Ok(Some(Ok(message))) = tokio::time::timeout(Duration::from_millis(500), self.consumer.next()).await {
            self.take(message).await;
        }
        &self.seen
    }

    async fn take(&mut self, message: lapin::message::Delivery) {
        self.channel.basic_ack(message.delivery_tag, BasicAckOptions::default()).await.unwrap();
        self.seen.push(Seen {
            routing_key: message.routing_key.to_string(),
            properties: message.properties,
            body: message.data,
        });
    }
}
