//! Paths of the HTTP API, and the limits that every caller should know.

/// Posture of the node; the one path that never needs a signature.
pub const HEALTHZ: &str = "/healthz";
/// Users: list and add.
pub const USERS: &str = "/users";
/// Rooms: list and create.
pub const ROOMS: &str = "/rooms";
/// Blobs: store one.
pub const BLOBS: &str = "/blobs";

/// Bytes of a JSON request body at most.
pub const MAX_JSON_BYTES: usize = 1024 * 1024;
/// Bytes of a blob at most.
pub const MAX_BLOB_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of all request headers together at most.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Builds the path that revokes a user.
#[must_use]
pub fn revoke_user(sign_pub: &str) -> String {
    format!("{USERS}/{sign_pub}/revoke")
}

/// Builds the path of a room.
#[must_use]
pub fn room(room_id: &str) -> String {
    format!("{ROOMS}/{room_id}")
}

/// Builds the path of a room's members.
#[must_use]
pub fn members(room_id: &str) -> String {
    format!("{ROOMS}/{room_id}/members")
}

/// Builds the path of one member of a room.
#[must_use]
pub fn member(room_id: &str, endpoint: &str) -> String {
    format!("{ROOMS}/{room_id}/members/{endpoint}")
}

/// Builds the path that invites a member.
#[must_use]
pub fn invite(room_id: &str) -> String {
    format!("{ROOMS}/{room_id}/invite")
}

/// Builds the path that gives a room its next key.
#[must_use]
pub fn rekey(room_id: &str) -> String {
    format!("{ROOMS}/{room_id}/rekey")
}

/// Builds the path of the caller's own sealed room key.
#[must_use]
pub fn room_key(room_id: &str) -> String {
    format!("{ROOMS}/{room_id}/key")
}

/// Builds the path of a blob.
#[must_use]
pub fn blob(sha256: &str) -> String {
    format!("{BLOBS}/{sha256}")
}
