//! Which record: kind and identity, and their order (SPEC store, section 2).

use std::fmt;

use super::{BlobHash, DecodeError, Endpoint, KeyEpoch, RoomId, SignPub, redact};

/// The kinds of records, in canonical order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature: a new kind is a new format version")]
pub enum Kind {
    /// A user.
    User,
    /// A room.
    Room,
    /// A membership.
    Member,
    /// A sealed room key.
    RoomKey,
    /// A blob.
    Blob,
}

impl Kind {
    /// All kinds, in canonical order.
    pub const ALL: [Self; 5] = [Self::User, Self::Room, Self::Member, Self::RoomKey, Self::Blob];

    /// The byte that stands for the kind (SPEC store, section 2.1).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Room => 2,
            Self::Member => 3,
            Self::RoomKey => 4,
            Self::Blob => 5,
        }
    }

    /// The kind of that byte.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The kind's name, as in tables and reports: `user`, `room`, `member`, `room_key`, `blob`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Room => "room",
            Self::Member => "member",
            Self::RoomKey => "room_key",
            Self::Blob => "blob",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The identity of one record.
///
/// Its order is the canonical order: by kind, then by the bytes of the identity.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature, as `Kind`")]
pub enum RecordId {
    /// A user, by signing key.
    User(SignPub),
    /// A room.
    Room(RoomId),
    /// A membership.
    Member(RoomId, Endpoint),
    /// A sealed room key.
    RoomKey(RoomId, KeyEpoch, Endpoint),
    /// A blob, by content.
    Blob(BlobHash),
}

impl RecordId {
    /// The record's kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::User(_) => Kind::User,
            Self::Room(_) => Kind::Room,
            Self::Member(..) => Kind::Member,
            Self::RoomKey(..) => Kind::RoomKey,
            Self::Blob(_) => Kind::Blob,
        }
    }

    /// The identity bytes (SPEC store, section 2.2).
    #[must_use]
    pub fn identity(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_identity(&mut out);
        out
    }

    /// Appends the identity bytes.
    pub(crate) fn write_identity(&self, out: &mut Vec<u8>) {
        match self {
            Self::User(key) => out.extend_from_slice(key.as_bytes()),
            Self::Room(room) => out.extend_from_slice(room.as_str().as_bytes()),
            Self::Member(room, endpoint) => {
                out.extend_from_slice(room.as_str().as_bytes());
                out.push(0);
                out.extend_from_slice(endpoint.as_bytes());
            }
            Self::RoomKey(room, epoch, endpoint) => {
                out.extend_from_slice(room.as_str().as_bytes());
                out.push(0);
                out.extend_from_slice(&epoch.get().to_be_bytes());
                out.extend_from_slice(endpoint.as_bytes());
            }
            Self::Blob(hash) => out.extend_from_slice(hash.as_bytes()),
        }
    }

    /// Length of the identity bytes.
    fn identity_len(&self) -> usize {
        match self {
            Self::User(_) | Self::Blob(_) => 32,
            Self::Room(room) => room.as_str().len(),
            Self::Member(room, _) => room.as_str().len().saturating_add(1 + 32),
            Self::RoomKey(room, ..) => room.as_str().len().saturating_add(1 + 8 + 32),
        }
    }

    /// Length of what stands before a record's body.
    pub(crate) fn head_len(&self) -> usize {
        self.identity_len().saturating_add(1 + 4)
    }

    /// Appends kind, length and identity: what stands before a record's body.
    pub(crate) fn write_head(&self, out: &mut Vec<u8>) {
        // An identity has at most 105 bytes, so the length is never the fallback.
        let length = u32::try_from(self.identity_len()).unwrap_or(u32::MAX);
        out.push(self.kind().number());
        out.extend_from_slice(&length.to_be_bytes());
        self.write_identity(out);
    }

    /// Parses identity bytes.
    ///
    /// # Errors
    /// [`DecodeError::Identity`].
    pub fn parse(kind: Kind, identity: &[u8]) -> Result<Self, DecodeError> {
        parse(kind, identity).ok_or(DecodeError::Identity { kind })
    }
}

