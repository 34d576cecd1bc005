//! What a running daemon says of the keys of its node: the answer of its admin socket, read by the tools.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use unibus_keyfile::keyring::{EpochEntry, Keyring};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;

/// Where a node stands with its keys. Fingerprints and versions; never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeysReport {
    /// Name of the node.
    pub node: String,
    /// Pin of the cluster.
    pub cluster: String,
    /// Fingerprints of the keys that are in use, the current one first.
    pub keys: Vec<String>,
    /// Version of the nodeset that counts.
    pub nodeset_version: u64,
    /// The nodeset itself, in hex: a public document that the operator has signed.
    pub nodeset: String,
    /// The nodes that it lists, each with the fingerprint of its key.
    pub nodes: BTreeMap<String, String>,
    /// Version of the keyring.
    pub keyring_version: u64,
    /// Version of the nodeset that it is wrapped for.
    pub keyring_nodeset_version: u64,
    /// The keyring version that each node has acknowledged last.
    pub acknowledged: BTreeMap<String, u64>,
    /// Fingerprint of the key that nats-server's own encryption depends on; null if it depends on none of them.
    pub server_key_of: Option<String>,
    /// The epochs of the keyring, as `status` shows them.
    #[serde(default)]
    pub epochs: Vec<EpochSaid>,
}

/// An epoch of the keyring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "an answer: read by the tool")]
pub struct EpochSaid {
    /// Its number.
    pub number: u32,
    /// Its state.
    pub state: String,
    /// When it was made, in seconds.
    pub created: u64,
    /// Whether somebody who should not could open it.
    pub exposed: bool,
}

impl EpochSaid {
    fn of(epoch: &EpochEntry) -> Self {
        Self {
            number: epoch.number.get(),
            state: epoch.state.name().to_owned(),
            created: epoch.created.seconds(),
            exposed: epoch.exposed,
        }
    }
}

impl KeysReport {
    /// Puts it together.
    #[must_use]
    pub fn new(
        own: &NodeKeyFile,
        (nodeset, keyring): (&Nodeset, &Keyring),
        acknowledged: BTreeMap<String, u64>,
        server_key_of: Option<String>,
    ) -> Self {
        let nodes = nodeset.nodes().iter();
        Self {
            node: own.name().to_string(),
            cluster: own.cluster().to_string(),
            keys: own.fingerprints().iter().map(ToString::to_string).collect(),
            nodeset_version: nodeset.version(),
            nodeset: data_encoding::HEXLOWER.encode(nodeset.as_bytes()),
            nodes: nodes.map(|node| (node.name.to_string(), node.fingerprint().to_string())).collect(),
            keyring_version: keyring.version(),
            keyring_nodeset_version: keyring.nodeset_version(),
            acknowledged,
            server_key_of,
            epochs: keyring.epochs().iter().map(EpochSaid::of).collect(),
        }
    }
}

/// Why the daemon does not take a key file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "complete by nature: what every refusal of this project says")]
pub struct Refusal {
    /// Stable code.
    pub code: String,
    /// Exit code that a command ends with for it.
    pub exit: u8,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: String,
}
