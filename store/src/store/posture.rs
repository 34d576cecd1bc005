//! What was last proven about a store's protection.

use unibus_keyfile::id::{ClusterId, Epoch, Fingerprint};

use super::Position;
use crate::record::Timestamp;

/// What is known about the store's protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PostureState {
    /// The last proof holds.
    Proven,
    /// No proof yet, or the last one is too old.
    Unproven,
    /// Something lies there unencrypted.
    Plaintext,
    /// It works, with less than it should have.
    Degraded,
    /// Something was changed by somebody without the keys.
    Tampered,
    /// The store is older than what this node has seen.
    RolledBack,
    /// Too few nodes to know.
    NoQuorum,
}

impl PostureState {
    /// The word for it in `/healthz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Unproven => "unproven",
            Self::Plaintext => "plaintext",
            Self::Degraded => "degraded",
            Self::Tampered => "tampered",
            Self::RolledBack => "rolled_back",
            Self::NoQuorum => "no_quorum",
        }
    }
}

/// What was last proven about the store's protection, and when: a measurement, never a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Posture {
    /// What is known.
    pub state: PostureState,
    /// `memory`, `sqlcipher`, `kv`.
    pub backend: &'static str,
    /// What seals the records, as measured: `aes-256-gcm-siv`, SQLCipher's cipher; none if nothing does.
    pub cipher: Option<String>,
    /// When the last proof ended.
    pub proven_at: Option<Timestamp>,
    /// The epoch that seals.
    pub epoch: Option<Epoch>,
    /// The oldest epoch that something is still sealed under.
    pub oldest_epoch_in_use: Option<Epoch>,
    /// Since when `epoch` seals.
    pub epoch_since: Option<Timestamp>,
    /// Records read in the last proof.
    pub entries: u64,
    /// Records found unsealed in the last proof.
    pub unsealed: u64,
    /// Records that could not be opened in the last proof.
    pub undecryptable: u64,
    /// Fingerprint of the node key in use.
    pub node_key: Option<Fingerprint>,
    /// The cluster that the store belongs to.
    pub cluster: Option<ClusterId>,
    /// Where the store stands.
    pub position: Position,
    /// Version of the keyring in use.
    pub keyring_version: Option<u64>,
    /// Recovery recipients of the keyring.
    pub recovery_recipients: u32,
    /// When a recovery was last drilled.
    pub last_drill: Option<Timestamp>,
    /// Step of the rotation that is under way; none while there is none.
    pub rotation: Option<String>,
    /// Epochs whose keys are known to have leaked.
    pub exposed_epochs: Vec<Epoch>,
    /// Copies that there should be.
    pub replicas_wanted: u32,
    /// Copies that are up and current.
    pub replicas_current: u32,
}

impl Posture {
    /// A posture that claims nothing: unproven, everything unknown.
    #[must_use]
    pub const fn unproven(backend: &'static str, position: Position) -> Self {
        Self {
            state: PostureState::Unproven,
            backend,
            cipher: None,
            proven_at: None,
            epoch: None,
            oldest_epoch_in_use: None,
            epoch_since: None,
            entries: 0,
            unsealed: 0,
            undecryptable: 0,
            node_key: None,
            cluster: None,
            position,
            keyring_version: None,
            recovery_recipients: 0,
            last_drill: None,
            rotation: None,
            exposed_epochs: Vec::new(),
            replicas_wanted: 1,
            replicas_current: 1,
        }
    }

    /// Whether `/healthz` may say `at_rest: true`.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.state == PostureState::Proven && self.unsealed == 0 && self.undecryptable == 0
    }
}
