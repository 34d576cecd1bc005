//! Members of rooms.

use std::fmt;

use super::{
    DecodeError, Endpoint, FieldError, KexPub, Kind, Record, RecordBody, RecordBytes, RecordId, RoomId,
    SignPub, Timestamp,
    cbor::{self, BodyReader, Unknown},
    redact,
};

/// What a member may do in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MemberRole {
    /// Reads and writes.
    Member,
    /// Also invites, removes and rekeys.
    Owner,
}

impl MemberRole {
    const ALL: [Self; 2] = [Self::Member, Self::Owner];

    /// `member` or `owner`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Owner => "owner",
        }
    }

    /// The role of that name, in lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// One endpoint's membership in one room.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The room; first part of the record's identity.
    pub room_id: RoomId,
    endpoint: Endpoint,
    /// What the member may do.
    pub role: MemberRole,
    sign_pub: SignPub,
    /// The key to which the member's room keys are sealed; can be absent in a room without encryption.
    pub kex_pub: Option<KexPub>,
    /// When the membership began.
    pub joined_at: Timestamp,
    unknown: Unknown,
}

impl Member {
    /// A membership of the endpoint of `sign_pub`.
    #[must_use]
    pub fn new(
        room_id: RoomId,
        sign_pub: SignPub,
        kex_pub: Option<KexPub>,
        role: MemberRole,
        joined_at: Timestamp,
    ) -> Self {
        let endpoint = Endpoint::of(&sign_pub);
        Self { room_id, endpoint, role, sign_pub, kex_pub, joined_at, unknown: Unknown::default() }
    }

    /// The same member, if `endpoint`, as someone wrote it down, is that of the signing key.
    ///
    /// # Errors
    /// [`FieldError::EndpointMismatch`].
    pub fn expect_endpoint(self, endpoint: &Endpoint) -> Result<Self, FieldError> {
        if self.endpoint == *endpoint { Ok(self) } else { Err(FieldError::EndpointMismatch) }
    }

    /// The endpoint; second part of the record's identity. Always the hash of the signing key.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The member's signing key.
    #[must_use]
    pub const fn sign_pub(&self) -> &SignPub {
        &self.sign_pub
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> RecordBytes {
        RecordBytes::of(self)
    }
}

impl RecordBody for Member {
    const KIND: Kind = Kind::Member;

    fn id(&self) -> RecordId {
        RecordId::Member(self.room_id.clone(), self.endpoint)
    }

    fn body_max_bytes(&self) -> usize {
        self.unknown.len_bytes().saturating_add(128)
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        let known = if self.kex_pub.is_some() { 4 } else { 3 };
        cbor::write_body(out, known, &self.unknown, |fields| {
            fields.u8(0)?.u8(u8::from(self.role == MemberRole::Owner))?;
            fields.u8(1)?.bytes(self.sign_pub.as_bytes())?;
            if let Some(key) = &self.kex_pub {
                fields.u8(2)?.bytes(key.as_bytes())?;
            }
            fields.u8(3)?.i64(self.joined_at.micros())?.ok()
        });
    }

    fn read_body(id: RecordId, body: &[u8]) -> Result<Self, DecodeError> {
        let RecordId::Member(room_id, endpoint) = id else {
            return Err(DecodeError::Identity { kind: Self::KIND });
        };
        let reader = BodyReader::new(Self::KIND, body, 4)?;
        let role = reader.field(0, "role", |d| cbor::choice(d, "role", &MemberRole::ALL))?;
        let sign_pub = reader.field(1, "sign_pub", |d| {
            let key = SignPub::from_bytes(cbor::array(d)?)?;
            if Endpoint::of(&key) == endpoint { Ok(key) } else { Err(FieldError::EndpointMismatch.into()) }
        })?;
        let kex_pub = reader.optional(2, "kex_pub", |d| Ok(KexPub::from_bytes(cbor::array(d)?)?))?;
        let joined_at = reader.field(3, "joined_at", |d| Ok(Timestamp::from_micros(d.i64()?)?))?;
        Ok(Self { room_id, endpoint, role, sign_pub, kex_pub, joined_at, unknown: reader.into_unknown() })
    }
}

impl From<Member> for Record {
    fn from(member: Member) -> Self {
        Self::Member(member)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact::marker(f, "Member", self.endpoint.as_bytes())
    }
}
