//! The main job once against a broker in a container, through testcontainers. Run by `tests/container.sh`, which makes
//! the image; it is no part of a plain `cargo test`, so that it never looks green without having run.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation
)]

#[path = "../it/support/mod.rs"]
mod support;
#[path = "../support/truth.rs"]
mod truth;

use std::time::Duration;

use migma_eraser::sandbox::{Data, Faults};
use support::requests::mixed;
use support::{Vhost, World};
use testcontainers::core::{IntoContainerPort as _, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{GenericImage, ImageExt as _};

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_runs_against_a_broker_in_a_container() {
    let image = std::env::var("CONTAINER_IMAGE").expect("CONTAINER_IMAGE: tests/container.sh sets it");
    let (name, tag) = image.split_once(':').expect("CONTAINER_IMAGE is name:tag");
    let container = GenericImage::new(name, tag)
        .with_exposed_port(5672.tcp())
        .with_wait_for(WaitFor::message_on_stdout("completed with"))
        .with_startup_timeout(Duration::from_secs(180))
        .start()
        .await
        .expect("the container starts");
    let host = container.get_host().await.unwrap();
    let port = container.get_host_port_ipv4(5672).await.unwrap();
    let vhost = Vhost::at(format!("amqp://guest:guest@{host}:{port}/%2f"));
    let world = World::on(vhost, Data { open_world: true, ..Data::default() }).await;
    world.set_faults(Faults { drop_after_every: 3, ..Faults::default() });
    let worker = world.worker().await;
    let requests = mixed(500, &["p", "q"], 1500, 31);
    world.vhost.publish(&requests).await;
    let mut outcomes = world.vhost.collect("contacts.deletion.outcomes").await;
    let seen = outcomes.wait_for(500).await.to_vec();
    worker.stop().await;
    support::truth::check(&requests, &seen, &world.api.lock());
    println!("500 requests through a broker in a container, all true");
}
