use std::sync::Arc;

use axum::{Json as JsonBody, extract::State};
use http::StatusCode;
use unibus_keyfile::id::Fingerprint;
use unibus_membership_api::{
    ProblemCode,
    users::{AddUser, User as UserBody, UserRole as RoleBody, UserStatus as StatusBody},
};
use unibus_store::{
    record::{Handle, SignPub, User, UserRole, UserStatus},
    store::{Actor, Strength},
};

use super::{
    super::{
        error::ApiError,
        extract::{Caller, Json, Param},
        router::App,
    },
    parse,
};

/// A user as the API shows it.
pub(crate) fn to_body(user: &User) -> UserBody {
    let (status, revoked_at) = match user.status {
        UserStatus::Revoked { at } => (StatusBody::Revoked, at),
        _ => (StatusBody::Active, None),
    };
    UserBody {
        sign_pub: user.sign_pub.to_string(),
        handle: user.handle.as_str().to_owned(),
        role: if user.role == UserRole::Admin { RoleBody::Admin } else { RoleBody::Member },
        status,
        created_at: user.created_at.to_string(),
        revoked_at: revoked_at.map(|at| at.to_string()),
    }
}

/// Admins only, looked up in the store at each call.
async fn need_admin(app: &App, caller: Caller) -> Result<(), ApiError> {
    let Actor::Signer(key) = caller.actor() else { return Ok(()) };
    match app.store.user(key, Strength::Linearizable).await? {
        Some(user) if user.is_active_admin() => Ok(()),
        _ => Err(ApiError::new(ProblemCode::NotAdmin)),
    }
}

pub(in crate::http) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<JsonBody<Vec<UserBody>>, ApiError> {
    need_admin(&app, caller).await?;
    Ok(JsonBody(app.store.users(Strength::Local).await?.iter().map(to_body).collect()))
}

pub(in crate::http) async fn add(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(body): Json<AddUser>,
) -> Result<(StatusCode, JsonBody<UserBody>), ApiError> {
    let role = match body.role {
        RoleBody::Admin => UserRole::Admin,
        _ => UserRole::Member,
    };
    let (key, handle) = (parse::<SignPub>(&body.sign_pub)?, parse::<Handle>(&body.handle)?);
    let user = User::new(key, handle, role, app.clock.now());
    app.store.add_user(caller.actor(), user.clone()).await.map_err(|error| {
        let error = ApiError::from(error).or_denied(ProblemCode::NotAdmin);
        error.replace(ProblemCode::Conflict, ProblemCode::UserExists)
    })?;
    note("user added", caller, &key);
    Ok((StatusCode::CREATED, JsonBody(to_body(&user))))
}

pub(in crate::http) async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller,
    Param(key): Param<SignPub>,
) -> Result<JsonBody<UserBody>, ApiError> {
    let revoked = app.store.revoke_user(caller.actor(), key, app.clock.now()).await;
    revoked.map_err(|error| ApiError::from(error).or_denied(ProblemCode::NotAdmin))?;
    note("user revoked", caller, &key);
    let user = app.store.user(key, Strength::Local).await?;
    Ok(JsonBody(to_body(&user.ok_or_else(|| ApiError::new(ProblemCode::NotFound))?)))
}

/// Says in the log who changed whom, by fingerprints only.
fn note(what: &'static str, caller: Caller, user: &SignPub) {
    let by = match caller.actor() {
        Actor::Signer(key) => Fingerprint::of(key.as_bytes()).to_string(),
        Actor::Operator => "operator".to_owned(),
    };
    tracing::info!(user = %Fingerprint::of(user.as_bytes()), by, "{what}");
}
