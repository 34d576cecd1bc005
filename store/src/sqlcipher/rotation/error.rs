//! Why a rotation is refused or stops.

use std::path::PathBuf;

use unibus_keyfile::error::{DocumentError, ErrorClass, ReceiptError};

use super::{OpenError, Rotation};
use crate::error::StoreError;

/// Why a rotation is refused or stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// Another rotation of this store is running.
    #[error("another rotation of this store is running")]
    Busy,
    /// The store is open for reading only.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// No rotation is under way.
    #[error("no rotation of this store is under way")]
    Nothing,
    /// The new epoch is in use and cannot be taken back.
    #[error("it is too late to take it back: {rotation}")]
    TooLate {
        /// The rotation.
        rotation: Rotation,
    },
    /// The copy does not fit on the disk.
    #[error("`{}` has {available} bytes free, and a copy of the store needs {needed}", folder.display())]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// A document on the disk is not the one that this process has accepted.
    #[error("the {document} on the disk is not the one that this process has accepted")]
    Changed {
        /// Which.
        document: &'static str,
    },
    /// Something that the old key opens is left.
    #[error("the old key of epoch {epoch} still opens {what}")]
    Remains {
        /// The epoch.
        epoch: unibus_keyfile::id::Epoch,
        /// What and where.
        what: String,
    },
    /// It was stopped.
    #[error("the rotation was stopped")]
    Stopped,
    /// A keyring, acknowledgement or census could not be made.
    #[error("a signed document of the rotation could not be made")]
    Document(#[source] DocumentError),
    /// What was collected does not make a receipt that could be verified.
    #[error("the rotation is done, and there is no receipt of it")]
    Receipt(#[source] ReceiptError),
    /// The database or its files refused.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RotationError {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Busy => ErrorClass::Locked,
            Self::ReadOnly => ErrorClass::Misuse,
            Self::Nothing => ErrorClass::NotFound,
            Self::TooLate { .. } | Self::NoRoom { .. } => ErrorClass::Conflict,
            Self::Changed { .. } => ErrorClass::Tampered,
            Self::Remains { .. } => ErrorClass::NotProven,
            Self::Stopped => ErrorClass::Unavailable,
            Self::Document(source) => source.class(),
            Self::Receipt(_) => ErrorClass::NotProven,
            Self::Open(source) => source.class(),
            Self::Store(source) => source.class(),
        }
    }

    /// The stable code; each has a page under `runbooks/errors`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Busy => "UB-S130",
            Self::ReadOnly => "UB-S121",
            Self::Nothing => "UB-S131",
            Self::TooLate { .. } => "UB-S132",
            Self::NoRoom { .. } => "UB-S133",
            Self::Changed { .. } => "UB-S134",
            Self::Remains { .. } => "UB-S135",
            Self::Stopped => "UB-S136",
            Self::Document(source) => source.code(),
            Self::Receipt(_) => "UB-S137",
            Self::Open(source) => source.code(),
            Self::Store(source) => source.code(),
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Busy => "wait until it is done; `status` shows how far it is".into(),
            Self::ReadOnly | Self::Store(_) => return None,
            Self::Nothing => "look at `status`; `rotate epoch STORE` begins a rotation".into(),
            Self::TooLate { .. } => "go on with `resume STORE`: the new key is in use".into(),
            Self::NoRoom { .. } => "make room on the disk of the database, and run it again".into(),
            Self::Changed { .. } => {
                "somebody changed the files: keep them for examination, and restart the daemon".into()
            }
            Self::Remains { .. } => {
                "move the file to where old backups are kept, or remove it; then `resume STORE`".into()
            }
            Self::Stopped => "`resume STORE` goes on where it was".into(),
            Self::Document(source) => source.hint(),
            Self::Receipt(_) => {
                "the store is sound, and the old key is gone; rotate once more to have it proven".into()
            }
            Self::Open(source) => return source.hint(),
        })
    }
}
