//! The two consumers of a channel: of what was returned, one at a time, and of requests. Never here: what becomes of what
//! they give.

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

use super::connection::{COMMAND_TIMEOUT, within};
use super::message::short;
use super::{AmqpError, Names};
use crate::ports::Source;

/// What a consumer gave; `None` at its end.
pub(super) type Next = Option<lapin::Result<Delivery>>;

/// Both consumers, while anything is consumed.
pub(super) struct Consumers {
    returned: Consumer,
    requests: Consumer,
}

impl Consumers {
    /// `window` is the prefetch of requests.
    pub(super) async fn start(channel: &Channel, names: &Names, window: u16) -> Result<Self, AmqpError> {
        let returned = consume(channel, &names.returned_queue, 1).await?;
        let requests = consume(channel, &names.request_queue, window).await?;
        Ok(Self { returned, requests })
    }

    /// Waits for ever where nothing is consumed.
    pub(super) async fn next(consumers: &mut Option<Self>) -> (Next, Source) {
        let Some(Self { returned, requests }) = consumers else { return std::future::pending().await };
        tokio::select! {
            biased;
            next = returned.next() => (next, Source::Returned),
            next = requests.next() => (next, Source::Requests),
        }
    }

    /// A request that is here already.
    pub(super) fn another_request(&mut self) -> Option<Next> {
        self.requests.next().now_or_never()
    }

    /// Consumes requests anew with another window. Returns what was on its way under the old one.
    pub(super) async fn resize(
        &mut self,
        channel: &Channel,
        names: &Names,
        window: u16,
    ) -> Result<Vec<Delivery>, AmqpError> {
        cancel(channel, &self.requests).await?;
        let mut on_its_way = Vec::new();
        while let Ok(Some(next)) = tokio::time::timeout(COMMAND_TIMEOUT, self.requests.next()).await {
            on_its_way.push(next.map_err(|source| AmqpError::Broker { action: "consuming", source })?);
        }
        self.requests = consume(channel, &names.request_queue, window).await?;
        Ok(on_its_way)
    }

    /// Nothing more comes. What was on its way is dropped unseen, and comes again when the channel has ended.
    pub(super) async fn cancel(self, channel: &Channel) -> Result<(), AmqpError> {
        cancel(channel, &self.returned).await?;
        cancel(channel, &self.requests).await
    }
}

async fn consume(channel: &Channel, queue: &str, prefetch: u16) -> Result<Consumer, AmqpError> {
    within(COMMAND_TIMEOUT, "setting the prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let consuming =
        channel.basic_consume(short(queue), short(""), BasicConsumeOptions::default(), FieldTable::default());
    within(COMMAND_TIMEOUT, "consuming", consuming).await
}

async fn cancel(channel: &Channel, consumer: &Consumer) -> Result<(), AmqpError> {
    let cancelling = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
    within(COMMAND_TIMEOUT, "cancelling a consumer", cancelling).await
}
