//! What answers while there is no store yet: `/healthz` says what is waited for, everything else is denied.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::Method;
use tower::ServiceExt as _;
use unibus_membership_api::{ProblemCode, paths};

use super::{error::ApiError, routes::health};
use crate::posture::Waiting;

/// A router that is another one once that is there.
pub(crate) fn router(later: Arc<OnceLock<Router>>, waiting: Arc<Waiting>) -> Router {
    Router::new().fallback(move |request: Request| {
        let (later, waiting) = (Arc::clone(&later), Arc::clone(&waiting));
        async move { answer(&later, &waiting, request).await }
    })
}

async fn answer(later: &OnceLock<Router>, waiting: &Waiting, request: Request) -> Response {
    if let Some(router) = later.get() {
        return router.clone().oneshot(request).await.unwrap_or_else(|never: Infallible| match never {});
    }
    let asks = matches!(request.method(), &Method::GET | &Method::HEAD);
    if asks && request.uri().path() == paths::HEALTHZ {
        return health::answer(waiting.health());
    }
    ApiError::new(ProblemCode::StoreUnavailable).into_response()
}
