//! What can be wrong with a stored blob.

use std::io;
use std::path::PathBuf;

use unibus_keyfile::error::{DecodeError, ErrorClass, KeyError};

use crate::record::FieldError;

/// Why a blob was not stored or not given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The content is larger than the caller allows.
    #[error("the content has more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The content cannot be described by a record.
    #[error("the blob has no valid record")]
    Field(#[from] FieldError),
    /// There is no file or object of that name.
    #[error("`{}` is missing, but a record names it", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is no sealed blob.
    #[error("`{}` is no sealed blob", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DecodeError,
    },
    /// The file has another length than a blob of this size has.
    #[error("`{}` has {found} bytes instead of {expected}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// The length that follows from the record, in bytes.
        expected: u64,
        /// The length found, in bytes.
        found: u64,
    },
    /// The object has another number of parts than a blob of this size has.
    #[error("`{}` has {found} parts instead of {expected}", path.display())]
    Parts {
        /// The object.
        path: PathBuf,
        /// The number that follows from the record.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// A chunk does not open: changed, moved, of another blob.
    #[error("chunk {number} of `{}` does not authenticate", path.display())]
    Chunk {
        /// The file.
        path: PathBuf,
        /// Number of the chunk, from 0.
        number: u64,
    },
    /// What was opened is not what the record names.
    #[error("the content of `{}` is not that of its record", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// The caller's content could not be read.
    #[error("the content cannot be read")]
    Source(#[source] io::Error),
    /// The operating system refused a step.
    #[error("cannot {step} `{}`", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// There is no object store, and this use of it makes none.
    #[error("the object store `{bucket}` is not there")]
    NoBucket {
        /// Its name.
        bucket: &'static str,
    },
    /// A stream of that name has other settings than ours.
    #[error("the object store `{bucket}` has `{setting}` = {found}, wanted {wanted}")]
    OtherSettings {
        /// Its name.
        bucket: &'static str,
        /// The first setting that differs.
        setting: String,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// The servers do not answer, have no quorum, or refuse a step.
    #[error("cannot {step}: {why}")]
    Unavailable {
        /// What was tried.
        step: &'static str,
        /// What is missing, or what the server says.
        why: String,
    },
    /// The file could not take its name.
    #[error("cannot complete the blob")]
    Name(#[from] KeyError),
}

impl BlobError {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::TooLarge { .. } | Self::Field(_) => ErrorClass::Misuse,
            Self::Missing { .. } | Self::Chunk { .. } | Self::Content { .. } => ErrorClass::Tampered,
            Self::Decode { source, .. } => source.class(),
            Self::Length { .. } | Self::Parts { .. } => ErrorClass::Corrupt,
            Self::NoBucket { .. } => ErrorClass::MissingKey,
            Self::OtherSettings { .. } => ErrorClass::Tampered,
            Self::Unavailable { .. } => ErrorClass::Unavailable,
            Self::Source(_) | Self::Io { .. } => ErrorClass::Io,
            Self::Name(source) => source.class(),
        }
    }

    /// The stable code, which names a page of `runbooks/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::Field(_) => "UB-S060",
            Self::Missing { .. } => "UB-S061",
            Self::Decode { .. } | Self::Length { .. } | Self::Parts { .. } => "UB-S062",
            Self::Chunk { .. } | Self::Content { .. } => "UB-S063",
            Self::Source(_) | Self::Io { .. } => "UB-S064",
            Self::NoBucket { .. } => "UB-S065",
            Self::OtherSettings { .. } => "UB-S066",
            Self::Unavailable { .. } => "UB-S067",
            Self::Name(source) => source.code(),
        }
    }
}
