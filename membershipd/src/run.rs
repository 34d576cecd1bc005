//! Assembles the daemon, and takes it apart again in this order: no new connections; requests that are open finish
//! (5 seconds at most); the admin socket goes; the store is closed, which leaves the witness at its last write.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use unibus_membership_api::health::AuthMode;
use unibus_store::{blobs::BlobStore, store::Store};

use crate::{
    admin::AdminSocket,
    clock::Clock,
    error::DaemonError,
    guards::ClearRooms,
    http::{
        limits::{self, Limits},
        router::{self, App},
    },
    posture::{Facts, MEASURE_EVERY, PostureKeeper},
};

/// Time between two looks at the files.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What a daemon serves, and how.
#[expect(missing_debug_implementations, reason = "a store has nothing to show")]
#[non_exhaustive]
pub struct Config {
    /// The control records.
    pub store: Arc<dyn Store>,
    /// The sealed contents of blobs.
    pub blobs: Arc<BlobStore>,
    /// Whether signatures decide.
    pub auth: AuthMode,
    /// Whether rooms without encryption may be created.
    pub clear_rooms: ClearRooms,
    /// What the posture says beside its measurement.
    pub facts: Facts,
    /// Folder of the admin socket.
    pub state_dir: PathBuf,
    /// Limits of connections and bodies.
    pub limits: Limits,
}

impl Config {
    /// A configuration with the usual limits.
    #[must_use]
    pub fn new(
        (store, blobs): (Arc<dyn Store>, Arc<BlobStore>),
        (auth, clear_rooms): (AuthMode, ClearRooms),
        facts: Facts,
        state_dir: PathBuf,
    ) -> Self {
        Self { store, blobs, auth, clear_rooms, facts, state_dir, limits: Limits::default() }
    }
}

/// Serves until `stop` is cancelled.
///
/// # Errors
/// [`DaemonError::Files`] if the admin socket cannot be made. Once it serves, it does not fail.
pub async fn run(
    listener: TcpListener,
    config: Config,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let Config { store, blobs, auth, clear_rooms, facts, state_dir, limits } = config;
    let (socket, admin_listener) = AdminSocket::bind(&state_dir)?;
    let posture =
        Arc::new(PostureKeeper::new((Arc::clone(&store), Arc::clone(&blobs)), Arc::clone(&clock), facts));
    let app =
        Arc::new(App::new((store, blobs), clock, (auth, clear_rooms), Arc::clone(&posture), limits.clone()));
    let background = CancellationToken::new();

    let mut tasks = JoinSet::new();
    let (measuring, watching) = (Arc::clone(&posture), Arc::clone(&posture));
    tasks.spawn(background.clone().run_until_cancelled_owned(async move {
        loop {
            measuring.measure().await;
            tokio::time::sleep(MEASURE_EVERY).await;
        }
    }));
    tasks.spawn(background.clone().run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            watching.watch();
        }
    }));

    let public = limits::serve(listener, router::public(Arc::clone(&app)), limits.clone(), stop.clone());
    let admin = limits::serve(admin_listener, router::admin(app), limits, stop);
    tokio::join!(public, admin);
    drop(socket);
    background.cancel();
    while tasks.join_next().await.is_some() {}
    posture.settle().await;
    tracing::info!("stopped");
    Ok(())
}
