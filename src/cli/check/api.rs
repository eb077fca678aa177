//! Whether something answers where the API should be.
//!
//! Never with the API key, which a wrong address would learn; never after a redirect.

use std::path::Path;

use reqwest::{Certificate, Client, redirect, retry};

use super::{Trouble, Verdict, chain};
use crate::config::{Config, Migma, show_duration};

/// Asks the base URL for anything; any HTTP answer will do.
pub(super) async fn reachable(config: &Config) -> Verdict {
    let migma = &config.migma;
    let client = match client(migma) {
        Ok(client) => client,
        Err(trouble) => return Verdict::Fail(trouble),
    };
    let at = migma.base_url.as_str().trim_end_matches('/');
    match client.get(migma.base_url.clone()).send().await {
        Ok(answer) => Verdict::Ok(format!("{at} answers (HTTP {})", answer.status().as_u16())),
        Err(error) if error.is_timeout() && error.is_connect() => Verdict::fail(
            format!("{at} cannot be connected to within {}", show_duration(migma.connect_timeout)),
            "check migma.base_url and the firewall",
        ),
        Err(error) if error.is_timeout() => Verdict::fail(
            format!("{at} did not answer within {}", show_duration(migma.request_timeout)),
            "check migma.base_url, name resolution and the firewall",
        ),
        Err(error) => Verdict::fail(
            format!("{at} cannot be reached: {}", chain(&error.without_url())),
            "check migma.base_url, name resolution and the firewall; for a private certificate set migma.ca_file",
        ),
    }
}

fn client(migma: &Migma) -> Result<Client, Trouble> {
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .connect_timeout(migma.connect_timeout)
        .timeout(migma.request_timeout);
    if let Some(path) = &migma.ca_file {
        builder = builder.tls_certs_merge(certificates(path)?);
    }
    builder.build().map_err(|error| Trouble {
        wrong: format!("no TLS: {}", chain(&error)),
        cure: "check the certificates of the system (package ca-certificates) and migma.ca_file".to_owned(),
    })
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, Trouble> {
    let cure = "put a PEM file with the certificate authority there, readable for this user".to_owned();
    let trouble = |wrong: String| Trouble { wrong: format!("migma.ca_file {}: {wrong}", path.display()), cure };
    match std::fs::read(path)
        .map_err(|error| error.to_string())
        .and_then(|pem| Certificate::from_pem_bundle(&pem).map_err(|error| chain(&error)))
    {
        Ok(found) if found.is_empty() => Err(trouble("holds no certificate".to_owned())),
        Ok(found) => Ok(found),
        Err(wrong) => Err(trouble(wrong)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn config(text: &str) -> Config {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Config::from_toml("t.toml", &format!("[migma]\n{text}")).unwrap()
    }

    #[tokio::test]
    async fn any_answer_will_do_and_no_key_or_redirect_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config(&format!("base_url = 'http://{}'", listener.local_addr().unwrap()));
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 4096];
            let read = socket.read(&mut seen).await.unwrap();
            let answer = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
            socket.write_all(answer).await.unwrap();
            String::from_utf8_lossy(&seen[..read]).to_ascii_lowercase()
        });
        let Verdict::Ok(detail) = reachable(&config).await else { panic!("a redirect is an answer") };
        assert!(detail.ends_with("answers (HTTP 302)"), "{detail}");
        assert!(!server.await.unwrap().contains("authorization"));
    }

    #[tokio::test]
    async fn nobody_there_is_told_with_a_cure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let Verdict::Fail(trouble) = reachable(&config(&format!("base_url = 'http://{address}'"))).await else {
            panic!("nobody listens")
        };
        assert!(trouble.wrong.contains("cannot be reached") && trouble.cure.contains("migma.base_url"), "{trouble:?}");
    }

    #[tokio::test]
    async fn silence_ends_with_the_request_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = config(&format!("base_url = 'http://{address}'\nrequest_timeout = '100ms'"));
        let Verdict::Fail(trouble) = reachable(&config).await else { panic!("nobody answers") };
        assert!(trouble.wrong.ends_with("did not answer within 100ms"), "{trouble:?}");
    }

    #[tokio::test]
    async fn a_file_without_certificates_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        for content in [None, Some("")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let Verdict::Fail(trouble) = reachable(&config(&format!("ca_file = {path:?}"))).await else {
                panic!("there is no certificate")
            };
            assert!(trouble.wrong.contains("migma.ca_file"), "{trouble:?}");
        }
    }
}
