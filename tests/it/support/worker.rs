//! The worker as a process: the binary itself, with its log kept for a look.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{API_KEY, PATIENCE, World};

/// A worker that runs.
pub struct Worker {
    process: Child,
    pub log: Arc<Mutex<String>>,
    admin: String,
}

/// Settings and command line, ready to be started.
pub fn command(world: &World) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migma-eraser"));
    command
        .current_dir(world.folder.path())
        .env("MIGMA_API_KEY", API_KEY)
        .env("MIGMA_ERASER__AMQP__URL", &world.vhost.url)
        .env("MIGMA_ERASER__MIGMA__BASE_URL", world.api.url())
        .env(
            "MIGMA_ERASER__JOURNAL__URL",
            format!("sqlite://{}", world.folder.path().join("journal/eraser.db").display()),
        )
        .env("MIGMA_ERASER__ADMIN__LISTEN", "127.0.0.1:0")
        .env("MIGMA_ERASER__RATE_LIMIT__REQUESTS_PER_MINUTE", "1000000")
        .env("MIGMA_ERASER__RATE_LIMIT__BURST", "100")
        .env("MIGMA_ERASER__RETRY__INITIAL_INTERVAL", "50ms")
        .env("MIGMA_ERASER__RETRY__MAX_INTERVAL", "500ms")
        .env("RUST_LOG", "trace")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

impl Worker {
    pub async fn start(world: &World, settings: &[(&str, &str)]) -> Self {
        let worker = Self::launch(world, settings);
        worker.wait_ready().await;
        worker
    }

    /// The same with variables of others, such as `("RUST_LOG", "info")`.
    pub async fn start_in(world: &World, settings: &[(&str, &str)], environment: &[(&str, &str)]) -> Self {
        let worker = Self::spawn(command(world).envs(environment.iter().copied()), settings);
        worker.wait_ready().await;
        worker
    }

    /// The same without the key in its environment.
    pub async fn start_without_key(world: &World, settings: &[(&str, &str)]) -> Self {
        let worker = Self::spawn(command(world).env_remove("MIGMA_API_KEY"), settings);
        worker.wait_ready().await;
        worker
    }

    /// Starts it, and learns its admin address; it may not be ready yet.
    pub fn launch(world: &World, settings: &[(&str, &str)]) -> Self {
        Self::spawn(&mut command(world), settings)
    }

    /// One that a file at its limit tells an error, as a full disk would, instead of ending it by a signal.
    pub async fn start_surviving_full_disks(world: &World, settings: &[(&str, &str)]) -> Self {
        let plain = command(world);
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#]).arg(plain.get_program());
        shell.current_dir(world.folder.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        shell.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let worker = Self::spawn(&mut shell, settings);
        worker.wait_ready().await;
        worker
    }

    fn spawn(command: &mut Command, settings: &[(&str, &str)]) -> Self {
        for (key, value) in settings {
            command.env(format!("MIGMA_ERASER__{key}"), value);
        }
        let mut process = command.arg("run").spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(at) = line.find("Some(127.0.0.1:") {
                    let address: String = line[at + 5..].chars().take_while(|c| *c != ')').collect();
                    let _ = tell.send(address);
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let admin =
            told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it does not start:\n{}", log.lock().unwrap()));
        Self { process, log, admin }
    }

    /// Where its admin address is.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub async fn wait_ready(&self) {
        self.wait_readiness(|status, _| status == 200).await;
    }

    /// Waits until `/readyz` is as it ought to be.
    pub async fn wait_readiness(&self, enough: impl Fn(u16, &str) -> bool) {
        let start = Instant::now();
        let mut last = String::new();
        while start.elapsed() < PATIENCE {
            if let Ok(response) = reqwest::get(format!("http://{}/readyz", self.admin)).await {
                let status = response.status().as_u16();
                last = response.text().await.unwrap_or_default();
                if enough(status, &last) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("readiness is {last}; the log:\n{}", self.log_text());
    }

    /// Waits until a metric without labels counts at least so much.
    pub async fn wait_metric(&self, name: &str, least: u64) {
        let start = Instant::now();
        let mut told = None;
        while start.elapsed() < PATIENCE {
            let text = self.metrics().await;
            told = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
            if told >= Some(least) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} is {told:?}; the log:\n{}", self.log_text());
    }

    pub async fn metrics(&self) -> String {
        reqwest::get(format!("http://{}/metrics", self.admin)).await.unwrap().text().await.unwrap()
    }

    pub fn log_text(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The most memory that it ever had, in MiB.
    pub fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// SIGKILL, and its end.
    pub fn kill9(mut self) -> String {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.log_text()
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not end:\n{}", self.log_text());
    }

    /// SIGTERM, and its end with exit code 0.
    pub async fn stop(mut self) -> String {
        self.signal("TERM");
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{}", self.log_text());
        self.log_text()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
