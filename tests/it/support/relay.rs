//! Something on the way to the broker that lets no method of one kind through, nor what follows it, and tells so.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// It ends when this is dropped.
pub struct Relay {
    url: String,
    met: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Relay {
    /// `basic.ack`: class and number.
    pub const ACK: [u8; 4] = [0, 60, 0, 80];

    /// In front of the broker that this URL names.
    pub async fn start(url: &str, held_back: [u8; 4]) -> Self {
        let mut url = reqwest::Url::parse(url).unwrap();
        let broker = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        let met = Arc::new(Notify::new());
        let meeting = Arc::clone(&met);
        let task = tokio::spawn(async move {
            loop {
                let (caller, _) = listener.accept().await.unwrap();
                let inside = TcpStream::connect(&broker).await.unwrap();
                let ((from_caller, mut to_caller), (mut from_inside, to_inside)) =
                    (caller.into_split(), inside.into_split());
                tokio::spawn(pass_on(from_caller, to_inside, held_back, Arc::clone(&meeting)));
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_inside, &mut to_caller).await;
                });
            }
        });
        Self { url: url.into(), met, task }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until one was held back.
    pub async fn met(&self) {
        tokio::time::timeout(super::PATIENCE, self.met.notified()).await.expect("it comes this way");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Frame by frame; with the end of the caller the broker hears of its end too.
async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, held_back: [u8; 4], met: Arc<Notify>) {
    let mut greeting = [0; 8];
    if from.read_exact(&mut greeting).await.is_err() || to.write_all(&greeting).await.is_err() {
        return;
    }
    let mut head = [0; 7];
    while from.read_exact(&mut head).await.is_ok() {
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut rest = vec![0; size + 1];
        if from.read_exact(&mut rest).await.is_err() {
            return;
        }
        if head[0] == 1 && rest.starts_with(&held_back) {
            met.notify_one();
            // Nor does anything that would come after it.
            let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
            return;
        }
        if to.write_all(&head).await.is_err() || to.write_all(&rest).await.is_err() {
            return;
        }
    }
}
