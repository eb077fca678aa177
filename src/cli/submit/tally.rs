//! What a submission comes to: what was read, what was sent, what was answered; as a table for people, as JSON for
//! scripts. Never an address, but an invalid entry's own text where that was asked for.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use indicatif::HumanCount;
use serde::Serialize;
use serde_json::{Value, json};

use super::list::Entry;
use crate::cli::answer::Answer;
use crate::cli::table::table;
use crate::domain::email::Email;
use crate::domain::ids::hash;
use crate::domain::outcome::{Counts, Status};

/// The most invalid entries that are told one by one, as JSON and as text.
const KEPT: usize = 1000;
const SHOWN: usize = 20;

/// What was read of the list.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) emails: u64,
    pub(super) invalid: u64,
    kept: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    #[serde(rename = "line")]
    number: u64,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
}

impl Read {
    /// Counts an entry, and gives its address.
    pub(super) fn see(&mut self, entry: Entry, show_addresses: bool) -> Option<Email> {
        match entry.email {
            Ok(email) => {
                self.emails += 1;
                Some(email)
            }
            Err(invalid) => {
                self.invalid += 1;
                if self.kept.len() < KEPT {
                    let text = show_addresses.then_some(invalid.text);
                    self.kept.push(Line { number: entry.line, reason: invalid.fault.to_string(), entry: text });
                }
                None
            }
        }
    }

    /// The invalid entries, for people; empty where there are none.
    pub(super) fn complaint(&self) -> String {
        if self.invalid == 0 {
            return String::new();
        }
        let mut text = match self.invalid {
            1 => "1 entry is no address and is not sent:\n".to_owned(),
            n => format!("{} entries are no addresses and are not sent:\n", HumanCount(n)),
        };
        for Line { number, reason, entry } in self.kept.iter().take(SHOWN) {
            let _ = write!(text, "  line {number} {reason}");
            if let Some(entry) = entry {
                let _ = write!(text, ": {}", entry.escape_debug());
            }
            text.push('\n');
        }
        if self.invalid > SHOWN as u64 {
            let _ = writeln!(text, "  and {} more; --json lists 1000", HumanCount(self.invalid - SHOWN as u64));
        }
        text
    }
}

/// The answers to what was sent.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// A digest of the id of each request that is not answered yet: small, for there may be a million.
    open: HashSet<[u8; 16]>,
    pub(super) answered: u64,
    statuses: BTreeMap<&'static str, u64>,
    counts: Counts,
    codes: BTreeMap<String, u64>,
}

fn digest(id: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&hash(&[id.as_bytes()])[..16]);
    short
}

impl Answers {
    /// An answer to this request is waited for.
    pub(super) fn wait_for(&mut self, id: &str) {
        self.open.insert(digest(id));
    }

    /// Whether a message with this correlation id may be an answer that is waited for.
    pub(super) fn waits_for(&self, id: &str) -> bool {
        self.open.contains(&digest(id))
    }

    /// Takes an answer; a repeat, and another's, is passed over.
    pub(super) fn take(&mut self, answer: &Answer) {
        if !answer.message_id.as_deref().is_some_and(|id| self.open.remove(&digest(id))) {
            return;
        }
        self.answered += 1;
        *self.statuses.entry(answer.status.as_str()).or_default() += 1;
        self.counts.deleted += answer.counts.deleted;
        self.counts.not_found += answer.counts.not_found;
        self.counts.uncertain += answer.counts.uncertain;
        self.counts.invalid += answer.counts.invalid;
        self.counts.failed += answer.counts.failed;
        for (code, emails) in &answer.codes {
            *self.codes.entry(code.clone()).or_default() += emails;
        }
    }

    pub(super) fn open(&self) -> u64 {
        self.open.len() as u64
    }

    /// Whether every request succeeded.
    pub(super) fn all_succeeded(&self) -> bool {
        self.open.is_empty() && self.statuses.keys().all(|status| *status == Status::Succeeded.as_str())
    }

