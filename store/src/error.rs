//! Everything that can keep a store from answering.

use std::{io, path::PathBuf};

use unibus_keyfile::{error::ErrorClass, id::Sequence};

use crate::record::{DecodeError, FieldError, KeyEpoch, Kind};

/// Why a store did not do what it was asked. A refused write has changed nothing.
///
/// Texts name kinds, numbers, paths and fingerprints; never a handle, a subject, a room id or a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A record of that identity is there. It was not touched.
    #[error("{kind} already exists (unchanged)")]
    AlreadyExists {
        /// The record's kind.
        kind: Kind,
    },
    /// There is no such record; for a revocation: no active one.
    #[error("no such {kind}")]
    NotFound {
        /// The record's kind.
        kind: Kind,
    },
    /// The actor may not do this. Whether the thing exists is not told.
    #[error("not authorized")]
    NotAuthorized,
    /// The room key's number is not the one that is due.
    #[error("room key epoch {given} does not fit, the room is at {current}")]
    Conflict {
        /// The room's current key epoch.
        current: KeyEpoch,
        /// The key epoch of the request.
        given: KeyEpoch,
    },
    /// A rekey must bring one key for each member and no other.
    #[error(
        "room keys are not for exactly the members: {missing} missing, {surplus} not of a member or twice"
    )]
    NotExactlyMembers {
        /// Members without a key.
        missing: usize,
        /// Keys too many.
        surplus: usize,
    },
    /// The endpoint is a member already. Neither its role nor its keys were touched.
    #[error("already a member of the room (unchanged)")]
    AlreadyMember,
    /// A room with members needs an owner.
    #[error("the last owner cannot leave a room that has other members")]
    LastOwner,
    /// A signer cannot revoke the last active admin; the operator can.
    #[error("the last active admin cannot be revoked over the bus")]
    LastAdmin,
    /// The request contradicts itself or a rule of the domain.
    #[error("invalid request: {what}")]
    Invalid {
        /// The rule.
        what: &'static str,
    },
    /// A field of the request is malformed.
    #[error("invalid request")]
    Field(#[from] FieldError),
    /// An import needs an empty store.
    #[error("the store is not empty: it holds {records} records")]
    NotEmpty {
        /// Records in the store.
        records: u64,
    },
    /// The caller of an export or import stopped it.
    #[error("stopped by the caller")]
    Stopped,
    /// The store cannot answer now; later it may.
    #[error("store is unavailable: {why}")]
    Unavailable {
        /// Why.
        why: &'static str,
    },
    /// The store is older than what this node has seen.
    #[error("store is rolled back: it stands at sequence {found}, this node has seen {witnessed}")]
    RolledBack {
        /// The store's sequence.
        found: Sequence,
        /// The witness's sequence.
        witnessed: Sequence,
    },
    /// Something was changed by somebody without the keys.
    #[error("store is tampered with: {what}")]
    Tampered {
        /// What does not fit.
        what: String,
    },
    /// The operator has left this node out of the nodeset, or lists another key for it.
    #[error("this node was removed: nodeset {nodeset} does not list a key of its key file")]
    Removed {
        /// Version of the nodeset.
        nodeset: u64,
    },
    /// Another key than the one that the store is under.
    #[error("wrong key: wanted {expected}, found {found}")]
    WrongKey {
        /// Fingerprint of the key wanted.
        expected: String,
        /// Fingerprint of the key found.
        found: String,
    },
    /// The database is not encrypted at all.
    #[error("`{}` is a plaintext SQLite database", path.display())]
    Plaintext {
        /// The file.
        path: PathBuf,
    },
    /// A file or page is damaged.
    #[error("store is corrupt: {what}")]
    Corrupt {
        /// What does not fit.
        what: String,
    },
    /// A record that was stored does not decode.
    #[error("a stored {kind} is corrupt")]
    CorruptRecord {
        /// The record's kind.
        kind: Kind,
        /// Why.
        source: DecodeError,
    },
    /// Bytes that were given as a record do not decode.
    #[error("record {index} cannot be read")]
    Decode {
        /// Its place in the input, from 0.
        index: u64,
        /// Why.
        source: DecodeError,
    },
    /// Another process has the store.
    #[error("`{}` is locked by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// An earlier failure left this handle unusable; open the store again.
    #[error("the store's handle is poisoned by an earlier failure of {step}")]
    Poisoned {
        /// What failed.
        step: &'static str,
    },
    /// Something that should be there is not, and is never made up.
    #[error("`{}` is missing: {what}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
        /// What expects it.
        what: &'static str,
    },
    /// The store cannot be vouched for, for want of a witness.
    #[error("not proven: {what}")]
    NotProven {
        /// What is missing for a proof.
        what: &'static str,
    },
    /// Made by a later release.
    #[error("unsupported {what} {found}, this release knows up to {known}")]
    Unsupported {
        /// What has the version.
        what: &'static str,
        /// The version found.
        found: u64,
        /// The latest version known.
        known: u64,
    },
    /// The operating system failed.
    #[error("cannot {step} `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The database engine failed.
    #[error("database failed to {step}: result code {code}")]
    Database {
        /// What was being done.
        step: &'static str,
        /// SQLite's extended result code.
        code: i32,
    },
}

