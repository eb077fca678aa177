//! A configuration: environment variables in the head of the input (`NAME: value`), a TOML file behind.
//!
//! A password is recognised by the word [`PASSWORD`] in it.
#![no_main]

mod input;

use std::collections::BTreeMap;
use std::ffi::OsString;

use input::Input;
use libfuzzer_sys::fuzz_target;
use migma_eraser::cli::config::toml as printed;
use migma_eraser::config::{ApiKeySource, Config, ConfigError, ENV_PREFIX, Secret, Source};

/// What stands in for every secret.
const PASSWORD: &str = "hunter2";

fuzz_target!(|data: &[u8]| {
    let input = Input::of(data);
    let Ok(text) = std::str::from_utf8(input.body) else { return };
    let env: Vec<(&str, &str)> = input.head().collect();
    let os = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let secret = keeps_secrets(text, &env);
    match Config::from_texts("f.toml", text, os) {
        Ok(config) => {
            let shown = printed(config.settings());
            if secret {
                assert!(!format!("{config:?} {shown}").contains(PASSWORD), "a password shows");
            }
            prints_itself(&config, &shown);
            has_a_source(&config, &env);
        }
        Err(error) => {
            tells_all(&error, &env);
            assert!(!(secret && error.to_string().contains(PASSWORD)), "a fault quotes a password");
        }
    }
    if let Some((_, key)) = env.iter().find(|(name, _)| *name == "MIGMA_API_KEY") {
        reads_the_key(key);
    }
});

/// What is printed is a configuration again, and the same one.
fn prints_itself(config: &Config, shown: &str) {
    let again = Config::from_toml("printed", shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
    assert_eq!(config.settings().len(), again.settings().len());
    for (one, other) in config.settings().iter().zip(again.settings()) {
        assert_eq!((one.key, &one.value), (other.key, &other.value));
    }
    assert_eq!(config.amqp.names(), again.amqp.names());
    // The whole of each section: durations and sizes to the last bit.
    macro_rules! same { ($($section:ident),*) => {
        $(assert_eq!(format!("{:?}", config.$section), format!("{:?}", again.$section));)*
    }; }
    same!(migma, batch, rate_limit, retry, journal, outcome, admin, telemetry, shutdown, log);
    assert_eq!(config.amqp.url.to_string(), again.amqp.url.to_string());
    assert_eq!(config.amqp.url.is_tls(), again.amqp.url.is_tls());
    assert_eq!(config.amqp.url.is_private(), again.amqp.url.is_private());

    // And what the contract says of it.
    let base = &config.migma.base_url;
    assert!(base.scheme() == "https" || (base.scheme() == "http" && is_loopback(base.host_str().unwrap())));
    assert!(config.amqp.max_message_bytes <= config.amqp.buffer_bytes);
    assert!((1..=1000).contains(&config.batch.max_emails));
    assert!(config.retry.initial_interval <= config.retry.max_interval);
    let names = config.amqp.names();
    for (_, name) in names.exchanges().into_iter().chain(names.queues()) {
        assert!((1..=255).contains(&name.len()) && !name.starts_with("amq."), "no broker takes {name:?}");
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn has_a_source(config: &Config, env: &[(&str, &str)]) {
    for setting in config.settings() {
        if let Source::Env(name) = &setting.source {
            assert!(name.starts_with(ENV_PREFIX) && env.iter().any(|(known, _)| known == name));
        }
    }
}

/// Each fault names a key or a source, what is wrong and the cure.
fn tells_all(error: &ConfigError, env: &[(&str, &str)]) {
    assert!(!error.faults.is_empty());
    for fault in &error.faults {
        assert!(!fault.problem.is_empty() && !fault.cure.is_empty() && !fault.places.is_empty());
        for place in &fault.places {
            match &place.source {
                Some(Source::Env(name)) => assert!(env.iter().any(|(known, _)| known == name)),
                Some(_) => {}
                None => assert!(!place.key.is_empty()),
            }
            assert!(fault.to_string().contains(&place.to_string()));
        }
    }
}

/// Whether [`PASSWORD`] stands where a secret stands and nowhere else: in the password of a broker's URL, in a URL that
/// takes none, in a setting for the API key, which there is not, or in a text that is no TOML.
fn keeps_secrets(text: &str, env: &[(&str, &str)]) -> bool {
    // A text that is no TOML may have it anywhere: none of it is quoted.
    let table = text.parse::<toml::Table>().unwrap_or_default();
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (section, value) in table {
        match value {
            toml::Value::Table(keys) => {
                for (key, value) in keys {
                    values.entry(format!("{section}.{key}")).or_default().push(match value {
                        toml::Value::String(text) => text,
                        other => other.to_string(),
                    });
                }
            }
            other => values.entry(section).or_default().push(other.to_string()),
        }
    }
    for (name, value) in env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)) {
        let key = name[ENV_PREFIX.len()..].replacen("__", ".", 1).to_ascii_lowercase();
        values.entry(key).or_default().push((*value).to_owned());
    }
    values.iter().all(|(key, values)| {
        let plain = |value: &String| {
            !value.contains(PASSWORD)
                || match key.as_str() {
                    "amqp.url" => is_in_password(value),
                    // Where there is a user, there is a password.
                    "migma.base_url" | "telemetry.otlp_endpoint" => value.contains('@'),
                    other => other == "migma.api_key",
                }
        };
        !key.contains(PASSWORD) && values.iter().all(plain)
    })
}

/// Whether a URL that can be read has [`PASSWORD`] in its password alone.
fn is_in_password(url: &str) -> bool {
    let Some((head, rest)) = url.split_once("://") else { return true };
    let Some((user, host)) = rest.rsplit_once('@') else { return false };
    let Some((name, _)) = user.split_once(':') else { return false };
    ![head, name, host].iter().any(|part| part.contains(PASSWORD))
}

/// A key is what an HTTP header can hold, or a fault that does not quote it.
fn reads_the_key(text: &str) {
    match ApiKeySource::Env(Secret::new(text)).read() {
        Ok(key) => {
            assert_eq!(key.expose(), text.trim());
            assert!(
                (1..=4096).contains(&key.expose().len()) && key.expose().bytes().all(|byte| byte.is_ascii_graphic())
            );
        }
        Err(error) => assert!(!error.to_string().contains(PASSWORD)),
    }
}
