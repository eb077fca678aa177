//! Replies to the queues that requests name: best effort, on a connection of their own. Never here: what an outcome
//! waits for.

use std::sync::Arc;

use lapin::options::BasicPublishOptions;
use lapin::{Channel, Connection};
use tokio::sync::mpsc;
use tracing::debug;

use super::AmqpError;
use super::connection::{COMMAND_TIMEOUT, Connector, within};
use super::message::{properties, short};
use crate::ports::Publication;

struct Link {
    connection: Connection,
    channel: Channel,
}

/// The connection is made when the first is due: a name that the broker takes offence at (541) closes this one and no other.
pub(super) async fn run(connector: Arc<Connector>, mut replies: mpsc::Receiver<(String, Publication)>) {
    let mut link: Option<Link> = None;
    while let Some((queue, publication)) = replies.recv().await {
        if !link.as_ref().is_some_and(|l| l.connection.status().connected() && l.channel.status().connected()) {
            let attempt = async {
                let connection = connector.connect("replying").await?;
                let channel = within(COMMAND_TIMEOUT, "opening a channel", connection.create_channel()).await?;
                Ok::<_, AmqpError>(Link { connection, channel })
            };
            link = match attempt.await {
                Ok(link) => Some(link),
                Err(error) => {
                    debug!(error = %error, "a reply was not sent");
                    continue;
                }
            };
        }
        if let Some(Link { channel, .. }) = &link {
            let sending = channel.basic_publish(
                short(""),
                short(&queue),
                BasicPublishOptions::default(),
                &publication.payload,
                properties(&publication),
            );
            if let Err(error) = within(COMMAND_TIMEOUT, "replying", sending).await {
                debug!(error = %error, "a reply was not sent");
            }
        }
    }
}
