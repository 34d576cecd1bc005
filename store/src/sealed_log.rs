//! The backend for one node or several: sealed entries in one JetStream stream (SPEC store, section 8).
//!
//! Every entry is sealed for the one sequence at which it will stand, and is stored there or not at all. A node
//! keeps all records in memory, a fold of the log, and writes by stating the sequence that it has seen: so writes
//! are serializable over all nodes, and an old value put back does not open.

mod entry;
mod error;
mod export;
mod options;
mod stream;
mod transaction;
mod view;
mod wire;

pub use self::{
    error::LogError,
    options::{Access, BootEvent, LogOptions},
    stream::STREAM,
};
