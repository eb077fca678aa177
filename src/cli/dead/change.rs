//! `dead replay` and `dead discard`: first a look and a question, then the change, of what was looked at and no more.
//!
//! Never a letter acked before its request is confirmed, with every other one of its group.

mod report;

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use self::report::{Kind, Report};
use super::super::{Usage, counted};
use super::choice::{Choice, Filters, Known, now};
use crate::amqp::{AmqpSettings, DeadLetters, Receipt, Submitter, discard_unreadable};
use crate::app;
use crate::config::Config;
use crate::domain::request::Policy;

/// What replays are published with.
const KEY: &str = "request.replay";
/// The most letters, and the most of their bytes, that are confirmed before they are acked together.
const GROUP: usize = 200;
const GROUP_BYTES: usize = 4 << 20;
/// How often it is looked whether all acks have arrived.
const LOOKS: usize = 10;

/// What `dead replay` takes.
#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    common: Common,
}

/// What `dead discard` takes.
#[derive(Args, Debug)]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    common: Common,

    /// What cannot even be read, and is passed over by every other command.
    #[arg(long, conflicts_with_all = ["ids", "all", "dry_run", "code", "project", "older_than", "newer_than"])]
    unreadable: bool,
}

/// What both take.
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
struct Common {
    /// Message ids, as they are or as `dead list` shows them: sha256:… or letter:….
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    #[command(flatten)]
    filters: Filters,

    /// Every letter.
    #[arg(long)]
    all: bool,

    /// Tell what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,

    /// Do not ask.
    #[arg(long)]
    yes: bool,

    /// Print the result as a JSON object.
    #[arg(long)]
    json: bool,
}

impl Common {
    /// A question needs somebody to answer it.
    fn is_askable(&self) -> anyhow::Result<()> {
        if self.dry_run || self.yes || io::stdin().is_terminal() {
            return Ok(());
        }
        Err(Usage::new("--yes: there is no terminal to ask on; see what would be done with --dry-run, then give --yes"))
    }
}

/// Replays.
pub(super) async fn replay(args: &ReplayArgs, config: &Config) -> anyhow::Result<ExitCode> {
    change(Kind::Replay, &args.common, config).await
}

/// Discards.
pub(super) async fn discard(args: &DiscardArgs, config: &Config) -> anyhow::Result<ExitCode> {
    if !args.unreadable {
        return change(Kind::Discard, &args.common, config).await;
    }
    args.common.is_askable()?;
    if !args.common.yes && !agreed("Discard letters that cannot be read? They are gone then.").await? {
        anyhow::bail!("nothing was changed");
    }
    let count = discard_unreadable(app::amqp_settings(config)).await?;
    super::super::print(&format!("gone: {} that could not be read\n", counted(count as u64, "letter")))?;
    Ok(ExitCode::SUCCESS)
}

async fn change(kind: Kind, args: &Common, config: &Config) -> anyhow::Result<ExitCode> {
    let mut choice = Choice::new(&args.ids, &args.filters, args.all)?;
    args.is_askable()?;
    let settings = app::amqp_settings(config);
    let policy = super::policy(config);
    let mut report = survey(kind, &mut choice, config, settings.clone(), &policy).await?;
    report.not_found = choice.not_met().into_iter().map(|name| super::named(Some(name), false)).collect();
    if args.dry_run || report.planned.is_empty() {
        report.print(args.json, args.dry_run)?;
        return Ok(ended(&report));
    }
    if !args.yes {
        let _ = io::stderr().write_all(report.plan().as_bytes());
        if !agreed(&report.question()).await? {
            anyhow::bail!("nothing was changed");
        }
    }
    let done = match kind {
        Kind::Replay => send(&mut report, settings, &policy).await,
        Kind::Discard => throw_away(&mut report, settings).await,
    };
    done.with_context(|| {
        let (letters, done) = (counted(report.done, "letter"), kind.done());
        format!("{done} for certain: {letters}; the others are in the dead queue; run the same command again to go on")
    })?;
    report.print(args.json, false)?;
    Ok(ended(&report))
}

/// Goes through the queue once, and holds nothing afterwards.
async fn survey(
    kind: Kind,
    choice: &mut Choice,
    config: &Config,
    settings: AmqpSettings,
    policy: &Policy,
) -> anyhow::Result<Report> {
    let mut report = Report::new(kind);
    let mut letters = DeadLetters::open(settings).await?;
    let (mut place, now) = (0, now());
    while let Some(letter) = letters.next().await? {
        place += 1;
        let known = Known::of(place, &letter, config, now);
        if !choice.takes(&known) {
            continue;
        }
        match kind {
            Kind::Discard => report.plan_for(&known, known.summary.undone),
            Kind::Replay => match letter.seen(|letter| letter.replay(policy)) {
                Ok(replay) => report.plan_for(&known, Some(replay.emails.into())),
                Err(reason) => report.refuse(&known, reason),
            },
        }
    }
    letters.release().await?;
    report.seen = place;
    Ok(report)
}

