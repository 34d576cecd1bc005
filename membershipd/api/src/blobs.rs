use serde::{Deserialize, Serialize};

/// Answer to a stored blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobCreated {
    /// SHA-256 of the content, 64 lower-case hex digits: the blob's name from now on.
    pub hash: String,
}
