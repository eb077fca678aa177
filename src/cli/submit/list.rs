//! A list of addresses as people have it: CSV, NDJSON or plain lines; one entry at a time, however long the list is.
//!
//! Never here: an address in an error, or more in memory than one record of at most [`RECORD_MAX`] bytes.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::rc::Rc;

use clap::ValueEnum;
use serde_json::Value;

use crate::domain::email::{Email, EmailFault};

/// The longest record that is read, in bytes: an object with other fields may be long, a quote that is never closed
/// must not swallow the rest of the list.
const RECORD_MAX: usize = 1 << 20;

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// An address on each line.
    Lines,
    /// Comma-separated values with a header line; `--column` names the column.
    Csv,
    /// JSON on each line: a string, or an object with a field named by `--column`.
    Ndjson,
}

impl Format {
    /// What a file's name suggests.
    pub(super) fn guess(path: &Path) -> Self {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "csv" | "tsv" => Self::Csv,
            "ndjson" | "jsonl" => Self::Ndjson,
            _ => Self::Lines,
        }
    }
}

/// How to read a list.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) format: Format,
    /// The column or the field with the address.
    pub(super) column: String,
    /// Between the columns.
    pub(super) delimiter: u8,
}

/// One entry of a list.
pub(super) struct Entry {
    /// The line that it begins on, from 1; in CSV, blank lines right before it count as its beginning.
    pub(super) line: u64,
    pub(super) email: Result<Email, Invalid>,
}

/// An entry that is no address.
pub(super) struct Invalid {
    pub(super) fault: Fault,
    /// As it stands there, for those who may see it.
    pub(super) text: String,
}

/// Why an entry is no address. Its `Display` never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Email(#[from] EmailFault),
    #[error("is not UTF-8")]
    Encoding,
    #[error("is longer than 1 MiB")]
    TooLong,
    #[error("is not JSON")]
    Json,
    #[error("is neither a string nor an object")]
    Kind,
    #[error("has no such column or field")]
    Missing,
    #[error("has something other than a string in that field")]
    NotAString,
}

/// Why a list cannot be read on. Never quotes it, but for the names of columns.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error("cannot read on after line {after}")]
    Io {
        after: u64,
        #[source]
        source: io::Error,
    },
    #[error("the record that begins on line {line} is longer than 1 MiB: is a quote never closed?")]
    Record { line: u64 },
    #[error("there is no column '{column}'; the header has {columns}")]
    Column { column: String, columns: String },
    #[error("the header has the column '{0}' twice")]
    Twice(String),
}

/// Shows each entry, until there is no more, or until `see` has had enough and says false.
pub(super) fn read(source: impl Read, reading: &Reading, see: impl FnMut(Entry) -> bool) -> Result<(), ListError> {
    match reading.format {
        Format::Lines => lines(source, see, |text| Email::parse(text).map_err(Fault::from)),
        Format::Ndjson => lines(source, see, |text| field(text, &reading.column)),
        Format::Csv => csv(source, reading, see),
    }
}

fn lines(
    source: impl Read,
    mut see: impl FnMut(Entry) -> bool,
    parse: impl Fn(&str) -> Result<Email, Fault>,
) -> Result<(), ListError> {
    let mut source = io::BufReader::with_capacity(1 << 16, source);
    let mut bytes = Vec::new();
    let mut line = 0;
    loop {
        bytes.clear();
        let failed = |source| ListError::Io { after: line, source };
        if source.by_ref().take(RECORD_MAX as u64).read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            return Ok(());
        }
        let whole = bytes.len() < RECORD_MAX || bytes.ends_with(b"\n");
        if !whole {
            source.skip_until(b'\n').map_err(failed)?;
        }
        line += 1;
        let text = bytes.strip_prefix(b"\xEF\xBB\xBF").filter(|_| line == 1).unwrap_or(&bytes).trim_ascii();
        if text.is_empty() {
            continue;
        }
        let email = match std::str::from_utf8(text) {
            _ if !whole => Err(Fault::TooLong),
            Err(_) => Err(Fault::Encoding),
            Ok(text) => parse(text),
        };
        if !see(Entry { line, email: email.map_err(|fault| invalid(fault, text)) }) {
            return Ok(());
        }
    }
}

