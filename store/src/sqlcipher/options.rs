//! How a store is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use unibus_keyfile::error::{DocumentError, UnlockError};
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::keyring::{Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::operator_key::{ExtraRecoveryKey, OperatorKey};

use super::schema::Schema;

/// With which key a store is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Keys {
    /// This node's key file: what serves, and what knows the witness.
    Node(Arc<NodeKeyFile>),
    /// The operator key: reads only, and nothing tells whether it reads the newest copy.
    Operator(Arc<OperatorKey>),
    /// A further recovery key: as the operator key, and it pins no cluster.
    Recovery(Arc<ExtraRecoveryKey>),
}

impl Keys {
    pub(super) fn node(&self) -> Option<&NodeKeyFile> {
        match self {
            Self::Node(own) => Some(own),
            Self::Operator(_) | Self::Recovery(_) => None,
        }
    }

    pub(super) fn decode_nodeset(&self, bytes: &[u8]) -> Result<Nodeset, DocumentError> {
        match self {
            Self::Node(own) => Nodeset::decode(bytes, own.cluster()),
            Self::Operator(operator) => Nodeset::decode(bytes, &operator.cluster_id()),
            Self::Recovery(_) => Nodeset::decode_unpinned(bytes),
        }
    }

    pub(super) fn unlock(&self, keyring: &Keyring) -> Result<Secrets, UnlockError> {
        match self {
            Self::Node(own) => keyring.unlock(own),
            Self::Operator(operator) => keyring.unlock_with_recovery(&**operator),
            Self::Recovery(key) => keyring.unlock_with_recovery(&**key),
        }
    }
}

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Mode {
    /// To serve: takes the lock, moves the witness.
    ReadWrite,
    /// To read: changes nothing, also beside a daemon that serves.
    ReadOnly,
}

/// How a store is opened: where it lies, with which key, what for.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    pub(super) database: PathBuf,
    pub(super) nodeset: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) keys: Keys,
    pub(super) mode: Mode,
    pub(super) now: UnixTime,
    /// Another than that of this release in tests only.
    pub(super) schema: Schema,
}

impl OpenOptions {
    /// Opens `database` for reading and writing, with `nodeset` and the state directory `state` beside it. `now`
    /// is the time of the proof.
    #[must_use]
    pub fn new(database: &Path, keys: Keys, now: UnixTime) -> Self {
        let folder = match database.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let (nodeset, state_dir) = (folder.join("nodeset"), folder.join("state"));
        Self {
            database: database.into(),
            nodeset,
            state_dir,
            keys,
            mode: Mode::ReadWrite,
            now,
            schema: Schema::CURRENT,
        }
    }

    /// Takes the nodeset from another file.
    #[must_use]
    pub fn nodeset(mut self, path: &Path) -> Self {
        self.nodeset = path.into();
        self
    }

    /// Takes the witness from another directory.
    #[must_use]
    pub fn state_dir(mut self, path: &Path) -> Self {
        self.state_dir = path.into();
        self
    }

    /// Opens for another purpose.
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }
}
