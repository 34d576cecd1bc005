//! Entries of a write that has not come in whole yet.

use std::collections::BTreeMap;

use super::controls::ControlName;
use crate::record::{RecordBytes, RecordId};
use crate::sealed_log::entry::{Content, Opened};

/// What an entry is called, apart from its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name<'a> {
    Record(&'a RecordId),
    /// None stands for nothing: records are the other kind.
    Control(Option<ControlName>),
}

impl<'a> Name<'a> {
    pub(super) fn of(content: &'a Content) -> Self {
        match content {
            Content::Record { id, .. } => Self::Record(id),
            _ => Self::Control(ControlName::of(content)),
        }
    }
}

/// Entries held back, so that nobody sees half a write.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: Vec<(u64, Opened)>,
    /// Where the last entry of each record is among them.
    last: BTreeMap<RecordId, usize>,
    new_names: u64,
}

impl Pending {
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Sequence of the first.
    pub(super) fn since(&self) -> Option<u64> {
        self.entries.first().map(|(sequence, _)| *sequence)
    }

    /// Names among them that were not there before.
    pub(super) const fn new_names(&self) -> u64 {
        self.new_names
    }

    /// Holds back one more. `is_new`: its name is not one of the entries applied before.
    pub(super) fn push(&mut self, sequence: u64, opened: Opened, is_new: bool) {
        if is_new && !self.has(&opened) {
            self.new_names = self.new_names.saturating_add(1);
        }
        if let Content::Record { id, .. } = &opened.content {
            self.last.insert(id.clone(), self.entries.len());
        }
        self.entries.push((sequence, opened));
    }

    /// Whether an entry of the same name is among them. Epochs rise, so the last one of a record tells.
    fn has(&self, opened: &Opened) -> bool {
        let name = Name::of(&opened.content);
        let is_same = |other: &Opened| other.epoch == opened.epoch && Name::of(&other.content) == name;
        match name {
            Name::Record(id) => {
                let last = self.last.get(id).and_then(|last| self.entries.get(*last));
                last.is_some_and(|(_, last)| is_same(last))
            }
            Name::Control(_) => self.entries().any(is_same),
        }
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
