//! Takes all records of an export, in batches between two marks: while the first stands alone nothing is served.
//!
//! An import that was cut short is finished by doing it again, from the same source or a later state of it: what is
//! there already stays, what differs is written over, and what does not come again is removed.

use super::SealedLog;
use super::entry::Content;
use super::writer::Work;
use crate::backend::Backend;
use crate::domain::{Change, ImportOrder, View};
use crate::error::StoreError;
use crate::failpoint;
use crate::record::{RecordBytes, RecordId, Timestamp};
use crate::store::{ImportRecords, Position};

/// Entries of one batch: fewer batches cost less, larger ones more memory.
const BATCH: usize = 500;

impl SealedLog {
    /// Imports, reads everything back, and says where the log stands then. An error leaves the mark of an import that is
    /// under way.
    pub(super) fn import_between_marks(
        &self,
        records: &mut ImportRecords<'_>,
        nonce_floor: Option<Timestamp>,
    ) -> Result<Position, StoreError> {
        let mut order = ImportOrder::default();
        let mut passed: Option<RecordId> = None;
        reach("import::open")?;
        self.do_now(Work::Control(Content::Import { open: true }))?;
        reach("import::opened")?;
        loop {
            let mut piece = Vec::with_capacity(BATCH);
            for bytes in records.take(BATCH) {
                let bytes = bytes?;
                piece.push((order.accept(&bytes)?, bytes));
            }
            let is_last = piece.len() < BATCH;
            let up_to = if is_last { None } else { piece.last().map(|(id, _)| id.clone()) };
            let changes = self.changes_to(passed.as_ref(), up_to.as_ref(), piece);
            for changes in changes.chunks(BATCH) {
                let changes = changes.to_vec();
                let run = move |view: &dyn View| is_current(view, &changes).map(|()| changes.clone());
                reach("import::batch")?;
                self.do_now(Work::Transaction(Box::new(run)))?;
                reach("import::batched")?;
            }
            if is_last {
                break;
            }
            passed = up_to;
        }
        reach("import::floor")?;
        if let Some(at) = nonce_floor {
            self.do_now(Work::Control(Content::NonceFloor(at)))?;
        }
        reach("import::read")?;
        let read = self.blocking(self.read_again())??.position;
        let position = self.current_position()?;
        if read.digest != position.digest {
            return Err(StoreError::Tampered {
                what: "the records read back as others than were written".into(),
            });
        }
        // From here on others write, too.
        reach("import::close")?;
        self.do_now(Work::Control(Content::Import { open: false }))?;
        reach("import::closed")?;
        Ok(position)
    }

    /// What makes the records behind `after`, as far as `up_to` or to the end, into those of `piece`.
    fn changes_to(
        &self,
        after: Option<&RecordId>,
        up_to: Option<&RecordId>,
        piece: Vec<(RecordId, RecordBytes)>,
    ) -> Vec<Change> {
        let state = self.shared.state();
        let is_within = |id: &RecordId| up_to.is_none_or(|up_to| id <= up_to);
        let mut there = state.behind(after).take_while(|(id, _)| is_within(id)).peekable();
        let mut changes = Vec::with_capacity(piece.len());
        let remove = |(id, bytes): (&RecordId, &RecordBytes)| Change {
            id: id.clone(),
            before: Some(bytes.clone()),
            after: None,
        };
        for (id, bytes) in piece {
            while let Some(surplus) = there.next_if(|(other, _)| **other < id) {
                changes.push(remove(surplus));
            }
            let before = there.next_if(|(other, _)| **other == id).map(|(_, bytes)| bytes.clone());
            if before.as_ref() != Some(&bytes) {
                changes.push(Change { id, before, after: Some(bytes) });
            }
        }
        changes.extend(there.map(remove));
        changes
    }

    /// Does one thing and waits for it.
    fn do_now(&self, work: Work) -> Result<(), StoreError> {
        self.blocking(self.submit(work))?
    }
}

/// Where a test lets a step fail.
fn reach(place: &'static str) -> Result<(), StoreError> {
    failpoint::reach(place).map_err(|source| StoreError::Io {
        path: super::STREAM.into(),
        step: "import into the log",
        source,
    })
}

/// Whether the changes were made from the records as they are.
fn is_current(view: &dyn View, changes: &[Change]) -> Result<(), StoreError> {
    for change in changes {
        if view.record(&change.id)? != change.before {
            return Err(StoreError::Unavailable { why: "another import into this log is under way" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
