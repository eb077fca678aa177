//! The memory that outlives a crash: [`crate::ports::Journal`] in durable stores.
//!
//! Never here: a decision of what to send or to answer; an address that outlives its batch's end, or that stands in an
//! error; a write that is told to be done before it is durable.

mod minutes;
mod planned;
mod postgres;
mod retention;
mod spans;
mod sqlite;

pub use self::postgres::{PostgresJournal, Standing, Unusable};
pub use self::sqlite::{Footprint, SqliteJournal, Unfit};
