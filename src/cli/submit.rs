//! `submit`: a list of addresses as deletion requests, and what became of them.
//!
//! Never the whole list in memory, never a copy of it on disk, never an address on the screen that was not asked for.

mod list;
mod progress;
mod tally;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use indicatif::HumanCount;
use tokio::sync::mpsc;

use self::list::{Format, Reading};
use self::progress::Progress;
use self::tally::{Answers, Read};
use super::interrupt::interrupted;
use super::{Usage, answer};
use crate::amqp::{Listener, Submission, Submitter};
use crate::app;
use crate::config::Config;
use crate::domain::ids::ProjectId;
use crate::domain::moment::Timestamp;
use crate::domain::submission::{Portion, Slicer, Terms};

pub(super) const EXAMPLES: &str = "\
Examples:
  migma-eraser submit contacts.csv --project proj_8f2 --dry-run
      read the column `email`, tell how many addresses and requests, and which lines are wrong; send nothing
  migma-eraser submit contacts.csv --project proj_8f2 --wait
      send, wait for the outcomes, end with a table; exit code 1 where any request did not succeed
  migma-eraser submit export.ndjson --column mail --project proj_8f2 --metadata '{\"ticket\": \"DSR-4711\"}'
      {\"mail\": \"ann@example.com\", ...} on each line, with metadata that each outcome echoes
  psql -Atc 'select email from leavers' | migma-eraser submit - --project proj_8f2 --why unsubscribe
      plain lines from a pipe, published with the key request.unsubscribe
  migma-eraser submit contacts.csv --wait --json | jq .outcomes.emails.notFound
      one figure, for a script

The same list gives the same message ids, so a second run is harmless: what the worker has answered it answers again,
and nothing is deleted twice. After Ctrl-C, or when the broker was lost, run the same command again. To submit the same
list anew on purpose, give it another --label.

A worker may be busy elsewhere or not run at all: the requests wait for it in the queue. Exit codes: 0 where everything
was sent (with --wait: and succeeded), 1 where something was not, 2 wrong usage, 78 wrong configuration.";

/// What `submit` takes.
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct SubmitArgs {
    /// The list; - for standard input.
    #[arg(value_name = "FILE")]
    list: PathBuf,

    /// The project whose contacts are deleted; without it, `migma.default_project_id`.
    #[arg(long, value_name = "ID")]
    project: Option<String>,

    /// How the list is written; guessed from the file's name (.csv, .tsv, .ndjson, .jsonl), else lines.
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// The column (CSV) or the field (NDJSON) with the address.
    #[arg(long, value_name = "NAME", default_value = "email")]
    column: String,

    /// What stands between the columns of CSV; a tab for .tsv, else a comma.
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<char>,

    /// Entries of the list in one request.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    per_message: u16,

    /// A JSON object of at most 4 KiB that every outcome echoes. No personal data: the journal keeps it.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,

    /// Why: the requests are published with the key request.WHY.
    #[arg(long, value_name = "WHY", default_value = "submit")]
    why: String,

    /// A name for this submission: the same list under another name is submitted anew.
    #[arg(long, value_name = "NAME", default_value = "")]
    label: String,

    /// Wait for every outcome, and end with a table.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,

    /// Read the list, tell what would be sent, and send nothing. Asks for no broker.
    #[arg(long)]
    dry_run: bool,

    /// Show the text of entries that are no addresses, and not their lines alone.
    #[arg(long)]
    show_addresses: bool,

    /// Print the result as a JSON object.
    #[arg(long)]
    json: bool,
}

/// Where the list comes from.
struct Source {
    stream: Box<dyn io::Read + Send>,
    bytes: Option<u64>,
}

/// What is to be done, checked.
struct Plan {
    reading: Reading,
    slicer: Slicer,
    max_bytes: usize,
    show_addresses: bool,
}

/// How far it is, for whoever cuts it short.
#[derive(Default)]
struct Reached {
    read_bytes: AtomicU64,
    confirmed: AtomicU64,
    sent_all: AtomicU64,
}

/// Submits the list.
///
/// # Errors
/// Wrong usage or configuration; the list cannot be read; the broker cannot be reached, or takes no requests.
pub async fn run(args: SubmitArgs, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = super::load(file)?;
    let plan = plan(&args, &config)?;
    let source = open(&args.list)?;
    let reached = Arc::new(Reached::default());
    let work = async {
        if args.dry_run {
            rehearse(&args, plan, source, &reached).await
        } else {
            submit(&args, &config, plan, source, &reached).await
        }
    };
    tokio::select! {
        done = work => done,
        () = interrupted() => {
            if args.dry_run {
                anyhow::bail!("interrupted");
            }
            let requests = HumanCount(reached.confirmed.load(Ordering::Relaxed));
            let reach = if reached.sent_all.load(Ordering::Relaxed) == 1 { "all" } else { "not all" };
            anyhow::bail!("interrupted: {requests} requests, {reach} of the list, are with the broker and will be done. {AGAIN}")
        }
    }
}

const AGAIN: &str = "Run the same command again to go on: what was sent is answered again, nothing is deleted twice";

fn plan(args: &SubmitArgs, config: &Config) -> anyhow::Result<Plan> {
    let format = args.format.unwrap_or_else(|| Format::guess(&args.list));
    if format == Format::Lines && (args.column != "email" || args.delimiter.is_some()) {
        return Err(Usage::new("--column and --delimiter are for CSV and NDJSON; say which with --format"));
    }
    let project = match &args.project {
        Some(text) => ProjectId::parse(text),
        None => config.migma.default_project_id.clone(),
    };
    let Some(project) = project else {
        return Err(Usage::new("--project: name the project, or configure migma.default_project_id"));
    };
    let allowed = &config.migma.allowed_projects;
    if !allowed.is_empty() && !allowed.contains(&project) {
        return Err(Usage::new("--project: is not among migma.allowed_projects"));
    }
    let why_is_sound = (1..=200).contains(&args.why.len()) && !args.why.chars().any(|c| c.is_control() || c == '@');
    if !why_is_sound {
        return Err(Usage::new("--why: give 1 to 200 bytes without control characters and @, such as gdpr"));
    }
    let terms = Terms::new(project, args.metadata.as_deref(), &args.label)
        .map_err(|rejection| Usage::new(format!("--metadata: {}", rejection.message)))?;
    let is_tsv = args.list.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
    let delimiter = args.delimiter.unwrap_or(if is_tsv { '\t' } else { ',' });
    let delimiter = u8::try_from(delimiter).ok().filter(u8::is_ascii);
    let Some(delimiter) = delimiter else {
        return Err(Usage::new("--delimiter: give one ASCII character, such as ';'"));
    };
    Ok(Plan {
        reading: Reading { format, column: args.column.clone(), delimiter },
        slicer: Slicer::new(terms, args.per_message.into()),
        max_bytes: config.amqp.max_message_bytes,
        show_addresses: args.show_addresses,
    })
}

fn open(path: &Path) -> anyhow::Result<Source> {
    if path == Path::new("-") {
        return Ok(Source { stream: Box::new(io::stdin()), bytes: None });
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = file.metadata().with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(!found.is_dir(), "cannot read {}: it is a folder", path.display());
    Ok(Source { stream: Box::new(file), bytes: found.is_file().then_some(found.len()) })
}

/// Counts what is read.
struct Counted<'a> {
    stream: Box<dyn io::Read + Send>,
    reached: &'a Reached,
}

impl io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.reached.read_bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Plan {
    /// Reads the list to its end, and hands over each request; ends early where nobody takes it.
    fn read(
        mut self,
        source: Source,
        reached: &Reached,
        mut hand_over: impl FnMut(Portion) -> bool,
    ) -> anyhow::Result<Read> {
        let mut read = Read::default();
        let mut too_large = None;
        let counted = Counted { stream: source.stream, reached };
        let mut pass_on = |portion: Option<Portion>| match portion {
            Some(portion) if portion.payload.len() > self.max_bytes => {
                too_large = Some(portion.payload.len());
                false
            }
            Some(portion) => hand_over(portion),
            None => true,
        };
        list::read(counted, &self.reading, |entry| {
            let email = read.see(entry, self.show_addresses);
            pass_on(self.slicer.add(email))
        })?;
        pass_on(self.slicer.finish());
        if let Some(bytes) = too_large {
            return Err(Usage::new(format!(
                "--per-message: a request would have {bytes} bytes, more than amqp.max_message_bytes ({}); take fewer",
                self.max_bytes
            )));
        }
        Ok(read)
    }
}

/// `--dry-run`.
async fn rehearse(args: &SubmitArgs, plan: Plan, source: Source, reached: &Arc<Reached>) -> anyhow::Result<ExitCode> {
    let reached = Arc::clone(reached);
    let reading = tokio::task::spawn_blocking(move || {
        let mut requests = 0;
        let read = plan.read(source, &reached, |_| {
            requests += 1;
            true
        });
        read.map(|read| (read, requests))
    });
    let (read, requests) = reading.await??;
    if args.json {
        super::print(&tally::json(&read, requests, false, None)?)?;
    } else {
        let (emails, requests) = (HumanCount(read.emails), HumanCount(requests));
        super::print(&format!("{emails} emails in {requests} requests would be sent\n{}", read.complaint()))?;
    }
    Ok(ended(&read, None))
}

async fn submit(
    args: &SubmitArgs,
    config: &Config,
    plan: Plan,
    source: Source,
    reached: &Arc<Reached>,
) -> anyhow::Result<ExitCode> {
    let settings = app::amqp_settings(config);
    let key = format!("request.{}", args.why);
    // Before anything is published: no outcome may be missed.
    let mut listener = None;
    if args.wait {
        listener = Some(Listener::open(settings.clone(), &["outcome.#".to_owned()], None).await?);
    }
    let mut submitter = Submitter::connect(settings, &key).await?;
    let mut progress = Progress::new(source.bytes);
    let (hand_over, mut portions) = mpsc::channel::<Portion>(4);
    let counted = Arc::clone(reached);
    let reading = tokio::task::spawn_blocking(move || {
        plan.read(source, &counted, |portion| hand_over.blocking_send(portion).is_ok())
    });
    let mut answers = Answers::default();
    let (mut requests, mut emails) = (0, 0);
    while let Some(portion) = portions.recv().await {
        requests += 1;
        emails += portion.emails;
        if let Some(listener) = &mut listener {
            answers.wait_for(portion.id.as_str());
            while let Some(heard) = listener.try_next() {
                hear(&mut answers, &heard.context(AGAIN)?);
            }
        }
        let sent = submitter.send(Submission::new(&portion.id, portion.payload, now())).await;
        reached.confirmed.store(submitter.confirmed(), Ordering::Relaxed);
        sent.with_context(|| lost(&submitter))?;
        progress.sent(reached.read_bytes.load(Ordering::Relaxed), emails);
    }
    let flushed = submitter.flush().await;
    reached.confirmed.store(submitter.confirmed(), Ordering::Relaxed);
    flushed.with_context(|| lost(&submitter))?;
    let read = reading.await?.with_context(|| format!("{} requests are with the broker", submitter.confirmed()))?;
    reached.sent_all.store(1, Ordering::Relaxed);
    submitter.close().await;
    if let Some(mut listener) = listener {
        progress.wait(requests);
        wait(&mut listener, &mut answers, &mut progress, requests).await?;
        listener.close().await;
    }
    progress.clear();
    let answers = args.wait.then_some(&answers);
    if args.json {
        super::print(&tally::json(&read, requests, true, answers)?)?;
    } else {
        let said =
            format!("{} emails in {} requests are with the broker\n", HumanCount(read.emails), HumanCount(requests));
        super::print(&format!("{said}{}{}", read.complaint(), answers.map(Answers::table).unwrap_or_default()))?;
    }
    Ok(ended(&read, answers))
}

fn lost(submitter: &Submitter) -> String {
    format!("after {} requests that the broker has for certain. {AGAIN}", HumanCount(submitter.confirmed()))
}

async fn wait(
    listener: &mut Listener,
    answers: &mut Answers,
    progress: &mut Progress,
    requests: u64,
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    while answers.open() > 0 {
        tokio::select! {
            heard = listener.next() => hear(answers, &heard.context(AGAIN)?),
            _ = tick.tick() => {}
        }
        progress.answered(answers.answered, requests);
    }
    Ok(())
}

/// Others' outcomes come too, and are not even read.
fn hear(answers: &mut Answers, heard: &crate::amqp::Heard) {
    if heard.correlation_id.as_deref().is_some_and(|id| answers.waits_for(id))
        && let Some(answer) = answer::read(&heard.body)
    {
        answers.take(&answer);
    }
}

/// 0 where everything is well.
fn ended(read: &Read, answers: Option<&Answers>) -> ExitCode {
    let well = read.invalid == 0 && answers.is_none_or(Answers::all_succeeded);
    ExitCode::from(if well { 0 } else { super::FAILED })
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
