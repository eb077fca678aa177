//! A value as a layer gives it, before its setting says what it must be.
//!
//! Never guesses a type: a text stays a text (`0123` is four characters) until a setting asks for a number.

/// A value as it was written.
#[derive(Clone, Debug)]
pub(super) enum Given {
    /// From TOML, where it has a type.
    Toml(toml::Value),
    /// From the environment, where everything is text.
    Env(String),
}

/// Why a value cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong.
    pub(super) problem: String,
    /// How to mend it, where what the setting wants in general does not say it.
    pub(super) cure: Option<String>,
}

impl Wrong {
    /// To be mended by what the setting wants.
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), cure: None }
    }

    /// To be mended in its own way.
    pub(super) fn with_cure(problem: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { problem: problem.into(), cure: Some(cure.into()) }
    }

    fn is(kind: &str) -> Self {
        Self::new(format!("is {kind}"))
    }
}

impl Given {
    /// A text, verbatim.
    pub(super) fn text(&self) -> Result<&str, Wrong> {
        match self {
            Self::Toml(toml::Value::String(text)) | Self::Env(text) => Ok(text),
            Self::Toml(other) => Err(Wrong::is(name(other))),
        }
    }

    /// A whole number.
    pub(super) fn whole(&self) -> Result<i64, Wrong> {
        match self {
            Self::Toml(toml::Value::Integer(number)) => Ok(*number),
            Self::Toml(other) => Err(Wrong::is(name(other))),
            Self::Env(text) => text.replace('_', "").parse().map_err(|_| not(text, "a whole number")),
        }
    }

    /// A number.
    pub(super) fn number(&self) -> Result<f64, Wrong> {
        match self {
            Self::Toml(toml::Value::Float(number)) => Ok(*number),
            // A number so large that this is not exact is out of any range of ours.
            #[allow(clippy::cast_precision_loss)]
            Self::Toml(toml::Value::Integer(number)) => Ok(*number as f64),
            Self::Toml(other) => Err(Wrong::is(name(other))),
            Self::Env(text) => text.parse().map_err(|_| not(text, "a number")),
        }
    }

    /// Yes or no.
    pub(super) fn switch(&self) -> Result<bool, Wrong> {
        match self {
            Self::Toml(toml::Value::Boolean(on)) => Ok(*on),
            Self::Toml(other) => Err(Wrong::is(name(other))),
            Self::Env(text) => text.parse().map_err(|_| not(text, "true or false")),
        }
    }

    /// A list of texts; from the environment `a,b` or a TOML array.
    pub(super) fn list(&self) -> Result<Vec<String>, Wrong> {
        let array = match self {
            Self::Toml(toml::Value::Array(array)) => array.clone(),
            Self::Toml(other) => return Err(Wrong::is(name(other))),
            Self::Env(text) if text.trim_start().starts_with('[') => {
                let table = toml::from_str::<toml::Table>(&format!("list = {text}"));
                match table.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("list")) {
                    Some(toml::Value::Array(array)) => array,
                    _ => return Err(Wrong::new("starts with [ and is no TOML array")),
                }
            }
            Self::Env(text) if text.trim().is_empty() => return Ok(Vec::new()),
            Self::Env(text) => return Ok(text.split(',').map(|entry| entry.trim().to_owned()).collect()),
        };
        let texts = array.into_iter().map(|entry| match entry {
            toml::Value::String(text) => Ok(text),
            other => Err(Wrong::new(format!("holds {}", name(&other)))),
        });
        texts.collect()
    }
}

fn not(text: &str, what: &str) -> Wrong {
    if text.is_empty() {
        return Wrong::new("is empty (unset the variable to keep the value of the layer below)");
    }
    Wrong::new(format!("{text:?} is not {what}"))
}

fn name(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a text",
        toml::Value::Integer(_) => "a whole number",
        toml::Value::Float(_) => "a number with a fraction",
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Datetime(_) => "a date or time",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    }
}
