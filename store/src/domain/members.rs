//! Inviting, removing, rekeying.

use std::{collections::BTreeSet, ops::ControlFlow};

use super::{Actor, Change, Scan, View, delete, in_order, put, read, rooms::key_for, users::active_user};
use crate::{
    error::StoreError,
    record::{
        Endpoint, KeyEpoch, Kind, Member, MemberRole, Record, RecordId, Room, RoomId, RoomKey, SealedKey,
    },
};

/// The room, if the actor may change it. A signer that may not learns nothing: a room that is not there and one
/// that it does not own answer alike.
fn owned_room(view: &dyn View, actor: &Actor, id: &RoomId) -> Result<Room, StoreError> {
    if let Actor::Signer(signer) = actor {
        active_user(view, signer)?;
        let member = read::member(view, id, &Endpoint::of(signer))?;
        if member.is_none_or(|member| member.role != MemberRole::Owner) {
            return Err(StoreError::NotAuthorized);
        }
    }
    read::room(view, id)?.ok_or(StoreError::NotFound { kind: Kind::Room })
}

/// Adds a member with its sealed key for the room's current epoch. Asked by the operator or an owner.
///
/// `key` names the epoch that the key was sealed for: an invitation that crosses a rekey is refused, and does
/// not leave a member with a key that opens nothing.
///
/// # Errors
/// [`StoreError::NotAuthorized`]; [`StoreError::NotFound`] (operator only); [`StoreError::AlreadyMember`];
/// [`StoreError::Conflict`] for a key of another epoch; [`StoreError::Invalid`] for a key missing or out of
/// place, and for a revoked user.
pub fn invite(
    view: &dyn View,
    actor: &Actor,
    member: &Member,
    key: Option<&(KeyEpoch, SealedKey)>,
) -> Result<Vec<Change>, StoreError> {
    let room = owned_room(view, actor, &member.room_id)?;
    if read::member(view, &member.room_id, &member.endpoint())?.is_some() {
        return Err(StoreError::AlreadyMember);
    }
    if read::user(view, member.sign_pub())?.is_some_and(|user| !user.is_active()) {
        return Err(StoreError::Invalid { what: "the user is revoked" });
    }
    let sealed = match key {
        Some((given, _)) if room.policy.encrypt && *given != room.key_epoch => {
            return Err(StoreError::Conflict { current: room.key_epoch, given: *given });
        }
        other => other.map(|(_, sealed)| sealed),
    };
    let mut changes = vec![put(view, &Record::Member(member.clone()))?];
    if let Some(key) = key_for(&room, member, sealed)? {
        changes.push(put(view, &Record::RoomKey(key))?);
    }
    Ok(in_order(changes))
}

/// Removes a member and all its sealed keys. Asked by the operator, an owner, or the member itself.
///
/// A room keeps an owner while it has members: the last owner can leave as the last member only, and then the
/// room closes, i.e. its record goes too. If the owner that the room's record names leaves, the record names
/// the first of the others in canonical order.
///
/// # Errors
/// [`StoreError::NotAuthorized`]; [`StoreError::NotFound`]; [`StoreError::LastOwner`].
pub fn remove_member(
    view: &dyn View,
    actor: &Actor,
    room_id: &RoomId,
    endpoint: &Endpoint,
) -> Result<Vec<Change>, StoreError> {
    let mut room = match actor {
        Actor::Signer(signer) if Endpoint::of(signer) == *endpoint => {
            active_user(view, signer)?;
            read::member(view, room_id, endpoint)?.ok_or(StoreError::NotAuthorized)?;
            read::room(view, room_id)?.ok_or(StoreError::NotAuthorized)?
        }
        _ => owned_room(view, actor, room_id)?,
    };
    let leaving = RecordId::Member(room_id.clone(), *endpoint);
    let before = view.record(&leaving)?.ok_or(StoreError::NotFound { kind: Kind::Member })?;
    let mut changes = vec![delete(leaving, before)];
    view.scan(Scan::RoomKeysOf(room_id, endpoint), &mut |id, bytes| {
        changes.push(delete(id.clone(), bytes.clone()));
        Ok(ControlFlow::Continue(()))
    })?;
    let others = read::members(view, room_id)?.into_iter().filter(|member| member.endpoint() != *endpoint);
    let others: Vec<Member> = others.collect();
    let next_owner = others.iter().find(|member| member.role == MemberRole::Owner);
    match next_owner {
        None if others.is_empty() => {
            let id = RecordId::Room(room_id.clone());
            if let Some(before) = view.record(&id)? {
                changes.push(delete(id, before));
            }
        }
        None => return Err(StoreError::LastOwner),
        Some(owner) if room.owner == *endpoint => {
            room.owner = owner.endpoint();
            changes.push(put(view, &Record::Room(room))?);
        }
        Some(_) => {}
    }
    Ok(in_order(changes))
}

/// Makes the next room key current, with one sealed key for each member and no other: all or nothing. The keys
/// of earlier epochs stay. Asked by the operator or an owner.
///
/// # Errors
/// [`StoreError::NotAuthorized`]; [`StoreError::NotFound`] (operator only); [`StoreError::Conflict`] if `epoch`
/// is not the current one plus 1; [`StoreError::NotExactlyMembers`]; [`StoreError::Invalid`] for a room
/// without encryption.
pub fn rekey(
    view: &dyn View,
    actor: &Actor,
    room_id: &RoomId,
    epoch: KeyEpoch,
    keys: &[(Endpoint, SealedKey)],
) -> Result<Vec<Change>, StoreError> {
    let mut room = owned_room(view, actor, room_id)?;
    if !room.policy.encrypt {
        return Err(StoreError::Invalid { what: "a room without encryption has no sealed keys" });
    }
    if room.key_epoch.next() != Some(epoch) {
        return Err(StoreError::Conflict { current: room.key_epoch, given: epoch });
    }
    let members: BTreeSet<Endpoint> = read::members(view, room_id)?.iter().map(Member::endpoint).collect();
    let covered = keys.iter().map(|(endpoint, _)| *endpoint).filter(|endpoint| members.contains(endpoint));
    let covered = covered.collect::<BTreeSet<_>>().len();
    if covered != members.len() || covered != keys.len() {
        let missing = members.len().saturating_sub(covered);
        return Err(StoreError::NotExactlyMembers { missing, surplus: keys.len().saturating_sub(covered) });
    }
    room.key_epoch = epoch;
    let mut changes = vec![put(view, &Record::Room(room))?];
    for (endpoint, sealed) in keys {
        let key = RoomKey::new(room_id.clone(), epoch, *endpoint, sealed.clone());
        changes.push(put(view, &Record::RoomKey(key))?);
    }
    Ok(in_order(changes))
}
