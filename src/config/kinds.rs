//! What a setting may be: how its value is read, bounded and shown.
//!
//! Never a default (those stand in `config/default.toml` alone), never a rule about two settings (those are `rules`).

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::given::{Given, Wrong};
use super::units::{parse_duration, parse_size, show_duration, show_size};
use crate::domain::ids::ProjectId;

/// How a setting is read and shown.
pub(super) trait Kind {
    /// What it is once it is checked.
    type Value;

    /// What a right value looks like, to stand after "give".
    fn wants(&self) -> String;

    /// Checks a value.
    fn read(&self, given: &Given) -> Result<Self::Value, Wrong>;

    /// The value for people to see: no secret.
    fn show(&self, value: &Self::Value) -> Value;
}

/// A whole number within bounds.
pub(super) struct Whole<T> {
    min: i64,
    max: i64,
    number: PhantomData<T>,
}

/// The types of whole numbers that settings have.
pub(super) trait Number: Copy {
    fn from_whole(whole: i64) -> Option<Self>;
    fn shown(self) -> Value;
}

macro_rules! numbers {
    ($($type:ty),*) => { $(
        impl Number for $type {
            fn from_whole(whole: i64) -> Option<Self> {
                Self::try_from(whole).ok()
            }
            fn shown(self) -> Value {
                Value::from(self)
            }
        }
    )* };
}
numbers!(u32, u64, usize);

impl Number for NonZeroU32 {
    fn from_whole(whole: i64) -> Option<Self> {
        u32::from_whole(whole).and_then(Self::new)
    }
    fn shown(self) -> Value {
        Value::from(self.get())
    }
}

pub(super) const fn whole<T>(min: i64, max: i64) -> Whole<T> {
    Whole { min, max, number: PhantomData }
}

impl<T: Number> Kind for Whole<T> {
    type Value = T;

    fn wants(&self) -> String {
        format!("a whole number from {} to {}", self.min, self.max)
    }

    fn read(&self, given: &Given) -> Result<T, Wrong> {
        let whole = given.whole()?;
        let within = (self.min..=self.max).contains(&whole);
        within.then(|| T::from_whole(whole)).flatten().ok_or_else(|| out_of_range(&whole.to_string()))
    }

    fn show(&self, value: &T) -> Value {
        value.shown()
    }
}

/// `"none"`, or what another kind reads; never 0 for none, which reads as "nothing may pass".
pub(super) struct OrNone<K>(pub(super) K);

impl<K: Kind> Kind for OrNone<K> {
    type Value = Option<K::Value>;

    fn wants(&self) -> String {
        format!("{}, or \"none\"", self.0.wants())
    }

    fn read(&self, given: &Given) -> Result<Self::Value, Wrong> {
        if given.text() == Ok("none") { Ok(None) } else { self.0.read(given).map(Some) }
    }

    fn show(&self, value: &Self::Value) -> Value {
        value.as_ref().map_or_else(|| "none".into(), |value| self.0.show(value))
    }
}

/// What another kind reads, or `""` for nothing.
pub(super) struct OrEmpty<K>(pub(super) K);

impl<K: Kind> Kind for OrEmpty<K> {
    type Value = Option<K::Value>;

    fn wants(&self) -> String {
        format!("{}, or \"\" for none", self.0.wants())
    }

    fn read(&self, given: &Given) -> Result<Self::Value, Wrong> {
        if given.text() == Ok("") { Ok(None) } else { self.0.read(given).map(Some) }
    }

    fn show(&self, value: &Self::Value) -> Value {
        value.as_ref().map_or_else(|| "".into(), |value| self.0.show(value))
    }
}

/// A number within bounds.
pub(super) struct Factor(pub(super) f64, pub(super) f64);

impl Kind for Factor {
    type Value = f64;

    fn wants(&self) -> String {
        format!("a number from {} to {}", self.0, self.1)
    }

    fn read(&self, given: &Given) -> Result<f64, Wrong> {
        let number = given.number()?;
        // Not a number is within no range.
        if (self.0..=self.1).contains(&number) { Ok(number) } else { Err(out_of_range(&number.to_string())) }
    }

    fn show(&self, value: &f64) -> Value {
        (*value).into()
    }
}

/// A duration within bounds, in whole steps of the third.
pub(super) struct Span(pub(super) Duration, pub(super) Duration, pub(super) Duration);

/// A duration of whole milliseconds.
pub(super) const fn span(min: Duration, max: Duration) -> Span {
    Span(min, max, Duration::from_millis(1))
}

impl Kind for Span {
    type Value = Duration;

    fn wants(&self) -> String {
        let whole = if self.2 == Duration::from_secs(1) { " in whole seconds" } else { "" };
        format!("a duration from {} to {}{whole}, such as \"30s\"", show_duration(self.0), show_duration(self.1))
    }

    fn read(&self, given: &Given) -> Result<Duration, Wrong> {
        if let Given::Toml(toml::Value::Integer(number)) = given {
            return Err(Wrong::new(format!("{number} has no unit (ms, s, m, h, d)")));
        }
        let text = given.text()?;
        let duration = parse_duration(text).ok_or_else(|| Wrong::new(format!("{text:?} is not a duration")))?;
        let whole = duration.as_millis().is_multiple_of(self.2.as_millis());
        if whole && (self.0..=self.1).contains(&duration) { Ok(duration) } else { Err(out_of_range(text)) }
    }

