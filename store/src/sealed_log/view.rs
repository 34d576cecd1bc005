//! All records in memory: a deterministic fold of the log (SPEC store, section 8.3).
//!
//! Every entry of one write carries the digest after the whole write. So the records may be shown exactly when
//! their digest is that of the last entry, whatever was skipped on the way: a log keeps only the last entry of
//! each name, and what was superseded before it was read is never seen.
//!
//! While the entries come one after the other, those of an unfinished write are held back, and the records stay
//! those of the write before. Behind a gap nothing can be held back, because the beginning of the write may be what is
//! missing: entries are then applied as they come, and nothing is shown until the digests are equal again.
//!
//! Memory: a record costs its bytes, 96 bytes of identity and place in a table that is one half to full, and its room id
//! twice if it has one. Measured by `bytes_of_a_user_in_memory`: about 230 bytes for a user.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem;
use std::sync::{Mutex, Weak};

use unibus_keyfile::digest::{StateDigest, StateHasher};
use unibus_keyfile::id::Epoch;

pub(super) use self::controls::Seen;
use self::controls::{ControlName, Controls};
use self::pending::{Name, Pending};
use self::tables::Tables;
use super::entry::{Content, DocumentName, Opened};
use super::export::Undo;
use crate::record::{Endpoint, Kind, Record, RecordBytes, RecordId, RoomId};
use crate::store::Census;

mod controls;
mod exports;
mod pending;
mod shown;
pub(super) mod tables;

/// Most entries that are held back for the end of their write: as many as one write can have.
const HELD_BACK_MAX: usize = 1000;

/// What stands at a sequence, after it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A sealed entry.
    Entry(Opened),
    /// A signed document. It is judged elsewhere; here only its name counts.
    Document(DocumentName),
}

/// Why an entry does not belong where it stands. The state is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FoldError {
    /// A sequence came again, or one before it.
    #[error("sequence {found} after sequence {last}")]
    OutOfOrder {
        /// The sequence.
        found: u64,
        /// The one before.
        last: u64,
    },
    /// Somebody wrote under keys that were replaced before.
    #[error("an entry under epoch {found} after one under epoch {newest}")]
    OlderEpoch {
        /// Its epoch.
        found: Epoch,
        /// The newest epoch of an entry before it.
        newest: Epoch,
    },
    /// Somebody wrote behind the end of the stream.
    #[error("an entry behind the one that closes the stream, at sequence {at}")]
    Closed {
        /// Where that one stands.
        at: u64,
    },
    /// The state key cannot change once there is something that it has hashed.
    #[error("the log held records under another state key")]
    HeldRecords,
}

/// Since when the records do not make up a state that a write has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsettled {
    /// The first sequence behind the last settled state.
    pub(super) since: u64,
    /// The first range of sequences that was skipped since then, both ends included.
    pub(super) gap: Option<(u64, u64)>,
}

#[derive(Debug)]
enum Mode {
    /// The records are what the last entry says they are.
    Settled,
    /// As before, and behind it a write that is not here whole.
    HeldBack(Pending),
    /// The records are on their way from one state to another.
    Direct(Unsettled),
}

/// A live record.
#[derive(Debug)]
struct Held {
    bytes: RecordBytes,
    /// Where the entry stands that put it, and under which epoch.
    put: (u64, Epoch),
    /// Whether it is an active user: asked with every request.
    is_active_user: bool,
}

impl Held {
    fn new(id: &RecordId, bytes: RecordBytes, put: (u64, Epoch)) -> Self {
        let user = match id {
            RecordId::User(_) => Record::decode(bytes.as_bytes()).ok(),
            _ => None,
        };
        // The same conditions as for reading it: whatever is wrong with the record means no.
        let is_active_user = matches!(user, Some(Record::User(user)) if user.is_active() && RecordId::User(user.sign_pub) == *id);
        Self { bytes, put, is_active_user }
    }
}

/// A membership by its endpoint. No room comes before all rooms.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seat {
    endpoint: Endpoint,
    room: Option<RoomId>,
}

