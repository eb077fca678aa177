//! The page says what it is given, harmlessly, and is small.

use std::time::Duration;

use super::*;
use crate::admin::Paused;
use crate::admin::status::{Backlog, Held, Mood};
use crate::domain::moment::Timestamp;
use crate::domain::outcome::{Counts, Status as Ended};
use crate::telemetry::{Failure, History, Minute};

fn status() -> Status {
    Status {
        now: "2026-11-23T12:00:00.000Z".into(),
        version: "1.2.3",
        mood: Mood::Waits,
        words: vec!["The API <b>fails</b>.".into(), "Look & see.".into()],
        reasons: vec!["api_down"],
        rate: 5,
        calls_a_minute: 600,
        in_flight: (3, 8),
        quota: Some((1500, 50_000)),
        max_emails: 1000,
        backlog: Backlog { emails: 12_345, lanes: 2, requests: 99, deliveries: 1, oldest: Some(150) },
        holds: vec![Held {
            reason: "forbidden",
            words: "It forbids.",
            project: Some("<p>".into()),
            since: "2026-11-23T11:59:00.000Z".into(),
            tries: 1,
            next_try: Some(12),
        }],
        pauses: vec![Paused {
            project: None,
            since: "2026-11-23T11:58:00.000Z".into(),
            reason: Some("\"why\"".into()),
        }],
        minutes: busy_hour(),
        failures: vec![(
            "2026-11-23T11:57:00.000Z".into(),
            Failure { code: "API_REJECTED", status: "partial", at: at(0), outcomes: 2, emails: 6 },
        )],
    }
}

const fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(1_795_435_200_000 + minute * 60_000)
}

/// An hour in which something happens every minute.
fn busy_hour() -> Vec<(String, Minute)> {
    let mut history = History::new(at(0));
    for minute in 0_i64..60 {
        let counts = Counts { deleted: 900_000 + minute.unsigned_abs() * 1000, not_found: 1200, ..Counts::default() };
        history.published(at(minute), Ended::Succeeded, counts, None);
        history.packed(at(minute), 750);
        for (status, millis) in [(Some(200), 120), (Some(200), 400), (Some(429), 5), (Some(503), 2000), (None, 30_000)]
        {
            history.called(at(minute), status, Duration::from_millis(millis + minute.unsigned_abs()));
        }
    }
    history.minutes(at(59)).into_iter().map(|(at, minute)| (at.to_string()[11..16].to_owned(), minute)).collect()
}

fn of(id: &str, status: &Status) -> String {
    fragments(status).into_iter().find(|(name, _)| *name == id).unwrap().1
}

#[test]
fn it_is_small_whole_and_loads_nothing() {
    let page = document(&status());
    assert!(page.len() < 60 << 10, "{} bytes", page.len());
    for (id, html) in fragments(&status()) {
        assert!(page.contains(&format!("id=\"{id}\"")) && !html.is_empty() && page.contains(&html), "{id}");
    }
    for outside in ["src=", "http:", "https:", "@import", "url(", "style=\"", "onclick"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!((page.matches("<style>").count(), page.matches("<script>").count()), (1, 1));
}

#[test]
fn its_policy_names_its_own_style_and_script_alone() {
    assert!(POLICY.starts_with("default-src 'none'; style-src 'sha256-") && POLICY.contains("script-src 'sha256-"));
    assert!(!POLICY.contains("unsafe"));
    assert_eq!([base64(b""), base64(b"a"), base64(b"ab"), base64(b"abc")], ["", "YQ==", "YWI=", "YWJj"]);
    // As `printf abc | sha256sum | xxd -r -p | base64` has it.
    assert_eq!(base64(&Sha256::digest("abc")), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
}

#[test]
fn what_others_wrote_is_shown_and_not_obeyed() {
    let status = status();
    assert!(of("state", &status).contains("The API &lt;b&gt;fails&lt;/b&gt;."));
    let held = of("held", &status);
    assert!(held.contains("Project &lt;p&gt; alone.") && held.contains("&quot;why&quot;"), "{held}");
    assert!(held.contains("2026-11-23 11:58:00 UTC"), "{held}");
}

#[test]
fn a_hold_tells_when_it_is_tried_next_and_that_a_pause_comes_before() {
    let with = |project: &str| Status {
        pauses: vec![Paused { project: Some(project.to_owned()), since: String::new(), reason: None }],
        ..status()
    };
    assert!(of("held", &with("other")).contains("Next try in 12"));
    for paused in [status(), with("<p>")] {
        let held = of("held", &paused);
        assert!(held.contains("waits for the pause to end") && !held.contains("Next try"), "{held}");
    }
}

#[test]
fn its_figures_are_those_of_the_moment() {
    let figures = of("figures", &status());
    for figure in
        ["12\u{202f}345", "2 lanes", "99 requests", "1 unsettled delivery", "75\u{202f}%", "1\u{202f}500", "of 8 calls"]
    {
        assert!(figures.contains(figure), "{figure}: {figures}");
    }
    assert!(figures.contains(r#"<p class="figure">5</p>"#), "{figures}");
    let failures = of("failures", &status());
    assert!(failures.contains("API_REJECTED") && failures.contains(">6<"), "{failures}");
}

#[test]
fn what_is_calm_says_so() {
    let calm = Status {
        holds: Vec::new(),
        pauses: Vec::new(),
        failures: Vec::new(),
        minutes: vec![("12:00".into(), Minute::default()); 60],
        quota: None,
        ..status()
    };
    assert!(of("held", &calm).contains("Nothing is held"));
    assert!(of("failures", &calm).contains("every outcome was whole"));
    assert!(of("minutes", &calm).contains("Nothing happened"));
    assert!(of("figures", &calm).contains("no batch in 5 minutes"));
    assert!(!of("latency", &calm).contains("NaN"));
}

#[test]
fn each_plot_tells_in_words_what_it_shows() {
    let emails = of("emails", &status());
    assert!(emails.contains("55\u{202f}770\u{202f}000 deleted, 72\u{202f}000 not found"), "{emails}");
    let calls = of("calls", &status());
    assert!(calls.contains("120 2xx, 60 429, 0 other 4xx, 60 5xx, 60 no answer"), "{calls}");
    let latency = of("latency", &status());
    assert!(latency.contains("p50 500\u{202f}ms, p95 60\u{202f}s; p95 at most 60\u{202f}s."), "{latency}");
    assert!(of("minutes", &status()).matches("<tr>").count() == 61);
}
