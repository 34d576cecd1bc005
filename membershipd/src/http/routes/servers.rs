//! The servers below the log, on the admin socket only.

use std::sync::Arc;

use axum::{Json as JsonBody, extract::State, response::IntoResponse};
use http::StatusCode;
use unibus_membership_api::ProblemCode;
use unibus_nats::eviction::{Progress, Request, Status};

use super::super::{error::ApiError, extract::Json, router::App};
use crate::{
    clock,
    kv::{
        Node,
        evict::{Answer, Evictor},
    },
};

fn node(app: &App) -> Result<(&Arc<Node>, &Evictor), ApiError> {
    let ours = app.posture.kv().and_then(|node| node.evictor().map(|evictor| (node, evictor)));
    ours.ok_or_else(|| ApiError::with(ProblemCode::NotFound, "this daemon has no nats-server of its own"))
}

/// What the servers say of themselves, asked now.
pub(in crate::http) async fn show(State(app): State<Arc<App>>) -> Result<JsonBody<Status>, ApiError> {
    Ok(JsonBody(node(&app)?.1.status().await))
}

/// How the eviction goes; null if there was none since the daemon was started.
pub(in crate::http) async fn progress(
    State(app): State<Arc<App>>,
) -> Result<JsonBody<Option<Progress>>, ApiError> {
    Ok(JsonBody(node(&app)?.1.progress()))
}

/// Begins an eviction.
pub(in crate::http) async fn evict(
    State(app): State<Arc<App>>,
    Json(request): Json<Request>,
) -> Result<impl IntoResponse, ApiError> {
    let (node, evictor) = node(&app)?;
    let refused = |why: String| ApiError::with(ProblemCode::Conflict, why);
    let keyring = node.log().keyring();
    if keyring.staged().is_some() || keyring.retired().next().is_some() {
        return Err(refused("a rotation of the epoch is under way; let it end, or take it back".to_owned()));
    }
    let now = u64::try_from(clock::seconds(app.clock.now())).unwrap_or_default();
    match evictor.evict(request, now).await {
        Answer::Taken(progress) => Ok((StatusCode::ACCEPTED, JsonBody(Some(progress)))),
        Answer::WouldBegin => Ok((StatusCode::OK, JsonBody(None))),
        Answer::Refused(why) => Err(refused(why)),
    }
}