fn invalid(fault: Fault, text: &[u8]) -> Invalid {
    const SHOWN: usize = 320;
    Invalid { fault, text: String::from_utf8_lossy(&text[..text.len().min(SHOWN)]).into_owned() }
}

/// The address in a JSON text.
fn field(text: &str, column: &str) -> Result<Email, Fault> {
    let value: Value = serde_json::from_str(text).map_err(|_| Fault::Json)?;
    let text = match &value {
        Value::String(text) => text,
        Value::Object(fields) => match fields.get(column) {
            Some(Value::String(text)) => text,
            Some(Value::Null) | None => return Err(Fault::Missing),
            Some(_) => return Err(Fault::NotAString),
        },
        _ => return Err(Fault::Kind),
    };
    Ok(Email::parse(text)?)
}

fn csv(source: impl Read, reading: &Reading, mut see: impl FnMut(Entry) -> bool) -> Result<(), ListError> {
    let taken = Rc::new(Cell::new(0));
    let metered = Metered { source, taken: Rc::clone(&taken) };
    let mut reader = csv::ReaderBuilder::new().delimiter(reading.delimiter).flexible(true).from_reader(metered);
    let header = reader.byte_headers().map_err(|error| ended(error, 1))?;
    let Some(at) = column(header, &reading.column)? else { return Ok(()) };
    let mut record = csv::ByteRecord::new();
    loop {
        taken.set(0);
        let line = reader.position().line();
        if !reader.read_byte_record(&mut record).map_err(|error| ended(error, line))? {
            return Ok(());
        }
        let line = record.position().map_or(line, csv::Position::line);
        let email = match record.get(at) {
            None => Err(invalid(Fault::Missing, b"")),
            Some(bytes) => match std::str::from_utf8(bytes) {
                Err(_) => Err(invalid(Fault::Encoding, bytes)),
                Ok(text) => Email::parse(text).map_err(|fault| invalid(fault.into(), bytes)),
            },
        };
        if !see(Entry { line, email }) {
            return Ok(());
        }
    }
}

/// Where the column stands: by its exact name, or else by its name in any letter case. `None` in an empty file.
fn column(header: &csv::ByteRecord, wanted: &str) -> Result<Option<usize>, ListError> {
    if header.is_empty() {
        return Ok(None);
    }
    let names: Vec<_> = header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    let find = |is_it: &dyn Fn(&str) -> bool| {
        let mut found = (0..names.len()).filter(|at| is_it(&names[*at]));
        (found.next(), found.next())
    };
    let found = match find(&|name| name == wanted) {
        (None, _) => find(&|name| name.eq_ignore_ascii_case(wanted)),
        exact => exact,
    };
    match found {
        (Some(at), None) => Ok(Some(at)),
        (Some(_), Some(_)) => Err(ListError::Twice(wanted.to_owned())),
        (None, _) => {
            let columns = if names.iter().any(|name| name.contains('@')) {
                "addresses in it, as a list without a header would: take --format lines for a list of one column"
                    .to_owned()
            } else {
                let mut shown: Vec<_> =
                    names.iter().take(20).map(|name| format!("'{}'", name.escape_debug())).collect();
                if names.len() > shown.len() {
                    shown.push("others".to_owned());
                }
                format!("{} (--column names one; --delimiter tells what stands between them)", shown.join(", "))
            };
            Err(ListError::Column { column: wanted.to_owned(), columns })
        }
    }
}

fn ended(error: csv::Error, line: u64) -> ListError {
    match error.into_kind() {
        csv::ErrorKind::Io(source) if source.kind() == io::ErrorKind::FileTooLarge => ListError::Record { line },
        csv::ErrorKind::Io(source) => ListError::Io { after: line.saturating_sub(1), source },
        // Records of any length are taken, as bytes: nothing else can go wrong.
        _ => ListError::Io { after: line, source: io::ErrorKind::InvalidData.into() },
    }
}

/// Lets no record grow without end.
struct Metered<R> {
    source: R,
    /// Bytes since the last record began.
    taken: Rc<Cell<usize>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken.get() > RECORD_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.source.read(buffer)?;
        self.taken.set(self.taken.get() + count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
