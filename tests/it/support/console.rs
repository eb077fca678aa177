//! The commands as somebody would type them: what they print, and how they end.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{PATIENCE, World, worker};

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
    /// The most memory that it had, in MiB.
    pub peak_mib: u64,
}

impl Ended {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// With this exit code.
    #[track_caller]
    pub fn with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// A command that runs.
pub struct Running {
    process: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
    peak_mib: u64,
}

/// Starts a command in this world, with this on its standard input.
pub fn start(world: &World, arguments: &[&str], stdin: &str) -> Running {
    start_with(&mut worker::command(world), arguments, stdin)
}

/// The same with an environment of its own.
pub fn start_with(command: &mut Command, arguments: &[&str], stdin: &str) -> Running {
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut input = process.stdin.take().unwrap();
    let stdin = stdin.to_owned();
    // It may end without having read it all.
    std::thread::spawn(move || drop(input.write_all(stdin.as_bytes())));
    let (out, err) = (Arc::default(), Arc::default());
    let readers = vec![keep(process.stdout.take().unwrap(), &out), keep(process.stderr.take().unwrap(), &err)];
    Running { process, out, err, readers, peak_mib: 0 }
}

fn keep(mut from: impl std::io::Read + Send + 'static, into: &Arc<Mutex<String>>) -> std::thread::JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    })
}

/// Runs a command to its end.
pub async fn run(world: &World, arguments: &[&str]) -> Ended {
    start(world, arguments, "").ended().await
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn out(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    /// Waits until its standard output or its standard error is as it ought to be.
    pub async fn says(&mut self, what: &str) {
        let start = Instant::now();
        while !(self.out().contains(what) || self.err.lock().unwrap().contains(what)) {
            assert!(start.elapsed() < PATIENCE, "it does not say {what}: {}{}", self.out(), self.err.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    pub async fn ended(mut self) -> Ended {
        let start = Instant::now();
        let status = loop {
            self.peak_mib = self.peak_mib.max(peak_mib(self.pid()));
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end: {}{}", self.out(), self.err.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        for reader in std::mem::take(&mut self.readers) {
            reader.join().unwrap();
        }
        let err = self.err.lock().unwrap().clone();
        Ended { code: status.code().unwrap_or(-1), out: self.out(), err, peak_mib: self.peak_mib }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or(0, |line| line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024)
}
