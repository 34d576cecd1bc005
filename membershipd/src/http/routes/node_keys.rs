//! The node's own keys, on the admin socket only.

use std::sync::Arc;

use axum::{
    Json as JsonBody,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Deserialize;
use unibus_membership_api::ProblemCode;
use unibus_store::keys::KeysReport;

use super::super::{error::ApiError, extract::Json, router::App};
use crate::keys::NodeKeys;

/// Epochs by number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Epochs {
    epochs: Vec<u32>,
}

fn keys(app: &App) -> Result<Arc<NodeKeys>, ApiError> {
    app.keys.clone().ok_or_else(|| ApiError::new(ProblemCode::NotFound))
}

/// Where this node stands with its keys.
pub(in crate::http) async fn show(State(app): State<Arc<App>>) -> Result<JsonBody<KeysReport>, ApiError> {
    let keys = keys(&app)?;
    let report = tokio::task::spawn_blocking(move || keys.report()).await;
    report.map(JsonBody).map_err(|_| ApiError::new(ProblemCode::Internal))
}

/// Reads the key file again; 409 with the reason if it is not taken.
pub(in crate::http) async fn reload(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let keys = keys(&app)?;
    let taken = tokio::task::spawn_blocking(move || keys.reload()).await;
    Ok(match taken.map_err(|_| ApiError::new(ProblemCode::Internal))? {
        Ok(report) => JsonBody(report).into_response(),
        Err(error) => (StatusCode::CONFLICT, JsonBody(error.refusal())).into_response(),
    })
}

/// Marks epochs as exposed; 409 with the reason if that cannot be.
pub(in crate::http) async fn expose(
    State(app): State<Arc<App>>,
    Json(body): Json<Epochs>,
) -> Result<JsonBody<KeysReport>, ApiError> {
    let keys = keys(&app)?;
    let marked = tokio::task::spawn_blocking(move || keys.expose(&body.epochs)).await;
    let marked = marked.map_err(|_| ApiError::new(ProblemCode::Internal))?;
    marked.map(JsonBody).map_err(|why| ApiError::with(ProblemCode::Conflict, why))
}
