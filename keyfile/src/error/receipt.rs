//! Errors of receipts.

use super::{DecodeError, DocumentError, ErrorClass};
use crate::id::{Fingerprint, NodeName};

/// Why a receipt is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The bytes are not a receipt.
    #[error("the receipt is damaged")]
    Decode(#[from] DecodeError),
    /// The signature does not verify.
    #[error("the signature of the receipt does not verify")]
    Signature,
    /// Signed by somebody who is no node of its nodeset.
    #[error("the receipt is signed by {found}, which is no node of its nodeset")]
    Signer {
        /// Fingerprint of the signing key.
        found: Fingerprint,
    },
    /// A document inside is refused.
    #[error("the receipt's {document} is refused")]
    Document {
        /// Which.
        document: &'static str,
        /// Why.
        source: DocumentError,
    },
    /// It says something else than its documents.
    #[error("what the receipt says of `{0}` does not follow from its documents")]
    Differs(&'static str),
    /// Its keyrings are not the steps of one rotation.
    #[error("the receipt's keyrings are not those of one rotation: {0}")]
    Keyrings(&'static str),
    /// A node's word is missing.
    #[error("the receipt has no {document} by `{node}`")]
    Missing {
        /// Which document.
        document: &'static str,
        /// The node.
        node: NodeName,
    },
    /// A node's word is of somebody else, or there twice, or does not say what it has to.
    #[error("the receipt's {document} by `{node}` does not prove it: {why}")]
    Word {
        /// Which document.
        document: &'static str,
        /// The node.
        node: NodeName,
        /// What it lacks.
        why: &'static str,
    },
}

impl ReceiptError {
    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Decode(source) => source.class(),
            Self::Signature | Self::Signer { .. } => ErrorClass::Tampered,
            Self::Document { source, .. } => source.class(),
            Self::Differs(_) | Self::Keyrings(_) | Self::Missing { .. } | Self::Word { .. } => {
                ErrorClass::NotProven
            }
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Decode(source) => source.code(),
            Self::Signature | Self::Signer { .. } => "UB-K070",
            Self::Document { source, .. } => source.code(),
            Self::Differs(_) | Self::Keyrings(_) | Self::Missing { .. } | Self::Word { .. } => "UB-K071",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Decode(source) => source.hint(),
            Self::Signature | Self::Signer { .. } => {
                "do not rely on this receipt: find out who made it, or take the node's own copy".into()
            }
            Self::Document { source, .. } => source.hint(),
            Self::Differs(_) | Self::Keyrings(_) | Self::Missing { .. } | Self::Word { .. } => {
                "do not rely on this receipt: rotate the epoch again and keep the new one".into()
            }
        }
    }
}
