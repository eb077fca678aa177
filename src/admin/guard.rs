//! Who may give orders over the admin address: whoever has the token; without one, whoever is on this machine.
//!
//! A page in somebody's browser is on this machine too, and must not: it can send neither JSON nor a header without
//! asking first, which nobody answers, and where it gives our address a name of its own, that name stands in `Host`.
//! Never here: the token in any text.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest as _, Sha256};

/// The admin address may give orders to nobody, or not to this one: why, and the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    pub status: StatusCode,
    pub error: &'static str,
    pub cure: &'static str,
}

const fn denied(status: StatusCode, error: &'static str, cure: &'static str) -> Result<(), Denied> {
    Err(Denied { status, error, cure })
}

/// Whether an order with these headers may be given, where the admin address is this one and this is the token.
pub(super) fn check(listen: Option<SocketAddr>, token: Option<&str>, headers: &HeaderMap) -> Result<(), Denied> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return denied(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an order is JSON", "send Content-Type: application/json");
    }
    if let Some(token) = token {
        let given = text(header::AUTHORIZATION).and_then(|value| value.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, given)| given.trim());
        return match given {
            Some(given) if is_same(given, token) => Ok(()),
            Some(_) => denied(
                StatusCode::UNAUTHORIZED,
                "the token is another one",
                "set MIGMA_ERASER_ADMIN_TOKEN, or admin.token_file, to what the worker has",
            ),
            None => denied(
                StatusCode::UNAUTHORIZED,
                "an order needs the token",
                "set MIGMA_ERASER_ADMIN_TOKEN or admin.token_file (header: Authorization: Bearer ...)",
            ),
        };
    }
    if !listen.is_some_and(|address| address.ip().is_loopback()) {
        return denied(
            StatusCode::FORBIDDEN,
            "orders are taken from this machine alone, unless there is a token",
            "start the worker with MIGMA_ERASER_ADMIN_TOKEN or admin.token_file, or let admin.listen be a loopback address",
        );
    }
    let host = text(header::HOST);
    let is_other_origin = headers.contains_key(header::ORIGIN)
        && text(header::ORIGIN).and_then(|origin| origin.strip_prefix("http://")) != host;
    if is_other_origin || !host.is_some_and(is_no_name) {
        return denied(
            StatusCode::FORBIDDEN,
            "orders are not taken from web pages",
            "name the admin address by its IP address, or set a token (MIGMA_ERASER_ADMIN_TOKEN or admin.token_file)",
        );
    }
    Ok(())
}

/// Whether a `Host` is an IP address or `localhost`, which nobody can point elsewhere.
fn is_no_name(host: &str) -> bool {
    let port = |text: &str| text.parse::<u16>().is_ok();
    let name = match host.rsplit_once(':') {
        Some((name, end)) if port(end) && !name.ends_with(':') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Compares by digests, in a time that tells nothing of where two texts differ.
fn is_same(one: &str, other: &str) -> bool {
    let digests = [one, other].map(|text| Sha256::digest(text.as_bytes()));
    digests[0].iter().zip(&digests[1]).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "127.0.0.1:9464";
    const THERE: &str = "0.0.0.0:9464";

    fn ask(listen: &str, token: Option<&str>, headers: &[(&'static str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        check(Some(listen.parse().unwrap()), token, &map).map_or_else(|denied| denied.status.as_u16(), |()| 200)
    }

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    #[test]
    fn without_a_token_this_machine_alone_gives_orders() {
        for host in ["127.0.0.1:9464", "localhost:9464", "LOCALHOST", "[::1]:9464", "::1", "127.0.0.1"] {
            assert_eq!(ask(HERE, None, &[JSON, ("host", host)]), 200, "{host}");
        }
        assert_eq!(ask("[::1]:9464", None, &[JSON, ("host", "[::1]:9464")]), 200);
        assert_eq!(ask(THERE, None, &[JSON, ("host", "127.0.0.1:9464")]), 403);
        assert_eq!(ask("10.0.0.1:9464", None, &[JSON, ("host", "10.0.0.1:9464")]), 403);
    }

    #[test]
    fn a_web_page_gives_none() {
        let host = ("host", HERE);
        assert_eq!(ask(HERE, None, &[host]), 415);
        for kind in ["text/plain", "application/x-www-form-urlencoded", "text/json; application/json", ""] {
            assert_eq!(ask(HERE, None, &[host, ("content-type", kind)]), 415, "{kind}");
        }
        // A name of its own for our address, and a page that is allowed to ask after all.
        assert_eq!(ask(HERE, None, &[JSON, ("host", "rebound.example:9464")]), 403);
        assert_eq!(ask(HERE, None, &[JSON, ("host", "localhost.example")]), 403);
        assert_eq!(ask(HERE, None, &[JSON]), 403);
        assert_eq!(ask(HERE, None, &[JSON, host, ("origin", "http://elsewhere.example")]), 403);
        assert_eq!(ask(HERE, None, &[JSON, host, ("origin", "null")]), 403);
        assert_eq!(ask(HERE, None, &[JSON, host, ("origin", "http://127.0.0.1:9464")]), 200);
    }

    #[test]
    fn with_a_token_whoever_has_it_gives_orders_and_nobody_else() {
        let asks = |listen, value: &str| ask(listen, Some("s3cret"), &[JSON, ("authorization", value)]);
        for listen in [HERE, THERE] {
            assert_eq!(asks(listen, "Bearer s3cret"), 200);
            assert_eq!(asks(listen, "bearer  s3cret"), 200);
            for wrong in ["Bearer s3cre", "Bearer s3cret2", "Bearer ", "s3cret", "Basic s3cret"] {
                assert_eq!(asks(listen, wrong), 401, "{wrong}");
            }
            assert_eq!(ask(listen, Some("s3cret"), &[JSON, ("host", HERE)]), 401);
            assert_eq!(ask(listen, Some("s3cret"), &[("authorization", "Bearer s3cret")]), 415);
        }
    }
}
