//! A node of the sealed log as it runs: nats-server, if it is ours, and the open log above it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use unibus_nats::{
    NatsError,
    supervisor::{self, State, Supervisor},
};
use unibus_store::{
    error::StoreError,
    sealed_log::{BootEvent, LogError, LogOptions, Replication, SealedLog},
};

use super::{
    Plan,
    evict::{self, Evictor},
    has_streams, list,
};
use crate::{error::DaemonError, posture::Waiting};

/// Time between two looks whether an import has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A running node.
#[derive(Debug)]
pub struct Node {
    log: Arc<SealedLog>,
    server: Option<Arc<Supervisor>>,
    cipher: Option<&'static str>,
    evictor: Option<Evictor>,
}

/// What came of opening.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Opened {
    /// The log is open and serves.
    Node(Arc<Node>),
    /// A stop was asked for meanwhile; nothing runs any more.
    Stopped,
}

/// Starts nats-server and opens the log, and says through `waiting` what it waits for.
///
/// # Errors
/// [`DaemonError::Nats`], [`DaemonError::Log`], [`DaemonError::Leftovers`], [`DaemonError::Orphaned`]. Nothing runs
/// any more then.
pub async fn open(
    plan: Plan,
    waiting: &Arc<Waiting>,
    stop: &CancellationToken,
) -> Result<Opened, DaemonError> {
    if plan.by_word {
        tracing::warn!("started with `--init`: the witness is not believed; start without it from now on");
    }
    let first_start = FirstStart::look(&plan)?;
    let log = if first_start.is_free() { plan.log } else { plan.log.never_make() };
    let mut place = None;
    let server = match plan.server {
        None => None,
        Some(options) => {
            let config = &options.launch.config;
            place = Some((config.server_name.as_str().to_owned(), config.client_address().to_string()));
            waiting.opening("nats-server starts");
            // Abandoned on a stop: nats-server ends with this process.
            match unless_stopped(stop, in_background(move || Supervisor::start(options))).await {
                None => return Ok(Opened::Stopped),
                Some(started) => Some(Arc::new(started??)),
            }
        }
    };
    waiting.opening("the log is opened");
    let told = Arc::clone(waiting);
    let log = log.progress(Arc::new(move |event| tell(&told, event)));
    let opened = open_whole(&log, server.as_ref(), waiting, stop).await;
    let end = match opened {
        Some(Ok(log)) => {
            let log = Arc::new(log);
            let evictor = match (&server, plan.system, place) {
                (Some(server), Some(system), Some((name, address))) => {
                    let server = evict::Server { name, address, supervisor: Arc::clone(server) };
                    let key = (plan.next_key, plan.cipher);
                    let wanted = (plan.replicas, key);
                    Some(Evictor::start(waiting.node(), server, &system, wanted, &log).await?)
                }
                _ => None,
            };
            let node = Node { log, server, cipher: plan.cipher, evictor };
            return Ok(Opened::Node(Arc::new(node)));
        }
        Some(Err(error)) => Err(first_start.explain(error)),
        None => Ok(Opened::Stopped),
    };
    if let Some(server) = server {
        in_background(move || server.stop()).await?;
    }
    end
}

/// Opens the log when no import is under way any more: the tool that finishes one needs this node's server.
async fn open_whole(
    options: &LogOptions,
    server: Option<&Arc<Supervisor>>,
    waiting: &Waiting,
    stop: &CancellationToken,
) -> Option<Result<SealedLog, DaemonError>> {
    let mut is_told = false;
    loop {
        let opened = open_log(options.clone(), server, stop).await;
        let Some(Err(DaemonError::Log(error))) = &opened else { return opened };
        if !matches!(**error, LogError::HalfImported) {
            return opened;
        }
        if !is_told {
            tracing::warn!(code = error.code(), "waiting: {error}; {}", error.hint().unwrap_or_default());
            is_told = true;
        }
        waiting.unproven(&error.to_string());
        unless_stopped(stop, tokio::time::sleep(LOOK_AGAIN)).await?;
    }
}

async fn open_log(
    options: LogOptions,
    server: Option<&Arc<Supervisor>>,
    stop: &CancellationToken,
) -> Option<Result<SealedLog, DaemonError>> {
    // Abandoned on a stop: what it may still do is what a daemon that is killed may have done.
    let opening = in_background(move || SealedLog::open(options));
    tokio::select! {
        opened = opening => Some(opened.and_then(|opened| opened.map_err(DaemonError::from))),
        error = failed(server) => Some(Err(DaemonError::Lost(error))),
        () = stop.cancelled() => None,
    }
}

