//! Users.

use std::fmt;

use super::{
    DecodeError, HANDLE_MAX_BYTES, Handle, Kind, Record, RecordBody, RecordBytes, RecordId, SignPub,
    Timestamp,
    cbor::{self, BodyReader, Unknown},
    redact,
};

/// What a user may do beyond using the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum UserRole {
    /// Uses the bus.
    Member,
    /// Also adds and revokes users.
    Admin,
}

impl UserRole {
    const ALL: [Self; 2] = [Self::Member, Self::Admin];

    /// `member` or `admin`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }

    /// The role of that name, in lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// Whether a user is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UserStatus {
    /// Let in.
    Active,
    /// Never let in again. The record stays.
    Revoked {
        /// Since when; unknown for some users of earlier deployments.
        at: Option<Timestamp>,
    },
}

impl UserStatus {
    /// `active` or `revoked`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked { .. } => "revoked",
        }
    }
}

/// A user of the bus: one signing key with a name and a role.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The signing key; the record's identity.
    pub sign_pub: SignPub,
    /// The name for people. Not unique.
    pub handle: Handle,
    /// What the user may do.
    pub role: UserRole,
    /// Whether the user is let in.
    pub status: UserStatus,
    /// When the user was added.
    pub created_at: Timestamp,
    unknown: Unknown,
}

impl User {
    /// An active user.
    #[must_use]
    pub fn new(sign_pub: SignPub, handle: Handle, role: UserRole, created_at: Timestamp) -> Self {
        let status = UserStatus::Active;
        Self { sign_pub, handle, role, status, created_at, unknown: Unknown::default() }
    }

    /// Whether the user is let in.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.status == UserStatus::Active
    }

    /// Whether the user is let in and may add and revoke users.
    #[must_use]
    pub fn is_active_admin(&self) -> bool {
        self.is_active() && self.role == UserRole::Admin
    }
}

impl RecordBody for User {
    const KIND: Kind = Kind::User;

    fn id(&self) -> RecordId {
        RecordId::User(self.sign_pub)
    }

    fn body_max_bytes(&self) -> usize {
        self.unknown.len_bytes().saturating_add(HANDLE_MAX_BYTES + 64)
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        let (status, revoked_at) = match self.status {
            UserStatus::Active => (0, None),
            UserStatus::Revoked { at } => (1, at),
        };
        let known = if revoked_at.is_some() { 5 } else { 4 };
        cbor::write_body(out, known, &self.unknown, |fields| {
            fields.u8(0)?.str(self.handle.as_str())?;
            fields.u8(1)?.u8(u8::from(self.role == UserRole::Admin))?;
            fields.u8(2)?.u8(status)?;
            fields.u8(3)?.i64(self.created_at.micros())?;
            if let Some(at) = revoked_at {
                fields.u8(4)?.i64(at.micros())?;
            }
            Ok(())
        });
    }

    fn read_body(id: RecordId, body: &[u8]) -> Result<Self, DecodeError> {
        let RecordId::User(sign_pub) = id else {
            return Err(DecodeError::Identity { kind: Self::KIND });
        };
        let reader = BodyReader::new(Self::KIND, body, 5)?;
        let handle = reader.field(0, "handle", |d| Ok(Handle::parse(d.str()?)?))?;
        let role = reader.field(1, "role", |d| cbor::choice(d, "role", &UserRole::ALL))?;
        let revoked = reader.field(2, "status", |d| cbor::choice(d, "status", &[false, true]))?;
        let created_at = reader.field(3, "created_at", |d| Ok(Timestamp::from_micros(d.i64()?)?))?;
        let at = reader.optional(4, "revoked_at", |d| Ok(Timestamp::from_micros(d.i64()?)?))?;
        let status = match (revoked, at) {
            (true, at) => UserStatus::Revoked { at },
            (false, None) => UserStatus::Active,
            // An active user with a time of revocation is either a bug or a forgery: not to be let in.
            (false, Some(_)) => {
                return Err(DecodeError::Field { kind: Self::KIND, field: "revoked_at", source: None });
            }
        };
        Ok(Self { sign_pub, handle, role, status, created_at, unknown: reader.into_unknown() })
    }
}

impl From<User> for Record {
    fn from(user: User) -> Self {
        Self::User(user)
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact::marker(f, "User", self.sign_pub.as_bytes())
    }
}

impl User {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> RecordBytes {
        RecordBytes::of(self)
    }
}
