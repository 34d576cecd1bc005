use std::sync::Arc;

use axum::{
    Json as JsonBody,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::CACHE_CONTROL};
use unibus_membership_api::health::{Health, HealthStatus};

use super::super::router::App;

fn answer(health: Health) -> Response {
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

/// Measures now; on the admin socket only.
pub(in crate::http) async fn selfcheck(State(app): State<Arc<App>>) -> Response {
    answer(app.posture.measure().await)
}
