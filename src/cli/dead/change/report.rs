//! What a change comes to: planned, refused, done; for people and for scripts.
//!
//! Never a list without end: what is refused is counted, and its first letters are named.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use indicatif::HumanCount;
use serde_json::{Value, json};

use super::super::super::counted;
use super::super::super::table::table;
use super::super::choice::Known;

/// The most refused letters that are named.
const NAMED: usize = 100;

/// Which change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Replay,
    Discard,
}

impl Kind {
    /// As a letter is then.
    pub(super) const fn done(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Discard => "discarded",
        }
    }
}

/// Letters and emails of one code and project.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    letters: u64,
    emails: u64,
}

/// A letter that is not replayed, and why.
struct Refused {
    name: String,
    code: String,
    reason: String,
}

/// What a change comes to.
pub(super) struct Report {
    kind: Kind,
    /// How many letters were looked at.
    pub(super) seen: u64,
    /// Letters to be changed, by mark.
    pub(super) planned: HashMap<String, u64>,
    sums: BTreeMap<(String, String), Sum>,
    named: Vec<Refused>,
    pub(super) refused: u64,
    pub(super) not_found: Vec<String>,
    /// Letters that are changed, for certain.
    pub(super) done: u64,
    /// Letters that somebody else had taken, or held, when it was their turn.
    pub(super) gone: u64,
}

impl Report {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            seen: 0,
            planned: HashMap::new(),
            sums: BTreeMap::new(),
            named: Vec::new(),
            refused: 0,
            not_found: Vec::new(),
            done: 0,
            gone: 0,
        }
    }

    /// This one is to be changed.
    pub(super) fn plan_for(&mut self, letter: &Known, emails: Option<u64>) {
        *self.planned.entry(letter.mark.clone()).or_default() += 1;
        let project = super::super::named(letter.summary.project.as_deref(), false);
        let sum = self.sums.entry((letter.code.clone(), project)).or_default();
        sum.letters += 1;
        sum.emails += emails.unwrap_or(0);
    }

    /// This one is not, and why.
    pub(super) fn refuse(&mut self, letter: &Known, reason: String) {
        self.refused += 1;
        if self.named.len() < NAMED {
            self.named.push(Refused { name: letter.name(false), code: letter.code.clone(), reason });
        }
    }

    fn letters(&self) -> u64 {
        self.planned.values().sum()
    }

    fn emails(&self) -> u64 {
        self.sums.values().map(|sum| sum.emails).sum()
    }

    /// What would be changed, as a table, and what would not.
    pub(super) fn plan(&self) -> String {
        let rows: Vec<_> = self
            .sums
            .iter()
            .map(|((code, project), sum)| {
                let (letters, emails) = (HumanCount(sum.letters).to_string(), HumanCount(sum.emails).to_string());
                vec![super::super::clean(code), project.clone(), letters, emails]
            })
            .collect();
        let mut text = String::new();
        if !rows.is_empty() {
            text += &table(&["code", "project", "letters", "emails undone"], rows, &[2, 3]);
        }
        text + &self.complaint()
    }

    /// What was asked for and is not done.
    fn complaint(&self) -> String {
        let mut text = String::new();
        for refused in &self.named {
            let Refused { name, code, reason } = refused;
            let _ = writeln!(text, "refused: {name} ({}): {}", super::super::clean(code), super::super::clean(reason));
        }
        if self.refused > self.named.len() as u64 {
            let _ = writeln!(text, "refused: {} more", HumanCount(self.refused - self.named.len() as u64));
        }
        for name in &self.not_found {
            let _ = writeln!(
                text,
                "not found: {name}; `migma-eraser dead list` tells what is there, and another command may hold it"
            );
        }
        if self.gone > 0 {
            let _ = writeln!(
                text,
                "{} gone meanwhile, or held by another command; run the same command again to see",
                counted(self.gone, "letter")
            );
        }
        text
    }

    pub(super) fn question(&self) -> String {
        let (letters, emails) = (counted(self.letters(), "letter"), counted(self.emails(), "email"));
        match self.kind {
            Kind::Replay => format!("Ask again for {emails} of {letters} to be deleted?"),
            Kind::Discard => format!("Discard {letters} for good, with {emails} that nobody will delete then?"),
        }
    }

    /// The end.
    pub(super) fn print(&self, as_json: bool, dry_run: bool) -> anyhow::Result<()> {
        let text = if as_json {
            serde_json::to_string_pretty(&self.json(dry_run))? + "\n"
        } else {
            let done = self.kind.done();
            match (dry_run, self.planned.is_empty()) {
                (_, true) if self.refused == 0 && self.not_found.is_empty() => {
                    format!("nothing to do: none of {} is meant\n", counted(self.seen, "dead letter"))
                }
                (_, true) => self.complaint(),
                (true, false) => {
                    let letters = counted(self.letters(), "letter");
                    format!("{}{letters} would be {done}; nothing was changed\n", self.plan())
                }
                (false, false) => {
                    format!("{}{done}: {}\n", self.complaint(), counted(self.done, "letter"))
                }
            }
        };
        Ok(super::super::super::print(&text)?)
    }

    fn json(&self, dry_run: bool) -> Value {
        let refused: Vec<_> = self
            .named
            .iter()
            .map(|refused| json!({"letter": refused.name, "code": refused.code, "reason": refused.reason}))
            .collect();
        json!({
            "dryRun": dry_run,
            "planned": {"letters": self.letters(), "emails": self.emails()},
            (self.kind.done()): self.done,
            "refused": {"count": self.refused, "letters": refused},
            "notFound": self.not_found,
            "gone": self.gone,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::MessageId;
    use crate::domain::replay::Summary;

    fn known(id: &str, mark: &str) -> Known {
        Known {
            place: 1,
            code: "GAVE_UP".to_owned(),
            age: None,
            summary: Summary { id: MessageId::parse(id), project: Some("p".to_owned()), undone: Some(3) },
            mark: mark.to_owned(),
        }
    }

    #[test]
    fn a_plan_is_told_by_code_and_project_and_what_is_refused_by_name() {
        let mut report = Report::new(Kind::Replay);
        report.plan_for(&known("m1", "a"), Some(2));
        report.plan_for(&known("m2", "b"), Some(1000));
        report.plan_for(&known("m2", "b"), Some(1000));
        for n in 0..150 {
            report.refuse(&known("ann@x", &format!("c{n}")), "because".to_owned());
        }
        let plan = report.plan();
        assert!(plan.contains("GAVE_UP  p              3          2,002\n"), "{plan}");
        assert!(plan.contains("refused: 50 more") && plan.contains("(GAVE_UP): because") && !plan.contains("ann"));
        assert_eq!(report.question(), "Ask again for 2,002 emails of 3 letters to be deleted?");
        let json = report.json(true);
        assert_eq!((json["planned"]["letters"].as_u64(), json["refused"]["count"].as_u64()), (Some(3), Some(150)));
        assert_eq!(json["replayed"], 0);
    }
}
