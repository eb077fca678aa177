//! The rules of the house, enforced by reading the sources: layers, module docs, sizes, and what stands in one place only.

#![allow(missing_docs, clippy::unwrap_used, clippy::match_same_arms, clippy::format_collect)]

use std::path::{Path, PathBuf};

/// A source file: its path below `src`, and its text without its tests.
struct Source {
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path: PathBuf = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                sources.push(Source { path, text });
            }
        }
    }
    assert!(sources.len() > 40, "the sources are read");
    sources
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    /// The code that ships: up to the tests at the end, without comments.
    fn code(&self) -> String {
        if self.is_test() {
            return String::new();
        }
        let end = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text[..end]
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    fn layer(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

/// What a layer may know of the crate. What is not named here may know everything below `app`.
fn allowed(layer: &str) -> &'static [&'static str] {
    match layer {
        "domain" => &["domain"],
        "ports" => &["domain"],
        "shutdown" | "sandbox" => &["sandbox"],
        "amqp" => &["amqp", "domain", "ports"],
        "api" => &["api", "domain", "ports"],
        "journal" => &["journal", "domain", "ports"],
        "telemetry" => &["telemetry", "domain", "ports"],
        "admin" => &["admin", "telemetry"],
        "config" => &["config", "domain"],
        "pipeline" => &["pipeline", "domain", "ports", "shutdown"],
        "app" => &["admin", "amqp", "api", "config", "domain", "journal", "pipeline", "ports", "shutdown", "telemetry"],
        _ => &[
            "admin",
            "amqp",
            "api",
            "app",
            "cli",
            "config",
            "domain",
            "journal",
            "pipeline",
            "ports",
            "sandbox",
            "shutdown",
            "telemetry",
        ],
    }
}

type Rule = fn(&Source) -> Option<String>;

fn opens_with_docs(source: &Source) -> Option<String> {
    let bad = !source.is_test() && !source.text.starts_with("//! ");
    bad.then(|| "opens without `//!`: say what the module is for and what it must never do".into())
}

fn imports_downward(source: &Source) -> Option<String> {
    let code = source.code();
    let allowed = allowed(source.layer());
    let bad = code
        .match_indices("crate::")
        .map(|(at, _)| code[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
        .find(|module| {
            !module.is_empty() && !module.starts_with(char::is_uppercase) && !allowed.contains(&module.as_str())
        });
    bad.map(|module| {
        format!("imports crate::{module}: imports go downward, main → app → {{pipeline, adapters}} → ports → domain")
    })
}

fn domain_is_pure(source: &Source) -> Option<String> {
    if source.layer() != "domain" {
        return None;
    }
    let code = source.code();
    ["Instant::now", "SystemTime", "::now_utc", "tokio", "rand::", "std::fs", "std::net", "async fn", "std::env"]
        .into_iter()
        .find(|word| code.contains(word))
        .map(|word| format!("has `{word}`: time and chance are arguments of the domain, effects are not its own"))
}

fn acks_in_settle_alone(source: &Source) -> Option<String> {
    // The latter two serve commands: a queue of one's own, and dead letters once somebody has decided about them.
    let may = ["pipeline/settle.rs", "amqp/consumer.rs", "amqp/outcomes.rs", "amqp/dead_letters.rs"]
        .contains(&source.path.as_str());
    let bad = !may && (source.code().contains(".ack(") || source.code().contains("basic_ack"));
    bad.then(|| "acks: only pipeline/settle.rs may, once the outcome is confirmed".into())
}

fn journals_attest_alone(source: &Source) -> Option<String> {
    let may = source.layer() == "journal" || source.path == "domain/manifest.rs";
    (!may && source.code().contains("Journaled::attest"))
        .then(|| "attests: only a journal can know what is durable".into())
}

fn is_short(source: &Source) -> Option<String> {
    let lines = source.text.lines().count();
    (lines > 420).then(|| format!("has {lines} lines: find its seam"))
}

fn has_a_telling_name(source: &Source) -> Option<String> {
    let parts = source.path.trim_end_matches(".rs").split('/');
    let vague = parts.into_iter().find(|part| ["util", "utils", "common", "helpers", "types", "misc"].contains(part));
    vague.map(|part| format!("is called `{part}`: name it after what it does"))
}

fn does_not_unwrap(source: &Source) -> Option<String> {
    let code = source.code();
    let bad = code.contains(".unwrap()") || code.contains(".expect(");
    bad.then(|| "unwraps: return an error, or show in the types that there is none".into())
}

fn prints_in_cli_alone(source: &Source) -> Option<String> {
    let bad = !["cli", "main"].contains(&source.layer()) && source.code().contains("println!");
    bad.then(|| "prints: only commands speak on standard output, all else logs".into())
}

const RULES: [(&str, Rule); 9] = [
    ("opens_with_docs", opens_with_docs),
    ("imports_downward", imports_downward),
    ("domain_is_pure", domain_is_pure),
    ("acks_in_settle_alone", acks_in_settle_alone),
    ("journals_attest_alone", journals_attest_alone),
    ("is_short", is_short),
    ("has_a_telling_name", has_a_telling_name),
    ("does_not_unwrap", does_not_unwrap),
    ("prints_in_cli_alone", prints_in_cli_alone),
];

#[test]
fn the_sources_keep_the_rules_of_the_house() {
    let mut broken = Vec::new();
    for source in sources() {
        for (name, rule) in RULES {
            if let Some(cure) = rule(&source) {
                broken.push(format!("{name}: src/{} {cure}", source.path));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_rule_can_be_broken() {
    let bad = [
        ("domain/a.rs", "use std::fmt;"),
        ("domain/a.rs", "//! A.\nuse crate::ports::Api;"),
        ("domain/a.rs", "//! A.\nfn f() { tokio::spawn(x); }"),
        ("pipeline/intake.rs", "//! A.\nbroker.ack(tag);"),
        ("pipeline/intake.rs", "//! A.\nJournaled::attest(x)"),
        ("api/a.rs", "//! A.\n"),
        ("api/helpers.rs", "//! A.\n"),
        ("api/a.rs", "//! A.\nx.unwrap();"),
        ("api/a.rs", "//! A.\nprintln!(x);"),
    ];
    for ((name, rule), (path, text)) in RULES.iter().zip(bad) {
        let text = if *name == "is_short" { format!("{text}{}", "x\n".repeat(421)) } else { text.to_owned() };
        assert!(rule(&Source { path: path.to_owned(), text }).is_some(), "{name} finds nothing in {path}");
    }
}

#[test]
fn the_top_level_holds_what_the_design_names_and_nothing_else() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "config",
        "tests",
        "deploy",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "target",
    ];
    for entry in std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()), "{name} stands at the top level");
    }
}
