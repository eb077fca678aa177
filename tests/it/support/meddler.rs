//! Something on the way to the API that passes calls on, and now and then answers something else in its place.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a caller hears in place of the API's answer.
#[derive(Clone)]
pub enum Instead {
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// The first of these, then nothing but the second, for as long as the caller listens.
    Endless(Vec<u8>, Vec<u8>),
    /// The first of these at once, then the others one by one, slowly.
    Drip(Vec<u8>, Vec<u8>),
}

/// How long a byte takes that drips.
const SLOWLY: Duration = Duration::from_millis(50);

/// It ends when this is dropped.
pub struct Meddler {
    at: SocketAddr,
    next: Arc<Mutex<VecDeque<Instead>>>,
    task: JoinHandle<()>,
}

impl Meddler {
    pub async fn start(api: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let next = Arc::<Mutex<VecDeque<Instead>>>::default();
        let ordered = Arc::clone(&next);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(meddle(stream, api, Arc::clone(&ordered)));
            }
        });
        Self { at, next, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// The next call does its work, and its caller hears this.
    pub fn answer(&self, instead: Instead) {
        self.next.lock().unwrap().push_back(instead);
    }

    /// Whether everything was said.
    pub fn is_done(&self) -> bool {
        self.next.lock().unwrap().is_empty()
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn meddle(mut caller: TcpStream, api: SocketAddr, next: Arc<Mutex<VecDeque<Instead>>>) {
    while let Some(request) = message(&mut caller).await {
        let mut inside = TcpStream::connect(api).await.unwrap();
        inside.write_all(&request).await.unwrap();
        let answer = message(&mut inside).await.unwrap();
        let instead = next.lock().unwrap().pop_front();
        // The caller may have heard enough at any time.
        let _ = match instead {
            None => {
                caller.write_all(&answer).await.unwrap();
                continue;
            }
            Some(Instead::Bytes(bytes)) => caller.write_all(&bytes).await,
            Some(Instead::Endless(head, more)) => {
                let mut said = caller.write_all(&head).await;
                while said.is_ok() {
                    said = caller.write_all(&more).await;
                }
                said
            }
            Some(Instead::Drip(head, rest)) => {
                let mut said = caller.write_all(&head).await;
                for byte in rest {
                    tokio::time::sleep(SLOWLY).await;
                    said = caller.write_all(&[byte]).await;
                    if said.is_err() {
                        break;
                    }
                }
                said
            }
        };
        let _ = caller.shutdown().await;
        return;
    }
}

/// A message with its body, as its `content-length` has it; `None` at the end of the connection.
async fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            if bytes.len() >= end + 4 + length.map_or(0, |length| length.trim().parse::<usize>().unwrap()) {
                return Some(bytes);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
