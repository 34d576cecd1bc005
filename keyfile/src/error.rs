//! Error enums, their classes and their codes.

mod document;
mod key;
mod open;
mod receipt;

pub use document::{DocumentError, UnlockError};
pub use key::{KeyError, KeyTextError};
pub use open::{OpenError, WitnessError};
pub use receipt::ReceiptError;

use crate::id::Fingerprint;

/// Every code of this crate and of `unibus-key`; each has a page `runbooks/errors/CODE.md`.
pub const CODES: [&str; 40] = [
    "UB-K001", "UB-K002", "UB-K010", "UB-K011", "UB-K012", "UB-K013", "UB-K014", "UB-K015", "UB-K016",
    "UB-K017", "UB-K018", "UB-K019", "UB-K020", "UB-K021", "UB-K022", "UB-K023", "UB-K024", "UB-K025",
    "UB-K026", "UB-K027", "UB-K030", "UB-K031", "UB-K032", "UB-K033", "UB-K040", "UB-K041", "UB-K042",
    "UB-K043", "UB-K050", "UB-K051", "UB-K052", "UB-K053", "UB-K060", "UB-K061", "UB-K062", "UB-K063",
    "UB-K064", "UB-K065", "UB-K070", "UB-K071",
];

/// What a caller can do about an error; exit codes and HTTP statuses follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorClass {
    /// Bytes are not what they should be: damaged, cut or forged.
    Corrupt,
    /// Authentic parts that do not belong together: an attack, or a repair gone wrong.
    Tampered,
    /// An older state than one already seen.
    RolledBack,
    /// The key that was given does not belong here.
    WrongKey,
    /// A key or document that should be there is not.
    MissingKey,
    /// A version or suite that this release does not know.
    Unsupported,
    /// Another state than the operation expects.
    Conflict,
    /// No such thing.
    NotFound,
    /// The caller may not do this.
    Denied,
    /// Try again later.
    Unavailable,
    /// Another process holds it.
    Locked,
    /// The operating system refused.
    Io,
    /// The request itself is wrong; nothing was changed.
    Misuse,
    /// Could not be proven, and is therefore not claimed.
    NotProven,
}

impl ErrorClass {
    /// Exit code of a command that ends with such an error.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Corrupt | Self::Tampered | Self::Unsupported => 4,
            Self::RolledBack => 7,
            Self::WrongKey => 6,
            Self::Locked => 5,
            Self::NotProven => 9,
            Self::Unavailable => 3,
            Self::Misuse | Self::MissingKey | Self::Conflict | Self::NotFound | Self::Denied => 2,
            Self::Io => 1,
        }
    }
}

/// Why bytes are not a well-formed structure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("cut short: {found} bytes where at least {needed} are needed")]
    Truncated {
        /// Bytes that are needed.
        needed: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// The first bytes are not those of this format.
    #[error("not a {expected}")]
    Magic {
        /// Name of the format that was expected.
        expected: &'static str,
    },
    /// A version that this release does not read.
    #[error("version {found} is not known to this release")]
    Version {
        /// Version that was found.
        found: u16,
    },
    /// A length is over its limit.
    #[error("{what} of {found} bytes is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Length found, in bytes.
        found: u64,
        /// Limit, in bytes.
        limit: u64,
    },
    /// Bytes follow the end.
    #[error("{bytes} bytes follow the end")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A field has a value that it may not have.
    #[error("field `{0}` is not valid")]
    Field(&'static str),
    /// The bytes say the right thing in another encoding than the one that is allowed.
    #[error("not the one encoding of its value")]
    NotCanonical,
}

impl DecodeError {
    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Version { .. } => ErrorClass::Unsupported,
            _ => ErrorClass::Corrupt,
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Version { .. } => "UB-K002",
            _ => "UB-K001",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Version { .. } => "use a release that reads this version".into(),
            _ => "put it back from a copy".into(),
        }
    }
}

fn join(list: &[Fingerprint]) -> String {
    let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "nobody".into() } else { texts.join(", ") }
}
