//! A way to a server on which nothing passes while it is closed, and nobody is told so.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// It ends when this is dropped.
pub struct Partition {
    url: String,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Partition {
    /// In front of the server that this URL names; open.
    pub async fn start(url: &str) -> Self {
        let mut url = reqwest::Url::parse(url).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        let open = watch::Sender::new(true);
        let passage = open.subscribe();
        let task = tokio::spawn(async move {
            loop {
                let (caller, _) = listener.accept().await.unwrap();
                let Ok(inside) = TcpStream::connect(&server).await else { continue };
                let ((from_caller, to_caller), (from_inside, to_inside)) = (caller.into_split(), inside.into_split());
                tokio::spawn(pass_on(from_caller, to_inside, passage.clone()));
                tokio::spawn(pass_on(from_inside, to_caller, passage.clone()));
            }
        });
        Self { url: url.into(), open, task }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn close(&self) {
        self.open.send_replace(false);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passage: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if passage.wait_for(|open| *open).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    // Nor does the end of either side.
    let _ = passage.wait_for(|open| *open).await;
}
