//! The status page: one document without outside assets, and the fragments of it that change.
//!
//! All is written here and nowhere else, so that the page says the same with and without scripts: a script only puts
//! newer fragments in the place of older ones. Never here: a text of others that is not escaped; a style or a script
//! that the page's own policy does not name.

mod plot;
mod sections;

use std::fmt::Write as _;
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

use super::status::Status;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the browser may load and run: this page's own style and script, told by their digests, and its own events.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        base64(&Sha256::digest(STYLE)),
        base64(&Sha256::digest(SCRIPT))
    )
});

/// A part of the page that changes: the id of its element, and what stands in it.
pub(super) type Fragment = (&'static str, String);

/// All that changes.
pub(super) fn fragments(status: &Status) -> Vec<Fragment> {
    vec![
        ("state", sections::state(status)),
        ("figures", sections::figures(status)),
        ("held", sections::held(status)),
        ("emails", plot::emails(&status.minutes)),
        ("calls", plot::calls(&status.minutes)),
        ("latency", plot::latency(&status.minutes)),
        ("failures", sections::failures(status)),
        ("minutes", sections::minutes(status)),
        ("now", sections::now(status)),
    ]
}

/// The whole document.
pub(super) fn document(status: &Status) -> String {
    let parts = fragments(status);
    let part = |id: &str| parts.iter().find(|(name, _)| *name == id).map_or("", |(_, html)| html.as_str());
    let mut page = String::with_capacity(32 << 10);
    let _ = write!(
        page,
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>migma-eraser</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to what it does</a>
<header>
<h1>migma-eraser</h1>
<p id="link" role="status"></p>
<nav aria-label="Elsewhere"><a href="readyz">readiness</a> <a href="metrics">metrics</a> <a href="pauses">pauses</a></nav>
</header>
<main id="main">
<section id="state" aria-live="polite" aria-label="State">{state}</section>
<section id="figures" class="figures" aria-label="Now">{figures}</section>
<section aria-labelledby="h-held"><h2 id="h-held">Holds and pauses</h2><div id="held">{held}</div></section>
<section class="plots" aria-label="The last hour">
<figure><figcaption>Emails a minute</figcaption><div id="emails">{emails}</div></figure>
<figure><figcaption>Calls a minute, by status</figcaption><div id="calls">{calls}</div></figure>
<figure><figcaption>Latency of calls</figcaption><div id="latency">{latency}</div></figure>
</section>
<section aria-labelledby="h-failures"><h2 id="h-failures">Outcomes that need a look</h2><div id="failures">{failures}</div></section>
<section>
<details><summary>The last hour in figures</summary><div class="wide" tabindex="0" role="region" aria-label="The last hour in figures" id="minutes">{minutes}</div></details>
</section>
</main>
<footer><p id="now">{now}</p></footer>
<script>{SCRIPT}</script>
</body>
</html>
"##,
        state = part("state"),
        figures = part("figures"),
        held = part("held"),
        emails = part("emails"),
        calls = part("calls"),
        latency = part("latency"),
        failures = part("failures"),
        minutes = part("minutes"),
        now = part("now"),
    );
    page
}

/// A text of others, harmless in an element and in a quoted attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A number with thin spaces between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// As a policy quotes a digest.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) & 63];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests;
