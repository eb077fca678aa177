//! Opening and closing connections, with a timeout on everything.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};

use super::{AmqpError, AmqpSettings};

/// The longest that the broker may take over one command.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes connections to one broker.
pub struct Connector {
    uri: AMQPUri,
    ca: Option<String>,
    pub(super) settings: Arc<AmqpSettings>,
}

impl Connector {
    /// Reads the URL and the CA file.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub fn new(settings: Arc<AmqpSettings>) -> Result<Self, AmqpError> {
        let mut uri = AMQPUri::from_str(&settings.url).map_err(|_| AmqpError::Url)?;
        uri.query.heartbeat = Some(u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX));
        let ca = match &settings.ca_file {
            None => None,
            Some(path) => {
                Some(std::fs::read_to_string(path).map_err(|source| AmqpError::CaFile { path: path.clone(), source })?)
            }
        };
        Ok(Self { uri, ca, settings })
    }

    /// Opens a connection for this purpose, which the broker shows in its name.
    ///
    /// # Errors
    /// Where the broker cannot be reached in time.
    pub async fn connect(&self, purpose: &str) -> Result<Connection, AmqpError> {
        let properties = ConnectionProperties::default().with_connection_name(format!("migma-eraser {purpose}").into());
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.ca.clone() };
        let runtime = lapin::runtime::default_runtime()
            .map_err(|source| AmqpError::Broker { action: "looking for the runtime", source })?;
        let connecting = Connection::connect_uri_with_config(self.uri.clone(), properties, tls, runtime);
        within(self.settings.connect_timeout, "connecting", connecting).await
    }
}

/// Waits for the broker, but not for ever.
pub(super) async fn within<T>(
    limit: Duration,
    action: &'static str,
    command: impl Future<Output = lapin::Result<T>>,
) -> Result<T, AmqpError> {
    match tokio::time::timeout(limit, command).await {
        Ok(result) => result.map_err(|source| AmqpError::Broker { action, source }),
        Err(_) => Err(AmqpError::Timeout(action)),
    }
}

/// Closes a connection in order, if it can be done soon.
pub(super) async fn close(connection: &Connection) {
    let closing = connection.close(200, "OK".into());
    let _ = tokio::time::timeout(Duration::from_secs(3), closing).await;
}

/// The pause before the `failures`-th try to connect again: 0.2 s to 10 s, never in step with other workers.
pub(super) fn pause(failures: u32) -> Duration {
    let full = Duration::from_millis(200).saturating_mul(1 << failures.min(6)).min(Duration::from_secs(10));
    full.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}