    fn emails(&self) -> [(&'static str, u64); 5] {
        let Counts { deleted, not_found, uncertain, invalid, failed } = self.counts;
        [
            ("deleted", deleted),
            ("notFound", not_found),
            ("uncertain", uncertain),
            ("invalid", invalid),
            ("failed", failed),
        ]
    }

    fn requests(&self) -> [(&'static str, u64); 4] {
        [Status::Succeeded, Status::Partial, Status::Failed, Status::Rejected]
            .map(|status| (status.as_str(), self.statuses.get(status.as_str()).copied().unwrap_or(0)))
    }

    /// The table at the end.
    pub(super) fn table(&self) -> String {
        let names = ["deleted", "not found", "uncertain", "invalid", "failed"];
        let mut requests = self.requests().into_iter();
        let row = |(name, (_, count)): (&str, (_, u64))| {
            let (status, of) = requests.next().map_or_else(Default::default, |(s, n)| (s, HumanCount(n).to_string()));
            vec![name.to_owned(), HumanCount(count).to_string(), status.to_owned(), of]
        };
        let rows = names.into_iter().zip(self.emails()).map(row).collect();
        let mut text = table(&["emails", "", "requests", ""], rows, &[1, 3]);
        if !self.codes.is_empty() {
            let codes: Vec<_> =
                self.codes.iter().map(|(code, emails)| format!("{code} ({})", HumanCount(*emails))).collect();
            let _ = writeln!(text, "why: {}; `migma-eraser dead list` tells more", codes.join(", "));
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "emails": self.emails().into_iter().collect::<BTreeMap<_, _>>(),
            "requests": self.requests().into_iter().collect::<BTreeMap<_, _>>(),
            "codes": self.codes,
        })
    }
}

/// The whole, for scripts.
pub(super) fn json(read: &Read, requests: u64, sent: bool, answers: Option<&Answers>) -> anyhow::Result<String> {
    let report = json!({
        "emails": read.emails,
        "requests": requests,
        "sent": sent,
        "invalid": {
            "count": read.invalid,
            "lines": read.kept,
            "more": read.invalid - read.kept.len() as u64,
        },
        "outcomes": answers.map(Answers::json),
    });
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::submit::list::{Fault, Invalid};

    fn answer(id: &str, status: Status) -> Answer {
        let counts = Counts { deleted: 3, not_found: 1, ..Counts::default() };
        Answer { message_id: Some(id.to_owned()), status, counts, codes: BTreeMap::new() }
    }

    #[test]
    fn each_request_is_counted_once_and_no_other() {
        let mut answers = Answers::default();
        answers.wait_for("a");
        answers.wait_for("b");
        for id in ["a", "a", "x"] {
            answers.take(&answer(id, Status::Succeeded));
        }
        assert_eq!((answers.answered, answers.open(), answers.all_succeeded()), (1, 1, false));
        answers.take(&answer("b", Status::Succeeded));
        assert!(answers.all_succeeded());
        let table = answers.table();
        assert!(table.contains("deleted") && table.contains('6') && table.contains("not found"), "{table}");
        answers.wait_for("c");
        answers.take(&answer("c", Status::Partial));
        assert!(!answers.all_succeeded());
        assert_eq!(answers.json()["requests"]["partial"], 1);
    }

    #[test]
    fn invalid_entries_are_told_by_their_lines_and_shown_on_demand_alone() {
        let entry =
            |line| Entry { line, email: Err(Invalid { fault: Fault::Kind, text: "joe smith\u{1b}".to_owned() }) };
        let (mut masked, mut open) = (Read::default(), Read::default());
        for line in 1..=1200 {
            assert!(masked.see(entry(line), false).is_none() && open.see(entry(line), true).is_none());
        }
        let text = masked.complaint();
        assert!(
            text.starts_with("1,200 entries") && text.contains("line 20 is neither") && text.contains("1,180 more")
        );
        assert!(!text.contains("joe") && open.complaint().contains("joe smith\\u{1b}"));
        let json: Value = serde_json::from_str(&json(&masked, 0, false, None).unwrap()).unwrap();
        assert_eq!((json["invalid"]["count"].as_u64(), json["invalid"]["more"].as_u64()), (Some(1200), Some(200)));
        assert_eq!(json["invalid"]["lines"][999]["line"], 1000);
    }
}
