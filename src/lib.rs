//! migma-eraser: deletion requests from RabbitMQ to Migma's bulk-delete API, one true outcome each.

pub mod admin;
pub mod amqp;
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod journal;
pub mod pipeline;
pub mod ports;
pub mod sandbox;
pub mod shutdown;
pub mod telemetry;
