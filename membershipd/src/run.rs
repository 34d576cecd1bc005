//! Assembles the daemon, and takes it apart again in this order: no new connections; requests that are open finish
//! (5 seconds at most); the admin socket goes; the store is closed, which leaves the witness at its last write. A
//! nats-server of ours is ended after that, by whoever started it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::Router;
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
        front,
        limits::{self, Limits},
        router::{self, App},
    },
    keys::NodeKeys,
    posture::{Facts, PostureKeeper, Waiting},
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
    /// The node's own keys, where they can be read again.
    pub keys: Option<Arc<NodeKeys>>,
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
        Self { store, blobs, auth, clear_rooms, facts, state_dir, keys: None, limits: Limits::default() }
    }

    /// Names the node's own keys, so that they can be read again.
    #[must_use]
    pub fn keys(mut self, keys: NodeKeys) -> Self {
        self.keys = Some(Arc::new(keys));
        self
    }
}

/// The doors of a daemon, open from the first moment: until there is a store, they say what is waited for.
#[derive(Debug)]
pub struct Front {
    public: Arc<OnceLock<Router>>,
    admin: Arc<OnceLock<Router>>,
    doors: JoinSet<()>,
    socket: AdminSocket,
    stop: CancellationToken,
}

impl Front {
    /// Opens the doors. They close when `stop` is cancelled.
    ///
    /// # Errors
    /// [`DaemonError::Files`] if the admin socket cannot be made, [`DaemonError::Running`] if another daemon has it.
    pub fn open(
        listener: TcpListener,
        state_dir: &Path,
        limits: &Limits,
        waiting: &Arc<Waiting>,
        stop: CancellationToken,
    ) -> Result<Self, DaemonError> {
        let (socket, admin_listener) = AdminSocket::bind(state_dir)?;
        let (public, admin) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
        let mut doors = JoinSet::new();
        let router = |later: &Arc<OnceLock<Router>>| front::router(Arc::clone(later), Arc::clone(waiting));
        doors.spawn(limits::serve(listener, router(&public), limits.clone(), stop.clone()));
        doors.spawn(limits::serve(admin_listener, router(&admin), limits.clone(), stop.clone()));
        Ok(Self { public, admin, doors, socket, stop })
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// [`DaemonError::Lost`] if nats-server ended for good.
    pub async fn serve(self, config: Config, clock: Arc<dyn Clock>) -> Result<(), DaemonError> {
        let Config { store, blobs, auth, clear_rooms, facts, state_dir: _, keys, limits } = config;
        let node = facts.kv.clone();
        let keeper = PostureKeeper::new((Arc::clone(&store), Arc::clone(&blobs)), Arc::clone(&clock), facts);
        let posture = Arc::new(keeper);
        let app = App::new((store, blobs), clock, (auth, clear_rooms), Arc::clone(&posture), limits);
        let app = Arc::new(app.keys(keys.clone()));
        let background = CancellationToken::new();
        let mut tasks = watch(&posture, &background);
        if let Some(keys) = keys {
            let following = Arc::clone(&keys).follow(Arc::clone(&posture));
            tasks.spawn(background.clone().run_until_cancelled_owned(following));
            tasks.spawn(background.clone().run_until_cancelled_owned(reload_on_hangup(keys)));
        }
        // They were empty: nobody else fills them.
        self.public.set(router::public(Arc::clone(&app))).ok();
        self.admin.set(router::admin(app)).ok();

        let lost = async {
            match node {
                Some(node) => node.lost().await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            error = lost => {
                tracing::error!(%error, "nats-server ended for good");
                Err(DaemonError::Lost(error))
            }
        };
        self.close().await;
        background.cancel();
        while tasks.join_next().await.is_some() {}
        posture.settle().await;
        tracing::info!("stopped");
        result
    }

    /// Closes the doors: no new connections, and those that are open finish.
    pub async fn close(mut self) {
        self.stop.cancel();
        while self.doors.join_next().await.is_some() {}
        drop(self.socket);
    }
}

/// Reads the key file again whenever the operator asks with SIGHUP.
async fn reload_on_hangup(keys: Arc<NodeKeys>) {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            tracing::error!(%error, "SIGHUP is not listened to; the key file can be read again over the admin socket");
            return;
        }
    };
    while hangups.recv().await.is_some() {
        let keys = Arc::clone(&keys);
        // What came of it stands in the log.
        tokio::task::spawn_blocking(move || keys.reload().ok()).await.ok();
    }
}

/// Measures the posture, and looks at the files in between.
fn watch(posture: &Arc<PostureKeeper>, background: &CancellationToken) -> JoinSet<Option<()>> {
    let mut tasks = JoinSet::new();
    let (measuring, watching) = (Arc::clone(posture), Arc::clone(posture));
    tasks.spawn(background.clone().run_until_cancelled_owned(async move {
        loop {
            measuring.measure().await;
            tokio::time::sleep(measuring.measure_after()).await;
        }
    }));
    tasks.spawn(background.clone().run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(WATCH_EVERY).await;
            watching.watch();
        }
    }));
    tasks
}

/// Serves a store that is open until `stop` is cancelled.
///
/// # Errors
/// As [`Front::open`] and [`Front::serve`].
pub async fn run(
    listener: TcpListener,
    config: Config,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let waiting = Arc::new(Waiting::new(config.facts.node.clone(), config.auth, "sqlite", 1));
    let front = Front::open(listener, &config.state_dir, &config.limits, &waiting, stop)?;
    front.serve(config, clock).await
}
