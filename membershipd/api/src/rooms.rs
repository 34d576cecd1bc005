//! Rooms, their members and their sealed keys.

use serde::{Deserialize, Serialize};

/// What a room promises its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomPolicy {
    /// Messages are end-to-end encrypted.
    pub encrypt: bool,
    /// Messages are kept for members that were away.
    pub persist: bool,
    /// Messages are signed by their sender.
    pub sign_msgs: bool,
}

/// What a member may do in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RoomRole {
    /// Invites, removes and rekeys.
    Owner,
    /// Reads and writes messages.
    Member,
}

/// Body of `POST /rooms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRoom {
    /// Name for people: a NATS subject without wildcards.
    pub subject: String,
    /// What the room promises.
    pub policy: RoomPolicy,
    /// X25519 public key of the owner, 64 hex digits. Without it, room keys of an encrypted room are sealed to the X25519
    /// form of the owner's signing key (RFC 7748, section 4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kex_pub: Option<String>,
    /// First room key, sealed to the owner; base64 with padding, or base64url without. Needed in an encrypted room, refused in another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_key: Option<String>,
}

/// Answer to a created room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomCreated {
    /// The new room.
    pub room_id: String,
}

/// One of the caller's rooms, as `GET /rooms` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomSummary {
    /// The room.
    pub room_id: String,
    /// Name for people.
    pub subject: String,
    /// What the room promises.
    pub policy: RoomPolicy,
    /// The caller's role in it.
    pub role: RoomRole,
}

/// A room with its wire channel, as `GET /rooms/{id}` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// The room.
    pub room_id: String,
    /// Name for people.
    pub subject: String,
    /// Random name of the room on NATS: messages go to `room.<channel>`.
    pub channel: String,
    /// What the room promises.
    pub policy: RoomPolicy,
    /// Endpoint of the owner.
    pub owner: String,
    /// Number of the current room key.
    pub key_epoch: u64,
    /// When it was created, RFC 3339 UTC.
    pub created_at: String,
}

/// A member of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Endpoint: base64url without padding of SHA-256 of the signing key.
    pub endpoint: String,
    /// Role in this room.
    pub role: RoomRole,
    /// Ed25519 public key, 64 lower-case hex digits.
    pub sign_pub: String,
    /// X25519 public key, 64 lower-case hex digits; can be absent in a room without encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kex_pub: Option<String>,
    /// When it joined, RFC 3339 UTC.
    pub joined_at: String,
}

/// Body of `POST /rooms/{id}/invite`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// Endpoint of the new member; must be the one that belongs to `sign_pub`.
    pub endpoint: String,
    /// Ed25519 public key, 64 hex digits.
    pub sign_pub: String,
    /// X25519 public key, 64 hex digits.
    pub kex_pub: String,
    /// Role in this room.
    pub role: RoomRole,
    /// Current room key, sealed to the new member; base64 with padding, or base64url without. Needed in an encrypted room, refused in another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_key: Option<String>,
    /// Number of the room key that was sealed; the current one if absent. With it, an invitation that crosses a rekey is
    /// refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<u64>,
}

/// Body of `POST /rooms/{id}/rekey`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rekey {
    /// Number of the new room key: the current one plus 1.
    pub key_epoch: u64,
    /// The new key sealed to each member, to exactly the members.
    pub keys: Vec<SealedFor>,
}

/// A room key sealed for one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedFor {
    /// Endpoint of the member.
    pub endpoint: String,
    /// The sealed key; base64 with padding, or base64url without.
    pub sealed: String,
}

/// Answer to a rekey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rekeyed {
    /// Number of the room key that is now current.
    pub key_epoch: u64,
}

/// The caller's own sealed room key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomKey {
    /// Number of the room key.
    pub key_epoch: u64,
    /// The sealed key; base64 with padding.
    pub sealed: String,
}
