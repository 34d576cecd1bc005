//! What a store is asked with and what it answers, besides records.

use unibus_keyfile::{
    digest::StateDigest,
    id::{Lineage, Sequence},
};

use crate::{
    error::StoreError,
    record::{FieldError, Kind, Member, RecordBytes, RecordId, Room},
};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature: two strengths")]
pub enum Strength {
    /// What this node holds; over several nodes it may be behind by a bounded time.
    Local,
    /// No write that was acknowledged before the read began is missed, on whatever node it was made.
    Linearizable,
}

/// Where a store stands: equal positions mean equal records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "complete by nature: the three say where a store stands")]
pub struct Position {
    /// Which unbroken history this is; a restore or copy begins another.
    pub lineage: Lineage,
    /// How many writes were committed: each adds one, a refused one adds nothing. A granted nonce is a write.
    pub sequence: Sequence,
    /// Keyed hash over all records as a set. Equal in every backend that holds the same records under the same
    /// state key, whatever the lineage.
    pub digest: StateDigest,
}

/// How many records there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Users, revoked ones included.
    pub users: u64,
    /// Rooms.
    pub rooms: u64,
    /// Members of all rooms.
    pub members: u64,
    /// Sealed room keys of all epochs.
    pub room_keys: u64,
    /// Blobs.
    pub blobs: u64,
}

impl Census {
    /// Counts `more` records of a kind.
    pub fn add(&mut self, kind: Kind, more: u64) {
        let count = match kind {
            Kind::User => &mut self.users,
            Kind::Room => &mut self.rooms,
            Kind::Member => &mut self.members,
            Kind::RoomKey => &mut self.room_keys,
            Kind::Blob => &mut self.blobs,
        };
        *count = count.saturating_add(more);
    }

    /// The records of one kind.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::User => self.users,
            Kind::Room => self.rooms,
            Kind::Member => self.members,
            Kind::RoomKey => self.room_keys,
            Kind::Blob => self.blobs,
        }
    }

    /// The records of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        Kind::ALL.into_iter().fold(0, |sum, kind| sum.saturating_add(self.of(kind)))
    }
}

/// What a verification has read and found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Where the store stood. The digest was recomputed from the records and is the stored one.
    pub position: Position,
    /// The records that were read.
    pub census: Census,
    /// Records that decode and yet refer to something that is not there: a member without its room, a room
    /// without its owner, a sealed key without its member. No operation makes one; an import can bring them.
    pub dangling: u64,
}

/// A room with one endpoint's part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "complete by nature: a pair with names")]
pub struct Membership {
    /// The room.
    pub room: Room,
    /// The part of the endpoint.
    pub member: Member,
}

/// Longest nonce, in bytes.
pub const NONCE_MAX_BYTES: usize = 64;

/// The nonce of a signed request: 1 to 64 bytes, compared as they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(Box<[u8]>);

impl Nonce {
    /// Takes the bytes of a nonce.
    ///
    /// # Errors
    /// [`FieldError::Length`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FieldError> {
        if bytes.is_empty() || bytes.len() > NONCE_MAX_BYTES {
            return Err(FieldError::Length { field: "nonce", found: bytes.len(), limit: NONCE_MAX_BYTES });
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Takes the records of an export.
pub trait ExportSink {
    /// Called once, before the records: where the store stands, and what is to come.
    ///
    /// # Errors
    /// Whatever is to stop the export; [`StoreError::Stopped`] if the reason is kept elsewhere.
    fn begin(&mut self, position: &Position, census: &Census) -> Result<(), StoreError>;

    /// Called for each record, in canonical order.
    ///
    /// # Errors
    /// As [`ExportSink::begin`].
    fn record(&mut self, id: &RecordId, bytes: &[u8]) -> Result<(), StoreError>;
}

/// The records to import, in canonical order.
pub type ImportRecords<'r> = dyn Iterator<Item = Result<RecordBytes, StoreError>> + 'r;
