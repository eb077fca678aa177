//! What is wrong with a configuration, told so that it can be mended: the key, where it was set, the cure.
//!
//! Never the value of a secret, and never a line of a file, which may hold one.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "layer", content = "name", rename_all = "lowercase")]
pub enum Source {
    /// `config/default.toml`, compiled in.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// It was not set itself, and follows from this setting.
    Setting(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Setting(key) => write!(f, "from {key}"),
        }
    }
}

/// A setting, and where its value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The key, as `batch.linger`; empty where a whole source is meant.
    pub key: String,
    /// Where it was set; `None` where it was set nowhere.
    pub source: Option<Source>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The settings that it is about, the one to change first.
    pub places: Vec<Place>,
    /// What is wrong.
    pub problem: String,
    /// How to mend it.
    pub cure: String,
}

impl Fault {
    /// A fault of one setting.
    pub(super) fn new(
        key: impl Into<String>,
        source: Option<&Source>,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        let place = Place { key: key.into(), source: source.cloned() };
        Self { places: vec![place], problem: problem.into(), cure: cure.into() }
    }

    /// What is wrong and where, without the cure: `key (source): problem`.
    #[must_use]
    pub fn told(&self) -> String {
        let places: Vec<String> = self.places.iter().map(Place::to_string).collect();
        format!("{}: {}", places.join(", "), self.problem)
    }
}

/// `key (source)`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) if self.key.is_empty() => write!(f, "{source}"),
            Some(source) => write!(f, "{} ({source})", self.key),
            None => f.write_str(&self.key),
        }
    }
}

/// `key (source): problem; cure`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.told(), self.cure)
    }
}

/// A configuration that cannot be worked with: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wrong configuration{}", list(faults))]
pub struct ConfigError {
    /// At least one.
    pub faults: Vec<Fault>,
}

impl From<Fault> for ConfigError {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }
}

fn list(faults: &[Fault]) -> String {
    faults.iter().fold(String::new(), |text, fault| format!("{text}\n  {fault}"))
}
