//! Opening and closing connections, with a timeout on everything.

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::future::maybe_done;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::tcp::{AMQPUriTcpExt as _, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, ErrorKind};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tracing::warn;

use super::{AmqpError, AmqpSettings};

/// The longest that the broker may take over one command.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes connections to one broker, by any of its nodes.
pub struct Connector {
    nodes: Vec<AMQPUri>,
    /// Which node is tried first the next time.
    next: AtomicUsize,
    pub(super) settings: Arc<AmqpSettings>,
}

impl Connector {
    /// Reads the URLs and the CA file.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub fn new(settings: Arc<AmqpSettings>) -> Result<Self, AmqpError> {
        let nodes = settings.urls.iter().map(|url| node(url, settings.heartbeat)).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(AmqpError::Url);
        }
        // Several workers do not all crowd upon the first.
        let next = AtomicUsize::new(rand::random_range(0..nodes.len()));
        let connector = Self { nodes, next, settings };
        connector.tls()?;
        Ok(connector)
    }

    /// Opens a connection for this purpose, which the broker shows in its name: by the node after the one that was last
    /// connected to, or whichever comes next and answers. One that lets us in may still be of no use, such as a node that
    /// has lost sight of the others, so that no connection begins where the last one began.
    ///
    /// # Errors
    /// What the last of them said, or that one's certificate is not to be trusted, where none can be reached in time.
    pub async fn connect(&self, purpose: &str) -> Result<Connection, AmqpError> {
        self.by_any_node(|uri| self.connect_to(uri, purpose)).await
    }

    async fn connect_to(&self, uri: &AMQPUri, purpose: &str) -> Result<Connection, AmqpError> {
        let properties = ConnectionProperties::default().with_connection_name(format!("migma-eraser {purpose}").into());
        let tls = self.tls()?;
        let runtime = lapin::runtime::default_runtime()
            .map_err(|source| AmqpError::Broker { action: "looking for the runtime", source })?;
        let connecting = Connection::connect_uri_with_config(uri.clone(), properties, tls, runtime);
        within(self.settings.connect_timeout, "connecting", connecting).await.map_err(|error| match error {
            AmqpError::Broker { source, .. } if is_about_certificate(&source) => AmqpError::Certificate { source },
            other => other,
        })
    }

    /// Connects to each node and lets go again: those that could not be reached, as `host:port`, with why.
    pub(super) async fn unreachable(&self, purpose: &str) -> Vec<(String, AmqpError)> {
        let mut unreachable = Vec::new();
        for uri in &self.nodes {
            match self.connect_to(uri, purpose).await {
                Ok(connection) => close(&connection).await,
                Err(error) => unreachable.push((place(uri), error)),
            }
        }
        unreachable
    }

    /// Tries each node once, in turn, until one serves.
    pub(super) async fn by_any_node<'a, T, F>(&'a self, mut serve: impl FnMut(&'a AMQPUri) -> F) -> Result<T, AmqpError>
    where
        F: Future<Output = Result<T, AmqpError>>,
    {
        // Others connect meanwhile: the turn is told anew by whoever is done.
        let first = self.next.load(Ordering::Relaxed);
        let mut told = None;
        for step in 0..self.nodes.len() {
            let at = (first + step) % self.nodes.len();
            match serve(&self.nodes[at]).await {
                Ok(served) => {
                    self.next.store(at + 1, Ordering::Relaxed);
                    return Ok(served);
                }
                Err(error) => {
                    if self.nodes.len() > 1 {
                        let cause = error.source().map(ToString::to_string).unwrap_or_default();
                        warn!(node = place(&self.nodes[at]), error = %error, cause, "a node cannot be reached");
                    }
                    // Of all that went wrong this is what somebody can mend.
                    told = Some(told.filter(|told| matches!(told, AmqpError::Certificate { .. })).unwrap_or(error));
                }
            }
        }
        self.next.store(first + 1, Ordering::Relaxed);
        Err(told.unwrap_or(AmqpError::Url))
    }
}

/// What is needed to speak with the broker without lapin.
impl Connector {
    /// A stream to this node, by TLS where its URL says so.
    pub(super) async fn stream(&self, uri: &AMQPUri) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let tls = self.tls().map_err(io::Error::other)?;
        let runtime = lapin::runtime::default_runtime().map_err(io::Error::other)?;
        uri.connect_with_config_async(tls.as_ref(), &runtime).await
    }

    /// The file is read each time: an authority that is put right or renewed is heeded without a restart.
    fn tls(&self) -> Result<OwnedTLSConfig, AmqpError> {
        let cert_chain = self.settings.ca_file.as_deref().map(authority).transpose()?;
        Ok(OwnedTLSConfig { identity: None, cert_chain })
    }
}

/// Which node this is; without who we are there.
fn place(uri: &AMQPUri) -> String {
    format!("{}:{}", uri.authority.host, uri.authority.port)
}

