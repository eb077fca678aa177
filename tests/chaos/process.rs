//! The worker as a process that comes and goes, each life with a log of its own, which is searched when it ends.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::PASSWORD;
use crate::support::{API_KEY, World, worker};

/// How long a stop may take: the grace, and what a busy machine needs.
const STOP: Duration = Duration::from_mins(2);
/// Logs that are kept for a look after a failure.
const KEPT: usize = 20;

/// One worker after another.
pub struct Processes {
    settings: Vec<(String, String)>,
    logs: PathBuf,
    lives: usize,
    child: Option<Child>,
    searched: u64,
    wrong: Vec<String>,
}

impl Processes {
    pub fn new(settings: &[(&str, String)]) -> Self {
        let logs = std::env::temp_dir().join(format!("migma-eraser-chaos-{}", std::process::id()));
        std::fs::create_dir_all(&logs).unwrap();
        println!("logs of the last {KEPT} workers: {}", logs.display());
        let settings = settings.iter().map(|(key, value)| (format!("MIGMA_ERASER__{key}"), value.clone())).collect();
        Self { settings, logs, lives: 0, child: None, searched: 0, wrong: Vec::new() }
    }

    fn log(&self, life: usize) -> PathBuf {
        self.logs.join(format!("worker-{life}.log"))
    }

    pub fn start(&mut self, world: &World) {
        assert!(self.child.is_none(), "one at a time");
        self.lives += 1;
        let log = File::create(self.log(self.lives)).unwrap();
        let mut command = worker::command(world);
        command.envs(self.settings.iter().map(|(key, value)| (key, value))).arg("run").stderr(Stdio::from(log));
        self.child = Some(command.spawn().unwrap());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
        self.search();
    }

    /// SIGTERM; what is wrong with its end.
    pub async fn stop(&mut self, world: &World) -> Vec<String> {
        self.expect_alive(world);
        let mut child = self.child.take().expect("it runs");
        self.has_begun().await;
        let sent = std::process::Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        let start = Instant::now();
        let mut wrong = Vec::new();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                if status.code() != Some(0) {
                    wrong.push(format!("worker {} was stopped and ended with {status}", self.lives));
                }
                break;
            }
            if start.elapsed() > STOP {
                wrong.push(format!("worker {} does not stop", self.lives));
                child.kill().unwrap();
                child.wait().unwrap();
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.search();
        wrong
    }

    /// Before its first log line no program of any kind could take a signal.
    async fn has_begun(&self) {
        let start = Instant::now();
        while std::fs::metadata(self.log(self.lives)).unwrap().len() == 0 && start.elapsed() < STOP {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// One that ended by itself is wrong, and replaced.
    pub fn expect_alive(&mut self, world: &World) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
        if let Some(status) = ended {
            self.wrong.push(format!(
                "worker {} ended by itself with {status}: {}",
                self.lives,
                self.log(self.lives).display()
            ));
            self.child = None;
            self.search();
            self.start(world);
        }
    }

    pub fn remember(&mut self, wrong: Vec<String>) {
        self.wrong.extend(wrong);
    }

    pub fn take_wrong(&mut self) -> Vec<String> {
        std::mem::take(&mut self.wrong)
    }

    pub fn searched_kib(&self) -> u64 {
        self.searched >> 10
    }

    /// Every address of this run is at example.org.
    fn search(&mut self) {
        let path = self.log(self.lives);
        let (searched, found) = search(&path);
        self.searched += searched;
        self.wrong.extend(found.into_iter().map(|what| format!("{}: {what}", path.display())));
        if let Some(old) = self.lives.checked_sub(KEPT) {
            let _ = std::fs::remove_file(self.log(old));
        }
    }
}

fn search(path: &Path) -> (u64, Vec<String>) {
    let mut lines = BufReader::new(File::open(path).unwrap());
    let (mut line, mut bytes, mut number, mut found) = (Vec::new(), 0, 0, Vec::new());
    while lines.read_until(b'\n', &mut line).unwrap() > 0 {
        (bytes, number) = (bytes + line.len() as u64, number + 1);
        let text = String::from_utf8_lossy(&line);
        let secrets = ["example.org", "EXAMPLE.ORG", "Example.ORG", "not an address", API_KEY, PASSWORD];
        if let Some(secret) = secrets.iter().find(|secret| text.contains(*secret)) {
            found.push(format!("line {number} holds {secret}"));
        }
        line.clear();
    }
    (bytes, found)
}

impl Drop for Processes {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
