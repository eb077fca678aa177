//! A faithful stand-in of Migma's bulk-delete API, with faults that can be set while it runs and a ledger of what was
//! really deleted: what the demo and the tests hold every outcome against.
//!
//! [`State`] is the API without a socket: time is an argument, its dice are seeded. [`http`] gives it a door. Never
//! here: anything of the worker; the stand-in knows the vendor's description of the API and nothing else.

pub mod answer;
pub mod faults;
pub mod http;
pub mod ledger;
pub mod state;

pub use self::faults::Faults;
pub use self::http::{Running, start};
pub use self::ledger::{Entry, Summary};
pub use self::state::{Call, Data, State};
