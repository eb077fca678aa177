//! `check`: whether `run` would work, one line for each thing that must be so, with the cure for what is not.
//!
//! Never changes anything, deletes anything, or sends the API key anywhere.

mod api;
mod arithmetic;
mod doors;

use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;

pub(super) const EXAMPLES: &str = "\
Examples:
  migma-eraser check
      with the defaults and the environment
  migma-eraser check --config /etc/migma-eraser/config.toml && systemctl start migma-eraser
      start only what would work

Each line is ok, warn (it would work, but badly), FAIL, or skip. Exit codes: 0 where nothing failed, 1 where something
did, 78 where the configuration itself is wrong.";

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is so; in detail.
    Ok(String),
    /// It would work, but badly.
    Warn(Trouble),
    /// It would not work.
    Fail(Trouble),
    /// It was not looked at, and why.
    Skip(String),
}

/// What is wrong, and how to mend it. No secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What is wrong.
    pub(crate) wrong: String,
    /// How to mend it.
    pub(crate) cure: String,
}

impl Verdict {
    /// It would not work.
    pub(crate) fn fail(wrong: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Fail(Trouble { wrong: wrong.into(), cure: cure.into() })
    }

    /// It would work, but badly.
    pub(crate) fn warn(wrong: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Warn(Trouble { wrong: wrong.into(), cure: cure.into() })
    }

    /// As it is printed.
    fn line(&self, name: &str) -> String {
        match self {
            Self::Ok(detail) => format!("ok    {name:<14} {detail}\n"),
            Self::Skip(why) => format!("skip  {name:<14} {why}\n"),
            Self::Warn(Trouble { wrong, cure }) => format!("warn  {name:<14} {wrong}\n{:21}-> {cure}\n", ""),
            Self::Fail(Trouble { wrong, cure }) => format!("FAIL  {name:<14} {wrong}\n{:21}-> {cure}\n", ""),
        }
    }
}

/// Prints verdicts as they come, and remembers whether one was bad.
#[derive(Default)]
struct Report {
    failed: bool,
}

impl Report {
    fn tell(&mut self, name: &str, verdict: &Verdict) -> anyhow::Result<()> {
        self.failed |= matches!(verdict, Verdict::Fail(_));
        Ok(super::print(&verdict.line(name))?)
    }
}

/// Makes all checks, the quick ones first.
///
/// # Errors
/// Standard output cannot be written.
pub async fn run(file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    let config = match super::load(file) {
        Ok(config) => config,
        Err(error) => {
            for fault in error.faults {
                report.tell("configuration", &Verdict::fail(fault.told(), fault.cure))?;
            }
            return Ok(ExitCode::from(super::WRONG_CONFIGURATION));
        }
    };
    report.tell("configuration", &configuration(&config, file))?;
    for (name, verdict) in arithmetic::all(&config) {
        report.tell(name, &verdict)?;
    }
    report.tell("api key", &api_key(&config))?;
    report.tell("api", &api::reachable(&config).await)?;
    let journal = doors::Journal::look(&config).await;
    report.tell("journal", &journal.verdict(&config).await)?;
    if let Some(verdict) = journal.workers(&config) {
        report.tell("workers", &verdict)?;
    }
    if let Some(verdict) = journal.pauses(&config).await {
        report.tell("pauses", &verdict)?;
    }
    for (name, verdict) in doors::broker(&config).await {
        report.tell(name, &verdict)?;
    }
    Ok(ExitCode::from(if report.failed { super::FAILED } else { 0 }))
}

fn configuration(config: &Config, file: Option<&Path>) -> Verdict {
    let changed = config.settings().iter().filter(|s| matches!(s.source, crate::config::Source::Env(_))).count();
    let from = file.map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
    Verdict::Ok(match changed {
        0 => from,
        1 => format!("{from}, and 1 environment variable"),
        _ => format!("{from}, and {changed} environment variables"),
    })
}

fn api_key(config: &Config) -> Verdict {
    let read = super::api_key(config).and_then(|keys| keys.read().map(|_| keys));
    match read {
        Ok(keys) => Verdict::Ok(match keys.path() {
            Some(path) => format!("from {}", path.display()),
            None => "from MIGMA_API_KEY".to_owned(),
        }),
        // There is one fault: the first of them.
        Err(error) => match error.faults.into_iter().next() {
            Some(fault) => Verdict::fail(fault.told(), fault.cure),
            None => Verdict::fail("cannot be had", "set MIGMA_API_KEY or migma.api_key_file"),
        },
    }
}

/// An error with everything under it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut under = error.source();
    while let Some(error) = under {
        let told = error.to_string();
        if !text.ends_with(&told) {
            text = format!("{text}: {told}");
        }
        under = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_wrong_and_the_next_one_the_cure() {
        assert_eq!(Verdict::Ok("is up".into()).line("broker"), "ok    broker         is up\n");
        let told = Verdict::fail("it is gone", "bring it back").line("broker");
        assert_eq!(told, "FAIL  broker         it is gone\n                     -> bring it back\n");
    }

    #[test]
    fn only_a_failure_fails_the_report() {
        let mut report = Report::default();
        report.tell("a", &Verdict::Ok(String::new())).unwrap();
        report.tell("b", &Verdict::warn("x", "y")).unwrap();
        report.tell("c", &Verdict::Skip(String::new())).unwrap();
        assert!(!report.failed);
        report.tell("d", &Verdict::fail("x", "y")).unwrap();
        assert!(report.failed);
    }

    #[test]
    fn a_key_that_cannot_be_read_is_told_with_its_place() {
        let config = Config::from_toml("t.toml", "[migma]\napi_key_file = '/nowhere/key'").unwrap();
        if std::env::var_os("MIGMA_API_KEY").is_none() {
            let Verdict::Fail(trouble) = api_key(&config) else { panic!("there is no such file") };
            assert!(trouble.wrong.starts_with("migma.api_key_file (t.toml): cannot read /nowhere/key"), "{trouble:?}");
        }
    }
}
