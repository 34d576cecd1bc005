use std::sync::Arc;

use axum::{Json as JsonBody, extract::State};
use http::StatusCode;
use unibus_membership_api::{
    ProblemCode,
    rooms::{Invite, Member as MemberBody, RoomRole},
};
use unibus_store::{
    record::{Endpoint, FieldError, KeyEpoch, Member, MemberRole, RoomId},
    store::Strength,
};

use super::{
    super::{
        error::ApiError,
        extract::{Caller, Json, Param, Params},
        router::App,
    },
    parse,
    rooms::{role_body, room_of_member},
    sealed,
};

fn to_body(member: &Member) -> MemberBody {
    MemberBody {
        endpoint: member.endpoint().to_string(),
        role: role_body(member.role),
        sign_pub: member.sign_pub().to_string(),
        kex_pub: member.kex_pub.map(|key| key.to_string()),
        joined_at: member.joined_at.to_string(),
    }
}

pub(in crate::http) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Param(id): Param<RoomId>,
) -> Result<JsonBody<Vec<MemberBody>>, ApiError> {
    room_of_member(&app, caller, &id).await?;
    let members = app.store.members(id, Strength::Local).await?;
    Ok(JsonBody(members.iter().map(to_body).collect()))
}

pub(in crate::http) async fn invite(
    State(app): State<Arc<App>>,
    caller: Caller,
    Param(id): Param<RoomId>,
    Json(body): Json<Invite>,
) -> Result<(StatusCode, JsonBody<MemberBody>), ApiError> {
    let actor = caller.signer()?;
    let invalid = |error: FieldError| ApiError::with(ProblemCode::InvalidField, error.to_string());
    let role = match body.role {
        RoomRole::Owner => MemberRole::Owner,
        _ => MemberRole::Member,
    };
    let endpoint: Endpoint = parse(&body.endpoint)?;
    let (sign_pub, kex_pub) = (parse(&body.sign_pub)?, Some(parse(&body.kex_pub)?));
    let member = Member::new(id.clone(), sign_pub, kex_pub, role, app.clock.now());
    let member = member.expect_endpoint(&endpoint).map_err(invalid)?;
    let key = match (&body.sealed_key, body.key_epoch) {
        (None, None) => None,
        (None, Some(_)) => {
            return Err(ApiError::with(ProblemCode::InvalidField, "`key_epoch` goes with a `sealed_key`"));
        }
        (Some(text), Some(number)) => Some((KeyEpoch::new(number).map_err(invalid)?, sealed(text)?)),
        (Some(text), None) => {
            let room = app.store.room(id, Strength::Local).await?;
            Some((room.map_or(KeyEpoch::FIRST, |room| room.key_epoch), sealed(text)?))
        }
    };
    let invited = app.store.invite(actor, member.clone(), key).await;
    invited.map_err(|error| ApiError::from(error).or_denied(ProblemCode::NotOwner))?;
    Ok((StatusCode::CREATED, JsonBody(to_body(&member))))
}

pub(in crate::http) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(id, endpoint): Params<RoomId, Endpoint>,
) -> Result<StatusCode, ApiError> {
    let removed = app.store.remove_member(caller.signer()?, id, endpoint).await;
    removed.map_err(|error| ApiError::from(error).or_denied(ProblemCode::NotOwner))?;
    Ok(StatusCode::NO_CONTENT)
}
