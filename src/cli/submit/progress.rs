//! How far a submission is: a bar with rate and time left on a terminal, a line now and then elsewhere; on standard
//! error, so that standard output is the result's alone.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);

/// Shows progress.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
    told: Instant,
}

impl Progress {
    /// For a list of so many bytes, if that is known.
    pub(super) fn new(bytes: Option<u64>) -> Self {
        let now = Instant::now();
        let bar = stderr().is_terminal().then(|| {
            let bar = match bytes {
                Some(bytes) => ProgressBar::new(bytes).with_style(style("{bar:30} {percent:>3}% {msg}, {eta} left")),
                None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            bar
        });
        Self { bar, began: now, told: now }
    }

    /// So many bytes are read, and so many emails handed to the broker.
    pub(super) fn sent(&mut self, bytes: u64, emails: u64) {
        let rate = emails.saturating_mul(1000) / u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0).max(1);
        self.tell(bytes, || format!("{} emails, {} a second", HumanCount(emails), HumanCount(rate)));
    }

    /// Everything is sent; from now on answers are counted.
    pub(super) fn wait(&mut self, requests: u64) {
        self.began = Instant::now();
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_length(requests);
            bar.set_style(style("{bar:30} {percent:>3}% {msg}, {eta} left"));
        }
    }

    /// So many requests are answered.
    pub(super) fn answered(&mut self, answered: u64, requests: u64) {
        self.tell(answered, || match answered {
            0 => format!("waiting for the outcomes of {} requests; a worker must run", HumanCount(requests)),
            n => format!("{} of {} requests answered", HumanCount(n), HumanCount(requests)),
        });
    }

    fn tell(&mut self, position: u64, text: impl FnOnce() -> String) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(position);
                bar.set_message(text());
            }
            None if self.told.elapsed() >= EVERY => {
                self.told = Instant::now();
                eprintln!("{}", text());
            }
            None => {}
        }
    }

    /// Leaves the terminal as it was.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
