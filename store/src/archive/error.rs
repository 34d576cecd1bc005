//! What can be wrong with a snapshot.

use std::io;
use std::path::PathBuf;

use unibus_keyfile::error::{DecodeError, DocumentError, ErrorClass, KeyError, UnlockError};
use unibus_keyfile::id::{ClusterId, Fingerprint};

/// Why a snapshot is refused or could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The bytes are not a snapshot, or are cut or damaged in their structure.
    #[error("not a whole snapshot")]
    Decode(#[from] DecodeError),
    /// The hash in the trailer is not that of the file.
    #[error("the snapshot was changed or damaged: its hash does not match")]
    Hash,
    /// The signature does not verify.
    #[error("the signature of the snapshot does not verify")]
    Signature,
    /// Signed by somebody who is not a node of the nodeset inside.
    #[error("the snapshot is signed by {found}, which is no node of its nodeset")]
    Signer {
        /// Fingerprint of the signing key.
        found: Fingerprint,
    },
    /// The nodeset or the keyring inside is refused.
    #[error("a document in the snapshot is refused")]
    Document(#[from] DocumentError),
    /// Wrapped to somebody who is not in the nodeset, or not to all recovery recipients.
    #[error("the snapshot is not wrapped to the recipients of its nodeset")]
    Recipients,
    /// Of another cluster than the one expected.
    #[error("the snapshot is of cluster {found}, not of {expected}")]
    Cluster {
        /// The cluster expected.
        expected: ClusterId,
        /// The cluster of the snapshot.
        found: ClusterId,
    },
    /// None of the keys at hand is a recipient.
    #[error("no key at hand opens this snapshot: it is wrapped to {expected}; at hand is {found}")]
    NotARecipient {
        /// Recipients, by name and fingerprint.
        expected: String,
        /// Fingerprints of the keys at hand.
        found: String,
    },
    /// A wrapped key does not open with the recipient's key.
    #[error("the wrapped key of the snapshot does not authenticate")]
    Unauthentic,
    /// The keyring inside does not open.
    #[error("the keyring in the snapshot does not open")]
    Unlock(#[from] UnlockError),
    /// A chunk does not open: sealed with another key, or put in from elsewhere.
    #[error("chunk {number} of the snapshot does not authenticate")]
    Chunk {
        /// Number of the chunk, from 0.
        number: u64,
    },
    /// What is inside contradicts itself.
    #[error("the contents of the snapshot are wrong: {what}")]
    Contents {
        /// What is wrong.
        what: &'static str,
    },
    /// A record that is no record, too long, or out of order was to be written.
    #[error("record {number} cannot be put into a snapshot: {what}")]
    Record {
        /// Number of the record, from 0.
        number: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The file is not the one that was verified any more.
    #[error("the snapshot changed while it was read")]
    Changed,
    /// A step was taken out of its order.
    #[error("the snapshot {what}")]
    Misuse {
        /// What is wrong.
        what: &'static str,
    },
    /// The operating system refused a step.
    #[error("cannot {step} the snapshot")]
    Io {
        /// What was tried.
        step: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The operating system refused a step on a file.
    #[error("cannot {step} `{}`", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file could not take its name.
    #[error("cannot complete the snapshot")]
    Name(#[from] KeyError),
}

impl ArchiveError {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Decode(source) => source.class(),
            Self::Hash => ErrorClass::Corrupt,
            Self::Signature
            | Self::Signer { .. }
            | Self::Recipients
            | Self::Unauthentic
            | Self::Chunk { .. }
            | Self::Contents { .. }
            | Self::Changed => ErrorClass::Tampered,
            Self::Document(source) => source.class(),
            Self::Cluster { .. } | Self::NotARecipient { .. } => ErrorClass::WrongKey,
            Self::Unlock(source) => source.class(),
            Self::Record { .. } | Self::Misuse { .. } => ErrorClass::Misuse,
            Self::Io { .. } | Self::File { .. } => ErrorClass::Io,
            Self::Name(source) => source.class(),
        }
    }

    /// The stable code, which names a page of `runbooks/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Decode(source) if source.class() == ErrorClass::Unsupported => "UB-S041",
            Self::Decode(_) => "UB-S040",
            Self::Hash => "UB-S042",
            Self::Signature | Self::Signer { .. } => "UB-S043",
            Self::Document(source) => source.code(),
            Self::Recipients => "UB-S044",
            Self::Cluster { .. } => "UB-S045",
            Self::NotARecipient { .. } => "UB-S046",
            Self::Unauthentic | Self::Chunk { .. } | Self::Contents { .. } => "UB-S047",
            Self::Unlock(source) => source.code(),
            Self::Changed => "UB-S048",
            Self::Record { .. } | Self::Misuse { .. } => "UB-S049",
            Self::Io { .. } | Self::File { .. } => "UB-S050",
            Self::Name(source) => source.code(),
        }
    }
}
