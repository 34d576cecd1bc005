//! Entries of a write that has not come in whole yet.

use std::collections::BTreeMap;

use crate::record::{RecordBytes, RecordId};
use crate::sealed_log::entry::{Content, Opened};

/// Entries held back, so that nobody sees half a write.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: Vec<(u64, Opened)>,
    /// Where the last entry of each record is among them.
    last: BTreeMap<RecordId, usize>,
}

impl Pending {
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Sequence of the first.
    pub(super) fn since(&self) -> Option<u64> {
        self.entries.first().map(|(sequence, _)| *sequence)
    }

    pub(super) fn push(&mut self, sequence: u64, opened: Opened) {
        if let Content::Record { id, .. } = &opened.content {
            self.last.insert(id.clone(), self.entries.len());
        }
        self.entries.push((sequence, opened));
    }

    /// What an entry held back says about a record: outer none if none is about it, inner none if it is gone.
    pub(super) fn record(&self, id: &RecordId) -> Option<Option<&RecordBytes>> {
        let (_, opened) = self.entries.get(*self.last.get(id)?)?;
        match &opened.content {
            Content::Record { bytes, .. } => Some(bytes.as_ref()),
            _ => None,
        }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Opened> {
        self.entries.iter().map(|(_, opened)| opened)
    }

    pub(super) fn into_entries(self) -> Vec<(u64, Opened)> {
        self.entries
    }
}
