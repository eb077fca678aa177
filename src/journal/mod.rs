//! The memory that outlives a crash: [`crate::ports::Journal`] in durable stores.
//!
//! Never here: a decision of what to send or to answer; an address that outlives its batch's end, or that stands in an
//! error; a write that is told to be done before it is durable.

mod retention;
mod spans;
mod sqlite;

pub use self::sqlite::{SqliteJournal, Unfit};
