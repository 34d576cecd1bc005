//! The control records: parsed once, validated on construction, and their bytes (SPEC store, sections 1 and 2).
//!
//! A value of one of these types is valid; there is no `validate()`. None of them implements `Serialize`, and
//! `Debug` shows a kind and a marker only, so that names and keys do not reach a log by accident.

mod blob;
mod bytes;
mod cbor;
mod error;
mod id;
mod key;
mod member;
mod redact;
mod room;
mod room_key;
mod sealed;
mod text;
mod time;
mod user;

pub use self::{
    blob::Blob,
    bytes::{RECORD_MAX_BYTES, RecordBytes},
    cbor::FORMAT_VERSION,
    error::{DecodeError, FieldError},
    id::{Kind, RecordId},
    key::{BlobHash, Endpoint, KexPub, SignPub},
    member::{Member, MemberRole},
    room::{KeyEpoch, Policy, Room},
    room_key::RoomKey,
    sealed::{SEALED_KEY_MAX_BYTES, SealedKey, StorageName},
    text::{Channel, HANDLE_MAX_BYTES, Handle, RoomId, SUBJECT_MAX_BYTES, Subject, TOKEN_MAX_BYTES},
    time::Timestamp,
    user::{User, UserRole, UserStatus},
};

/// What each kind of record can do with its bytes. Only this module implements it.
pub(crate) trait RecordBody: Sized {
    const KIND: Kind;

    fn id(&self) -> RecordId;
    /// Bytes that the body may take, so that the buffer does not grow and leave a copy behind.
    fn body_max_bytes(&self) -> usize;
    /// Appends format version and CBOR map.
    fn write_body(&self, out: &mut Vec<u8>);
    fn read_body(id: RecordId, body: &[u8]) -> Result<Self, DecodeError>;
}

/// One record of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// A user.
    User(User),
    /// A room.
    Room(Room),
    /// A membership.
    Member(Member),
    /// A sealed room key.
    RoomKey(RoomKey),
    /// A blob.
    Blob(Blob),
}

impl Record {
    /// Decodes the bytes of one record, checking everything about them (SPEC store, section 1.5).
    ///
    /// What is accepted encodes to the same bytes again.
    ///
    /// # Errors
    /// [`DecodeError`], the first check that fails.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (id, body) = bytes::split(bytes)?;
        let record = match id.kind() {
            Kind::User => User::read_body(id, body).map(Self::User),
            Kind::Room => Room::read_body(id, body).map(Self::Room),
            Kind::Member => Member::read_body(id, body).map(Self::Member),
            Kind::RoomKey => RoomKey::read_body(id, body).map(Self::RoomKey),
            Kind::Blob => Blob::read_body(id, body).map(Self::Blob),
        }?;
        bytes::is_canonical(&record.encode(), bytes)?;
        Ok(record)
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> RecordBytes {
        match self {
            Self::User(record) => record.encode(),
            Self::Room(record) => record.encode(),
            Self::Member(record) => record.encode(),
            Self::RoomKey(record) => record.encode(),
            Self::Blob(record) => record.encode(),
        }
    }

    /// Which record it is.
    #[must_use]
    pub fn id(&self) -> RecordId {
        match self {
            Self::User(record) => record.id(),
            Self::Room(record) => record.id(),
            Self::Member(record) => record.id(),
            Self::RoomKey(record) => record.id(),
            Self::Blob(record) => record.id(),
        }
    }
}

#[cfg(test)]
mod tests;
