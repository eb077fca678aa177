//! What follows from the settings alone: whether times, rates and sizes go together.
//!
//! Never a hard contradiction: those stop the start, and stand in `config`.

use std::time::Duration;

use super::Verdict;
use crate::config::{Config, show_duration};

/// Attempts are not counted beyond this.
const MANY: u32 = 1000;
/// What a request with one email takes up in memory, by a rough guess.
const ONE_EMAIL_REQUEST: usize = 1024;

/// All of them, by name.
pub(super) fn all(config: &Config) -> [(&'static str, Verdict); 5] {
    [
        ("timing", timing(config)),
        ("rate", rate(config)),
        ("buffer", buffer(config)),
        ("shutdown", shutdown(config)),
        ("transport", transport(config)),
    ]
}

/// The longest time between two permits to send.
fn pace(config: &Config) -> Duration {
    Duration::from_mins(1) / config.rate_limit.requests_per_minute.get()
}

/// How many attempts, each as long as can be, fit into the time for which a delivery is held.
fn attempts(config: &Config) -> u32 {
    let hold = config.holding_time();
    let retry = &config.retry;
    let attempt = pace(config) + config.migma.request_timeout;
    let mut at = config.batch.linger + attempt;
    let mut interval = retry.initial_interval;
    let mut fitting = 0;
    while at <= hold && fitting < MANY {
        fitting += 1;
        at += interval + attempt;
        interval = interval.mul_f64(retry.multiplier).min(retry.max_interval);
    }
    fitting
}

fn timing(config: &Config) -> Verdict {
    let hold = show_duration(config.holding_time());
    let cure = "raise amqp.consumer_timeout (and the broker's own), or lower migma.request_timeout, retry.max_interval or \
                batch.linger";
    match attempts(config) {
        0 => Verdict::fail(
            format!("deliveries go back to the broker after {hold}, before one attempt at its longest would end"),
            format!("{cure}; or raise rate_limit.requests_per_minute"),
        ),
        1 => Verdict::warn(
            format!("deliveries go back to the broker after {hold}: one attempt at its longest fits, no second"),
            cure,
        ),
        MANY => Verdict::Ok(format!("{MANY} attempts and more fit into the {hold} for which deliveries are held")),
        fitting => Verdict::Ok(format!(
            "{fitting} attempts at their longest fit into the {hold} for which deliveries are held; then they go back, and \
             work goes on from the journal"
        )),
    }
}

fn rate(config: &Config) -> Verdict {
    let limit = &config.rate_limit;
    let (minute, burst) = (u64::from(limit.requests_per_minute.get()), u64::from(limit.burst.get()));
    let emails = minute * config.batch.max_emails as u64;
    // How many calls the permits for calls at a time would let through, were each as slow as it may be.
    let slowest = Duration::from_mins(1).as_millis() * u128::from(config.migma.max_in_flight)
        / config.migma.request_timeout.as_millis().max(1);
    if burst > minute {
        return Verdict::warn(
            format!("a burst of {burst} calls is more than a minute's {minute}: the API may answer 429"),
            "lower rate_limit.burst",
        );
    }
    let daily = match limit.requests_per_day {
        Some(day) if day < minute * 24 * 60 => {
            let lasts = Duration::from_secs(day * 60 / minute);
            format!("; at that rate the day's {day} calls last {}", show_duration(lasts))
        }
        Some(day) => format!("; at most {day} calls a day"),
        None => String::new(),
    };
    Verdict::Ok(format!(
        "up to {minute} calls and {emails} emails a minute{daily}; {} calls at a time make at least {slowest} a minute",
        config.migma.max_in_flight
    ))
}

fn buffer(config: &Config) -> Verdict {
    let bytes = config.amqp.buffer_bytes;
    let small = bytes / ONE_EMAIL_REQUEST;
    if small < config.batch.max_emails {
        return Verdict::warn(
            format!("it holds about {small} requests of one email: calls cannot fill to {}", config.batch.max_emails),
            format!("raise amqp.buffer_bytes to {} or more", config.batch.max_emails * ONE_EMAIL_REQUEST),
        );
    }
    let large = bytes / config.amqp.max_message_bytes;
    let prefetch = usize::from(u16::MAX).min(small);
    Verdict::Ok(format!("it holds {large} of the largest requests, or up to {prefetch} small ones"))
}

fn shutdown(config: &Config) -> Verdict {
    let (grace, timeout) = (config.shutdown.grace, config.migma.request_timeout);
    if grace < timeout {
        return Verdict::warn(
            format!(
                "a stop waits {} and a call may take {}: slow calls are cut, and repeated by the next start",
                show_duration(grace),
                show_duration(timeout)
            ),
            "raise shutdown.grace (and what the supervisor grants) to migma.request_timeout or more",
        );
    }
    Verdict::Ok(format!("a stop waits up to {} for calls of up to {}", show_duration(grace), show_duration(timeout)))
}

fn transport(config: &Config) -> Verdict {
    let url = &config.amqp.url;
    if !url.is_private() {
        return Verdict::warn(
            "the broker's password and all addresses cross the network in the clear",
            "use amqps:// unless something else encrypts the way to the broker",
        );
    }
    if !url.has_tls() && config.amqp.ca_file.is_some() {
        return Verdict::warn(
            "amqp.ca_file is set, and the broker is spoken to without TLS",
            "use amqps://, or unset it",
        );
    }
    let way = match (url.is_tls(), url.has_tls()) {
        (true, _) => "the broker by TLS",
        (false, true) => "the broker by TLS, or on this machine",
        (false, false) => "the broker on this machine",
    };
    Verdict::Ok(way.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_toml("t.toml", text).unwrap()
    }

    #[test]
    fn the_defaults_raise_no_eyebrow() {
        for (name, verdict) in all(&config("")) {
            assert!(matches!(verdict, Verdict::Ok(_)), "{name}: {verdict:?}");
        }
        // Of 900 s: linger 0.25, attempts 14 * 30.6, intervals 0.5 + 1 + ... + 32 + 6 * 60: 852.15 s. A 15th needs 90.6.
        assert_eq!(attempts(&config("")), 14);
        assert_eq!(
            attempts(&config("[migma]\nrequest_timeout='100ms'\n[retry]\ninitial_interval='1ms'\nmultiplier=1")),
            MANY
        );
    }

    #[test]
    fn attempts_that_do_not_fit_are_told() {
        let one = config("[amqp]\nconsumer_timeout='2m'\n[retry]\ninitial_interval='30s'");
        assert!(matches!(timing(&one), Verdict::Warn(_)), "{:?}", timing(&one));
        let none = config("[amqp]\nconsumer_timeout='2m'\n[rate_limit]\nrequests_per_minute=1");
        assert!(matches!(timing(&none), Verdict::Fail(_)), "{:?}", timing(&none));
    }

    #[test]
    fn rates_are_told_in_people_s_terms() {
        let Verdict::Ok(detail) = rate(&config("[rate_limit]\nrequests_per_day=6000")) else { panic!("it serves") };
        assert!(
            detail.contains("100 calls and 100000 emails a minute; at that rate the day's 6000 calls last 1h"),
            "{detail}"
        );
        assert!(detail.contains("8 calls at a time make at least 16 a minute"), "{detail}");
        assert!(matches!(rate(&config("[rate_limit]\nburst=101")), Verdict::Warn(_)));
    }

    #[test]
    fn what_works_badly_is_a_warning() {
        assert!(matches!(
            buffer(&config("[amqp]\nbuffer_bytes='512KiB'\nmax_message_bytes='64KiB'")),
            Verdict::Warn(_)
        ));
        assert!(matches!(shutdown(&config("[shutdown]\ngrace='10s'")), Verdict::Warn(_)));
        assert!(matches!(transport(&config("[amqp]\nurl='amqp://rabbit/v'")), Verdict::Warn(_)));
        assert!(matches!(transport(&config("[amqp]\nurl='amqps://rabbit/v'")), Verdict::Ok(_)));
        assert!(matches!(transport(&config("[amqp]\nurl='amqp://[::1]/v'")), Verdict::Ok(_)));
        assert!(matches!(transport(&config("[amqp]\nca_file='x'")), Verdict::Warn(_)));
    }
}
