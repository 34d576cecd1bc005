//! All records as they were at one moment, while writes go on.
//!
//! The records are read in pieces under the lock that readers share, and given away outside of it. What is changed
//! before its piece was read is kept aside as it was: so an export costs the memory of one piece and of what changes
//! while it runs, and holds up no write for longer than one piece takes.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::view::State;
use super::view::tables::{Tables, merged};
use crate::error::StoreError;
use crate::record::{RecordBytes, RecordId};
use crate::store::{ExportSink, Position};

/// Most records of one piece.
const PIECE_RECORDS: usize = 256;
/// Bytes of records after which a piece ends.
const PIECE_BYTES: usize = 256 * 1024;

/// What an export needs to see the records as they were: those that were changed since.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// The last record that the export has read.
    last: Option<RecordId>,
    /// Records behind it as they were; none if they were not there.
    before: Tables<Option<RecordBytes>>,
}

impl Undo {
    /// Nothing that is done under this lock stops half-way.
    pub(super) fn lock(shared: &Mutex<Self>) -> MutexGuard<'_, Self> {
        shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a record as it was, unless it was kept or read before.
    pub(super) fn keep(&mut self, id: &RecordId, before: Option<&RecordBytes>) {
        if self.last.as_ref().is_none_or(|last| last < id) {
            self.before.insert_new(id, || before.cloned());
        }
    }

    /// The next records as they were.
    fn next_piece(&mut self, state: &State) -> Vec<(RecordId, RecordBytes)> {
        let mut piece = Vec::with_capacity(PIECE_RECORDS);
        let mut bytes_left = PIECE_BYTES;
        let last = self.last.as_ref();
        for (id, bytes) in merged(state.behind(last), self.before.behind(last)).take(PIECE_RECORDS) {
            piece.push((id.clone(), bytes.clone()));
            bytes_left = bytes_left.saturating_sub(bytes.as_bytes().len());
            if bytes_left == 0 {
                break;
            }
        }
        if let Some((id, _)) = piece.last() {
            self.before.remove_through(id);
            self.last = Some(id.clone());
        }
        piece
    }
}

/// Exports all records as they are when `begin` is called, in canonical order; `begin` says where the store stands,
/// or refuses.
///
/// Records of a state that is not settled are exported as they stand, if `begin` lets it.
///
/// # Errors
/// What `begin` and `sink` give; [`StoreError::Poisoned`] if a change of the state was cut short.
pub(super) fn export(
    shared: &RwLock<State>,
    begin: impl FnOnce(&State) -> Result<Position, StoreError>,
    sink: &mut dyn ExportSink,
) -> Result<Position, StoreError> {
    let poisoned = || StoreError::Poisoned { step: "a change of the view" };
    let (position, census, undo) = {
        let mut state = shared.write().map_err(|_| poisoned())?;
        (begin(&state)?, state.census(), state.begin_export())
    };
    sink.begin(&position, &census)?;
    loop {
        let piece = {
            let state = shared.read().map_err(|_| poisoned())?;
            Undo::lock(&undo).next_piece(&state)
        };
        if piece.is_empty() {
            return Ok(position);
        }
        for (id, bytes) in &piece {
            sink.record(id, bytes.as_bytes())?;
        }
    }
}
