//! The bare forwarder: what any program in this language and with this library could do at best, with no promise but the
//! broker's own. One persistent message out for each that comes in; confirms awaited in bulk; acks for many at a time.

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties, PublisherConfirm};
use tokio::sync::mpsc;

use crate::Failed;
use crate::broker::{OUTCOMES, REQUESTS};

const PREFETCH: u16 = 5000;
const BURST: usize = 1000;

pub async fn run(url: &str) -> Result<(), Failed> {
    // Two connections, as the worker has: so that neither direction waits for the other's socket.
    let source = Connection::connect(url, ConnectionProperties::default()).await?.create_channel().await?;
    let target = Connection::connect(url, ConnectionProperties::default()).await?.create_channel().await?;
    source.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    target.confirm_select(ConfirmSelectOptions::default()).await?;
    let consume =
        source.basic_consume(REQUESTS.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = consume.await?;

    let (sent, mut under_way) = mpsc::unbounded_channel::<(Vec<PublisherConfirm>, u64)>();
    let acking = source.clone();
    tokio::spawn(async move {
        while let Some((confirms, tag)) = under_way.recv().await {
            for confirm in confirms {
                assert!(confirm.await.is_ok_and(|confirmed| confirmed.is_ack()), "not confirmed");
            }
            acking.basic_ack(tag, BasicAckOptions { multiple: true }).await.expect("the channel lives");
        }
    });
    while let Some(first) = consumer.next().await {
        let mut burst = vec![first?];
        while burst.len() < BURST {
            let Some(Some(next)) = consumer.next().now_or_never() else { break };
            burst.push(next?);
        }
        let last = burst.last().map_or(0, |delivery| delivery.delivery_tag);
        let mut confirms = Vec::with_capacity(burst.len());
        for delivery in burst {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let mut properties = BasicProperties::default().with_delivery_mode(2);
            if let Some(id) = delivery.properties.message_id() {
                properties = properties.with_message_id(id.clone());
            }
            let (exchange, key) = (OUTCOMES.into(), "outcome.succeeded".into());
            confirms.push(target.basic_publish(exchange, key, options, &delivery.data, properties).await?);
        }
        sent.send((confirms, last))?;
    }
    Ok(())
}
