//! Errors of signed documents, and of unlocking a keyring.

use super::{DecodeError, ErrorClass, join};
use crate::id::{ClusterId, Epoch, Fingerprint};

/// Why a signed document (nodeset, keyring, request) is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The bytes are not such a document.
    #[error("the {document} is damaged")]
    Decode {
        /// Name of the document.
        document: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// A signature does not verify.
    #[error("a signature of the {document} does not verify")]
    Signature {
        /// Name of the document.
        document: &'static str,
    },
    /// Signed by somebody who may not sign it.
    #[error("the {document} is signed by {found}, who may not sign it")]
    Signer {
        /// Name of the document.
        document: &'static str,
        /// Fingerprint of the signing key.
        found: Fingerprint,
    },
    /// The document is of another cluster.
    #[error("the {document} is of cluster {found}, not of {expected}")]
    Cluster {
        /// Name of the document.
        document: &'static str,
        /// Cluster pinned in the key file.
        expected: ClusterId,
        /// Cluster of the document.
        found: ClusterId,
    },
    /// The keyring was made for a newer nodeset than the one at hand.
    #[error("the nodeset is version {found}, but the keyring was made for version {expected}")]
    OldNodeset {
        /// Version that the keyring names.
        expected: u64,
        /// Version at hand.
        found: u64,
    },
    /// The keyring names another nodeset of the same version.
    #[error("the keyring was made for another nodeset of version {version}")]
    OtherNodeset {
        /// The version of both.
        version: u64,
    },
    /// The keyring is not wrapped to exactly the recipients of its nodeset.
    #[error("the keyring is not wrapped to exactly the recipients of its nodeset")]
    Recipients,
    /// The document cannot be made as asked.
    #[error("{0}")]
    Invalid(String),
}

impl DocumentError {
    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Decode { source, .. } => source.class(),
            Self::Signature { .. } | Self::Signer { .. } | Self::OtherNodeset { .. } | Self::Recipients => {
                ErrorClass::Tampered
            }
            Self::Cluster { .. } => ErrorClass::WrongKey,
            Self::OldNodeset { .. } => ErrorClass::RolledBack,
            Self::Invalid(_) => ErrorClass::Misuse,
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Decode { .. } => "UB-K020",
            Self::Signature { .. } => "UB-K021",
            Self::Signer { .. } => "UB-K022",
            Self::Cluster { .. } => "UB-K023",
            Self::OldNodeset { .. } => "UB-K024",
            Self::OtherNodeset { .. } => "UB-K025",
            Self::Recipients => "UB-K026",
            Self::Invalid(_) => "UB-K027",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Decode { document, source: DecodeError::Version { .. } } => {
                format!("use a release that reads this {document}")
            }
            Self::Decode { document, .. } => format!("put the {document} back from a copy"),
            Self::Signature { document } => {
                format!("somebody changed the {document}, or the disk is failing: put it back from a copy")
            }
            Self::Signer { document, .. } => format!(
                "do not use this {document}: find out who made it; `unibus-key inspect` shows its signers"
            ),
            Self::Cluster { .. } => "use the key file and the documents that were made for one cluster".into(),
            Self::OldNodeset { expected, .. } => {
                format!("copy nodeset version {expected} or newer to this node; an old one is never accepted")
            }
            Self::OtherNodeset { .. } => {
                "two nodesets of one version exist: find out which the operator signed last, and why there are two"
                    .into()
            }
            Self::Recipients => {
                "do not use this keyring: a node of the cluster makes a new one when it starts".into()
            }
            Self::Invalid(_) => "nothing was changed; correct what the message names and run it again".into(),
        }
    }
}

/// Why a keyring does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnlockError {
    /// None of the keys at hand is a recipient.
    #[error("no key at hand opens it: found {}, wrapped to {}", join(found), join(expected))]
    NotARecipient {
        /// Fingerprints of the recipients.
        expected: Vec<Fingerprint>,
        /// Fingerprints of the wrapping keys at hand.
        found: Vec<Fingerprint>,
    },
    /// The wrap does not authenticate.
    #[error("the secrets wrapped to {recipient} do not authenticate")]
    Unauthentic {
        /// Fingerprint of the recipient.
        recipient: Fingerprint,
    },
    /// What was unwrapped is not well formed or not what the document promises.
    #[error("the unwrapped secrets are not those that the keyring promises")]
    Contents,
    /// An unwrapped key is not the one that the keyring commits to.
    #[error("the unwrapped key of epoch {epoch} is not the one that the keyring commits to")]
    Commitment {
        /// The epoch.
        epoch: Epoch,
    },
}

impl UnlockError {
    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotARecipient { .. } => ErrorClass::WrongKey,
            _ => ErrorClass::Tampered,
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotARecipient { .. } => "UB-K030",
            Self::Unauthentic { .. } => "UB-K031",
            Self::Contents => "UB-K032",
            Self::Commitment { .. } => "UB-K033",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotARecipient { .. } => {
                "enrol this node's key (`unibus-key request`, `approve`), or open it with the operator key".into()
            }
            Self::Unauthentic { .. } | Self::Contents | Self::Commitment { .. } => {
                "the keyring was made by somebody who holds a node's key, or by a faulty release: put the last good \
                 keyring back and compare with the other nodes"
                    .into()
            }
        }
    }
}