impl StoreError {
    /// What a caller can do about it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::AlreadyExists { .. }
            | Self::Conflict { .. }
            | Self::AlreadyMember
            | Self::LastOwner
            | Self::LastAdmin
            | Self::NotEmpty { .. } => ErrorClass::Conflict,
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::NotAuthorized | Self::Removed { .. } => ErrorClass::Denied,
            Self::NotExactlyMembers { .. }
            | Self::Invalid { .. }
            | Self::Field(_)
            | Self::Decode { .. }
            | Self::Plaintext { .. }
            | Self::Stopped => ErrorClass::Misuse,
            Self::Unavailable { .. } | Self::Poisoned { .. } => ErrorClass::Unavailable,
            Self::RolledBack { .. } => ErrorClass::RolledBack,
            Self::Tampered { .. } => ErrorClass::Tampered,
            Self::WrongKey { .. } => ErrorClass::WrongKey,
            Self::Corrupt { .. } | Self::CorruptRecord { .. } => ErrorClass::Corrupt,
            Self::Locked { .. } => ErrorClass::Locked,
            Self::Missing { .. } => ErrorClass::MissingKey,
            Self::NotProven { .. } => ErrorClass::NotProven,
            Self::Unsupported { .. } => ErrorClass::Unsupported,
            Self::Io { .. } | Self::Database { .. } => ErrorClass::Io,
        }
    }

    /// The stable code, which names a page of `runbooks/errors/`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AlreadyExists { .. } => "UB-S001",
            Self::NotFound { .. } => "UB-S002",
            Self::NotAuthorized => "UB-S003",
            Self::Conflict { .. } => "UB-S004",
            Self::NotExactlyMembers { .. } => "UB-S005",
            Self::AlreadyMember => "UB-S006",
            Self::LastOwner => "UB-S007",
            Self::LastAdmin => "UB-S008",
            Self::Invalid { .. } => "UB-S009",
            Self::Field(_) => "UB-S010",
            Self::NotEmpty { .. } => "UB-S011",
            Self::Stopped => "UB-S012",
            Self::Unavailable { .. } => "UB-S013",
            Self::RolledBack { .. } => "UB-S014",
            Self::Tampered { .. } => "UB-S015",
            Self::WrongKey { .. } => "UB-S016",
            Self::Plaintext { .. } => "UB-S017",
            Self::Corrupt { .. } => "UB-S018",
            Self::CorruptRecord { .. } => "UB-S019",
            Self::Decode { .. } => "UB-S020",
            Self::Locked { .. } => "UB-S021",
            Self::Poisoned { .. } => "UB-S022",
            Self::Missing { .. } => "UB-S023",
            Self::NotProven { .. } => "UB-S024",
            Self::Unsupported { .. } => "UB-S025",
            Self::Io { .. } => "UB-S026",
            Self::Database { .. } => "UB-S027",
            Self::Removed { .. } => "UB-S085",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_has_the_code_of_each_error() {
        let spec = include_str!("../SPEC.md");
        let (_, section) = spec.split_once("### 3.7 Errors").unwrap();
        let cells: Vec<&str> = section.split("\n## ").next().unwrap().split('|').map(str::trim).collect();
        let pairs = cells.windows(2).filter(|pair| pair[0].starts_with("UB-S"));
        let pairs: Vec<(&str, &str)> = pairs.map(|pair| (pair[0], pair[1].trim_matches('`'))).collect();
        // The arms of `code`, as they stand above.
        let (_, arms) = include_str!("error.rs").split_once("pub const fn code").unwrap();
        let arms = arms.split("\n    }").next().unwrap().lines().filter(|line| line.contains("=> \"UB-S"));
        let mut count = 0;
        for arm in arms {
            let name = arm.trim().trim_start_matches("Self::").split([' ', '(']).next().unwrap();
            let code = arm.split('"').nth(1).unwrap();
            assert!(pairs.contains(&(code, name)), "{code} {name}");
            count += 1;
        }
        assert_eq!(count, pairs.len(), "codes of the specification that the code has not");
    }

    #[test]
    fn texts_name_what_to_look_at_and_not_their_source() {
        let source = DecodeError::Kind { found: 9 };
        let error = StoreError::CorruptRecord { kind: Kind::Room, source };
        assert_eq!(error.to_string(), "a stored room is corrupt");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "unknown record kind 9");
        let error =
            StoreError::Io { path: "a/b".into(), step: "sync", source: io::Error::other("disk is gone") };
        assert_eq!(error.to_string(), "cannot sync `a/b`");
    }
}