/// All records, indexed. One of it lies in a lock that readers, writer and follower share.
pub(super) struct State {
    hasher: StateHasher,
    records: Tables<Held>,
    /// Records of which a tombstone is left: where, and under which epoch.
    gone: Tables<(u64, Epoch)>,
    seats: BTreeSet<Seat>,
    controls: Controls,
    documents: BTreeSet<DocumentName>,
    epochs: BTreeMap<Epoch, u64>,
    /// Epoch of the first entry, and of the newest.
    spanned: Option<(Epoch, Epoch)>,
    /// The sequence before the first of the stream.
    base: u64,
    /// Names of entries that were applied: a name is that of one record under one epoch.
    names: u64,
    mode: Mode,
    sequence: u64,
    /// Sequence of the last record entry that was applied.
    record_sequence: u64,
    /// Digest of all records, with what is held back.
    digest: StateDigest,
    /// Sequence of the last record entry and digest, when it was settled last.
    settled: (u64, StateDigest),
    exports: Vec<Weak<Mutex<Undo>>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unsettled = self.unsettled();
        let mut out = f.debug_struct("State");
        out.field("sequence", &self.sequence).field("unsettled", &unsettled).finish_non_exhaustive()
    }
}

impl State {
    /// Nothing applied, at sequence 0.
    #[cfg(test)]
    pub(super) fn new(hasher: StateHasher) -> Self {
        Self::begin(hasher, 0)
    }

    /// Nothing applied, before the first sequence of a stream.
    pub(super) fn begin(hasher: StateHasher, base: u64) -> Self {
        Self {
            hasher,
            records: Tables::default(),
            gone: Tables::default(),
            seats: BTreeSet::new(),
            controls: Controls::default(),
            documents: BTreeSet::new(),
            epochs: BTreeMap::new(),
            spanned: None,
            base,
            names: 0,
            mode: Mode::Settled,
            sequence: base,
            // A log that went over into another stream is never taken for one that never held anything.
            record_sequence: base,
            digest: StateDigest::EMPTY,
            settled: (base, StateDigest::EMPTY),
            exports: Vec::new(),
        }
    }

    /// Changes the state key.
    ///
    /// # Errors
    /// [`FoldError::HeldRecords`] if there ever was a record.
    pub(super) fn set_hasher(&mut self, hasher: StateHasher) -> Result<(), FoldError> {
        if self.ever_held_a_record() {
            return Err(FoldError::HeldRecords);
        }
        self.hasher = hasher;
        Ok(())
    }

    /// Takes what stands at the next sequence that is not empty.
    ///
    /// # Errors
    /// [`FoldError::OutOfOrder`], [`FoldError::OlderEpoch`].
    pub(super) fn apply(&mut self, sequence: u64, item: Item) -> Result<(), FoldError> {
        let last = self.sequence;
        if sequence <= last {
            return Err(FoldError::OutOfOrder { found: sequence, last });
        }
        if let Some((at, _)) = self.controls.closed {
            return Err(FoldError::Closed { at });
        }
        if let (Item::Entry(opened), Some((_, newest))) = (&item, self.spanned)
            && opened.epoch < newest
        {
            return Err(FoldError::OlderEpoch { found: opened.epoch, newest });
        }
        let next = last.saturating_add(1);
        if sequence > next {
            self.go_direct(sequence, Some((next, sequence.saturating_sub(1))));
        }
        self.sequence = sequence;
        match item {
            Item::Document(name) => {
                self.documents.insert(name);
            }
            Item::Entry(opened) => {
                let oldest = self.spanned.map_or(opened.epoch, |(oldest, _)| oldest);
                self.spanned = Some((oldest, opened.epoch));
                self.take(sequence, opened);
            }
        }
        Ok(())
    }

    /// Whether the digest is that of the last entry, and nothing is held back.
    pub(super) const fn is_settled(&self) -> bool {
        matches!(self.mode, Mode::Settled)
    }

