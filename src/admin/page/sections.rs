//! The page's texts and tables, as HTML.

use std::fmt::Write as _;
use std::time::Duration;

use super::{escaped, grouped};
use crate::admin::status::{Held, Mood, Status};
use crate::telemetry::{Class, Minute};

/// What it does, in words.
pub(super) fn state(status: &Status) -> String {
    let (class, word) = match status.mood {
        Mood::Well if status.in_flight.0 == 0 && status.backlog.requests == 0 => ("well", "Ready"),
        Mood::Well => ("well", "Working"),
        Mood::Waits => ("waits", "Waiting"),
        Mood::Paused => ("paused", "Paused"),
        Mood::Passing => ("passing", "Not there yet"),
    };
    let mut words = status.words.iter();
    let first = words.next().map(|text| escaped(text)).unwrap_or_default();
    let mut html = format!(
        r#"<p class="state {class}"><span class="dot" aria-hidden="true"></span><strong>{word}</strong> <span>{first}</span></p>"#
    );
    for text in words {
        let _ = write!(html, r#"<p class="also">{}</p>"#, escaped(text));
    }
    html
}

/// The figures of this moment.
pub(super) fn figures(status: &Status) -> String {
    let recent = status
        .minutes
        .iter()
        .rev()
        .take(6)
        .fold((0, 0), |(batches, emails), (_, minute)| (batches + minute.batches, emails + minute.packed));
    let mut html = String::new();
    let limit = format!("calls a minute, of {}", grouped(status.calls_a_minute));
    tile(&mut html, "Rate", &grouped(status.rate), &limit, Some((status.rate, status.calls_a_minute)));
    match recent {
        (0, _) => tile(&mut html, "Batch fill", "–", "no batch in 5 minutes", None),
        (batches, emails) => {
            let average = emails / batches;
            let text = format!("{} emails a batch, of {}, in 5 minutes", grouped(average), grouped(status.max_emails));
            let percent = (emails * 100 / batches).checked_div(status.max_emails).unwrap_or_default();
            tile(&mut html, "Batch fill", &format!("{percent}\u{202f}%"), &text, Some((average, status.max_emails)));
        }
    }
    let backlog = status.backlog;
    let oldest = backlog.oldest.map_or_else(String::new, |age| format!(", the oldest for {}", ago(age)));
    let lanes = match backlog.emails {
        0 => "no email waits".to_owned(),
        1 => format!("email waits in {}", counted(backlog.lanes, "lane", "lanes")),
        _ => format!("emails wait in {}", counted(backlog.lanes, "lane", "lanes")),
    };
    let text = format!(
        "{lanes}; {} and {} here{oldest}",
        counted(backlog.requests, "request", "requests"),
        counted(backlog.deliveries, "unsettled delivery", "unsettled deliveries")
    );
    tile(&mut html, "Backlog", &grouped(backlog.emails), &text, None);
    let (now, most) = status.in_flight;
    tile(&mut html, "In flight", &grouped(now), &format!("of {}", counted(most, "call", "calls")), Some((now, most)));
    match status.quota {
        Some((left, quota)) => {
            let text = format!("calls left of {} in 24 hours", grouped(quota));
            tile(&mut html, "Daily quota", &grouped(left), &text, Some((left, quota)));
        }
        None => tile(&mut html, "Daily quota", "none", "calls are not bounded by the day", None),
    }
    html
}

fn tile(html: &mut String, name: &str, figure: &str, text: &str, share: Option<(u64, u64)>) {
    let meter = share.map_or_else(String::new, |(part, whole)| {
        let whole = whole.max(1);
        let wide = part.min(whole) * 100 / whole;
        format!(
            r#"<svg class="meter" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect class="all" width="100" height="4"/><rect class="part" width="{wide}" height="4"/></svg>"#
        )
    });
    let _ = write!(
        html,
        r#"<div class="tile"><h2>{name}</h2><p class="figure">{figure}</p>{meter}<p class="note">{text}</p></div>"#
    );
}

/// What holds calls, and what somebody stopped.
pub(super) fn held(status: &Status) -> String {
    if status.holds.is_empty() && status.pauses.is_empty() {
        return r#"<p class="calm">Nothing is held, and nothing is paused.</p>"#.to_owned();
    }
    let mut html = String::from(r#"<ul class="holds">"#);
    let (everything, projects): (Vec<_>, Vec<_>) = status.pauses.iter().partition(|pause| pause.project.is_none());
    for pause in everything.iter().chain(&projects) {
        let what =
            pause.project.as_ref().map_or_else(|| "Everything".to_owned(), |name| format!("Project {}", escaped(name)));
        let why = pause.reason.as_ref().map(|text| format!(" “{}”", escaped(text))).unwrap_or_default();
        let option = pause.project.as_ref().map(|_| " --project …").unwrap_or_default();
        let _ = write!(
            html,
            r#"<li class="paused"><p><strong>{what} is paused.</strong>{why}</p><p class="note">Since {}. <code>migma-eraser resume{option}</code> ends it.</p></li>"#,
            time(&pause.since)
        );
    }
    for Held { reason, words, project, since, tries, next_try } in &status.holds {
        let whom = project.as_ref().map(|name| format!(" Project {} alone.", escaped(name))).unwrap_or_default();
        let is_paused = !everything.is_empty() || projects.iter().any(|pause| pause.project == *project);
        let next = match next_try {
            _ if is_paused => "The next try waits for the pause to end.".to_owned(),
            Some(seconds) => format!("Next try in {}.", ago(*seconds)),
            None => "The next try is due.".to_owned(),
        };
        let _ = write!(
            html,
            r#"<li><p><strong><code>{reason}</code></strong> {}{whom}</p><p class="note">Since {}, tried {}. {next}</p></li>"#,
            escaped(words),
            time(since),
            counted(u64::from(*tries), "time", "times")
        );
    }
    html.push_str("</ul>");
    html
}

/// Failed outcomes by code.
pub(super) fn failures(status: &Status) -> String {
    if status.failures.is_empty() {
        return r#"<p class="calm">None since the start: every outcome was whole.</p>"#.to_owned();
    }
    let mut html = String::from(
        r#"<div class="wide" tabindex="0" role="region" aria-label="Outcomes that need a look"><table><thead><tr><th scope="col">Code</th><th scope="col">Last status</th><th scope="col">Last at</th><th scope="col" class="n">Outcomes</th><th scope="col" class="n">Emails not done</th></tr></thead><tbody>"#,
    );
    for (at, failure) in &status.failures {
        let _ = write!(
            html,
            r#"<tr><th scope="row"><code>{}</code></th><td>{}</td><td>{}</td><td class="n">{}</td><td class="n">{}</td></tr>"#,
            failure.code,
            failure.status,
            time(at),
            grouped(failure.outcomes),
            grouped(failure.emails)
        );
    }
    html.push_str("</tbody></table></div><p class=\"note\">Counted since the start. Each has a dead letter: see <code>migma-eraser dead</code>.</p>");
    html
}

/// The plots as a table, the latest minute first; minutes in which nothing happened are left out.
pub(super) fn minutes(status: &Status) -> String {
    let mut html = String::from(
        r#"<table><thead><tr><th scope="col">Minute (UTC)</th><th scope="col" class="n">Deleted</th><th scope="col" class="n">Not found</th>"#,
    );
    for class in Class::ALL {
        let _ = write!(html, r#"<th scope="col" class="n">{}</th>"#, class.as_str());
    }
    html.push_str(r#"<th scope="col" class="n">p50</th><th scope="col" class="n">p95</th></tr></thead><tbody>"#);
    let mut rows = 0;
    for (at, minute) in status.minutes.iter().rev().filter(|(_, minute)| *minute != Minute::default()) {
        rows += 1;
        let _ = write!(html, r#"<tr><th scope="row">{at}</th>"#);
        for figure in [minute.deleted, minute.not_found].iter().chain(&minute.calls) {
            let _ = write!(html, r#"<td class="n">{}</td>"#, grouped(*figure));
        }
        for share in [0.5, 0.95] {
            let _ = write!(html, r#"<td class="n">{}</td>"#, minute.latency(share).map_or_else(|| "–".into(), short));
        }
        html.push_str("</tr>");
    }
    if rows == 0 {
        html.push_str(r#"<tr><td colspan="10">Nothing happened in the last hour.</td></tr>"#);
    }
    html.push_str("</tbody></table>");
    html
}

/// The page's age and the worker's version.
pub(super) fn now(status: &Status) -> String {
    format!("As of {}, version {}.", time(&status.now), status.version)
}

/// A duration as a plot's axis and a table show it.
pub(super) fn short(time: Duration) -> String {
    match time.as_millis() {
        millis if millis < 1000 => format!("{millis}\u{202f}ms"),
        millis if millis.is_multiple_of(1000) => format!("{}\u{202f}s", millis / 1000),
        millis => format!("{}.{}\u{202f}s", millis / 1000, millis % 1000 / 100),
    }
}

/// A time for people and machines: `2026-11-23T12:00:00.000Z`.
fn time(rfc: &str) -> String {
    let date = rfc.get(..10).unwrap_or(rfc);
    let clock = rfc.get(11..19).unwrap_or_default();
    format!(r#"<time datetime="{}">{} {} UTC</time>"#, escaped(rfc), escaped(date), escaped(clock))
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}\u{202f}s"),
        120..=7199 => format!("{}\u{202f}min", seconds / 60),
        _ => format!("{}\u{202f}h", seconds / 3600),
    }
}
