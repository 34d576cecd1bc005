//! Rotation of the data key; on the admin socket only.

use std::sync::Arc;

use axum::{
    Json as JsonBody,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Deserialize;

use super::super::{error::ApiError, extract::Json, router::App};
use crate::rotator::{Begin, RotationBody};

/// Begins a rotation, or goes on with the one that is under way.
pub(in crate::http) async fn begin(
    State(app): State<Arc<App>>,
    Json(begin): Json<Begin>,
) -> Result<Response, ApiError> {
    app.posture.ensure_trusted()?;
    Ok(match app.posture.rotate(begin).await? {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(refusal) => (StatusCode::CONFLICT, JsonBody(refusal)).into_response(),
    })
}

/// How it stands.
pub(in crate::http) async fn show(State(app): State<Arc<App>>) -> Result<JsonBody<RotationBody>, ApiError> {
    Ok(JsonBody(app.posture.rotation()?))
}

/// What takes a rotation back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Abort {
    /// Pin of the cluster that is meant.
    cluster: String,
}

/// Takes it back.
pub(in crate::http) async fn abort(
    State(app): State<Arc<App>>,
    Json(Abort { cluster }): Json<Abort>,
) -> Result<Response, ApiError> {
    app.posture.ensure_trusted()?;
    Ok(match app.posture.abort_rotation(cluster).await? {
        Ok(epoch) => JsonBody(serde_json::json!({ "aborted": epoch })).into_response(),
        Err(refusal) => (StatusCode::CONFLICT, JsonBody(refusal)).into_response(),
    })
}
