use std::sync::Arc;

use axum::{
    Json as JsonBody,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, header};
use unibus_membership_api::{BlobCreated, ProblemCode, paths};
use unibus_store::{
    blobs::{BlobError, BlobStore},
    error::StoreError,
    record::{Blob, BlobHash},
    store::{Actor, Strength},
};

use super::super::{
    error::ApiError,
    extract::{Caller, Param},
    router::App,
};

/// Runs what blocks away from the threads that serve.
async fn blocking<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&BlobStore) -> Result<T, BlobError> + Send + 'static,
) -> Result<T, ApiError> {
    let own = Arc::clone(app);
    let done = tokio::task::spawn_blocking(move || work(&own.blobs)).await;
    match done {
        Ok(result) => result.map_err(|error| {
            app.posture.blob_failed(&error);
            ApiError::new(ProblemCode::StoreUnavailable)
        }),
        Err(_) => Err(ApiError::new(ProblemCode::Internal)),
    }
}

/// Stores a blob. The same content again is no error and is stored once.
pub(in crate::http) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    content: Bytes,
) -> Result<(StatusCode, JsonBody<BlobCreated>), ApiError> {
    let actor = caller.signer()?;
    let hash = BlobHash::of(&content);
    let created = (StatusCode::CREATED, JsonBody(BlobCreated { hash: hash.to_string() }));
    need_user(&app, actor).await?;
    if app.store.blob(hash, Strength::Local).await?.is_some() {
        return Ok(created);
    }
    let limit = u64::try_from(paths::MAX_BLOB_BYTES).unwrap_or(u64::MAX);
    let now = app.clock.now();
    let blob: Blob = blocking(&app, move |blobs| blobs.put(&mut content.as_ref(), limit, now)).await?;
    let name = blob.storage_name;
    match app.store.put_blob(actor, blob).await {
        Ok(()) => Ok(created),
        Err(error) => {
            // Only if nothing was written for certain; else the record may be there, and its content must stay.
            let is_refused = matches!(error, StoreError::AlreadyExists { .. } | StoreError::NotAuthorized);
            if is_refused {
                blocking(&app, move |blobs| blobs.remove(&name)).await.ok();
            }
            if matches!(error, StoreError::AlreadyExists { .. }) { Ok(created) } else { Err(error.into()) }
        }
    }
}

pub(in crate::http) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Param(hash): Param<BlobHash>,
) -> Result<Response, ApiError> {
    need_user(&app, caller.signer()?).await?;
    let blob = app.store.blob(hash, Strength::Local).await?;
    let blob = blob.ok_or_else(|| ApiError::new(ProblemCode::NotFound))?;
    let mut content = blocking(&app, move |blobs| blobs.get(&blob)).await?;
    let mut response = Body::from(std::mem::take(&mut *content)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // What somebody uploaded is never to be taken for a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// Active users only, also where the caller is merely stated.
async fn need_user(app: &App, actor: Actor) -> Result<(), ApiError> {
    let Actor::Signer(key) = actor else { return Ok(()) };
    match app.store.user(key, Strength::Local).await? {
        Some(user) if user.is_active() => Ok(()),
        _ => Err(ApiError::new(ProblemCode::Forbidden)),
    }
}
