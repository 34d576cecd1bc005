//! Why the daemon or a user command ends.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use unibus_keyfile::error::{DocumentError, ErrorClass, KeyError};
use unibus_nats::NatsError;
use unibus_store::{blobs::BlobError, error::StoreError, sealed_log::LogError, sqlcipher::OpenError};

use crate::guards::GuardError;

/// Why the daemon or a user command ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The flags do not go together.
    #[error("refusing to start")]
    Guard(#[source] GuardError),
    /// The address cannot be served on.
    #[error("cannot serve on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// A file or folder cannot be used.
    #[error("cannot {step} `{}`", path.display())]
    Files {
        /// What was tried.
        step: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Part of what `--dev` made is gone or damaged.
    #[error("`--dev` made `{}` on its first start, and now it is {problem}", path.display())]
    Dev {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The runtime of the process could not be made.
    #[error("cannot {step}")]
    Process {
        /// What was tried.
        step: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The running daemon does not answer as it should.
    #[error("the daemon behind `{}` does not answer: {problem}", path.display())]
    Admin {
        /// The socket.
        path: PathBuf,
        /// What happened.
        problem: String,
    },
    /// No daemon runs on this state folder.
    #[error("no daemon listens on `{}`", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The running daemon refuses.
    #[error("the daemon refuses: {problem}")]
    Refused {
        /// Its reason.
        problem: String,
    },
    /// The user is there already.
    #[error("already registered (unchanged); revoke it first to replace")]
    UserExists,
    /// No active user has this key.
    #[error("no active user has this key")]
    NoSuchUser,
    /// The posture is not `proven`.
    #[error("the posture is `{state}`")]
    NotProven {
        /// The state.
        state: String,
    },
    /// The node key.
    #[error("cannot get the node key")]
    Key(#[source] KeyError),
    /// A document beside the store.
    #[error("cannot use the nodeset")]
    Nodeset(#[source] DocumentError),
    /// Blobs whose database is gone.
    #[error("`{}` holds blobs, and there is no database `{}` that could know their keys", path.display(), database.display())]
    Orphaned {
        /// Folder of the blobs.
        path: PathBuf,
        /// Where the database would be.
        database: PathBuf,
    },
    /// Streams without the log of this node.
    #[error("`{}` holds streams, and neither the log of the control plane nor a witness of it is there", path.display())]
    Leftovers {
        /// Folder of nats-server.
        path: PathBuf,
    },
    /// Another daemon has the state folder.
    #[error("another daemon answers on `{}`", path.display())]
    Running {
        /// Its socket.
        path: PathBuf,
    },
    /// A file with a secret, other than the node key's.
    #[error("cannot read a secret")]
    Secret(#[source] KeyError),
    /// nats-server is not started.
    #[error("cannot start nats-server")]
    Nats(#[source] NatsError),
    /// nats-server ended, and starting it again could not help or would do harm.
    #[error("nats-server ended for good")]
    Lost(#[source] Arc<NatsError>),
    /// The log is not opened or not made.
    #[error("cannot open the log")]
    Log(#[source] Box<LogError>),
    /// The folder of the blobs.
    #[error("cannot use the folder of the blobs")]
    Blobs(#[source] BlobError),
    /// The store is not opened or not made.
    #[error("cannot open the store")]
    Open(#[source] OpenError),
    /// The store fails.
    #[error("cannot use the store")]
    Store(#[source] StoreError),
}

impl DaemonError {
    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Guard(_) => ErrorClass::Misuse,
            Self::Bind { .. } | Self::Files { .. } | Self::Process { .. } => ErrorClass::Io,
            Self::Dev { .. } | Self::Orphaned { .. } | Self::Leftovers { .. } => ErrorClass::MissingKey,
            Self::Running { .. } => ErrorClass::Locked,
            Self::Nats(error) => error.class(),
            Self::Lost(error) => error.class(),
            Self::Log(error) => error.class(),
            Self::Blobs(error) => error.class(),
            Self::Open(error) => error.class(),
            Self::Admin { .. } | Self::NotRunning { .. } => ErrorClass::Unavailable,
            Self::Refused { .. } | Self::UserExists => ErrorClass::Conflict,
            Self::NoSuchUser => ErrorClass::NotFound,
            Self::NotProven { .. } => ErrorClass::NotProven,
            Self::Key(error) | Self::Secret(error) => error.class(),
            Self::Nodeset(error) => error.class(),
            Self::Store(error) => error.class(),
        }
    }

    /// Stable code, which names a page of `runbooks/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Guard(_) => "UB-D001",
            Self::Bind { .. } => "UB-D002",
            Self::Files { .. } => "UB-D003",
            Self::Dev { .. } => "UB-D004",
            Self::Process { .. } => "UB-D005",
            Self::Admin { .. } | Self::NotRunning { .. } => "UB-D006",
            Self::Refused { .. } => "UB-D007",
            Self::UserExists => "UB-D008",
            Self::NoSuchUser => "UB-D009",
            Self::NotProven { .. } => "UB-D010",
            Self::Key(error) | Self::Secret(error) => error.code(),
            Self::Nodeset(error) => error.code(),
            Self::Leftovers { .. } => "UB-D012",
            Self::Running { .. } => "UB-D013",
            Self::Nats(error) => error.code(),
            Self::Lost(error) => error.code(),
            Self::Log(error) => error.code(),
            Self::Orphaned { .. } => "UB-D011",
            Self::Blobs(error) => error.code(),
            Self::Open(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    /// Exit code of the process (design of the tools: one table for all).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::NoSuchUser) {
            return 1;
        }
        match self.class() {
            ErrorClass::Misuse | ErrorClass::Denied | ErrorClass::NotFound => 2,
            ErrorClass::Unavailable => 3,
            ErrorClass::Corrupt | ErrorClass::Tampered | ErrorClass::Unsupported => 4,
            ErrorClass::Locked => 5,
            ErrorClass::WrongKey | ErrorClass::MissingKey => 6,
            ErrorClass::RolledBack => 7,
            ErrorClass::NotProven => 9,
            _ => 1,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Guard(guard) => guard.hint().into(),
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "another process has the port; stop it, or give another --http-port".into()
            }
            Self::Bind { .. } => "give an address of this host with --bind and a free --http-port".into(),
            Self::Files { .. } => "check the path, its owner, and the free space".into(),
            Self::Dev { .. } => {
                "put the file back from a copy; to begin anew, and lose what is stored, remove `local_files`"
                    .into()
            }
            Self::Process { .. } => "look at the limits of the user that runs this".into(),
            Self::Admin { .. } => "look at the daemon's log".into(),
            Self::NotRunning { .. } => {
                "start the daemon, or give the --state-dir that it was started with".into()
            }
            Self::Refused { .. } => "look at the daemon's log and at its /healthz".into(),
            Self::UserExists => "`membershipd user list` shows it".into(),
            Self::NoSuchUser => "`membershipd user list` shows all keys".into(),
            Self::NotProven { .. } => {
                "see the runbook on the posture; the daemon's log says what was found".into()
            }
            Self::Key(error) | Self::Secret(error) => error.hint(),
            Self::Leftovers { .. } => {
                "name another --nats-store for a new log, or put the witness and the streams back; with --init a log is \
                 made beside what is there"
                    .into()
            }
            Self::Running { .. } => "stop it first, or give another --state-dir".into(),
            Self::Nats(error) => error.hint().unwrap_or_else(|| class_hint(error.class()).to_owned()),
            Self::Lost(error) => error.hint().unwrap_or_else(|| class_hint(error.class()).to_owned()),
            Self::Log(error) => error.hint().unwrap_or_else(|| class_hint(error.class()).to_owned()),
            Self::Nodeset(_) => "use the nodeset and the key file that were made together".into(),
            Self::Orphaned { .. } => {
                "put the database and its keyring back, or name another --store-dir for a new store".into()
            }
            Self::Blobs(error) => class_hint(error.class()).into(),
            Self::Open(error) => error.hint().unwrap_or_else(|| class_hint(error.class()).to_owned()),
            Self::Store(error) => class_hint(error.class()).into(),
        }
    }
}

fn class_hint(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Locked => "another daemon or tool has the store; stop it first",
        ErrorClass::Tampered | ErrorClass::Corrupt => {
            "keep the files as they are for examination; restore a snapshot with `unibus-migrate restore`"
        }
        ErrorClass::RolledBack => {
            "put the newer files back, or restore with `unibus-migrate restore` and the operator key"
        }
        ErrorClass::WrongKey => "give the key file that belongs to this store",
        ErrorClass::NotProven => "put the witness back, or run `unibus-migrate verify`",
        ErrorClass::MissingKey => {
            "put the missing file back; nothing is made anew where something is expected"
        }
        _ => "look at the runbook of this code",
    }
}

impl From<GuardError> for DaemonError {
    fn from(error: GuardError) -> Self {
        Self::Guard(error)
    }
}

impl From<KeyError> for DaemonError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<DocumentError> for DaemonError {
    fn from(error: DocumentError) -> Self {
        Self::Nodeset(error)
    }
}

impl From<StoreError> for DaemonError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<NatsError> for DaemonError {
    fn from(error: NatsError) -> Self {
        Self::Nats(error)
    }
}

impl From<LogError> for DaemonError {
    fn from(error: LogError) -> Self {
        Self::Log(Box::new(error))
    }
}

impl From<OpenError> for DaemonError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}
