//! The table in `deploy/metrics.md` is what the code has: names, types, labels and their values, both ways.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::telemetry::{Gauges, Readings, register};

/// A metric's type, and its labels with the values that they have from the start.
type Known = BTreeMap<String, (String, BTreeMap<String, Vec<String>>)>;

struct Idle;

impl Gauges for Idle {
    fn read(&self) -> Readings {
        let (journal_size_bytes, journal_disk_free_bytes) = (Some(0), Some(0));
        Readings { quota_left: Some(1), journal_size_bytes, journal_disk_free_bytes, ..Readings::default() }
    }
}

fn scrape() -> String {
    let mut registry = Registry::default();
    let _ = Metrics::register(&mut registry);
    register(&mut registry, Arc::new(Idle));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

/// What a scrape of a worker that has done nothing yet shows.
fn of_the_code(text: &str) -> Known {
    let mut known = Known::new();
    let mut types: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            types.push((name.to_owned(), kind.to_owned()));
        }
        if line.starts_with('#') {
            continue;
        }
        let (family, kind) = types.last().unwrap();
        let name = match kind.as_str() {
            "counter" => format!("{family}_total"),
            "info" => format!("{family}_info"),
            _ => family.clone(),
        };
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let labels = labels.split(',').filter(|l| !l.is_empty() && !l.starts_with("le="));
        let entry = known.entry(name).or_insert_with(|| (kind.clone(), BTreeMap::new()));
        for label in labels {
            let (label, value) = label.split_once('=').unwrap();
            let values = entry.1.entry(label.to_owned()).or_default();
            let value = value.trim_matches('"').to_owned();
            // The version of the build changes.
            if label != "version" && !values.contains(&value) {
                values.push(value);
            }
        }
    }
    known
}

fn of_the_table(page: &str) -> Known {
    let code = |text: &str| text.trim().trim_matches('`').to_owned();
    page.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let [name, kind, labels, tells] = cells[..] else { panic!("four cells: {line}") };
            assert!(!tells.trim().is_empty(), "{name} is told of");
            let mut map = BTreeMap::new();
            if !labels.trim().is_empty() {
                let (label, values) = labels.split_once(':').unwrap_or((labels, ""));
                let values = values.split(',').map(code).filter(|value| !value.is_empty()).collect();
                map.insert(code(label), values);
            }
            (code(name), (code(kind), map))
        })
        .collect()
}

#[test]
fn the_table_in_the_docs_is_what_the_code_has() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/metrics.md")).unwrap();
    let (table, code) = (of_the_table(&page), of_the_code(&scrape()));
    assert!(code.len() > 40, "{code:?}");
    for (name, found) in &code {
        assert_eq!(table.get(name), Some(found), "{name}: left the docs', right the code's");
    }
    for name in table.keys() {
        assert!(code.contains_key(name), "{name} stands in the docs alone");
    }
}

#[test]
fn a_worker_that_has_done_nothing_shows_zeros() {
    for line in scrape().lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let never = ["process_", "migma_eraser_build_info", "migma_eraser_quota_left_calls"];
        if !never.iter().any(|name| series.starts_with(name)) {
            assert!(value.parse() == Ok(0.0), "{line}");
        }
    }
}

#[test]
fn the_process_is_measured() {
    let text = scrape();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let peak = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = |name: &str| {
        let line = peak.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
    };
    let resident = value("process_resident_memory_bytes");
    assert!(resident > 1_000_000.0 && resident <= kib("VmHWM:"), "{resident}");
    assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") < value("process_max_fds"));
    // Since 2020, and not in the future.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((1_577_836_800.0..now + 2.0).contains(&value("process_start_time_seconds")));
}

#[test]
fn a_status_is_counted_by_itself_or_by_its_class() {
    for (status, label) in
        [(200, "200"), (429, "429"), (418, "4xx"), (204, "2xx"), (301, "3xx"), (599, "5xx"), (100, "1xx"), (999, "5xx")]
    {
        assert_eq!(status_label(status), label);
    }
}
