//! Creating rooms.

use super::{Actor, Change, View, create, in_order, put, users::active_user};
use crate::{
    error::StoreError,
    record::{KeyEpoch, Member, MemberRole, Record, Room, RoomKey, SealedKey},
};

/// Creates a room with its owner and, if the room is encrypted, the owner's sealed key: all or nothing.
/// Asked by the operator, or by the active user that becomes the owner.
///
/// # Errors
/// [`StoreError::NotAuthorized`]; [`StoreError::Invalid`] if room, member and key do not belong together;
/// [`StoreError::AlreadyExists`].
pub fn create_room(
    view: &dyn View,
    actor: &Actor,
    room: &Room,
    owner: &Member,
    key: Option<&SealedKey>,
) -> Result<Vec<Change>, StoreError> {
    if let Actor::Signer(signer) = actor {
        active_user(view, signer)?;
        if signer != owner.sign_pub() {
            return Err(StoreError::NotAuthorized);
        }
    }
    if owner.room_id != room.room_id || owner.endpoint() != room.owner || owner.role != MemberRole::Owner {
        return Err(StoreError::Invalid { what: "a room comes with its owner" });
    }
    if room.key_epoch != KeyEpoch::FIRST {
        return Err(StoreError::Invalid { what: "a new room is at key epoch 1" });
    }
    let mut changes =
        vec![create(view, &Record::Room(room.clone()))?, put(view, &Record::Member(owner.clone()))?];
    if let Some(key) = key_for(room, owner, key)? {
        changes.push(put(view, &Record::RoomKey(key))?);
    }
    Ok(in_order(changes))
}

/// The new member's key for the room's current epoch: mandatory in an encrypted room, out of place in any other.
pub(super) fn key_for(
    room: &Room,
    member: &Member,
    key: Option<&SealedKey>,
) -> Result<Option<RoomKey>, StoreError> {
    if room.policy.encrypt && member.kex_pub.is_none() {
        return Err(StoreError::Invalid { what: "a member of an encrypted room has a `kex_pub`" });
    }
    match (room.policy.encrypt, key) {
        (true, Some(sealed)) => {
            let (room_id, endpoint) = (room.room_id.clone(), member.endpoint());
            Ok(Some(RoomKey::new(room_id, room.key_epoch, endpoint, sealed.clone())))
        }
        (false, None) => Ok(None),
        (true, None) => {
            Err(StoreError::Invalid { what: "an encrypted room needs a sealed key for each member" })
        }
        (false, Some(_)) => Err(StoreError::Invalid { what: "a room without encryption has no sealed keys" }),
    }
}
