use std::sync::Arc;

use axum::{
    Json as JsonBody,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::CACHE_CONTROL};
use serde::Deserialize;
use unibus_membership_api::{
    ProblemCode,
    health::{Health, HealthStatus},
};

use super::super::{error::ApiError, extract::Json, router::App};
use crate::admin::ReplicationBody;

pub(in crate::http) fn answer(health: Health) -> Response {
    let status = match health.status {
        HealthStatus::Ok => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = (status, JsonBody(health)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What was last proven. Never measured for the one who asks: everybody may ask, as often as they like.
pub(in crate::http) async fn healthz(State(app): State<Arc<App>>) -> Response {
    answer(app.posture.health())
}

/// What `unibus-migrate drill` says when a recovery key has opened a whole snapshot.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Drilled {
    /// Pin of the cluster whose snapshot it was.
    cluster: String,
}

/// Remembers that the recovery was drilled now; on the admin socket only.
pub(in crate::http) async fn drilled(
    State(app): State<Arc<App>>,
    Json(drilled): Json<Drilled>,
) -> Result<StatusCode, ApiError> {
    let ours = app.store.posture().cluster;
    if ours.is_none_or(|cluster| cluster.to_string() != drilled.cluster) {
        return Err(ApiError::with(ProblemCode::Conflict, "the snapshot is of another cluster"));
    }
    let (store, now) = (Arc::clone(&app.store), app.clock.now());
    let noted = tokio::task::spawn_blocking(move || store.record_drill(now)).await;
    noted.map_err(|_| ApiError::new(ProblemCode::Internal))??;
    Ok(StatusCode::NO_CONTENT)
}

/// Which nodes hold the log, asked now; on the admin socket only.
pub(in crate::http) async fn replication(
    State(app): State<Arc<App>>,
) -> Result<JsonBody<ReplicationBody>, ApiError> {
    let node = app.posture.kv().ok_or_else(|| ApiError::new(ProblemCode::NotFound))?;
    let node = Arc::clone(node);
    let found = tokio::task::spawn_blocking(move || node.replication()).await;
    let found = found.map_err(|_| ApiError::new(ProblemCode::Internal))??;
    Ok(JsonBody(ReplicationBody::from(&found)))
}

/// Measures now; on the admin socket only.
pub(in crate::http) async fn selfcheck(State(app): State<Arc<App>>) -> Response {
    answer(app.posture.measure().await)
}
