//! Users: who may sign requests.

use serde::{Deserialize, Serialize};

/// What a user may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum UserRole {
    /// Manages users.
    Admin,
    /// Uses rooms and blobs.
    #[default]
    Member,
}

/// Whether a user's key is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum UserStatus {
    /// The key is accepted.
    Active,
    /// The key is refused for ever.
    Revoked,
}

/// Body of `POST /users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddUser {
    /// Ed25519 public key, 64 hex digits.
    pub sign_pub: String,
    /// Name for people, 1 to 128 bytes.
    pub handle: String,
    /// Role; a member if absent.
    #[serde(default)]
    pub role: UserRole,
}

/// A user, as listed and as answered to an addition or a revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Ed25519 public key, 64 lower-case hex digits.
    pub sign_pub: String,
    /// Name for people.
    pub handle: String,
    /// Role.
    pub role: UserRole,
    /// Status.
    pub status: UserStatus,
    /// When it was added, RFC 3339 UTC.
    pub created_at: String,
    /// When it was revoked, RFC 3339 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}
