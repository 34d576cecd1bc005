//! Rooms.

use std::fmt;

use super::{
    Channel, DecodeError, Endpoint, FieldError, Kind, Record, RecordBody, RecordBytes, RecordId, RoomId,
    SUBJECT_MAX_BYTES, Subject, TOKEN_MAX_BYTES, Timestamp,
    cbor::{self, BodyReader, Unknown},
    redact,
};

/// The number of a room key: 1 for a room's first, one more after each rekey.
///
/// Not to be confused with the epoch of a data key (`unibus_keyfile`), which seals this side's records: room
/// keys belong to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyEpoch(u64);

impl KeyEpoch {
    /// The number of a room's first key.
    pub const FIRST: Self = Self(1);
    /// The greatest number, so that it fits SQLite's integers.
    pub const MAX: Self = Self(9_223_372_036_854_775_807);

    /// Takes a number from 1 to [`KeyEpoch::MAX`].
    ///
    /// # Errors
    /// [`FieldError::OutOfRange`].
    pub fn new(number: u64) -> Result<Self, FieldError> {
        if (Self::FIRST.0..=Self::MAX.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(FieldError::OutOfRange { field: "key_epoch" })
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number after this one; none after [`KeyEpoch::MAX`].
    #[must_use]
    pub fn next(self) -> Option<Self> {
        Self::new(self.0.saturating_add(1)).ok()
    }
}

impl fmt::Display for KeyEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How a room's messages are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Messages are encrypted end to end under the room key.
    pub encrypt: bool,
    /// Messages are kept in a stream.
    pub persist: bool,
    /// Each message is signed by its sender.
    pub sign_msgs: bool,
}

impl Policy {
    fn to_bits(self) -> u8 {
        u8::from(self.encrypt) | u8::from(self.persist) << 1 | u8::from(self.sign_msgs) << 2
    }

    fn from_bits(bits: u8) -> Result<Self, FieldError> {
        if bits > 7 {
            return Err(FieldError::OutOfRange { field: "policy" });
        }
        Ok(Self { encrypt: bits & 1 != 0, persist: bits & 2 != 0, sign_msgs: bits & 4 != 0 })
    }
}

/// A room.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Room {
    /// The record's identity.
    pub room_id: RoomId,
    /// The name for people; never reaches NATS.
    pub subject: Subject,
    /// The name on the wire.
    pub channel: Channel,
    /// How messages are treated.
    pub policy: Policy,
    /// The endpoint of a member with the role owner.
    pub owner: Endpoint,
    /// The number of the current room key. Stays at 1 in a room without encryption.
    pub key_epoch: KeyEpoch,
    /// When the room was created.
    pub created_at: Timestamp,
    unknown: Unknown,
}

impl Room {
    /// A room with its first key epoch.
    #[must_use]
    pub fn new(
        room_id: RoomId,
        (subject, channel): (Subject, Channel),
        policy: Policy,
        owner: Endpoint,
        created_at: Timestamp,
    ) -> Self {
        let (key_epoch, unknown) = (KeyEpoch::FIRST, Unknown::default());
        Self { room_id, subject, channel, policy, owner, key_epoch, created_at, unknown }
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> RecordBytes {
        RecordBytes::of(self)
    }
}

impl RecordBody for Room {
    const KIND: Kind = Kind::Room;

    fn id(&self) -> RecordId {
        RecordId::Room(self.room_id.clone())
    }

    fn body_max_bytes(&self) -> usize {
        self.unknown.len_bytes().saturating_add(SUBJECT_MAX_BYTES + TOKEN_MAX_BYTES + 96)
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        cbor::write_body(out, 6, &self.unknown, |fields| {
            fields.u8(0)?.str(self.subject.as_str())?;
            fields.u8(1)?.str(self.channel.as_str())?;
            fields.u8(2)?.u8(self.policy.to_bits())?;
            fields.u8(3)?.bytes(self.owner.as_bytes())?;
            fields.u8(4)?.u64(self.key_epoch.get())?;
            fields.u8(5)?.i64(self.created_at.micros())?.ok()
        });
    }

    fn read_body(id: RecordId, body: &[u8]) -> Result<Self, DecodeError> {
        let RecordId::Room(room_id) = id else {
            return Err(DecodeError::Identity { kind: Self::KIND });
        };
        let reader = BodyReader::new(Self::KIND, body, 6)?;
        Ok(Self {
            room_id,
            subject: reader.field(0, "subject", |d| Ok(Subject::parse(d.str()?)?))?,
            channel: reader.field(1, "channel", |d| Ok(Channel::parse(d.str()?)?))?,
            policy: reader.field(2, "policy", |d| Ok(Policy::from_bits(d.u8()?)?))?,
            owner: Endpoint::from_bytes(reader.field(3, "owner", cbor::array)?),
            key_epoch: reader.field(4, "key_epoch", |d| Ok(KeyEpoch::new(d.u64()?)?))?,
            created_at: reader.field(5, "created_at", |d| Ok(Timestamp::from_micros(d.i64()?)?))?,
            unknown: reader.into_unknown(),
        })
    }
}

impl From<Room> for Record {
    fn from(room: Room) -> Self {
        Self::Room(room)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact::marker(f, "Room", self.room_id.as_str().as_bytes())
    }
}
