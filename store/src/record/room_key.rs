//! Room keys, each sealed to one member.

use std::fmt;

use super::{
    DecodeError, Endpoint, KeyEpoch, Kind, Record, RecordBody, RecordBytes, RecordId, RoomId, SealedKey,
    cbor::{self, BodyReader, Unknown},
    redact,
};

/// One room key, sealed to one member.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomKey {
    /// The room; first part of the record's identity.
    pub room_id: RoomId,
    /// Which of the room's keys; second part of the record's identity.
    pub epoch: KeyEpoch,
    /// The member; third part of the record's identity.
    pub endpoint: Endpoint,
    /// The sealed key.
    pub sealed: SealedKey,
    unknown: Unknown,
}

impl RoomKey {
    /// The room key of one member.
    #[must_use]
    pub fn new(room_id: RoomId, epoch: KeyEpoch, endpoint: Endpoint, sealed: SealedKey) -> Self {
        Self { room_id, epoch, endpoint, sealed, unknown: Unknown::default() }
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> RecordBytes {
        RecordBytes::of(self)
    }
}

impl RecordBody for RoomKey {
    const KIND: Kind = Kind::RoomKey;

    fn id(&self) -> RecordId {
        RecordId::RoomKey(self.room_id.clone(), self.epoch, self.endpoint)
    }

    fn body_max_bytes(&self) -> usize {
        self.sealed.as_bytes().len().saturating_add(self.unknown.len_bytes()).saturating_add(64)
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        cbor::write_body(out, 1, &self.unknown, |fields| fields.u8(0)?.bytes(self.sealed.as_bytes())?.ok());
    }

    fn read_body(id: RecordId, body: &[u8]) -> Result<Self, DecodeError> {
        let RecordId::RoomKey(room_id, epoch, endpoint) = id else {
            return Err(DecodeError::Identity { kind: Self::KIND });
        };
        let reader = BodyReader::new(Self::KIND, body, 1)?;
        let sealed = reader.field(0, "sealed", |d| Ok(SealedKey::from_bytes(d.bytes()?)?))?;
        Ok(Self { room_id, epoch, endpoint, sealed, unknown: reader.into_unknown() })
    }
}

impl From<RoomKey> for Record {
    fn from(key: RoomKey) -> Self {
        Self::RoomKey(key)
    }
}

impl fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact::marker(f, "RoomKey", self.sealed.as_bytes())
    }
}
