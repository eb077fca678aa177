//! The page's plots, as SVG: bars and lines over the last hour, each with a text that says what is to be seen.

use std::fmt::Write as _;
use std::time::Duration;

use super::grouped;
use super::sections::short;
use crate::telemetry::{Class, Minute};

/// The plot's room, in its own units: bars are 10 wide, with 60 of them.
const WIDTH: u32 = 600;
const HEIGHT: u32 = 180;
/// For the highest value above.
const HEAD: u32 = 26;
/// For the clock below.
const FOOT: u32 = 26;

type Minutes = [(String, Minute)];

/// One kind of bar: its class in the style sheet, its name, and its values.
struct Series {
    class: &'static str,
    name: &'static str,
    values: Vec<u64>,
}

/// Emails deleted and not found.
pub(super) fn emails(minutes: &Minutes) -> String {
    let of = |class, name, value: fn(&Minute) -> u64| Series {
        class,
        name,
        values: minutes.iter().map(|(_, minute)| value(minute)).collect(),
    };
    bars(minutes, &[of("a", "deleted", |m| m.deleted), of("b", "not found", |m| m.not_found)], "emails")
}

/// Calls by the class of their status.
pub(super) fn calls(minutes: &Minutes) -> String {
    let classes = ["a", "d", "b", "c", "e"];
    let series: Vec<Series> = Class::ALL
        .iter()
        .zip(classes)
        .enumerate()
        .map(|(at, (class, style))| Series {
            class: style,
            name: class.as_str(),
            values: minutes.iter().map(|(_, minute)| minute.calls[at]).collect(),
        })
        .collect();
    bars(minutes, &series, "calls")
}

/// The median and the 95th percentile, by powers of ten: a timeout must not flatten all else.
pub(super) fn latency(minutes: &Minutes) -> String {
    let of = |share: f64| -> Vec<Option<Duration>> { minutes.iter().map(|(_, m)| m.latency(share)).collect() };
    let (median, high) = (of(0.5), of(0.95));
    let most = high.iter().flatten().max().copied();
    let top = [100, 1000, 10_000].map(Duration::from_millis).into_iter().find(|top| Some(*top) >= most);
    let top = top.unwrap_or(Duration::from_secs(100));
    let latest =
        |values: &[Option<Duration>]| values.iter().rev().find_map(|v| *v).map_or_else(|| "–".to_owned(), short);
    let told = most.map_or_else(
        || "Latency of calls: none in the last hour.".to_owned(),
        |most| {
            let (median, high) = (latest(&median), latest(&high));
            format!("Latency of calls: in the latest minute p50 {median}, p95 {high}; p95 at most {}.", short(most))
        },
    );
    let mut svg = open(&told);
    axis(&mut svg, &short(top), &short(Duration::from_millis(1)), minutes);
    line(&mut svg, "b", &high, top);
    line(&mut svg, "a", &median, top);
    svg.push_str("</svg>");
    legend(&mut svg, &[("a", format!("p50 {}", latest(&median))), ("b", format!("p95 {}", latest(&high)))]);
    svg
}

