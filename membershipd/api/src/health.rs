//! The posture that `/healthz` reports: what was last proven, never what was configured.

use serde::{Deserialize, Serialize};

/// Overall word of `/healthz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthStatus {
    /// The node serves, and its last proof holds. HTTP status 200.
    Ok,
    /// It does not, or its proof does not hold. HTTP status 503.
    Unavailable,
}

/// What the last proof of encryption at rest found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AtRestState {
    /// Everything was read back raw and holds.
    Proven,
    /// No proof has been made yet, or the last one could not be finished.
    Unproven,
    /// Readable values were found in the node's files.
    Plaintext,
    /// The store does not answer as it should.
    Degraded,
    /// Something was changed behind the node's back.
    Tampered,
    /// An older state was put in the place of a newer one.
    RolledBack,
    /// The cluster has no majority.
    NoQuorum,
}

/// How requests are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AuthMode {
    /// No signatures are needed.
    Off,
    /// Signatures are verified and logged, and do not decide.
    Soft,
    /// Without a valid signature of an active user nothing is answered.
    Enforce,
}

/// Body of `/healthz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Overall word.
    pub status: HealthStatus,
    /// Name of the node in the nodeset.
    pub node: String,
    /// The posture.
    pub posture: Posture,
}

/// Security posture of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posture {
    /// How requests are authenticated.
    pub auth: AuthMode,
    /// True while roles and memberships are checked against a verified caller.
    pub acl: bool,
    /// True while the HTTP API is served over TLS.
    pub tls: bool,
    /// True only while the last proof of encryption at rest holds.
    pub at_rest: bool,
    /// The proof.
    pub at_rest_detail: AtRestDetail,
}

/// What the last proof of encryption at rest measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtRestDetail {
    /// Outcome.
    pub state: AtRestState,
    /// What keeps it from being `proven`, for people; null while nothing does, or nothing more is known.
    #[serde(default)]
    pub reason: Option<String>,
    /// `sqlite` for SQLCipher, `kv` for the sealed log.
    pub backend: String,
    /// When the last successful proof was made, RFC 3339 UTC; null before the first.
    pub proven_at: Option<String>,
    /// Cipher of the stored bytes.
    pub cipher: String,
    /// Primary epoch of the keyring.
    pub epoch: u32,
    /// Oldest epoch that something stored still needs.
    pub oldest_epoch_in_use: u32,
    /// Whole days since the primary epoch was made.
    pub epoch_age_days: u64,
    /// Records found.
    pub entries: u64,
    /// Records found that are not sealed.
    pub unsealed: u64,
    /// Records found that no known key opens.
    pub undecryptable: u64,
    /// Fingerprint of the node key.
    pub node_key: String,
    /// Fingerprint of the cluster.
    pub cluster: String,
    /// Lineage of the store.
    pub lineage: String,
    /// Committed writes.
    pub sequence: u64,
    /// State digest at that sequence.
    pub state_digest: String,
    /// Version of the keyring.
    pub keyring_version: u64,
    /// Server-side cipher of nats-server; null where there is none.
    pub jetstream_cipher: Option<String>,
    /// Running rotation; null while there is none.
    pub rotation: Option<String>,
    /// Copies of the data.
    pub replicas: Replicas,
    /// `none`, `found` or `not checked`: readable values in the raw files.
    pub plaintext_residue: String,
    /// Who can recover the store, and when that was last tried.
    pub recovery: Recovery,
    /// Epochs whose keys are known to have leaked.
    pub exposed_epochs: Vec<u32>,
}

/// Copies of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// Configured.
    pub wanted: u32,
    /// Found current.
    pub current: u32,
}

/// Who can recover the store, and when that was last tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Recovery recipients of the nodeset.
    pub recipients: u32,
    /// Last drill, RFC 3339 UTC; null if there was none.
    pub last_drill: Option<String>,
}