/// Waits until nats-server is not started again.
async fn failed(server: Option<&Arc<Supervisor>>) -> Arc<NatsError> {
    let Some(server) = server else { return std::future::pending().await };
    let mut changes = server.changes();
    loop {
        if let State::Failed { error } = server.status().state {
            return error;
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DaemonError> {
    let cut_off = |source: tokio::task::JoinError| DaemonError::Process {
        step: "wait for a thread",
        source: std::io::Error::other(source),
    };
    tokio::task::spawn_blocking(work).await.map_err(cut_off)
}

async fn unless_stopped<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = stop.cancelled() => None,
    }
}

fn tell(waiting: &Waiting, event: &BootEvent) {
    match event {
        BootEvent::Waiting { why, waited } => {
            tracing::warn!(waited_s = waited.as_secs(), "waiting: {why}");
            waiting.no_quorum(why);
        }
        BootEvent::NotWrapped { why, waited } => {
            tracing::warn!(waited_s = waited.as_secs(), "waiting: {why}");
            waiting.unproven(why);
        }
        BootEvent::Published { document, version } => {
            tracing::info!(document, version, "published in the log");
        }
        BootEvent::ReplicaNotWhole { why } => {
            tracing::error!(
                why,
                "this node's copy of the log is not whole: `unibus-migrate rotate jetstream` makes it anew"
            );
        }
        BootEvent::Owing { why } => {
            tracing::error!("what this node owes the log cannot be published now: {why}");
        }
        BootEvent::NodesetRefused { path, why } => {
            tracing::error!(path = %path.display(), "the changed nodeset is not taken: {why}");
        }
        BootEvent::Made => tracing::info!("made a new log"),
        BootEvent::Replaying { done, total } => {
            tracing::debug!(done, total, "reading the log");
            waiting.opening(&format!("the log is read: {done} of {total} entries"));
        }
        _ => {}
    }
}

/// What lies there before anything is started.
struct FirstStart {
    folder: Option<std::path::PathBuf>,
    blobs: std::path::PathBuf,
    has_streams: bool,
    has_blobs: bool,
    by_word: bool,
}

impl FirstStart {
    fn look(plan: &Plan) -> Result<Self, DaemonError> {
        let has_streams = plan.folder.as_deref().map(has_streams).transpose()?.unwrap_or(false);
        let has_blobs = !list(&plan.blobs)?.is_empty();
        let (folder, blobs, by_word) = (plan.folder.clone(), plan.blobs.clone(), plan.by_word);
        Ok(Self { folder, blobs, has_streams, has_blobs, by_word })
    }

    /// Whether a log may be made. The log itself looks at the witness.
    const fn is_free(&self) -> bool {
        self.by_word || !(self.has_streams || self.has_blobs)
    }

    /// Names what lies there where a log was not found and would have been made else.
    fn explain(self, error: DaemonError) -> DaemonError {
        let is_absent =
            matches!(&error, DaemonError::Log(error) if matches!(**error, LogError::NothingThere { .. }));
        match self.folder {
            Some(path) if is_absent && self.has_streams => DaemonError::Leftovers { path },
            folder if is_absent && self.has_blobs => {
                DaemonError::Orphaned { path: self.blobs, database: folder.unwrap_or_default() }
            }
            _ => error,
        }
    }
}

impl Node {
    /// The open log.
    #[must_use]
    pub const fn log(&self) -> &Arc<SealedLog> {
        &self.log
    }

    /// The nats-server, if it is ours.
    #[must_use]
    pub const fn server(&self) -> Option<&Arc<Supervisor>> {
        self.server.as_ref()
    }

    /// The server-side cipher that nats-server has said to use.
    #[must_use]
    pub const fn cipher(&self) -> Option<&'static str> {
        self.cipher
    }

    /// What evicts nats-server, if it is ours.
    #[must_use]
    pub const fn evictor(&self) -> Option<&Evictor> {
        self.evictor.as_ref()
    }

    /// What is wrong with nats-server, if anything is.
    #[must_use]
    pub fn server_trouble(&self) -> Option<String> {
        let status: supervisor::Status = self.server.as_ref()?.status();
        Some(match status.state {
            State::Ready | State::Stopping | State::Stopped => return None,
            State::Starting => "nats-server starts again".to_owned(),
            State::Wiping => "nats-server was wiped, and is filled again by the others".to_owned(),
            State::Silent { since } => format!(
                "nats-server has not answered for {} s; it is killed and started again if that goes on",
                since.elapsed().as_secs()
            ),
            State::BackingOff { error, .. } if matches!(*error, NatsError::OutOfSpace { .. }) => {
                format!("{error}; {}", error.hint().unwrap_or_default())
            }
            State::BackingOff { error, .. } => format!("nats-server ended and is started again: {error}"),
            State::Failed { error } => format!("nats-server cannot be started again: {error}"),
            _ => "nats-server is not ready".to_owned(),
        })
    }

    /// Waits until nats-server cannot be started again.
    pub async fn lost(&self) -> Arc<NatsError> {
        failed(self.server.as_ref()).await
    }

    /// Who holds the log, asked now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn replication(&self) -> Result<Replication, StoreError> {
        self.log.replication_now()
    }
}