    fn show(&self, value: &Duration) -> Value {
        show_duration(*value).into()
    }
}

/// A number of bytes within bounds.
pub(super) struct Size(pub(super) u64, pub(super) u64);

impl Kind for Size {
    type Value = usize;

    fn wants(&self) -> String {
        format!("a size from {} to {}, in bytes or such as \"64MiB\"", show_size(self.0), show_size(self.1))
    }

    fn read(&self, given: &Given) -> Result<usize, Wrong> {
        let text = match given {
            Given::Toml(toml::Value::Integer(number)) => &number.to_string(),
            _ => given.text()?,
        };
        let bytes = parse_size(text).ok_or_else(|| Wrong::new(format!("{text:?} is not a size")))?;
        let within = (self.0..=self.1).contains(&bytes);
        within.then(|| usize::try_from(bytes).ok()).flatten().ok_or_else(|| out_of_range(text))
    }

    fn show(&self, value: &usize) -> Value {
        show_size(*value as u64).into()
    }
}

/// `true` or `false`.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn wants(&self) -> String {
        "true or false".to_owned()
    }

    fn read(&self, given: &Given) -> Result<bool, Wrong> {
        given.switch()
    }

    fn show(&self, value: &bool) -> Value {
        (*value).into()
    }
}

/// The name of an exchange or a queue; at most so many bytes.
pub(super) struct Name(pub(super) usize);

impl Kind for Name {
    type Value = String;

    fn wants(&self) -> String {
        format!("a name of 1 to {} bytes that is not \"amq\" and does not start with \"amq.\"", self.0)
    }

    fn read(&self, given: &Given) -> Result<String, Wrong> {
        match given.text()? {
            "" => Err(Wrong::new("is empty")),
            text if text.len() > self.0 => Err(Wrong::new(format!("is {} bytes long", text.len()))),
            // Of the prefix "amq" all names would be made so.
            text if text == "amq" || text.starts_with("amq.") => {
                Err(Wrong::new("is \"amq\" or starts with \"amq.\", which the broker keeps to itself"))
            }
            text if text.chars().any(char::is_control) => Err(Wrong::new("holds a control character")),
            text => Ok(text.to_owned()),
        }
    }

    fn show(&self, value: &String) -> Value {
        value.as_str().into()
    }
}

/// The path of a file. Whether it is there is seen when it is opened.
pub(super) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn wants(&self) -> String {
        "the path of a file".to_owned()
    }

    fn read(&self, given: &Given) -> Result<PathBuf, Wrong> {
        Ok(PathBuf::from(given.text()?))
    }

    fn show(&self, value: &PathBuf) -> Value {
        value.to_string_lossy().into()
    }
}

/// A Migma project.
pub(super) struct Project;

impl Kind for Project {
    type Value = ProjectId;

    fn wants(&self) -> String {
        "a project id".to_owned()
    }

    fn read(&self, given: &Given) -> Result<ProjectId, Wrong> {
        project(given.text()?)
    }

    fn show(&self, value: &ProjectId) -> Value {
        value.as_str().into()
    }
}

/// A list of Migma projects; the same one twice counts once.
pub(super) struct Projects;

impl Kind for Projects {
    type Value = Vec<ProjectId>;

    fn wants(&self) -> String {
        "a list of project ids, such as [\"proj_1\", \"proj_2\"] (in the environment proj_1,proj_2 will do)".to_owned()
    }

    fn read(&self, given: &Given) -> Result<Vec<ProjectId>, Wrong> {
        let mut projects = Vec::new();
        for text in given.list()? {
            let project = project(&text)?;
            if !projects.contains(&project) {
                projects.push(project);
            }
        }
        Ok(projects)
    }

    fn show(&self, value: &Vec<ProjectId>) -> Value {
        value.iter().map(ProjectId::as_str).collect()
    }
}

fn project(text: &str) -> Result<ProjectId, Wrong> {
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(Wrong::new("holds a project id with white space around it or a control character in it"));
    }
    ProjectId::parse(text).ok_or_else(|| Wrong::new("holds an empty project id"))
}

/// An IP address with a port.
pub(super) struct Address;

impl Kind for Address {
    type Value = SocketAddr;

    fn wants(&self) -> String {
        "an IP address with a port, such as \"127.0.0.1:9464\" or \"[::]:9464\"".to_owned()
    }

    fn read(&self, given: &Given) -> Result<SocketAddr, Wrong> {
        let text = given.text()?;
        text.parse().map_err(|_| Wrong::new(format!("{text:?} is not an address to listen on")))
    }

    fn show(&self, value: &SocketAddr) -> Value {
        value.to_string().into()
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text where it goes to a terminal, else JSON.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One of the log formats.
pub(super) struct LogFormats;

impl Kind for LogFormats {
    type Value = LogFormat;

    fn wants(&self) -> String {
        "\"auto\", \"text\" or \"json\"".to_owned()
    }

    fn read(&self, given: &Given) -> Result<LogFormat, Wrong> {
        match given.text()? {
            "auto" => Ok(LogFormat::Auto),
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(Wrong::new(format!("{other:?} is no log format"))),
        }
    }

    fn show(&self, value: &LogFormat) -> Value {
        match value {
            LogFormat::Auto => "auto".into(),
            LogFormat::Text => "text".into(),
            LogFormat::Json => "json".into(),
        }
    }
}

fn out_of_range(value: &str) -> Wrong {
    Wrong::new(format!("{value} is out of range"))
}
