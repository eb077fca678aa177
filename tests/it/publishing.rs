//! The broker's word on each message, though many groups are on their way at once.

use futures_util::future::join_all;
use lapin::Channel;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use migma_eraser::amqp::RabbitMq;
use migma_eraser::domain::moment::Timestamp;
use migma_eraser::ports::{Broker as _, Confirm, Exchange, Head, Publication};

use crate::support::broker::{Vhost, fresh_vhost};

/// How many publish at once, how many groups each, one after the other, and of how many messages.
const CALLERS: usize = 16;
const GROUPS: usize = 20;
const EACH: usize = 50;

fn publication(exchange: Exchange, number: usize) -> Publication {
    Publication {
        exchange,
        routing_key: if exchange == Exchange::Dead { "dead.TEST" } else { "outcome.succeeded" }.to_owned(),
        head: Head::Own {
            message_id: number.to_string(),
            correlation_id: None,
            kind: "test",
            at: Timestamp::from_millis(0),
            traceparent: None,
        },
        payload: "{}".into(),
        mandatory: true,
    }
}

/// Publishes all groups; every `odd`-th message goes to this exchange, the others are outcomes. Which were odd, and what
/// the broker said.
async fn publish(broker: &RabbitMq, exchange: Exchange, odd: usize) -> Vec<(bool, Confirm)> {
    let callers = (0..CALLERS).map(async |caller| {
        let mut confirms = Vec::new();
        for group in 0..GROUPS {
            let numbers = (0..EACH).map(|at| (group * CALLERS + caller) * EACH + at);
            let of = |number| if number % odd == 0 { exchange } else { Exchange::Outcomes };
            let said = broker.publish(numbers.clone().map(|number| publication(of(number), number)).collect()).await;
            confirms.extend(numbers.map(|number| number % odd == 0).zip(said));
        }
        confirms
    });
    join_all(callers).await.concat()
}

/// The adapter, once it has nothing more to declare, and a channel to take away what it declared.
async fn standing() -> (Vhost, RabbitMq, Channel) {
    let vhost = fresh_vhost().await;
    let broker = vhost.adapter().await;
    assert_eq!(broker.publish(vec![publication(Exchange::Outcomes, 0)]).await, [Confirm::Confirmed]);
    let channel = vhost.connect().await.create_channel().await.unwrap();
    (vhost, broker, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_is_known_for_its_own_message_though_many_groups_are_on_their_way() {
    let (_vhost, broker, channel) = standing().await;
    channel.queue_delete("contacts.deletion.parked".into(), QueueDeleteOptions::default()).await.unwrap();
    for odd in [1, 2, 7, 97, 499] {
        for (is_odd, confirm) in publish(&broker, Exchange::Parking, odd).await {
            let expected = if is_odd { Confirm::Unroutable } else { Confirm::Confirmed };
            assert_eq!(confirm, expected, "where every {odd}th comes back");
        }
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_ends_the_channel_harms_no_other_and_none_is_forgotten() {
    let (vhost, broker, channel) = standing().await;
    channel.exchange_delete("contacts.deletion.dead".into(), ExchangeDeleteOptions::default()).await.unwrap();
    // Whoever connects again declares what is missing, so that even the message that was to blame arrives in the end.
    let confirms = publish(&broker, Exchange::Dead, 4001).await;
    assert!(confirms.iter().all(|(_, confirm)| *confirm == Confirm::Confirmed), "{confirms:?}");
    // What had arrived before the channel ended may be there twice.
    let ready = vhost.ready("contacts.deletion.outcomes").await as usize;
    assert!(ready > confirms.iter().filter(|(is_odd, _)| !is_odd).count(), "{ready}");
    broker.close().await;
}
