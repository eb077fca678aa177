//! A network that misbehaves: connections go through here to the broker and to the API, and are cut, stalled, refused, or
//! lose only what comes back.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the relay does with the bytes of every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They pass.
    Open,
    /// What the client says passes; what it is answered stays here: confirms and answers that will be lost by a cut.
    Deaf,
    /// Nothing passes either way.
    Stalled,
    /// New connections end at once.
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct Order {
    flow: Flow,
    /// Goes up by one with each cut.
    cuts: u64,
}

/// One door that leads to another.
pub struct Relay {
    address: SocketAddr,
    order: Arc<watch::Sender<Order>>,
}

impl Relay {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let order = Arc::new(watch::Sender::new(Order { flow: Flow::Open, cuts: 0 }));
        let orders = Arc::clone(&order);
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                if orders.borrow().flow != Flow::Closed {
                    tokio::spawn(carry(client, target, orders.subscribe()));
                }
            }
        });
        Self { address, order }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, flow: Flow) {
        self.order.send_modify(|order| order.flow = flow);
    }

    /// Ends every connection, wherever in a frame it stands.
    pub fn cut(&self) {
        self.order.send_modify(|order| order.cuts += 1);
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut orders: watch::Receiver<Order>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let before = orders.borrow().cuts;
    let there = pump(from_client, to_server, orders.clone(), |flow| flow != Flow::Stalled);
    let back = pump(from_server, to_client, orders.clone(), |flow| !matches!(flow, Flow::Stalled | Flow::Deaf));
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = orders.wait_for(|order| order.cuts != before) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut orders: watch::Receiver<Order>,
    passes: impl Fn(Flow) -> bool,
) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let open = orders.wait_for(|order| passes(order.flow)).await.is_ok();
        if !open || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
