//! The layers: what each says, which one is heard, and everything that is wrong in any of them.
//!
//! Never stops at a first fault, and never lets a wrong value pass because a later layer overrides it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::fault::{ConfigError, Fault, Place, Source};
use super::given::Given;
use super::kinds::Kind;
use super::settings::{self, KEYS};
use super::{Config, ENV_PREFIX, rules};

/// A setting in force.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Its key, as `batch.linger`.
    pub key: &'static str,
    /// Its value as it may be seen: no secret.
    pub value: Value,
    /// Where it was set.
    pub source: Source,
}

/// What all layers say, lowest first.
#[derive(Default)]
pub(super) struct Layers {
    said: Vec<BTreeMap<String, (Source, Given)>>,
    listed: Vec<Setting>,
    faults: Vec<Fault>,
}

impl Layers {
    /// Adds a file.
    pub(super) fn add_file(&mut self, path: &Path) {
        let source = Source::File(path.to_owned());
        match std::fs::read_to_string(path) {
            Ok(text) => self.add_toml(&source, &text),
            Err(error) => self.faults.push(Fault::new(
                "",
                Some(&source),
                format!("cannot read this file: {error}"),
                "give --config the path of a readable TOML file, or leave it out",
            )),
        }
    }

    /// Adds a TOML text.
    pub(super) fn add_toml(&mut self, source: &Source, text: &str) {
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                // Not the error's own Display, which quotes the line: it may hold a password.
                let (line, column) = place(text, error.span().map_or(0, |span| span.start));
                return self.faults.push(Fault::new(
                    "",
                    Some(source),
                    format!("is not TOML at line {line}, column {column}: {}", error.message()),
                    "mend it there: [section], then lines of key = value, texts in quotes, no key twice",
                ));
            }
        };
        let mut layer = BTreeMap::new();
        for (section, value) in table {
            let toml::Value::Table(keys) = value else {
                let cure = if KEYS.iter().any(|key| key.starts_with(&format!("{section}."))) {
                    format!("write [{section}] and its keys below")
                } else {
                    suggestion(&section, str::to_owned)
                };
                self.faults.push(Fault::new(section, Some(source), "is no section", cure));
                continue;
            };
            for (key, value) in keys {
                self.put(&mut layer, format!("{section}.{key}"), source.clone(), Given::Toml(value));
            }
        }
        self.said.push(layer);
    }

    /// Adds the environment.
    pub(super) fn add_env(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        let mut layer = BTreeMap::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX)) else { continue };
            let source = Source::Env(name.to_owned());
            let key = name[ENV_PREFIX.len()..].replacen("__", ".", 1).to_ascii_lowercase();
            // `migma_eraser__batch__linger` would be another variable to the system, and which of the two wins a riddle.
            let key = if spelled(&key) == name { key } else { name[ENV_PREFIX.len()..].to_owned() };
            match value.into_string() {
                Ok(text) => self.put(&mut layer, key, source, Given::Env(text)),
                Err(_) => self.faults.push(Fault::new(key, Some(&source), "is not UTF-8", "write it in UTF-8")),
            }
        }
        self.said.push(layer);
    }

    fn put(&mut self, layer: &mut BTreeMap<String, (Source, Given)>, key: String, source: Source, given: Given) {
        if KEYS.contains(&key.as_str()) {
            layer.insert(key, (source, given));
            return;
        }
        let cure = if key == "migma.api_key" {
            "the API key comes from the environment variable MIGMA_API_KEY, or from the file migma.api_key_file"
                .to_owned()
        } else {
            suggestion(&key, |known| if matches!(source, Source::Env(_)) { spelled(known) } else { known.to_owned() })
        };
        self.faults.push(Fault::new(key, Some(&source), "is no setting", cure));
    }

    /// The value of the highest layer that has a right one; wrong ones are noted wherever they stand.
    pub(super) fn read<K: Kind>(&mut self, key: &'static str, kind: &K) -> Option<K::Value> {
        let mut found = None;
        let mut wrong = false;
        for (source, given) in self.said.iter().filter_map(|layer| layer.get(key)) {
            match kind.read(given) {
                Ok(value) => found = Some((value, source)),
                Err(why) => {
                    wrong = true;
                    let cure = why.cure.unwrap_or_else(|| format!("give {}", kind.wants()));
                    self.faults.push(Fault::new(key, Some(source), why.problem, cure));
                }
            }
        }
        if let Some((value, source)) = found {
            self.listed.push(Setting { key, value: kind.show(&value), source: source.clone() });
            return Some(value);
        }
        if !wrong {
            self.faults.push(Fault::new(key, None, "has no value", format!("give {}", kind.wants())));
        }
        None
    }

    /// The configuration that all layers make together.
    pub(super) fn check(mut self) -> Result<Config, ConfigError> {
        let config = settings::read(&mut self);
        let Some(mut config) = config else { return Err(ConfigError { faults: self.faults }) };
        config.listed = self.listed;
        // What contradicts a wrong value is no news.
        let wrong: Vec<String> = self.faults.iter().flat_map(|f| &f.places).map(|place| place.key.clone()).collect();
        for rule in rules::broken(&config) {
            if !rule.keys.iter().any(|key| wrong.iter().any(|wrong| wrong == key)) {
                let place = |key: &&str| Place { key: (*key).to_owned(), source: config.source(key).cloned() };
                let places = rule.keys.iter().map(place).collect();
                self.faults.push(Fault { places, problem: rule.problem, cure: rule.cure });
            }
        }
        config.name_the_unnamed();
        if self.faults.is_empty() { Ok(config) } else { Err(ConfigError { faults: self.faults }) }
    }
}

impl Config {
    /// Every setting in force, in the order of `config/default.toml`: key, value (secrets masked), source. As it was
    /// read: a field that was changed since is listed as it was.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.listed
    }

    /// Where this setting was set; `None` where there is no such setting.
    #[must_use]
    pub fn source(&self, key: &str) -> Option<&Source> {
        self.listed.iter().find(|setting| setting.key == key).map(|setting| &setting.source)
    }

    /// Lists the names that follow from the prefix.
    fn name_the_unnamed(&mut self) {
        let names = self.amqp.names();
        for (key, name) in names.exchanges().into_iter().chain(names.queues()) {
            for setting in self.listed.iter_mut().filter(|setting| setting.key == key && setting.value == "") {
                setting.value = name.into();
                setting.source = Source::Setting("amqp.prefix");
            }
        }
    }
}

/// The variable that sets this key.
pub(super) fn spelled(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replacen('.', "__", 1).to_ascii_uppercase())
}

fn suggestion(key: &str, spell: impl Fn(&str) -> String) -> String {
    let folded = key.to_ascii_lowercase();
    let name = folded.rsplit('.').next().unwrap_or_default();
    let close = |known: &&&str| distance(&folded, known) <= 1 + folded.len() / 6;
    let same_name = |known: &&&str| known.split('.').next_back() == Some(name);
    let nearest = KEYS.iter().filter(close).min_by_key(|known| distance(&folded, known));
    match nearest.or_else(|| KEYS.iter().find(same_name)) {
        Some(known) => format!("did you mean {}?", spell(known)),
        None => "take it out; `migma-eraser config` lists all settings".to_owned(),
    }
}

/// How many letters must be put in, taken out or changed to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Line and column of a byte, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
