//! With which key a sealed store is opened.

mod replace;
mod report;

use std::sync::Arc;

use unibus_keyfile::error::{DocumentError, UnlockError};
use unibus_keyfile::keyring::{Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::operator_key::{ExtraRecoveryKey, OperatorKey};

pub use self::replace::ReplaceError;
pub use self::report::{EpochSaid, KeysReport, Refusal};

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
    pub(crate) fn node(&self) -> Option<&NodeKeyFile> {
        match self {
            Self::Node(own) => Some(own),
            Self::Operator(_) | Self::Recovery(_) => None,
        }
    }

    pub(crate) fn decode_nodeset(&self, bytes: &[u8]) -> Result<Nodeset, DocumentError> {
        match self {
            Self::Node(own) => Nodeset::decode(bytes, own.cluster()),
            Self::Operator(operator) => Nodeset::decode(bytes, &operator.cluster_id()),
            Self::Recovery(_) => Nodeset::decode_unpinned(bytes),
        }
    }

    pub(crate) fn unlock(&self, keyring: &Keyring) -> Result<Secrets, UnlockError> {
        match self {
            Self::Node(own) => keyring.unlock(own),
            Self::Operator(operator) => keyring.unlock_with_recovery(&**operator),
            Self::Recovery(key) => keyring.unlock_with_recovery(&**key),
        }
    }
}
