//! HKDF-SHA-256 (RFC 5869) with one label for each purpose (SPEC keyfile, section 1).

use hkdf::Hkdf;
use sha2::Sha256;

use crate::{
    id::ClusterId,
    secret::{BlobKey, ChunkKey, DatabaseKey, EpochKey, JetStreamKey, LocalKey, Seed, SnapshotKey},
};

/// Label of the cluster id.
pub const CLUSTER_LABEL: &[u8] = b"unibus/cluster/v1";
/// Label of fingerprints.
pub const FINGERPRINT_LABEL: &[u8] = b"unibus/fingerprint/v1";
/// Label of recipient ids.
pub const RECIPIENT_LABEL: &[u8] = b"unibus/recipient/v1";
/// Label of a node's signing key.
pub const NODE_SIGN: &[u8] = b"unibus/node/sign/v1";
/// Label of a node's wrapping key.
pub const NODE_WRAP: &[u8] = b"unibus/node/wrap/v1";
/// Label of a node's local key.
pub const NODE_LOCAL: &[u8] = b"unibus/node/local/v1";
/// Label of nats-server's own at-rest key.
pub const NODE_JETSTREAM: &[u8] = b"unibus/node/jetstream/v1";
/// Label of the operator's signing key.
pub const OPERATOR_SIGN: &[u8] = b"unibus/operator/sign/v1";
/// Label of the operator's wrapping key.
pub const OPERATOR_WRAP: &[u8] = b"unibus/operator/wrap/v1";
/// Label of a further recovery recipient's wrapping key.
pub const RECOVERY_WRAP: &[u8] = b"unibus/recovery/wrap/v1";
/// Label of the key that seals records.
pub const EPOCH_RECORD: &[u8] = b"unibus/epoch/record/v1";
/// Label of the key that blinds entry names.
pub const EPOCH_NAME: &[u8] = b"unibus/epoch/name/v1";
/// Label of the raw key of the SQLCipher database.
pub const EPOCH_SQLCIPHER: &[u8] = b"unibus/epoch/sqlcipher/v1";
/// Label of an epoch's commitment.
pub const EPOCH_COMMITMENT: &[u8] = b"unibus/epoch/commitment/v1";
/// Label of the state key's commitment.
pub const STATE_COMMITMENT: &[u8] = b"unibus/state/commitment/v1";
/// Label of the key that blinds the names of nonces.
pub const STATE_NONCE: &[u8] = b"unibus/state/nonce/v1";
/// Label of a snapshot's chunk key.
pub const SNAPSHOT_CHUNKS: &[u8] = b"unibus/snapshot/chunks/v1";
/// Label of a blob's chunk key.
pub const BLOB_CHUNKS: &[u8] = b"unibus/blob/chunks/v1";

/// Every label that is fed to HKDF, for the test that holds them against the SPEC.
pub const HKDF_LABELS: [&[u8]; 15] = [
    NODE_SIGN,
    NODE_WRAP,
    NODE_LOCAL,
    NODE_JETSTREAM,
    OPERATOR_SIGN,
    OPERATOR_WRAP,
    RECOVERY_WRAP,
    EPOCH_RECORD,
    EPOCH_NAME,
    EPOCH_SQLCIPHER,
    EPOCH_COMMITMENT,
    STATE_COMMITMENT,
    STATE_NONCE,
    SNAPSHOT_CHUNKS,
    BLOB_CHUNKS,
];

/// Fills `out` with HKDF-SHA-256(salt, key, label).
pub(crate) fn expand(salt: &[u8], key: &[u8; 32], label: &[u8], out: &mut [u8; 32]) {
    // 32 bytes are always within the limit of 255 blocks.
    if Hkdf::<Sha256>::new(Some(salt), key).expand(label, out).is_err() {
        out.fill(0);
    }
}

/// A node's local key.
#[must_use]
pub fn local_key(seed: &Seed) -> LocalKey {
    LocalKey::init_with(|out| expand(&[], seed.expose(), NODE_LOCAL, out))
}

/// The key of nats-server's own encryption on this node.
#[must_use]
pub fn jetstream_key(seed: &Seed) -> JetStreamKey {
    JetStreamKey::init_with(|out| expand(&[], seed.expose(), NODE_JETSTREAM, out))
}

/// The raw key of the SQLCipher database of this epoch.
#[must_use]
pub fn database_key(epoch: &EpochKey, cluster: &ClusterId) -> DatabaseKey {
    DatabaseKey::init_with(|out| expand(cluster.as_bytes(), epoch.expose(), EPOCH_SQLCIPHER, out))
}

/// The chunk key of a snapshot with this salt.
#[must_use]
pub fn snapshot_chunk_key(key: &SnapshotKey, salt: &[u8; 32]) -> ChunkKey {
    ChunkKey::init_with(|out| expand(salt, key.expose(), SNAPSHOT_CHUNKS, out))
}

/// The chunk key of a blob.
#[must_use]
pub fn blob_chunk_key(key: &BlobKey) -> ChunkKey {
    ChunkKey::init_with(|out| expand(&[], key.expose(), BLOB_CHUNKS, out))
}

/// The public commitment to an epoch key; compared on every unwrap.
#[must_use]
pub fn epoch_commitment(epoch: &EpochKey, cluster: &ClusterId) -> [u8; 32] {
    let mut out = [0; 32];
    expand(cluster.as_bytes(), epoch.expose(), EPOCH_COMMITMENT, &mut out);
    out
}

/// The public commitment to a state key.
#[must_use]
pub fn state_commitment(state: &crate::secret::StateKey, cluster: &ClusterId) -> [u8; 32] {
    let mut out = [0; 32];
    expand(cluster.as_bytes(), state.expose(), STATE_COMMITMENT, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_labels_are_equal() {
        let mut labels = HKDF_LABELS.to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), HKDF_LABELS.len());
    }

    #[test]
    fn another_cluster_gives_another_database_key() {
        let key = EpochKey::init_with(|b| b.fill(1));
        let one = database_key(&key, &ClusterId::from_bytes([1; 32]));
        let two = database_key(&key, &ClusterId::from_bytes([2; 32]));
        assert_ne!(one.expose(), two.expose());
    }
}
