//! Entries that are no records: the last of each name, and what it says.

use std::collections::BTreeMap;

use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::id::{Epoch, NodeName};

use super::State;
use crate::record::Timestamp;
use crate::sealed_log::entry::{Content, Heartbeat};
use crate::sealed_log::rotation::COPIES;
use crate::sealed_log::stream::Generation;

/// What an entry that is no record is called, apart from its epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sealed_log) enum ControlName {
    Heartbeat(NodeName),
    Import,
    NonceFloor,
    Closed,
    Barrier,
    Driver,
    Evidence(String),
}

impl ControlName {
    /// The name of an entry; none if it is a record.
    pub(super) fn of(content: &Content) -> Option<Self> {
        Some(match content {
            Content::Record { .. } => return None,
            Content::Heartbeat { node, .. } => Self::Heartbeat(node.clone()),
            Content::Import { .. } => Self::Import,
            Content::NonceFloor(_) => Self::NonceFloor,
            Content::Closed { .. } => Self::Closed,
            Content::Barrier { .. } => Self::Barrier,
            Content::Driver { .. } => Self::Driver,
            Content::Evidence { label, .. } => Self::Evidence(label.clone()),
        })
    }
}

/// What the view was when it passed a barrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sealed_log) struct Passage {
    /// Where the barrier stands.
    pub(in crate::sealed_log) sequence: u64,
    /// Its random number.
    pub(in crate::sealed_log) id: [u8; 16],
    /// What had been taken by then, if the view was whole: digest, records, names under each epoch.
    pub(in crate::sealed_log) seen: Option<Seen>,
}

/// A view at one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sealed_log) struct Seen {
    pub(in crate::sealed_log) digest: StateDigest,
    pub(in crate::sealed_log) records: u64,
    pub(in crate::sealed_log) entries: BTreeMap<Epoch, u64>,
}

/// Who drives a rotation, and when it said so last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sealed_log) struct Driven {
    pub(in crate::sealed_log) by: [u8; 16],
    pub(in crate::sealed_log) at: Timestamp,
}

/// What the entries that are no records say.
#[derive(Debug, Default)]
pub(super) struct Controls {
    /// Where the last entry of each name stands, and under which epoch.
    last: BTreeMap<ControlName, (u64, Epoch)>,
    pub(super) heartbeats: BTreeMap<NodeName, (u64, Heartbeat)>,
    pub(super) import: Option<bool>,
    /// The digest that the last import mark carries.
    pub(super) import_digest: Option<StateDigest>,
    pub(super) nonce_floor: Option<Timestamp>,
    pub(super) closed: Option<(u64, Generation)>,
    pub(super) passage: Option<Passage>,
    pub(super) driven: Option<Driven>,
    pub(super) evidence: BTreeMap<String, Vec<u8>>,
}

impl Controls {
    /// Epoch of the last entry of this name.
    pub(super) fn epoch_of(&self, name: &ControlName) -> Option<Epoch> {
        self.last.get(name).map(|(_, epoch)| *epoch)
    }

    /// Where the last entry of this name stands.
    pub(super) fn sequence_of(&self, name: &ControlName) -> Option<u64> {
        self.last.get(name).map(|(sequence, _)| *sequence)
    }

    /// Takes an entry that is no record. `seen` is the view at this sequence, if it is whole there.
    pub(super) fn take(
        &mut self,
        (sequence, epoch): (u64, Epoch),
        content: Content,
        digest: StateDigest,
        seen: impl FnOnce() -> Option<Seen>,
    ) {
        if let Some(name) = ControlName::of(&content) {
            self.last.insert(name, (sequence, epoch));
        }
        match content {
            Content::Record { .. } => {}
            Content::Heartbeat { node, heartbeat } => {
                self.heartbeats.insert(node, (sequence, heartbeat));
            }
            Content::Import { open } => {
                self.import = Some(open);
                self.import_digest = Some(digest);
            }
            Content::NonceFloor(at) => self.nonce_floor = Some(at),
            Content::Closed { next } => self.closed = Some((sequence, next)),
            Content::Barrier { id } => self.passage = Some(Passage { sequence, id, seen: seen() }),
            Content::Driver { by, at } => self.driven = by.map(|by| Driven { by, at }),
            Content::Evidence { label, bytes } => match bytes {
                Some(bytes) => {
                    self.evidence.insert(label, bytes);
                }
                None => {
                    self.evidence.remove(&label);
                }
            },
        }
    }
}

impl State {
    /// Whether an import is under way.
    pub(in crate::sealed_log) fn import_open(&self) -> bool {
        self.controls.import == Some(true)
    }

    /// Signed requests that expire at this time or before are refused.
    pub(in crate::sealed_log) fn nonce_floor(&self) -> Option<Timestamp> {
        self.controls.nonce_floor
    }

    /// The last sign of life of each node, and where it stands.
    pub(in crate::sealed_log) const fn heartbeats(&self) -> &BTreeMap<NodeName, (u64, Heartbeat)> {
        &self.controls.heartbeats
    }

    /// Where the stream was closed, and in which one the log goes on.
    pub(in crate::sealed_log) const fn closed(&self) -> Option<(u64, Generation)> {
        self.controls.closed
    }

    /// The last barrier, and what the view was when it passed it.
    pub(in crate::sealed_log) const fn passage(&self) -> Option<&Passage> {
        self.controls.passage.as_ref()
    }

    /// Who drives a rotation.
    pub(in crate::sealed_log) const fn driven(&self) -> Option<Driven> {
        self.controls.driven
    }

    /// What is kept for the receipt of a rotation.
    pub(in crate::sealed_log) const fn evidence(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.controls.evidence
    }

    /// The copies that the stream may have although more are wanted: servers were missing when it was made.
    pub(in crate::sealed_log) fn fewer_copies(&self) -> Option<usize> {
        self.controls.evidence.get(COPIES).and_then(|bytes| bytes.first()).map(|copies| usize::from(*copies))
    }

    /// The digest that the last import mark carries.
    pub(in crate::sealed_log) const fn import_digest(&self) -> Option<StateDigest> {
        self.controls.import_digest
    }
}
