//! Errors of sealed values and of the witness.

use super::{DecodeError, ErrorClass, KeyError, join};
use crate::id::{Epoch, Fingerprint};

/// Why a sealed value cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The bytes are not an envelope.
    #[error("not a readable envelope")]
    Decode(#[source] DecodeError),
    /// Sealed under an epoch whose key is not at hand.
    #[error("sealed under epoch {found}, whose key is not at hand")]
    Epoch {
        /// Epoch in the header.
        found: Epoch,
    },
    /// Other key, other place, or changed bytes. The three are not told apart.
    #[error("does not authenticate")]
    Unauthentic,
    /// It authenticates, but its plaintext is not well formed.
    #[error("its plaintext is not well formed")]
    Contents(#[source] DecodeError),
}

impl OpenError {
    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Decode(source) => source.class(),
            Self::Epoch { .. } => ErrorClass::MissingKey,
            _ => ErrorClass::Tampered,
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Decode(_) => "UB-K040",
            Self::Epoch { .. } => "UB-K041",
            Self::Unauthentic => "UB-K042",
            Self::Contents(_) => "UB-K043",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Decode(_) | Self::Contents(_) => {
                "a newer release may have written it; otherwise restore the store from a snapshot".into()
            }
            Self::Epoch { found } => format!("bring the keyring that has epoch {found}, or restore from a snapshot"),
            Self::Unauthentic => {
                "somebody changed, moved or replayed it, or the key is another one: stop writing, keep the disk \
                 for inspection, restore from a snapshot"
                    .into()
            }
        }
    }
}

/// Why a witness is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// The bytes are not a witness.
    #[error("the witness is damaged")]
    Decode(#[source] DecodeError),
    /// It was sealed by another node key.
    #[error("the witness was sealed by node key {found}, not by {}", join(expected))]
    OtherKey {
        /// Fingerprint of the key that sealed it.
        found: Fingerprint,
        /// Fingerprints of the keys at hand.
        expected: Vec<Fingerprint>,
    },
    /// It does not authenticate.
    #[error("the witness does not authenticate: it was changed")]
    Unauthentic,
    /// The file cannot be read or written.
    #[error("the witness file cannot be used")]
    File(#[source] KeyError),
}

impl WitnessError {
    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Decode(source) => source.class(),
            Self::OtherKey { .. } => ErrorClass::WrongKey,
            Self::Unauthentic => ErrorClass::Tampered,
            Self::File(source) => source.class(),
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Decode(_) => "UB-K050",
            Self::OtherKey { .. } => "UB-K051",
            Self::Unauthentic => "UB-K052",
            Self::File(_) => "UB-K053",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Decode(_) | Self::Unauthentic => {
                "somebody changed it or the disk is failing: compare with the other nodes, then accept the present \
                 state with the operator key"
                    .into()
            }
            Self::OtherKey { .. } => {
                "start with the key file of this node, with its earlier keys while a rotation runs; or give the \
                 state directory of this node"
                    .into()
            }
            Self::File(source) => source.hint(),
        }
    }
}
