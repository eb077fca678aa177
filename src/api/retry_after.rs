//! `Retry-After`: seconds, or a date that is measured against the answer's own `Date`, so that clocks need not agree.

use std::time::{Duration, SystemTime};

/// No server keeps us waiting for longer.
const LONGEST: Duration = Duration::from_hours(1);

/// How long to wait; `None` where the header is absent or says nothing. `now` stands in for a `Date` that is missing.
pub(super) fn parse(retry_after: Option<&str>, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let value = retry_after?;
    if let Ok(seconds) = value.parse::<f64>() {
        return (!seconds.is_nan()).then(|| Duration::from_secs_f64(seconds.clamp(0.0, LONGEST.as_secs_f64())));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let from = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(until.duration_since(from).unwrap_or(Duration::ZERO).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Mon, 23 Nov 2026 12:00:00 GMT";

    fn secs(value: &str, date: Option<&str>, now: SystemTime) -> Option<f64> {
        parse(Some(value), date, now).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn seconds_are_taken_between_nothing_and_an_hour() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(parse(None, None, now), None);
        assert_eq!(secs("17", None, now), Some(17.0));
        assert_eq!(secs("1.5", None, now), Some(1.5));
        assert_eq!(secs("-5", None, now), Some(0.0));
        assert_eq!(secs("86400", None, now), Some(3600.0));
        assert_eq!(secs("99999999999999999999999", None, now), Some(3600.0));
        assert_eq!(secs("NaN", None, now), None);
        assert_eq!(secs("soon", None, now), None);
    }

    #[test]
    fn a_date_is_measured_against_the_answers_own_clock() {
        let later = "Mon, 23 Nov 2026 12:00:30 GMT";
        // Our own clock, decades off, has no say.
        assert_eq!(secs(later, Some(DATE), SystemTime::UNIX_EPOCH), Some(30.0));
        assert_eq!(secs(DATE, Some(later), SystemTime::UNIX_EPOCH), Some(0.0));
        assert_eq!(secs("Tue, 24 Nov 2026 12:00:00 GMT", Some(DATE), SystemTime::UNIX_EPOCH), Some(3600.0));
    }

    #[test]
    fn without_a_date_of_its_own_our_clock_stands_in() {
        let now = httpdate::parse_http_date(DATE).unwrap();
        assert_eq!(secs("Mon, 23 Nov 2026 12:01:00 GMT", None, now), Some(60.0));
        assert_eq!(secs("Mon, 23 Nov 2026 12:01:00 GMT", Some("noon"), now), Some(60.0));
    }
}