/// What is still to be done, by mark: as many letters of it as were seen.
type Todo = HashMap<String, u64>;

/// Whether this letter is one of those; then there is one less.
fn takes(todo: &mut Todo, mark: &str) -> bool {
    match todo.get_mut(mark) {
        None => false,
        Some(1) => todo.remove(mark).is_some(),
        Some(count) => {
            *count -= 1;
            true
        }
    }
}

async fn send(report: &mut Report, settings: AmqpSettings, policy: &Policy) -> anyhow::Result<()> {
    let mut submitter = Submitter::connect(settings.clone(), KEY).await?;
    let mut letters = DeadLetters::open(settings.clone()).await?;
    let mut todo = report.planned.clone();
    let mut done = Todo::new();
    let (mut group, mut bytes) = (Vec::new(), 0);
    while !todo.is_empty()
        && let Some(letter) = letters.next().await?
    {
        let mark = letter.mark();
        // The same letter gives the same request, so what was sound a moment ago still is.
        if takes(&mut todo, &mark)
            && let Ok(replay) = letter.seen(|letter| letter.replay(policy))
        {
            bytes += replay.payload.len();
            submitter.send(letter.submission(&replay.id, replay.correlation_id.as_deref(), replay.payload)).await?;
            group.push(letter.receipt());
            *done.entry(mark).or_default() += 1;
        }
        if group.len() >= GROUP || bytes >= GROUP_BYTES {
            settle(&mut submitter, &mut letters, &mut group, report).await?;
            bytes = 0;
        }
    }
    settle(&mut submitter, &mut letters, &mut group, report).await?;
    letters.release().await?;
    submitter.close().await;
    report.gone = todo.values().sum();
    make_certain(done, settings).await
}

/// Waits until the whole group is confirmed: a message that no queue took may be told of by another's confirm. Then acks.
async fn settle(
    submitter: &mut Submitter,
    letters: &mut DeadLetters,
    group: &mut Vec<Receipt>,
    report: &mut Report,
) -> anyhow::Result<()> {
    submitter.flush().await?;
    letters.take_away(group).await?;
    report.done += group.len() as u64;
    group.clear();
    Ok(())
}

async fn throw_away(report: &mut Report, settings: AmqpSettings) -> anyhow::Result<()> {
    let mut letters = DeadLetters::open(settings.clone()).await?;
    let mut todo = report.planned.clone();
    let mut done = Todo::new();
    let mut group = Vec::new();
    while !todo.is_empty()
        && let Some(letter) = letters.next().await?
    {
        let mark = letter.mark();
        if takes(&mut todo, &mark) {
            group.push(letter.receipt());
            *done.entry(mark).or_default() += 1;
        }
        if group.len() >= GROUP || todo.is_empty() {
            letters.take_away(&group).await?;
            report.done += group.len() as u64;
            group.clear();
        }
    }
    letters.take_away(&group).await?;
    report.done += group.len() as u64;
    letters.release().await?;
    report.gone = todo.values().sum();
    make_certain(done, settings).await
}

/// Looks whether any of these letters is there again, for its ack was lost, until none is.
async fn make_certain(mut done: Todo, settings: AmqpSettings) -> anyhow::Result<()> {
    for _ in 0..LOOKS {
        let mut letters = DeadLetters::open(settings.clone()).await?;
        let mut back = Vec::new();
        while let Some(letter) = letters.next().await? {
            if takes(&mut done, &letter.mark()) {
                back.push((letter.receipt(), letter.mark()));
            }
        }
        let receipts: Vec<Receipt> = back.iter().map(|(receipt, _)| *receipt).collect();
        letters.take_away(&receipts).await?;
        letters.release().await?;
        if back.is_empty() {
            return Ok(());
        }
        for (_, mark) in back {
            *done.entry(mark).or_default() += 1;
        }
    }
    anyhow::bail!("the broker keeps giving back letters that were taken away")
}

/// Asks on the terminal; anything but yes is no.
async fn agreed(question: &str) -> anyhow::Result<bool> {
    let _ = write!(io::stderr(), "{question} [yes/no] ");
    let _ = io::stderr().flush();
    // On a thread of its own, so that Ctrl-C is heard meanwhile.
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = answer.await??;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// 0 where everything was done that was asked for.
fn ended(report: &Report) -> ExitCode {
    let well = report.refused == 0 && report.not_found.is_empty() && report.gone == 0;
    ExitCode::from(if well { 0 } else { super::super::FAILED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_letters_are_taken_as_were_seen_and_no_more() {
        let mut todo = Todo::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
        let taken = ["a", "x", "a", "a", "b", "b"].map(|mark| takes(&mut todo, mark));
        assert_eq!(taken, [true, false, true, false, true, false]);
        assert!(todo.is_empty());
    }
}
