use std::sync::Arc;

use axum::{Json as JsonBody, extract::State};
use data_encoding::BASE64;
use serde::Deserialize;
use unibus_membership_api::{
    ProblemCode,
    rooms::{Rekey, Rekeyed, RoomKey as RoomKeyBody},
};
use unibus_store::{
    record::{Endpoint, KeyEpoch, RoomId, SealedKey},
    store::Strength,
};

use super::{
    super::{
        error::ApiError,
        extract::{Caller, Json, Param, Parameters},
        router::App,
    },
    parse,
    rooms::room_of_member,
    sealed,
};

/// Query of `GET /rooms/{id}/key`; the current key without an epoch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Which {
    epoch: Option<u64>,
}

pub(in crate::http) async fn rekey(
    State(app): State<Arc<App>>,
    caller: Caller,
    Param(id): Param<RoomId>,
    Json(body): Json<Rekey>,
) -> Result<JsonBody<Rekeyed>, ApiError> {
    let actor = caller.signer()?;
    let epoch = KeyEpoch::new(body.key_epoch)
        .map_err(|error| ApiError::with(ProblemCode::InvalidField, error.to_string()))?;
    let keys = body.keys.iter().map(|key| Ok((parse::<Endpoint>(&key.endpoint)?, sealed(&key.sealed)?)));
    let keys = keys.collect::<Result<Vec<(Endpoint, SealedKey)>, ApiError>>()?;
    let rekeyed = app.store.rekey(actor, id, epoch, keys).await;
    rekeyed.map_err(|error| ApiError::from(error).or_denied(ProblemCode::NotOwner))?;
    Ok(JsonBody(Rekeyed { key_epoch: epoch.get() }))
}

pub(in crate::http) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Param(id): Param<RoomId>,
    Parameters(which): Parameters<Which>,
) -> Result<JsonBody<RoomKeyBody>, ApiError> {
    let invalid = |_| ApiError::new(ProblemCode::InvalidQuery);
    let epoch = which.epoch.map(KeyEpoch::new).transpose().map_err(invalid)?;
    room_of_member(&app, caller, &id).await?;
    let endpoint = Endpoint::of(&caller.key()?);
    let key = app.store.room_key(id, endpoint, epoch, Strength::Local).await?;
    let key = key.ok_or_else(|| ApiError::new(ProblemCode::NotFound))?;
    Ok(JsonBody(RoomKeyBody { key_epoch: key.epoch.get(), sealed: BASE64.encode(key.sealed.as_bytes()) }))
}
