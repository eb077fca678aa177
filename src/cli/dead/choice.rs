//! Which dead letters are meant: by name, by filter, or all.
//!
//! Never a letter whose age is not known, where an age is asked for.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use super::super::Usage;
use crate::amqp::Letter;
use crate::config::{Config, parse_duration};
use crate::domain::ids::{MessageId, redacted};
use crate::domain::moment::Timestamp;
use crate::domain::replay::Summary;

/// Filters; a letter must pass each that is given.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Filters {
    /// Only with these codes, such as FORBIDDEN or returned.
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    code: Vec<String>,

    /// Only of these projects.
    #[arg(long, value_name = "ID")]
    project: Vec<String>,

    /// Only what has been there for longer, such as 12h or 7d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,

    /// Only what came since, such as 30m or 24h.
    #[arg(long, value_name = "AGE", value_parser = age)]
    newer_than: Option<Duration>,
}

fn age(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "give a whole number with s, m, h or d, such as 7d".to_owned())
}

impl Filters {
    const fn is_empty(&self) -> bool {
        self.code.is_empty() && self.project.is_empty() && self.older_than.is_none() && self.newer_than.is_none()
    }

    /// Whether a letter passes.
    pub(super) fn pass(&self, letter: &Known) -> bool {
        let codes = || self.code.iter().any(|code| code.eq_ignore_ascii_case(&letter.code));
        let projects = || self.project.iter().any(|project| letter.summary.project.as_ref() == Some(project));
        (self.code.is_empty() || codes())
            && (self.project.is_empty() || projects())
            && self.older_than.is_none_or(|least| letter.age.is_some_and(|age| age >= least))
            && self.newer_than.is_none_or(|most| letter.age.is_some_and(|age| age <= most))
    }
}

/// What commands go by.
pub(super) struct Known {
    /// Where it stands, from 1.
    pub(super) place: u64,
    pub(super) code: String,
    pub(super) age: Option<Duration>,
    pub(super) summary: Summary,
    /// What names it where its message has no id.
    pub(super) mark: String,
}

impl Known {
    pub(super) fn of(place: u64, letter: &Letter, config: &Config, now: Timestamp) -> Self {
        let default = config.migma.default_project_id.as_ref();
        let age = letter.died_at.map(|at| Duration::from_millis(u64::try_from(now.millis_since(at)).unwrap_or(0)));
        Self {
            place,
            code: letter.code(),
            age,
            summary: letter.seen(|letter| letter.summary(default)),
            mark: letter.mark(),
        }
    }

    /// Whether this name is its own: its message id, that one's hash as lists show it, or its mark.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let id = self.summary.id.as_ref().map(MessageId::as_str);
        self.mark == name || id.is_some_and(|id| id == name || redacted(id) == name)
    }

    /// As lists name it.
    pub(super) fn name(&self, show_addresses: bool) -> String {
        match &self.summary.id {
            Some(id) => super::named(Some(id.as_str()), show_addresses),
            None => self.mark.clone(),
        }
    }
}

/// Which letters a change is meant for.
pub(super) struct Choice {
    names: Vec<String>,
    filters: Filters,
    /// Names that were met.
    met: BTreeSet<usize>,
}

impl Choice {
    /// Names, or filters, or all: one of them must be said.
    pub(super) fn new(names: &[String], filters: &Filters, all: bool) -> anyhow::Result<Self> {
        match (names.is_empty(), filters.is_empty(), all) {
            (true, true, false) => Err(Usage::new("say which: message ids, filters such as --code, or --all")),
            (false, false, _) | (false, _, true) | (_, false, true) => {
                Err(Usage::new("give message ids, or filters, or --all, and not two of them"))
            }
            _ => Ok(Self { names: names.to_vec(), filters: filters.clone(), met: BTreeSet::new() }),
        }
    }

    /// Whether a letter is meant.
    pub(super) fn takes(&mut self, letter: &Known) -> bool {
        if self.names.is_empty() {
            return self.filters.pass(letter);
        }
        let called: Vec<usize> =
            self.names.iter().enumerate().filter(|(_, name)| letter.is_called(name)).map(|(at, _)| at).collect();
        self.met.extend(&called);
        !called.is_empty()
    }

    /// Names that no letter has.
    pub(super) fn not_met(&self) -> Vec<&str> {
        let names = self.names.iter().enumerate().filter(|(at, _)| !self.met.contains(at));
        names.map(|(_, name)| name.as_str()).collect()
    }
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// An age in its largest unit, as `kubectl` tells it.
pub(super) fn told(age: Option<Duration>) -> String {
    let Some(age) = age else { return "-".to_owned() };
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: &str, project: &str, age: Option<u64>) -> Known {
        Known {
            place: 1,
            code: "GAVE_UP".to_owned(),
            age: age.map(Duration::from_secs),
            summary: Summary { id: MessageId::parse(id), project: Some(project.to_owned()), undone: Some(1) },
            mark: "letter:1".to_owned(),
        }
    }

    #[test]
    fn every_filter_must_pass_and_an_unknown_age_passes_none() {
        let filters = |older: Option<u64>, newer: Option<u64>| Filters {
            code: vec!["gave_up".to_owned(), "returned".to_owned()],
            project: vec!["p".to_owned()],
            older_than: older.map(Duration::from_secs),
            newer_than: newer.map(Duration::from_secs),
        };
        assert!(filters(None, None).pass(&letter("m", "p", None)));
        assert!(!filters(None, None).pass(&letter("m", "q", None)));
        assert!(filters(Some(10), Some(20)).pass(&letter("m", "p", Some(15))));
        for age in [None, Some(5), Some(25)] {
            assert!(!filters(Some(10), Some(20)).pass(&letter("m", "p", age)), "{age:?}");
        }
    }

    #[test]
    fn a_letter_is_called_by_its_id_by_the_hash_of_it_or_by_its_mark() {
        let known = letter("ann@x", "p", None);
        let hash = redacted("ann@x").into_owned();
        let mut choice =
            Choice::new(&["ann@x".to_owned(), hash, "letter:1".to_owned(), "b".to_owned()], &Filters::default(), false)
                .unwrap();
        assert!(
            choice.takes(&known) && !choice.takes(&Known { mark: "letter:2".to_owned(), ..letter("c", "p", None) })
        );
        assert_eq!(choice.not_met(), ["b"]);
        assert!(known.name(false).starts_with("sha256:"));
    }

    #[test]
    fn something_must_be_said_and_only_one_thing() {
        let (none, all) = (Filters::default(), Filters { code: vec!["X".to_owned()], ..Filters::default() });
        assert!(Choice::new(&[], &none, false).is_err() && Choice::new(&[], &all, true).is_err());
        assert!(Choice::new(&["m".to_owned()], &all, false).is_err());
        assert!(Choice::new(&[], &none, true).is_ok() && Choice::new(&[], &all, false).is_ok());
    }

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        let seconds = [(5, "5s"), (300, "5m"), (7_200, "2h"), (700_000, "8d")];
        assert!(seconds.iter().all(|(age, text)| told(Some(Duration::from_secs(*age))) == *text));
        assert_eq!(told(None), "-");
    }
}
