use std::sync::Arc;

use axum::{body::Bytes, extract::State};
use http::StatusCode;
use unibus_membership_api::ProblemCode;

use super::super::{error::ApiError, extract::Caller, router::App};

pub(in crate::http) async fn create(
    State(_): State<Arc<App>>,
    _: Caller,
    _: Bytes,
) -> Result<StatusCode, ApiError> {
    Err(ApiError::new(ProblemCode::NotFound))
}

pub(in crate::http) async fn show(State(_): State<Arc<App>>, _: Caller) -> Result<StatusCode, ApiError> {
    Err(ApiError::new(ProblemCode::NotFound))
}
