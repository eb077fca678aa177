//! Dashboard and alerts ask only for metrics, labels and values that there are, leave no metric unseen, and every alert
//! has its entry in the runbook. The names stand in `deploy/metrics.md`, which a test beside the code holds to it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

pub const RULES: &str = include_str!("../../deploy/prometheus/rules.yml");
pub const DASHBOARD: &str = include_str!("../../deploy/grafana/dashboard.json");
const METRICS: &str = include_str!("../../deploy/metrics.md");
const RUNBOOK: &str = include_str!("../../deploy/runbook.md");

/// Labels that Prometheus or the broker give.
const FOREIGN: [&str; 5] = ["job", "instance", "le", "vhost", "queue"];
/// Whole names with this prefix.
pub fn names(text: &str, prefix: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with(prefix))
        .map(str::to_owned)
        .collect()
}

/// Name, to its kind and its labels with their values.
fn known() -> BTreeMap<String, (String, BTreeMap<String, BTreeSet<String>>)> {
    let code = |text: &str| text.trim().trim_matches('`').to_owned();
    let mut known = BTreeMap::new();
    for line in METRICS.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let mut labels = BTreeMap::new();
        if !cells[2].trim().is_empty() {
            let (label, values) = cells[2].split_once(':').unwrap_or((cells[2], ""));
            labels.insert(code(label), values.split(',').map(code).filter(|value| !value.is_empty()).collect());
        }
        known.insert(code(cells[0]), (code(cells[1]), labels));
    }
    assert!(known.len() > 40, "{known:?}");
    known
}

/// What is asked of Prometheus, with where.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    let mut alert = "";
    for line in RULES.lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            alert = name;
        } else if let Some(query) = line.trim().strip_prefix("expr: ") {
            queries.push((alert.to_owned(), query.trim_matches('\'').to_owned()));
        }
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((panel["title"].to_string(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    assert!(queries.len() > 60, "{}", queries.len());
    queries
}

/// The metrics in a query with their matchers: label and value.
fn series(query: &str) -> Vec<(String, Vec<(String, String)>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(at) = ["migma_eraser_", "process_"].iter().filter_map(|prefix| rest.find(prefix)).min() {
        rest = &rest[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let inside = after.strip_prefix('{').and_then(|after| after.split_once('}')).map_or("", |(inside, _)| inside);
        let matchers = inside
            .split("\",")
            .filter(|matcher| !matcher.is_empty())
            .map(|matcher| {
                let end = matcher.find(|c| !is_name(c)).unwrap();
                (matcher[..end].to_owned(), matcher[end..].trim_matches(['=', '~', '!', '"']).to_owned())
            })
            .collect();
        found.push((name.to_owned(), matchers));
        rest = after;
    }
    found
}

fn plain<'a>(name: &'a str, known: &BTreeMap<String, (String, impl Sized)>) -> &'a str {
    let of =
        |part| name.strip_suffix(part).filter(|name| known.get(*name).is_some_and(|(kind, _)| kind == "histogram"));
    ["_bucket", "_sum", "_count"].into_iter().find_map(of).unwrap_or(name)
}

#[test]
fn no_query_asks_for_what_does_not_exist() {
    let known = known();
    for (place, query) in queries() {
        for (name, matchers) in series(&query) {
            let Some((kind, labels)) = known.get(plain(&name, &known)) else {
                panic!("{place}: there is no {name}");
            };
            assert!(kind != "histogram" || plain(&name, &known) != name, "{place}: {name} is a histogram");
            for (label, value) in matchers {
                if FOREIGN.contains(&label.as_str()) && !labels.contains_key(&label) {
                    continue;
                }
                let values = labels.get(&label).unwrap_or_else(|| panic!("{place}: {name} has no label {label}"));
                for value in value.split('|') {
                    assert!(values.contains(value), "{place}: {name} has no {label} {value}");
                }
            }
        }
        // Groups may be made of labels that one of the query's metrics has.
        for group in query.split("by (").skip(1).chain(query.split("on (").skip(1)) {
            for label in group.split(')').next().unwrap().split(',').map(str::trim) {
                let has = |(name, _): &(String, _)| known[plain(name, &known)].1.contains_key(label);
                assert!(FOREIGN.contains(&label) || series(&query).iter().any(has), "{place}: by {label}");
            }
        }
    }
}

#[test]
fn a_query_for_what_does_not_exist_would_be_noticed() {
    let query = r#"sum by (le) (rate(migma_eraser_a_bucket{job=~"$job",status="x|y"}[5m])) > on (b) process_c"#;
    let matchers = |pairs: &[(&str, &str)]| pairs.iter().map(|(l, v)| ((*l).to_owned(), (*v).to_owned())).collect();
    let wanted: Vec<(String, Vec<_>)> = vec![
        ("migma_eraser_a_bucket".into(), matchers(&[("job", "$job"), ("status", "x|y")])),
        ("process_c".into(), vec![]),
    ];
    assert_eq!(series(query), wanted);
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let known = known();
    let mut shown = names(DASHBOARD, "migma_eraser_");
    shown.extend(names(DASHBOARD, "process_"));
    let shown: BTreeSet<&str> = shown.iter().map(|name| plain(name, &known)).collect();
    let unseen: Vec<_> = known.keys().filter(|name| !shown.contains(name.as_str())).collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[test]
fn every_alert_is_in_the_runbook_and_nothing_else_is() {
    let alerts: BTreeSet<&str> = RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let entries: BTreeSet<&str> =
        RUNBOOK.lines().filter_map(|line| line.strip_prefix("## ")).filter(|line| line.starts_with("Migma")).collect();
    assert!(alerts.len() > 20);
    assert_eq!(alerts, entries, "left the alerts, right the entries");
    for alert in alerts {
        let link = format!(
            "runbook_url: https://github.com/migma-eraser/migma-eraser/blob/main/deploy/runbook.md#{}\n",
            alert.to_lowercase()
        );
        assert!(RULES.contains(&link), "{link}");
        let entry = RUNBOOK.split(&format!("## {alert}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        for part in ["**Means**", "**Look**", "**Mend**", "**Never**"] {
            assert!(entry.contains(part), "{alert} lacks {part}");
        }
    }
    let count = |what: &str| RULES.lines().filter(|line| line.trim().starts_with(what)).count();
    for what in ["severity: ", "summary: ", "description: "] {
        assert_eq!(count(what), count("- alert: "), "{what}");
    }
}
