//! The records as one transaction sees them.

use std::ops::ControlFlow;

use rusqlite::Connection;

use super::fault::{self, Fault};
use super::query::{self, RowError, RowFault};
use crate::domain::{Change, Scan, View, Visit};
use crate::error::StoreError;
use crate::record::{RecordBytes, RecordId};

/// A view over a connection that is in a transaction.
pub(super) struct Rows<'c>(pub(super) &'c Connection);

impl View for Rows<'_> {
    fn record(&self, id: &RecordId) -> Result<Option<RecordBytes>, StoreError> {
        query::get(self.0, id).map_err(|error| row_error(id.kind(), error))
    }

    fn scan(&self, scan: Scan<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        query::scan(self.0, scan, &mut |position, id, body| {
            let bytes = RecordBytes::assemble(&id, body)
                .map_err(|source| StoreError::CorruptRecord { kind: position.kind, source })?;
            visit(&id, &bytes)
        })
        .map(|_: (ControlFlow<()>, u64)| ())
    }
}

/// Makes changes in the writer's transaction.
pub(super) fn apply(connection: &Connection, changes: &[Change]) -> Result<(), StoreError> {
    for change in changes {
        match &change.after {
            Some(after) => query::put(connection, &change.id, after.body()),
            None => query::delete(connection, &change.id),
        }
        .map_err(|error| database("write a record", &error))?;
    }
    Ok(())
}

impl From<RowFault> for StoreError {
    fn from(fault: RowFault) -> Self {
        row_error(fault.position.kind, fault.error)
    }
}

fn row_error(kind: crate::record::Kind, error: RowError) -> StoreError {
    match error {
        RowError::Sqlite(error) => database("read a record", &error),
        RowError::Decode(source) => StoreError::CorruptRecord { kind, source },
    }
}

/// An error of SQLite as the store's.
pub(super) fn database(step: &'static str, error: &rusqlite::Error) -> StoreError {
    match fault::of(error) {
        Fault::DiskFull => StoreError::Unavailable { why: "the disk is full" },
        Fault::Busy => StoreError::Unavailable { why: "the database is locked" },
        Fault::ReadOnly => StoreError::Unavailable { why: "the store is open for reading only" },
        Fault::NotADatabase | Fault::Corrupt => {
            StoreError::Corrupt { what: "a page does not authenticate or is damaged".to_owned() }
        }
        Fault::Io | Fault::Other => StoreError::Database { step, code: fault::code(error) },
    }
}
