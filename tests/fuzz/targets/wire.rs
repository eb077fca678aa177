//! Properties as AMQP writes them.

use lapin::BasicProperties;
use lapin::protocol::basic::{gen_properties, parse_properties};

/// Reads properties, to their last byte.
pub fn read(bytes: &[u8]) -> Option<BasicProperties> {
    parse_properties(bytes).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, properties)| properties)
}

/// Writes properties.
#[allow(dead_code)]
pub fn write(properties: &BasicProperties) -> Vec<u8> {
    gen_properties(properties)(Vec::new().into()).expect("a vector takes all").write
}
