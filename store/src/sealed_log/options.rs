//! How a sealed log is opened: where it is, with which key, what for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::keys::Keys;
use crate::record::Timestamp;

/// Time for which the last acknowledged heartbeat lets a node answer from its own view.
pub(super) const MAX_STALENESS: Duration = Duration::from_secs(5);
/// Time within which the log must be reachable at start.
pub(super) const BOOT_BUDGET: Duration = Duration::from_secs(120);

/// What a log is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Access {
    /// To serve: makes the log where there was never one, writes heartbeats, moves the witness.
    Serve,
    /// As `Serve`, by the operator's word: makes the log although a witness or data of another one is there.
    Init,
    /// To read and write beside a daemon of this node: leaves the witness to it, writes no heartbeat of its own, and
    /// never makes a log.
    Visit,
    /// To read only.
    Read,
    /// To read what is sound of a log that is not: what is wrong is set aside and listed
    /// ([`SealedLog::quarantined`](super::SealedLog::quarantined)), and the rest is given although it is not proven.
    Salvage,
}

impl Access {
    /// Whether nothing is written.
    pub(super) const fn reads_only(self) -> bool {
        matches!(self, Self::Read | Self::Salvage)
    }
}

/// What happens to a log while it is opened and served, for people who wait or look.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootEvent {
    /// Not reachable, or without quorum: tried again.
    Waiting {
        /// What is missing.
        why: String,
        /// Time since the beginning.
        waited: Duration,
    },
    /// This node is enrolled and has to wait until another one has wrapped the keyring for it.
    NotWrapped {
        /// What is missing, and what to do.
        why: String,
        /// Time since the beginning.
        waited: Duration,
    },
    /// This node has put a document into the log.
    Published {
        /// `nodeset`, `keyring` or `acknowledgement`.
        document: &'static str,
        /// Its version; of an acknowledgement, that of the keyring.
        version: u64,
    },
    /// A document is due, and this node cannot publish it now. It is tried again.
    Owing {
        /// Why.
        why: String,
    },
    /// The copy that this node's own server keeps of the log is not what the log is. It has to be made anew.
    ReplicaNotWhole {
        /// What is wrong with it.
        why: String,
    },
    /// The file of the nodeset has changed, and what it holds now is not taken.
    NodesetRefused {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A new log was made, by this node.
    Made,
    /// Entries that were read so far, and how many there are.
    Replaying {
        /// Read.
        done: u64,
        /// In all.
        total: u64,
    },
}

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
/// Is told what happens.
pub type Progress = Arc<dyn Fn(&BootEvent) + Send + Sync>;

/// How a sealed log is opened.
#[derive(Clone)]
pub struct LogOptions {
    pub(super) servers: Vec<String>,
    pub(super) identity: Option<Arc<str>>,
    pub(super) ca: Option<PathBuf>,
    pub(super) nodeset: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) keys: Keys,
    pub(super) access: Access,
    pub(super) may_make: bool,
    pub(super) replicas: usize,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) max_staleness: Duration,
    pub(super) boot_budget: Duration,
    pub(super) clock: Clock,
    pub(super) progress: Progress,
}

impl LogOptions {
    /// A log on `servers` (`nats://HOST:PORT` each), served by the owner of `keys`. `clock` tells the time. An empty
    /// `state_dir` is none: then nothing tells whether a log that is read is the newest.
    #[must_use]
    pub fn new(servers: Vec<String>, keys: Keys, nodeset: &Path, state_dir: &Path, clock: Clock) -> Self {
        Self {
            servers,
            identity: None,
            ca: None,
            nodeset: nodeset.into(),
            state_dir: state_dir.into(),
            keys,
            access: Access::Serve,
            may_make: true,
            replicas: 1,
            data_dir: None,
            max_staleness: MAX_STALENESS,
            boot_budget: BOOT_BUDGET,
            clock,
            progress: Arc::new(|_| {}),
        }
    }

    /// Signs in with this nkey seed (`SU...`).
    #[must_use]
    pub fn identity(mut self, seed: &str) -> Self {
        self.identity = Some(seed.into());
        self
    }

    /// Trusts the servers' certificates by this CA; TLS is then required.
    #[must_use]
    pub fn ca(mut self, path: &Path) -> Self {
        self.ca = Some(path.into());
        self
    }

    /// Says what for.
    #[must_use]
    pub const fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Never makes a log, whatever the access: something lies where the server keeps its streams, and asking it to
    /// make one that it cannot read would delete it.
    #[must_use]
    pub const fn never_make(mut self) -> Self {
        self.may_make = false;
        self
    }

    /// Replicas wanted: 1 or 3.
    #[must_use]
    pub const fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Folder in which the server of this node keeps its files: what they hold is in this node's census.
    #[must_use]
    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Age of the last acknowledged heartbeat beyond which nothing is answered.
    #[must_use]
    pub const fn max_staleness(mut self, age: Duration) -> Self {
        self.max_staleness = age;
        self
    }

    /// Time within which the log must be reachable at start.
    #[must_use]
    pub const fn boot_budget(mut self, budget: Duration) -> Self {
        self.boot_budget = budget;
        self
    }

    /// Is told what happens while the log is opened.
    #[must_use]
    pub fn progress(mut self, told: Progress) -> Self {
        self.progress = told;
        self
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("servers", &self.servers)
            .field("access", &self.access)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}