fn open(told: &str) -> String {
    let all = HEAD + HEIGHT + FOOT;
    format!(r#"<svg class="plot" viewBox="0 -{HEAD} {WIDTH} {all}" role="img" aria-label="{told}">"#)
}

/// The rules at the top and at the bottom with their values, and the clock.
fn axis(svg: &mut String, top: &str, bottom: &str, minutes: &Minutes) {
    let _ = write!(
        svg,
        r#"<path class="rule" d="M0 .5H{WIDTH}M0 {half}.5H{WIDTH}M0 {HEIGHT}.5H{WIDTH}"/><text class="tick" x="0" y="-8">{top}</text><text class="tick" x="2" y="{low}">{bottom}</text>"#,
        half = HEIGHT / 2,
        low = HEIGHT - 6
    );
    for (at, anchor) in [(0, "start"), (minutes.len() / 2, "middle"), (minutes.len().saturating_sub(1), "end")] {
        let Some((clock, _)) = minutes.get(at) else { continue };
        let x = match anchor {
            "start" => 0,
            "middle" => WIDTH / 2,
            _ => WIDTH,
        };
        let y = HEIGHT + FOOT - 4;
        let _ = write!(svg, r#"<text class="tick" x="{x}" y="{y}" text-anchor="{anchor}">{clock}</text>"#);
    }
}

fn bars(minutes: &Minutes, series: &[Series], what: &str) -> String {
    let sum = |at: usize| series.iter().map(|one| one.values.get(at).copied().unwrap_or_default()).sum::<u64>();
    let top = round_up((0..minutes.len()).map(sum).max().unwrap_or_default());
    let total = |one: &Series| one.values.iter().sum::<u64>();
    let told: Vec<String> = series.iter().map(|one| format!("{} {}", grouped(total(one)), one.name)).collect();
    let mut svg = open(&format!("In the last hour, {what}: {}. At most {} a minute.", told.join(", "), grouped(top)));
    axis(&mut svg, &grouped(top), "", minutes);
    let mut floors = vec![0_u64; minutes.len()];
    for one in series {
        let mut path = String::new();
        for (at, value) in one.values.iter().enumerate().filter(|(_, value)| **value > 0) {
            let (from, to) = (place(floors[at], top), place(floors[at] + value, top));
            // A value that would round to nothing is seen all the same.
            let to = if to >= from { from.saturating_sub(1) } else { to };
            let _ = write!(path, "M{} {from}h8V{to}h-8z", at * 10 + 1);
            floors[at] += value;
        }
        if !path.is_empty() {
            let _ = write!(svg, r#"<path class="{}" d="{path}"/>"#, one.class);
        }
    }
    svg.push_str("</svg>");
    let named = series.iter().map(|one| (one.class, format!("{} {}", one.name, grouped(total(one)))));
    legend(&mut svg, &named.collect::<Vec<_>>());
    svg
}

fn line(svg: &mut String, class: &str, values: &[Option<Duration>], top: Duration) {
    let mut path = String::new();
    let mut was_there = false;
    for (at, value) in values.iter().enumerate() {
        if let Some(value) = value {
            let y = place(digits(*value), digits(top).max(1));
            // A minute that stands alone is a dash.
            let _ =
                if was_there { write!(path, "L{} {y}", at * 10 + 5) } else { write!(path, "M{} {y}h4", at * 10 + 3) };
        }
        was_there = value.is_some();
    }
    if !path.is_empty() {
        let _ = write!(svg, r#"<path class="line {class}" d="{path}"/>"#);
    }
}

fn legend(html: &mut String, named: &[(&str, String)]) {
    html.push_str(r#"<ul class="legend">"#);
    for (class, text) in named {
        let _ = write!(
            html,
            r#"<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="{class}" width="10" height="10" rx="2"/></svg>{text}</li>"#
        );
    }
    html.push_str("</ul>");
}

/// How far below the top a value stands.
fn place(value: u64, top: u64) -> u32 {
    let high = u64::from(HEIGHT).saturating_mul(value.min(top)) / top.max(1);
    HEIGHT - u32::try_from(high).unwrap_or(HEIGHT)
}

/// A hundred times the decimal logarithm of a time in milliseconds, from 1 ms on.
fn digits(time: Duration) -> u64 {
    let millis = time.as_secs_f64() * 1000.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few hundred")]
    let digits = (millis.max(1.0).log10() * 100.0) as u64;
    digits
}

/// 1, 2 or 5 times a power of ten, not below the value.
fn round_up(value: u64) -> u64 {
    let mut step = 1_u64;
    loop {
        for times in [1, 2, 5] {
            if step.saturating_mul(times) >= value {
                return step.saturating_mul(times);
            }
        }
        step = step.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number_that_all_values_reach_at_most() {
        for (value, top) in [(0, 1), (1, 1), (3, 5), (11, 20), (700, 1000), (1001, 2000), (u64::MAX, u64::MAX)] {
            assert_eq!(round_up(value), top);
        }
        assert_eq!([1, 10, 1000].map(|millis| digits(Duration::from_millis(millis))), [0, 100, 300]);
        assert_eq!((place(0, 10), place(5, 10), place(10, 10), place(20, 10)), (HEIGHT, HEIGHT / 2, 0, 0));
    }
}