    /// Whether the records are those of one moment: of the last entry, or, while a write comes in, of the entry
    /// before that write. Otherwise the view answers nothing.
    pub(super) const fn is_readable(&self) -> bool {
        !matches!(self.mode, Mode::Direct(_))
    }

    /// Since when it is not settled, if it is not.
    pub(super) fn unsettled(&self) -> Option<Unsettled> {
        match &self.mode {
            Mode::Settled => None,
            Mode::HeldBack(pending) => {
                Some(Unsettled { since: pending.since().unwrap_or(self.sequence), gap: None })
            }
            Mode::Direct(unsettled) => Some(*unsettled),
        }
    }

    /// The last sequence taken, whether applied or held back.
    pub(super) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Sequence of the last record entry, when it was settled last; 0 if there was none.
    pub(super) const fn record_sequence(&self) -> u64 {
        self.settled.0
    }

    /// Digest of the records, when it was settled last.
    pub(super) const fn digest(&self) -> StateDigest {
        self.settled.1
    }

    /// Sequence of the last record entry and digest of the records that an export gives, proven or not.
    pub(super) const fn as_it_stands(&self) -> (u64, StateDigest) {
        match self.mode {
            Mode::Direct(_) => (self.record_sequence, self.digest),
            Mode::Settled | Mode::HeldBack(_) => self.settled,
        }
    }

    /// Distinct names seen: of entries, whether or not their record is gone or stands under a newer name too, and of
    /// documents. As many messages as the stream has up to this sequence.
    pub(super) fn names(&self) -> u64 {
        let documents = u64::try_from(self.documents.len()).unwrap_or(u64::MAX);
        let held_back = match &self.mode {
            Mode::HeldBack(pending) => pending.new_names(),
            Mode::Settled | Mode::Direct(_) => 0,
        };
        self.names.saturating_add(documents).saturating_add(held_back)
    }

    /// How many records of each kind there are.
    pub(super) fn census(&self) -> Census {
        let mut census = Census::default();
        Kind::ALL.into_iter().for_each(|kind| census.add(kind, self.records.count(kind)));
        census
    }

    /// Epoch of the first entry of the stream that was applied.
    pub(super) fn oldest_epoch(&self) -> Option<Epoch> {
        self.spanned.map(|(oldest, _)| oldest)
    }

    /// How many records, tombstones and control entries have their last entry under each epoch.
    pub(super) const fn epochs(&self) -> &BTreeMap<Epoch, u64> {
        &self.epochs
    }

    /// Whether there ever was an entry of a record.
    pub(super) fn ever_held_a_record(&self) -> bool {
        let is_record = |opened: &Opened| matches!(opened.content, Content::Record { .. });
        self.record_sequence > self.base
            || self.base > 0
            || matches!(&self.mode, Mode::HeldBack(pending) if pending.entries().any(is_record))
    }

    fn take(&mut self, sequence: u64, opened: Opened) {
        let digest_after = opened.digest_after;
        self.digest = self.digest_with(&opened);
        let is_whole = self.digest == digest_after;
        if matches!(self.mode, Mode::Direct(_)) || (is_whole && self.is_settled()) {
            self.perform(sequence, opened);
        } else {
            let is_new = self.epoch_of(Name::of(&opened.content)) != Some(opened.epoch);
            if self.is_settled() {
                self.mode = Mode::HeldBack(Pending::default());
            }
            if let Mode::HeldBack(pending) = &mut self.mode {
                pending.push(sequence, opened, is_new);
            }
        }
        if is_whole {
            self.release();
            self.mode = Mode::Settled;
            self.settled = (self.record_sequence, self.digest);
        } else if matches!(&self.mode, Mode::HeldBack(pending) if pending.len() > HELD_BACK_MAX) {
            self.go_direct(sequence, None);
        }
    }

