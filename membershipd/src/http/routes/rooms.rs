use std::sync::Arc;

use axum::{Json as JsonBody, extract::State};
use http::StatusCode;
use unibus_keyfile::suite;
use unibus_membership_api::{
    ProblemCode,
    rooms::{CreateRoom, Room as RoomBody, RoomCreated, RoomPolicy, RoomRole, RoomSummary},
};
use unibus_store::{
    record::{Channel, Endpoint, FieldError, KexPub, Member, MemberRole, Policy, Room, RoomId, Subject},
    store::Strength,
};

use super::{
    super::{
        error::ApiError,
        extract::{Caller, Json, Param},
        router::App,
    },
    parse, sealed,
};
use crate::guards::ClearRooms;

pub(super) fn role_body(role: MemberRole) -> RoomRole {
    if role == MemberRole::Owner { RoomRole::Owner } else { RoomRole::Member }
}

fn policy_body(policy: Policy) -> RoomPolicy {
    RoomPolicy { encrypt: policy.encrypt, persist: policy.persist, sign_msgs: policy.sign_msgs }
}

/// The room, if the caller is a member of it. Who is not learns nothing, not even whether there is such a room.
pub(super) async fn room_of_member(app: &App, caller: Caller, id: &RoomId) -> Result<Room, ApiError> {
    let endpoint = Endpoint::of(&caller.key()?);
    let denied = || ApiError::new(ProblemCode::NotMember);
    app.store.member(id.clone(), endpoint, Strength::Local).await?.ok_or_else(denied)?;
    app.store.room(id.clone(), Strength::Local).await?.ok_or_else(denied)
}

pub(in crate::http) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<JsonBody<Vec<RoomSummary>>, ApiError> {
    let endpoint = Endpoint::of(&caller.key()?);
    let rooms = app.store.rooms_of(endpoint, Strength::Local).await?;
    let rooms = rooms.into_iter().map(|membership| RoomSummary {
        room_id: membership.room.room_id.as_str().to_owned(),
        subject: membership.room.subject.as_str().to_owned(),
        policy: policy_body(membership.room.policy),
        role: role_body(membership.member.role),
    });
    Ok(JsonBody(rooms.collect()))
}

pub(in crate::http) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(body): Json<CreateRoom>,
) -> Result<(StatusCode, JsonBody<RoomCreated>), ApiError> {
    let (actor, owner) = (caller.signer()?, caller.key()?);
    let bad_subject = |error: FieldError| ApiError::with(ProblemCode::BadSubject, error.to_string());
    let subject: Subject = body.subject.parse().map_err(bad_subject)?;
    if !body.policy.encrypt && app.clear_rooms == ClearRooms::Refused {
        return Err(ApiError::new(ProblemCode::ClearRoomRefused));
    }
    let RoomPolicy { encrypt, persist, sign_msgs } = body.policy;
    let policy = Policy { encrypt, persist, sign_msgs };
    let kex_pub: Option<KexPub> = match &body.kex_pub {
        Some(text) => Some(parse(text)?),
        None if policy.encrypt => {
            suite::exchange_public(owner.as_bytes()).and_then(|key| KexPub::from_bytes(key).ok())
        }
        None => None,
    };
    let key = body.sealed_key.as_deref().map(sealed).transpose()?;

    let (room_id, now) = (RoomId::random(), app.clock.now());
    let room = Room::new(room_id.clone(), (subject, Channel::random()), policy, Endpoint::of(&owner), now);
    let member = Member::new(room_id.clone(), owner, kex_pub, MemberRole::Owner, now);
    app.store.create_room(actor, room, member, key).await?;
    Ok((StatusCode::CREATED, JsonBody(RoomCreated { room_id: room_id.as_str().to_owned() })))
}

pub(in crate::http) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Param(id): Param<RoomId>,
) -> Result<JsonBody<RoomBody>, ApiError> {
    let room = room_of_member(&app, caller, &id).await?;
    Ok(JsonBody(RoomBody {
        room_id: room.room_id.as_str().to_owned(),
        subject: room.subject.as_str().to_owned(),
        channel: room.channel.as_str().to_owned(),
        policy: policy_body(room.policy),
        owner: room.owner.to_string(),
        key_epoch: room.key_epoch.get(),
        created_at: room.created_at.to_string(),
    }))
}
