//! What the operations mean: the rules of every backend, once, without I/O (SPEC store, section 3).
//!
//! An operation reads a [`View`] and gives the [`Change`]s to make, or refuses. A backend calls it inside a
//! transaction, applies the changes all or none, and counts them with [`advance`]. So two backends cannot
//! differ in what they allow, and a check that authorizes a write belongs to the same transaction as the write.

mod blobs;
mod import;
mod members;
mod nonces;
mod read;
mod rooms;
mod users;
mod verify;

use std::ops::ControlFlow;

use unibus_keyfile::{digest::StateHasher, id::Sequence};

pub use self::{
    blobs::put_blob,
    import::ImportOrder,
    members::{invite, rekey, remove_member},
    nonces::{Claim, NonceFloor},
    read::{blob, channels_of, is_authorized, member, members, room, room_key, rooms_of, user, users},
    rooms::create_room,
    users::{add_user, revoke_user},
    verify::verify,
};
use crate::{
    error::StoreError,
    record::{Endpoint, Kind, Record, RecordBytes, RecordId, RoomId, SignPub},
    store::Position,
};

/// Who asks for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a third kind of actor must be looked at in every rule")]
pub enum Actor {
    /// A local command that holds the node's key file: may do everything that leaves the store consistent.
    Operator,
    /// A request that this key has signed: what it may do is looked up in the transaction.
    Signer(SignPub),
}

/// Which records to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each backend must answer each of them")]
pub enum Scan<'a> {
    /// All records.
    All,
    /// All records of one kind.
    Kind(Kind),
    /// The [`Member`](crate::record::Member)s of a room.
    MembersOf(&'a RoomId),
    /// The [`Member`](crate::record::Member)s of one endpoint, in all its rooms.
    MembershipsOf(&'a Endpoint),
    /// The [`RoomKey`](crate::record::RoomKey)s of one member of a room, all epochs.
    RoomKeysOf(&'a RoomId, &'a Endpoint),
}

/// Sees one record of a scan and says whether to go on.
pub type Visit<'v> = dyn FnMut(&RecordId, &RecordBytes) -> Result<ControlFlow<()>, StoreError> + 'v;

/// The records as one transaction sees them: a backend's part of every operation.
pub trait View {
    /// The record of that identity, as it is stored.
    ///
    /// # Errors
    /// What keeps the backend from reading.
    fn record(&self, id: &RecordId) -> Result<Option<RecordBytes>, StoreError>;

    /// Shows `visit` each record of `scan` in canonical order until it breaks. `visit` may read the view.
    ///
    /// # Errors
    /// What keeps the backend from reading, and what `visit` gives.
    fn scan(&self, scan: Scan<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Whether the key is that of an active user, if the view keeps the answer beside the record: every request
    /// asks, and to copy and decode the record costs more than to find it. None means: decode the record.
    fn is_active_user(&self, _key: &SignPub) -> Option<bool> {
        None
    }
}

/// One record's change. At least one side is there, and they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The record.
    pub id: RecordId,
    /// Its bytes before; none if it is new.
    pub before: Option<RecordBytes>,
    /// Its bytes afterwards; none if it is gone.
    pub after: Option<RecordBytes>,
}

/// Where the store stands after a committed write of `changes`: one sequence further, the digest without what
/// was and with what is.
#[must_use]
pub fn advance(hasher: &StateHasher, position: Position, changes: &[Change]) -> Position {
    let mut next = position;
    next.sequence = Sequence(position.sequence.0.saturating_add(1));
    for change in changes {
        if let Some(before) = &change.before {
            next.digest.subtract(&hasher.hash(before.as_bytes()));
        }
        if let Some(after) = &change.after {
            next.digest.add(&hasher.hash(after.as_bytes()));
        }
    }
    next
}

/// Reads and decodes one record, and holds it against the identity it was asked for.
fn load(view: &dyn View, id: &RecordId) -> Result<Option<Record>, StoreError> {
    view.record(id)?.map(|bytes| decode(id, &bytes)).transpose()
}

fn decode(id: &RecordId, bytes: &RecordBytes) -> Result<Record, StoreError> {
    let kind = id.kind();
    let record =
        Record::decode(bytes.as_bytes()).map_err(|source| StoreError::CorruptRecord { kind, source })?;
    if record.id() != *id {
        return Err(StoreError::Tampered { what: format!("a {kind} stands in another's place") });
    }
    Ok(record)
}

/// A record that is written, whether or not one was there.
fn put(view: &dyn View, record: &Record) -> Result<Change, StoreError> {
    let id = record.id();
    Ok(Change { before: view.record(&id)?, after: Some(record.encode()), id })
}

/// A record that must be new.
fn create(view: &dyn View, record: &Record) -> Result<Change, StoreError> {
    let change = put(view, record)?;
    if change.before.is_some() {
        return Err(StoreError::AlreadyExists { kind: change.id.kind() });
    }
    Ok(change)
}

/// A record that goes.
fn delete(id: RecordId, before: RecordBytes) -> Change {
    Change { id, before: Some(before), after: None }
}

/// Changes in canonical order, so that every backend writes them alike.
fn in_order(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by(|one, two| one.id.cmp(&two.id));
    changes
}

#[cfg(test)]
mod tests;