    /// The digest with this entry on top of everything taken before. The hash of what the entry replaces is made
    /// again: to keep 32 bytes for each record costs more than to hash one of them now and then.
    fn digest_with(&self, opened: &Opened) -> StateDigest {
        let mut digest = self.digest;
        if let Content::Record { id, bytes } = &opened.content {
            let held_back = match &self.mode {
                Mode::HeldBack(pending) => pending.record(id),
                Mode::Settled | Mode::Direct(_) => None,
            };
            if let Some(before) = held_back.unwrap_or_else(|| self.records.get(id).map(|held| &held.bytes)) {
                digest.subtract(&self.hasher.hash(before.as_bytes()));
            }
            if let Some(bytes) = bytes {
                digest.add(&opened.hash.unwrap_or_else(|| self.hasher.hash(bytes.as_bytes())));
            }
        }
        digest
    }

    /// Gives up holding back. The first reason stays.
    fn go_direct(&mut self, sequence: u64, gap: Option<(u64, u64)>) {
        let before = self.unsettled();
        self.release();
        let since = before.map_or(sequence, |unsettled| unsettled.since);
        let gap = before.and_then(|unsettled| unsettled.gap).or(gap);
        self.mode = Mode::Direct(Unsettled { since, gap });
    }

    /// Performs what was held back.
    fn release(&mut self) {
        if let Mode::HeldBack(pending) = mem::replace(&mut self.mode, Mode::Settled) {
            for (sequence, opened) in pending.into_entries() {
                self.perform(sequence, opened);
            }
        }
    }

    fn epoch_of(&self, name: Name<'_>) -> Option<Epoch> {
        match name {
            Name::Record(id) => {
                let live = self.records.get(id).map(|held| held.put);
                live.or_else(|| self.gone.get(id).copied()).map(|(_, epoch)| epoch)
            }
            Name::Control(name) => self.controls.epoch_of(&name?),
        }
    }

    /// Where the last entry that says something about the same thing stands; 0 if there is none.
    pub(super) fn sequence_of(&self, content: &Content) -> u64 {
        let found = match content {
            Content::Record { id, .. } => {
                let live = self.records.get(id).map(|held| held.put);
                live.or_else(|| self.gone.get(id).copied()).map(|(sequence, _)| sequence)
            }
            _ => ControlName::of(content).and_then(|name| self.controls.sequence_of(&name)),
        };
        found.unwrap_or(0)
    }

    fn perform(&mut self, sequence: u64, opened: Opened) {
        let Opened { content, epoch, digest_after, .. } = opened;
        let before = self.epoch_of(Name::of(&content));
        if before != Some(epoch) {
            // Names are blinded under their epoch: the entry under the older one still stands beside this one.
            self.names = self.names.saturating_add(1);
            let count = self.epochs.entry(epoch).or_default();
            *count = count.saturating_add(1);
            if let Some(count) = before.and_then(|before| self.epochs.get_mut(&before)) {
                *count = count.saturating_sub(1);
                self.epochs.retain(|_, count| *count > 0);
            }
        }
        match content {
            Content::Record { id, bytes } => {
                self.record_sequence = sequence;
                self.keep_for_exports(&id);
                self.set_record(id, bytes, (sequence, epoch));
            }
            content => {
                let is_whole = self.is_readable();
                let (records, entries) = (&self.records, &self.epochs);
                let seen = || {
                    let records = Kind::ALL.into_iter().map(|kind| records.count(kind)).sum();
                    is_whole.then(|| Seen { digest: digest_after, records, entries: entries.clone() })
                };
                self.controls.take((sequence, epoch), content, digest_after, seen);
            }
        }
    }

    fn set_record(&mut self, id: RecordId, bytes: Option<RecordBytes>, put: (u64, Epoch)) {
        if let RecordId::Member(room, endpoint) = &id {
            let seat = Seat { endpoint: *endpoint, room: Some(room.clone()) };
            if bytes.is_some() {
                self.seats.insert(seat);
            } else {
                self.seats.remove(&seat);
            }
        }
        match bytes {
            Some(bytes) => {
                self.gone.remove(&id);
                let held = Held::new(&id, bytes, put);
                self.records.insert(id, held);
            }
            None => {
                self.records.remove(&id);
                self.gone.insert(id, put);
            }
        }
    }
}

#[cfg(test)]
mod tests;
