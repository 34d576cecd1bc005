//! The reading operations.

use std::ops::ControlFlow;

use super::{Scan, View, decode, load};
use crate::{
    error::StoreError,
    record::{
        Blob, BlobHash, Channel, Endpoint, KeyEpoch, Kind, Member, Record, RecordId, Room, RoomId, RoomKey,
        SignPub, User,
    },
    store::Membership,
};

/// Takes one kind out of a record. Another kind cannot come: the identity was compared, and it has the kind.
macro_rules! only {
    ($kind:ident, $record:expr) => {
        match $record {
            Record::$kind(record) => Ok(record),
            other => Err(StoreError::Tampered {
                what: format!("a {} stands in another's place", other.id().kind()),
            }),
        }
    };
}

/// The user of that key, revoked or not.
///
/// # Errors
/// What keeps the view from reading.
pub fn user(view: &dyn View, key: &SignPub) -> Result<Option<User>, StoreError> {
    load(view, &RecordId::User(*key))?.map(|record| only!(User, record)).transpose()
}

/// All users, revoked ones included, in canonical order.
///
/// # Errors
/// What keeps the view from reading.
pub fn users(view: &dyn View) -> Result<Vec<User>, StoreError> {
    let mut users = Vec::new();
    view.scan(Scan::Kind(Kind::User), &mut |id, bytes| {
        users.push(only!(User, decode(id, bytes)?)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(users)
}

/// Whether the key is that of an active user. Whatever goes wrong means no.
pub fn is_authorized(view: &dyn View, key: &SignPub) -> bool {
    let decoded = || user(view, key).is_ok_and(|user| user.is_some_and(|user| user.is_active()));
    view.is_active_user(key).unwrap_or_else(decoded)
}

/// The room of that id.
///
/// # Errors
/// What keeps the view from reading.
pub fn room(view: &dyn View, id: &RoomId) -> Result<Option<Room>, StoreError> {
    load(view, &RecordId::Room(id.clone()))?.map(|record| only!(Room, record)).transpose()
}

/// The membership of one endpoint in one room.
///
/// # Errors
/// What keeps the view from reading.
pub fn member(view: &dyn View, room: &RoomId, endpoint: &Endpoint) -> Result<Option<Member>, StoreError> {
    let id = RecordId::Member(room.clone(), *endpoint);
    load(view, &id)?.map(|record| only!(Member, record)).transpose()
}

/// The members of a room in canonical order; none if there is no such room.
///
/// # Errors
/// What keeps the view from reading.
pub fn members(view: &dyn View, room: &RoomId) -> Result<Vec<Member>, StoreError> {
    collect_members(view, Scan::MembersOf(room))
}

fn collect_members(view: &dyn View, scan: Scan<'_>) -> Result<Vec<Member>, StoreError> {
    let mut members = Vec::new();
    view.scan(scan, &mut |id, bytes| {
        members.push(only!(Member, decode(id, bytes)?)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(members)
}

/// The rooms of an endpoint with its part in each, in canonical order.
///
/// # Errors
/// What keeps the view from reading; [`StoreError::Tampered`] for a membership without its room.
pub fn rooms_of(view: &dyn View, endpoint: &Endpoint) -> Result<Vec<Membership>, StoreError> {
    let members = collect_members(view, Scan::MembershipsOf(endpoint))?;
    let with_room = members.into_iter().map(|member| {
        let room = room(view, &member.room_id)?
            .ok_or_else(|| StoreError::Tampered { what: "a member's room is not there".to_owned() })?;
        Ok(Membership { room, member })
    });
    with_room.collect()
}

/// The channels that an endpoint may use: those of its rooms while its user is active, else none.
///
/// # Errors
/// As [`rooms_of`].
pub fn channels_of(view: &dyn View, endpoint: &Endpoint) -> Result<Vec<Channel>, StoreError> {
    let mut memberships = rooms_of(view, endpoint)?;
    memberships.retain(|membership| is_authorized(view, membership.member.sign_pub()));
    Ok(memberships.into_iter().map(|membership| membership.room.channel).collect())
}

/// A member's sealed room key: of the given epoch, or of the room's current one.
///
/// # Errors
/// What keeps the view from reading.
pub fn room_key(
    view: &dyn View,
    room_id: &RoomId,
    endpoint: &Endpoint,
    epoch: Option<KeyEpoch>,
) -> Result<Option<RoomKey>, StoreError> {
    let epoch = match epoch {
        Some(epoch) => epoch,
        None => match room(view, room_id)? {
            Some(room) => room.key_epoch,
            None => return Ok(None),
        },
    };
    let id = RecordId::RoomKey(room_id.clone(), epoch, *endpoint);
    load(view, &id)?.map(|record| only!(RoomKey, record)).transpose()
}

/// The blob of that content.
///
/// # Errors
/// What keeps the view from reading.
pub fn blob(view: &dyn View, hash: &BlobHash) -> Result<Option<Blob>, StoreError> {
    load(view, &RecordId::Blob(*hash))?.map(|record| only!(Blob, record)).transpose()
}
