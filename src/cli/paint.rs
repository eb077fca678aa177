//! A word in colour, where somebody looks at a terminal and has not asked for none (`NO_COLOR`).
//!
//! Never in what a script reads: a pipe and `--json` get plain text.

use std::io::IsTerminal as _;

use crate::domain::outcome::Status;

/// Whether to colour at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint(bool);

impl Paint {
    /// As standard output and the environment want it.
    pub(super) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !unwanted)
    }

    /// `text` in the colour of this status; without colour, `text`.
    pub(super) fn status(self, status: Status, text: &str) -> String {
        let colour = match status {
            Status::Succeeded => 32,
            Status::Partial => 33,
            Status::Failed | Status::Rejected => 31,
        };
        if self.0 { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_around_the_text_or_nowhere() {
        assert_eq!(Paint(false).status(Status::Failed, "failed"), "failed");
        assert_eq!(Paint(true).status(Status::Failed, "failed"), "\u{1b}[31mfailed\u{1b}[0m");
    }
}