fn parse(kind: Kind, identity: &[u8]) -> Option<RecordId> {
    match kind {
        Kind::User => Some(RecordId::User(SignPub::from_bytes(identity.try_into().ok()?).ok()?)),
        Kind::Room => Some(RecordId::Room(room_id(identity)?)),
        Kind::Member => {
            let (room, endpoint) = split_room(identity)?;
            Some(RecordId::Member(room, Endpoint::from_bytes(endpoint.try_into().ok()?)))
        }
        Kind::RoomKey => {
            let (room, rest) = split_room(identity)?;
            let (&epoch, endpoint) = rest.split_first_chunk::<8>()?;
            let epoch = KeyEpoch::new(u64::from_be_bytes(epoch)).ok()?;
            Some(RecordId::RoomKey(room, epoch, Endpoint::from_bytes(endpoint.try_into().ok()?)))
        }
        Kind::Blob => Some(RecordId::Blob(BlobHash::from_bytes(identity.try_into().ok()?))),
    }
}

fn room_id(bytes: &[u8]) -> Option<RoomId> {
    RoomId::parse(std::str::from_utf8(bytes).ok()?).ok()
}

/// Splits at the zero byte that ends the room id. It cannot be part of one, and being the least byte it keeps
/// the order of `a` before `a-` whatever follows.
fn split_room(identity: &[u8]) -> Option<(RoomId, &[u8])> {
    let end = identity.iter().position(|&byte| byte == 0)?;
    let (room, rest) = identity.split_at_checked(end)?;
    Some((room_id(room)?, rest.get(1..)?))
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact::marker(f, self.kind().as_str(), &self.identity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(text: &str) -> RoomId {
        RoomId::parse(text).unwrap()
    }

    #[test]
    fn the_order_of_ids_is_the_order_of_kind_and_identity_bytes() {
        let (low, high) = (Endpoint::from_bytes([0; 32]), Endpoint::from_bytes([0xff; 32]));
        let mut ids = vec![RecordId::Blob(BlobHash::from_bytes([0; 32]))];
        for name in ["a", "a-", "a0", "aa", "b", "B", "_", "-"] {
            ids.push(RecordId::Room(room(name)));
            for endpoint in [low, high] {
                ids.push(RecordId::Member(room(name), endpoint));
                for epoch in [1, 2, 255, 256, KeyEpoch::MAX.get()] {
                    ids.push(RecordId::RoomKey(room(name), KeyEpoch::new(epoch).unwrap(), endpoint));
                }
            }
        }
        let mut by_bytes = ids.clone();
        by_bytes.sort_by_key(|id| (id.kind().number(), id.identity()));
        ids.sort();
        assert_eq!(ids, by_bytes);
    }

    #[test]
    fn identities_parse_to_the_same_id_and_nothing_longer_or_shorter_does() {
        let endpoint = Endpoint::from_bytes([7; 32]);
        let ids = [
            RecordId::User(SignPub::from_bytes([9; 32]).unwrap()),
            RecordId::Room(room("ops")),
            RecordId::Member(room("ops"), endpoint),
            RecordId::RoomKey(room("ops"), KeyEpoch::FIRST, endpoint),
            RecordId::Blob(BlobHash::from_bytes([0; 32])),
        ];
        for id in ids {
            let bytes = id.identity();
            assert_eq!(RecordId::parse(id.kind(), &bytes), Ok(id.clone()));
            for cut in 0..bytes.len() {
                let parsed = RecordId::parse(id.kind(), &bytes[..cut]);
                // A shorter room id is another room id; every other cut is nothing.
                assert!(parsed.is_err() || (id.kind() == Kind::Room && cut > 0), "{id:?} cut at {cut}");
            }
            assert!(RecordId::parse(id.kind(), &[&bytes[..], &[0]].concat()).is_err());
        }
    }
}
