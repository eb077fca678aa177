//! `PostgreSQL`: `TEST_POSTGRES_URL`, or a private server that lives as long as this process.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// Where a database serves.
pub struct Server {
    url: String,
    process: Option<Mutex<Process>>,
}

/// It ends when its standard input does, at the latest with this process.
struct Process {
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// A server of a test's own.
    pub async fn private() -> Arc<Self> {
        tokio::task::spawn_blocking(|| Arc::new(Self::start(None))).await.unwrap()
    }

    /// One that takes TLS alone, with the certificate in this folder, and asks for a password.
    pub async fn private_by_tls(folder: String) -> Arc<Self> {
        tokio::task::spawn_blocking(|| Arc::new(Self::start(Some(folder)))).await.unwrap()
    }

    fn start(tls: Option<String>) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/postgres.sh");
        let mut command = Command::new(script);
        command.envs(tls.map(|folder| ("POSTGRES_TLS_DIR", folder)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = answers.next().expect("PostgreSQL: set TEST_POSTGRES_URL, or install postgresql").unwrap();
        let url = line.strip_prefix("TEST_POSTGRES_URL=").unwrap().to_owned();
        Self { url, process: Some(Mutex::new(Process { _child: child, orders, answers })) }
    }

    /// Orders something of a private server (see tests/postgres.sh), and waits until it is done.
    pub async fn order(self: &Arc<Self>, what: &'static str) {
        let server = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let mut process = server.process.as_ref().expect("a private server").lock().unwrap();
            writeln!(process.orders, "{what}").unwrap();
            process.answers.next().unwrap().unwrap()
        });
        assert_eq!(done.await.unwrap(), "done");
    }
}

/// The server that most tests share.
async fn server() -> Arc<Server> {
    static SERVER: OnceLock<Arc<Server>> = OnceLock::new();
    let start = || match std::env::var("TEST_POSTGRES_URL") {
        Ok(url) => Arc::new(Server { url, process: None }),
        Err(_) => Arc::new(Server::start(None)),
    };
    tokio::task::spawn_blocking(move || Arc::clone(SERVER.get_or_init(start))).await.unwrap()
}

/// A schema of a test's own; gone with it.
pub struct Schema {
    server: Arc<Server>,
    name: String,
}

impl Schema {
    pub async fn fresh() -> Self {
        Self::on(server().await).await
    }

    pub async fn on(server: Arc<Server>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let schema = Self { server, name };
        schema.execute(&format!("CREATE SCHEMA {}", schema.name)).await;
        schema
    }

    /// What `journal.url` is set to.
    pub fn url(&self) -> String {
        let separator = if self.server.url.contains('?') { '&' } else { '?' };
        format!("{}{separator}options=-csearch_path%3D{}", self.server.url, self.name)
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    pub async fn execute(&self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut self.connect().await).await.unwrap();
    }

    /// The one number that a query gives.
    pub async fn number(&self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut self.connect().await).await.unwrap()
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        // One of a private server goes with it.
        if self.server.process.is_some() {
            return;
        }
        let (url, drop) = (self.server.url.clone(), format!("DROP SCHEMA {} CASCADE", self.name));
        // On a thread of its own: a test's runtime may be on its way down.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut db = PgConnection::connect(&url).await?;
                sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut db).await.map(|_| ())
            })
        })
        .join();
    }
}
