//! Where the broker, the API and the journal are.
//!
//! Never quotes an address in a fault: it may hold a password, and most of all when it is mistyped.

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;
use url::{Host, Url};

use super::given::{Given, Wrong};
use super::kinds::Kind;
use super::secret::Secret;

/// The URLs of the broker's nodes, which hold passwords; printed with `***` in their place.
#[derive(Clone)]
pub struct BrokerUrl(Vec<NodeUrl>);

/// Where one node is, and who we are there.
#[derive(Clone)]
struct NodeUrl {
    url: Secret,
    masked: Url,
    tls: bool,
    loopback: bool,
}

impl BrokerUrl {
    /// Each node's URL with its password, for the connection alone; at least one.
    pub fn expose(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|node| node.url.expose())
    }

    /// Whether all are `amqps`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.iter().all(|node| node.tls)
    }

    /// Whether some are.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.0.iter().any(|node| node.tls)
    }

    /// Whether nothing crosses a network in the clear: each is `amqps`, or on this machine.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.0.iter().all(|node| node.tls || node.loopback)
    }
}

/// As `amqp://user:***@host/vhost`, with commas between.
impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, node) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}", node.masked)?;
        }
        Ok(())
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kind of `amqp.url`.
pub(super) struct BrokerUrls;

impl Kind for BrokerUrls {
    type Value = BrokerUrl;

    fn wants(&self) -> String {
        "a URL such as amqps://user:password@host:5671/vhost (% and / and @ and , in its parts are written %25, %2f, %40, \
         %2c), or one for each node of a cluster with commas between"
            .to_owned()
    }

    fn read(&self, given: &Given) -> Result<BrokerUrl, Wrong> {
        let nodes = given.text()?.split(',').map(|url| node(url.trim())).collect::<Result<Vec<_>, _>>()?;
        // One node's queues are not those of the other's then: half of the requests would wait for ever.
        if nodes.iter().any(|node| vhost(&node.masked) != vhost(&nodes[0].masked)) {
            return Err(Wrong::with_cure(
                "names different vhosts",
                "name the nodes of one cluster, each with the same vhost",
            ));
        }
        Ok(BrokerUrl(nodes))
    }

    fn show(&self, value: &BrokerUrl) -> Value {
        value.to_string().into()
    }
}

/// A path of nothing, or of a slash alone, is the vhost `/`.
fn vhost(url: &Url) -> String {
    match url.path() {
        "" | "/" => "/%2f".to_owned(),
        path => path.replace("%2F", "%2f"),
    }
}

fn node(text: &str) -> Result<NodeUrl, Wrong> {
    let mut url = Url::parse(text).map_err(|fault| Wrong::new(format!("is not a URL ({fault})")))?;
    let tls = match url.scheme() {
        "amqp" => false,
        "amqps" => true,
        _ => return Err(Wrong::new("has a scheme other than amqp or amqps")),
    };
    let loopback = match url.host_str() {
        None | Some("") => return Err(Wrong::new("names no host")),
        Some("localhost") => true,
        // For a scheme that it does not know, `url` takes every host but an IPv6 address for a name.
        Some(host) => host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
    };
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong::with_cure(
            "holds a ? or a #",
            "write them %3f and %23 in a password; options such as the heartbeat are settings of their own",
        ));
    }
    // With a bare slash in the password, the rest of it looks like a vhost.
    if url.path().contains('@') {
        return Err(Wrong::new("holds an @ after the host"));
    }
    let secret = Secret::new(text);
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return Err(Wrong::new("holds a password where none can be"));
    }
    Ok(NodeUrl { url: secret, masked: url, tls, loopback })
}

/// The kind of `migma.base_url`.
pub(super) struct ApiUrls;

impl Kind for ApiUrls {
    type Value = Url;

    fn wants(&self) -> String {
        "a URL such as https://api.migma.ai (http only for a loopback host)".to_owned()
    }

    fn read(&self, given: &Given) -> Result<Url, Wrong> {
        let mut url = Url::parse(given.text()?).map_err(|fault| Wrong::new(format!("is not a URL ({fault})")))?;
        let loopback = match url.host() {
            None => return Err(Wrong::new("names no host")),
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
        };
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            "http" => {
                return Err(Wrong::with_cure(
                    "is http to another machine, where the API key and all addresses could be read on the way",
                    "use https",
                ));
            }
            _ => return Err(Wrong::new("has a scheme other than https")),
        }
        // Behind a bare slash in a password, the rest of it looks like a path.
        if !url.username().is_empty() || url.password().is_some() || url.path().contains('@') {
            return Err(Wrong::with_cure(
                "holds a user or password",
                "take it out; the API key comes from MIGMA_API_KEY or migma.api_key_file",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Wrong::with_cure("holds a ? or a #", "end it with the host, or with the path before /v1"));
        }
        // Slashes at the end mean nothing, so that what is shown without them is the same.
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(url)
    }

    fn show(&self, value: &Url) -> Value {
        value.as_str().trim_end_matches('/').into()
    }
}

/// The kind of `telemetry.otlp_endpoint`.
pub(super) struct CollectorUrls;

impl Kind for CollectorUrls {
    type Value = Url;

    fn wants(&self) -> String {
        "a URL such as http://127.0.0.1:4318".to_owned()
    }

    fn read(&self, given: &Given) -> Result<Url, Wrong> {
        let url = Url::parse(given.text()?).map_err(|fault| Wrong::new(format!("is not a URL ({fault})")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Wrong::new("has a scheme other than http or https"));
        }
        // As above: behind a bare slash.
        if !url.username().is_empty() || url.password().is_some() || url.path().contains('@') {
            let cure = "take it out; headers come from OTEL_EXPORTER_OTLP_HEADERS";
            return Err(Wrong::with_cure("holds a user or password", cure));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Wrong::new("holds a ? or a #"));
        }
        if url.path().trim_end_matches('/').ends_with("/v1/traces") {
            return Err(Wrong::with_cure("ends with /v1/traces, which is joined to it", "end it before /v1/traces"));
        }
        Ok(url)
    }

    fn show(&self, value: &Url) -> Value {
        value.as_str().trim_end_matches('/').into()
    }
}
