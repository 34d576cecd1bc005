//! Which path leads where, and through which layers.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    response::Response,
    routing::{delete, get, post},
};
use tokio::sync::Semaphore;
use unibus_membership_api::{ProblemCode, health::AuthMode, paths};
use unibus_store::{blobs::BlobStore, store::Store};

use super::{
    error::{ApiError, Distrust},
    extract::Caller,
    limits::Limits,
    routes::{blobs, health, keys, members, node_keys, rooms, rotation, servers, users},
    signature,
};
use crate::{clock::Clock, guards::ClearRooms, keys::NodeKeys, posture::PostureKeeper};

/// What every request can reach.
pub struct App {
    /// The control records.
    pub store: Arc<dyn Store>,
    /// The sealed contents of blobs.
    pub blobs: Arc<BlobStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether signatures decide.
    pub auth: AuthMode,
    /// Whether rooms without encryption may be created.
    pub clear_rooms: ClearRooms,
    /// What was last proven.
    pub posture: Arc<PostureKeeper>,
    /// The node's own keys, where they can be read again.
    pub keys: Option<Arc<NodeKeys>>,
    /// Limits of connections and bodies.
    pub limits: Limits,
    pub(super) bodies: Semaphore,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("auth", &self.auth).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        (store, blobs): (Arc<dyn Store>, Arc<BlobStore>),
        clock: Arc<dyn Clock>,
        (auth, clear_rooms): (AuthMode, ClearRooms),
        posture: Arc<PostureKeeper>,
        limits: Limits,
    ) -> Self {
        let bodies = Semaphore::new(limits.bodies_kib);
        Self { store, blobs, clock, auth, clear_rooms, posture, keys: None, limits, bodies }
    }

    /// Names the node's own keys.
    #[must_use]
    pub fn keys(mut self, keys: Option<Arc<NodeKeys>>) -> Self {
        self.keys = keys;
        self
    }
}

/// The HTTP API: what anybody may ask, and what only callers may.
pub fn public(app: Arc<App>) -> Router {
    let open = Router::new().route(paths::HEALTHZ, get(health::healthz));
    let authenticated = Router::new()
        .merge(user_routes())
        .route(paths::ROOMS, get(rooms::list).post(rooms::create))
        .route("/rooms/{id}", get(rooms::show))
        .route("/rooms/{id}/members", get(members::list))
        .route("/rooms/{id}/members/{endpoint}", delete(members::remove))
        .route("/rooms/{id}/invite", post(members::invite))
        .route("/rooms/{id}/rekey", post(keys::rekey))
        .route("/rooms/{id}/key", get(keys::show))
        .route(paths::BLOBS, post(blobs::create))
        .route("/blobs/{sha256}", get(blobs::show))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), signature::authenticate));
    finish(open.merge(authenticated), app)
}

/// The API of the admin socket: who may connect to it is the operator of this host.
pub(crate) fn admin(app: Arc<App>) -> Router {
    let operator = middleware::from_fn_with_state(
        Arc::clone(&app),
        |axum::extract::State(app): axum::extract::State<Arc<App>>,
         mut request: axum::extract::Request,
         next: middleware::Next| async move {
            app.posture.ensure_trusted()?;
            request.extensions_mut().insert(Caller::Nobody);
            Ok::<_, ApiError>(next.run(request).await)
        },
    );
    let users = user_routes().route_layer(operator);
    let open = Router::new()
        .route(paths::HEALTHZ, get(health::healthz))
        .route(crate::admin::SELFCHECK, post(health::selfcheck))
        .route(crate::admin::REPLICATION, get(health::replication))
        .route(crate::admin::ROTATE_EPOCH, get(rotation::show).post(rotation::begin))
        .route(crate::admin::ABORT_ROTATION, post(rotation::abort))
        .route(crate::admin::DRILL, post(health::drilled))
        .route(crate::admin::KEYS, get(node_keys::show))
        .route(crate::admin::RELOAD_KEYS, post(node_keys::reload))
        .route(crate::admin::EXPOSE_EPOCHS, post(node_keys::expose))
        .route(unibus_nats::eviction::SERVERS_PATH, get(servers::show))
        .route(unibus_nats::eviction::EVICT_PATH, get(servers::progress).post(servers::evict));
    finish(open.merge(users), app)
}

fn user_routes() -> Router<Arc<App>> {
    Router::new()
        .route(paths::USERS, get(users::list).post(users::add))
        .route("/users/{sign_pub}/revoke", post(users::revoke))
}

fn finish(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    let posture = Arc::clone(&app.posture);
    let notice = middleware::map_response(move |response: Response| {
        if let Some(Distrust(state)) = response.extensions().get() {
            posture.distrust(*state, "a request came upon it");
        }
        std::future::ready(response)
    });
    router
        .layer(notice)
        .fallback(|| async { ApiError::new(ProblemCode::NotFound) })
        .method_not_allowed_fallback(|| async { ApiError::new(ProblemCode::MethodNotAllowed) })
        // Our own limit stands in the layer that reads bodies.
        .layer(DefaultBodyLimit::max(paths::MAX_BLOB_BYTES))
        .with_state(app)
}