fn node(url: &str, heartbeat: Duration) -> Result<AMQPUri, AmqpError> {
    let mut uri = AMQPUri::from_str(url).map_err(|_| AmqpError::Url)?;
    // lapin's own reading takes an IPv6 address for no host at all, and goes to localhost.
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.ok_or(AmqpError::Url)?.trim_matches(['[', ']']).clone_into(&mut uri.authority.host);
    // The same for a path of a slash alone, which it takes for a vhost without a name.
    if uri.vhost.is_empty() {
        "/".clone_into(&mut uri.vhost);
    }
    uri.query.heartbeat = Some(u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX));
    Ok(uri)
}

fn is_about_certificate(error: &lapin::Error) -> bool {
    let ErrorKind::IOError(error) = error.kind() else { return false };
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(of_tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// Reads a file of certificates, at least one.
fn authority(path: &Path) -> Result<String, AmqpError> {
    let pem = std::fs::read_to_string(path).map_err(|source| AmqpError::CaFile { path: path.to_owned(), source })?;
    let mut certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    if certificates.next().is_some_and(|first| first.is_ok()) && certificates.all(|other| other.is_ok()) {
        Ok(pem)
    } else {
        Err(AmqpError::CaContents { path: path.to_owned() })
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

/// Hands commands to lapin before it waits for any of them to be on the wire. Each takes its place in the channel when
/// its future is first polled, so their order is kept; waiting for each in turn would cost a change of threads there and
/// back for every one.
pub(super) async fn in_a_burst<T>(
    commands: impl Iterator<Item = impl Future<Output = lapin::Result<T>>>,
) -> lapin::Result<Vec<T>> {
    let mut under_way: Vec<_> = commands.map(|command| Box::pin(maybe_done(command))).collect();
    for command in &mut under_way {
        let _ = command.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    let mut done = Vec::with_capacity(under_way.len());
    for mut command in under_way {
        command.as_mut().await;
        done.extend(command.as_mut().take_output());
    }
    done.into_iter().collect()
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

#[cfg(test)]
mod tests {
    use super::super::Names;
    use super::*;

    fn connector(urls: &str, ca_file: Option<&Path>) -> Result<Connector, AmqpError> {
        Connector::new(Arc::new(AmqpSettings {
            urls: urls.split(',').map(str::to_owned).collect(),
            ca_file: ca_file.map(Path::to_owned),
            names: Names::with_prefix("x"),
            declare_topology: true,
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            buffer_bytes: 1,
            max_message_bytes: 1,
            max_prefetch: 1,
        }))
    }

    #[test]
    fn whatever_host_the_url_names_is_the_one_that_is_told_the_password() {
        for (url, host) in [
            ("amqp://u:p@[2001:db8::5]:5673/v", "2001:db8::5"),
            ("amqps://u:p@broker.example:5671/%2f", "broker.example"),
            ("amqp://127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(connector(url, None).unwrap().nodes[0].authority.host, host);
        }
    }

    #[tokio::test]
    async fn each_node_is_tried_once_and_the_next_connection_begins_at_the_next_node() {
        let connector = connector("amqp://a/v,amqp://b/v,amqp://c/v", None).unwrap();
        connector.next.store(0, Ordering::Relaxed);
        let ask = async |dead: &[&str]| {
            let mut tried = String::new();
            let served = connector
                .by_any_node(|uri| {
                    tried.push_str(&uri.authority.host);
                    let is_dead = dead.contains(&uri.authority.host.as_str());
                    std::future::ready(if is_dead { Err(AmqpError::Timeout("testing")) } else { Ok(()) })
                })
                .await;
            (tried, served.is_ok())
        };
        assert_eq!(ask(&[]).await, ("a".into(), true));
        assert_eq!(ask(&["b", "c"]).await, ("bca".into(), true));
        assert_eq!(ask(&["a", "b", "c"]).await, ("bca".into(), false));
        assert_eq!(ask(&["c"]).await, ("ca".into(), true));
    }

    #[tokio::test]
    async fn who_connects_meanwhile_takes_no_node_from_anybodys_turn() {
        let connector = connector("amqp://a/v,amqp://b/v", None).unwrap();
        connector.next.store(0, Ordering::Relaxed);
        let mut tried = String::new();
        let served = connector
            .by_any_node(|uri| {
                tried.push_str(&uri.authority.host);
                connector.next.fetch_add(1, Ordering::Relaxed);
                let is_dead = uri.authority.host == "a";
                std::future::ready(if is_dead { Err(AmqpError::Timeout("testing")) } else { Ok(()) })
            })
            .await;
        assert!(served.is_ok() && tried == "ab", "{tried}");
    }

    #[test]
    fn a_url_without_a_vhost_or_with_a_slash_alone_means_the_default_one() {
        for url in ["amqp://h", "amqp://h/", "amqp://h/%2f", "amqp://h/%2F"] {
            assert_eq!(connector(url, None).unwrap().nodes[0].vhost, "/", "{url}");
        }
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_told_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not a certificate").unwrap();
        let found = connector("amqps://broker.example", Some(file.path()));
        assert!(found.is_err_and(|error| matches!(error, AmqpError::CaContents { .. }) && error.is_configuration()));
        let missing = connector("amqps://broker.example", Some(Path::new("/nowhere/ca.pem")));
        assert!(missing.is_err_and(|error| matches!(error, AmqpError::CaFile { .. })));
    }
}
