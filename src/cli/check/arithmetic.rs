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
/// How long a call lasts, by assumption: no setting tells, and `deploy/how-far.py` assumes the same.
const ONE_CALL: Duration = Duration::from_secs(1);
/// Workers beyond those that the rate can use, for the hour in which one is lost.
const SPARE: u64 = 1;

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

/// How long a call is taken to last: none lasts longer than one attempt may.
fn one_call(config: &Config) -> Duration {
    ONE_CALL.min(config.migma.request_timeout)
}

/// How many workers it takes to make all calls of the rate; one more would find none to make.
fn usable(config: &Config) -> u64 {
    let under_way = u128::from(config.rate_limit.requests_per_minute.get()) * one_call(config).as_millis();
    let each = u128::from(config.migma.max_in_flight) * Duration::from_mins(1).as_millis();
    u64::try_from(under_way.div_ceil(each)).unwrap_or(u64::MAX)
}

/// How many workers the rate can use, and whether more are at work than those and a spare one; for workers that share a
/// journal. `live`: how many there are, where that is known.
pub(super) fn workers(config: &Config, live: Option<u64>) -> Verdict {
    let usable = usable(config);
    let rate = format!(
        "the rate can use {usable} ({} calls a minute, each taken to last {}, {} at a time)",
        config.rate_limit.requests_per_minute,
        show_duration(one_call(config)),
        config.migma.max_in_flight
    );
    match live {
        None => Verdict::Ok(format!("{rate}; one more is to spare")),
        Some(live) if live <= usable => Verdict::Ok(format!("{live} live, {rate}")),
        Some(live) if live <= usable + SPARE => Verdict::Ok(format!("{live} live, one of them to spare: {rate}")),
        Some(live) => Verdict::warn(
            format!("{live} workers live, {rate}"),
            format!(
                "run {} at most: one is to spare for the hour in which another is lost, more find no call to make; \
                 where calls last longer (migma_eraser_call_duration_seconds), raise migma.max_in_flight",
                usable + SPARE
            ),
        ),
    }
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
    fn workers_that_the_rate_can_use_are_as_many_as_its_calls_under_way_fill() {
        let usable = |rate: u32, in_flight: u32, timeout: &str| {
            usable(&config(&format!(
                "[migma]\nmax_in_flight={in_flight}\nrequest_timeout='{timeout}'\n\
                 [rate_limit]\nrequests_per_minute={rate}"
            )))
        };
        assert_eq!((usable(480, 8, "30s"), usable(481, 8, "30s")), (1, 2), "8 under way are one worker's");
        assert_eq!((usable(1, 1024, "30s"), usable(1_000_000, 1, "30s")), (1, 16_667));
        assert_eq!((usable(1000, 8, "30s"), usable(1000, 8, "250ms")), (3, 1), "no call outlasts its timeout");
    }

    #[test]
    fn the_page_on_scaling_reckons_workers_alike() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/scaling.md")).unwrap();
        let rows = page.lines().skip_while(|line| !line.starts_with("| calls a minute ")).skip(2);
        let rows = rows.take_while(|line| line.starts_with('|')).filter(|line| line.contains("| 1 s |"));
        let mut reckoned = 0;
        for row in rows {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace(',', "")).collect();
            let config =
                config(&format!("[rate_limit]\nrequests_per_minute={}\n[migma]\nmax_in_flight={}", cells[1], cells[3]));
            let reckons = [usable(&config), usable(&config) + SPARE].map(|workers| workers.to_string());
            assert_eq!(reckons, cells[4..6], "{row}");
            reckoned += 1;
        }
        assert!(reckoned >= 2, "the table is read");
    }

    #[test]
    fn more_workers_than_the_rate_can_use_and_one_to_spare_are_told_of() {
        let config = config("[rate_limit]\nrequests_per_minute=1000");
        let told = |live| match workers(&config, live) {
            Verdict::Ok(detail) => detail,
            verdict => panic!("{verdict:?}"),
        };
        let rate = "the rate can use 3 (1000 calls a minute, each taken to last 1s, 8 at a time)";
        assert_eq!(told(None), format!("{rate}; one more is to spare"));
        assert_eq!(told(Some(3)), format!("3 live, {rate}"));
        assert_eq!(told(Some(4)), format!("4 live, one of them to spare: {rate}"));
        let Verdict::Warn(trouble) = workers(&config, Some(5)) else { panic!("the fifth finds no call") };
        assert_eq!(trouble.wrong, format!("5 workers live, {rate}"));
        assert!(trouble.cure.starts_with("run 4 at most"), "{trouble:?}");
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
