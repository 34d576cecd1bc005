//! Why a store is not opened or not made. Each refusal has its own name.

use std::io;
use std::path::PathBuf;

use unibus_keyfile::error::{DocumentError, ErrorClass, KeyError, UnlockError, WitnessError};
use unibus_keyfile::id::{Lineage, Sequence};

use super::fault::{Fault, SqliteError};
use crate::error::StoreError;
use crate::record::{DecodeError, Kind};

/// Why a SQLCipher store is refused. After a refusal every byte of its folder is as it was (SPEC store, section 5.4).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A document or the witness cannot be read from or written to the disk.
    #[error("cannot use the file of the {document}")]
    Document {
        /// Which one.
        document: &'static str,
        /// Why.
        source: KeyError,
    },
    /// Nodeset or keyring is refused.
    #[error("cannot trust `{}`", path.display())]
    Untrusted {
        /// The document's file.
        path: PathBuf,
        /// Why.
        source: DocumentError,
    },
    /// The keyring does not open with the key at hand.
    #[error("cannot unlock `{}`", path.display())]
    Unlock {
        /// The keyring's file.
        path: PathBuf,
        /// Why.
        source: UnlockError,
    },
    /// The witness is refused.
    #[error("cannot trust the witness `{}`", path.display())]
    Witness {
        /// The witness's file.
        path: PathBuf,
        /// Why.
        source: WitnessError,
    },
    /// There is neither database nor keyring nor witness.
    #[error("there is no store at `{}`", path.display())]
    NothingThere {
        /// Where the database would be.
        path: PathBuf,
    },
    /// A database without its keyring.
    #[error("the keyring `{}` is missing, and {evidence} says that there was one", path.display())]
    KeyringMissing {
        /// Where the keyring would be.
        path: PathBuf,
        /// What says so: the database or the witness.
        evidence: &'static str,
    },
    /// No database where one is expected. None is made in its place.
    #[error("the database `{}` is missing, and {evidence} says that there was one of lineage {lineage}", path.display())]
    DatabaseMissing {
        /// Where the database would be.
        path: PathBuf,
        /// What says so: the keyring or the witness.
        evidence: &'static str,
        /// Its lineage.
        lineage: Lineage,
    },
    /// Another process has the store open for writing.
    #[error("another process holds the lock `{}`", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A SQLite database that was never encrypted.
    #[error("`{}` is a plaintext SQLite database", path.display())]
    Plaintext {
        /// The file.
        path: PathBuf,
    },
    /// The file has no bytes. SQLite would take it for a new database.
    #[error("`{}` is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file ends within a page.
    #[error("`{}` has {found} bytes, which is not a whole number of pages of 4096", path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
    },
    /// Something that is not a regular file.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A rollback journal, which this store never writes. SQLite would write it into the database.
    #[error("`{}` was put here: a rollback journal, which this store never makes", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
    },
    /// The key is right, and the first page does not authenticate.
    #[error("page 1 of `{}` does not authenticate under the key of its keyring", path.display())]
    FirstPage {
        /// The database.
        path: PathBuf,
    },
    /// Pages do not authenticate.
    #[error("pages of `{}` do not authenticate: {}", path.display(), list(pages))]
    Pages {
        /// The database.
        path: PathBuf,
        /// Page numbers, from 1; the first few.
        pages: Vec<u32>,
    },
    /// All pages authenticate, and together they are not a sound database.
    #[error("the structure of `{}` is damaged: {detail}", path.display())]
    Structure {
        /// The database.
        path: PathBuf,
        /// What SQLite says: tables and page numbers.
        detail: String,
    },
    /// Encryption is not on. Never seen; checked because a store without it would work.
    #[error("`{}` was opened without encryption", path.display())]
    NotEncrypted {
        /// The database.
        path: PathBuf,
    },
    /// A database of another program.
    #[error("`{}` is of another application: id {found:#010x}", path.display())]
    Application {
        /// The database.
        path: PathBuf,
        /// Its application id.
        found: i64,
    },
    /// A schema version that this release does not know.
    #[error("`{}` has schema version {found}; this release reads 1 to {newest}", path.display())]
    SchemaVersion {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest that this release reads.
        newest: i64,
    },
    /// A schema version that this release can bring up to date, and cannot read as it is.
    #[error("`{}` has schema version {found}; this release reads from version {oldest} on", path.display())]
    SchemaOutdated {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The oldest that this release reads.
        oldest: i64,
    },
    /// After the steps to a newer schema the records are not the same, or no longer sound. The steps were undone.
    #[error("`{}` is not the same store after the step from schema version {from} to {to}", path.display())]
    SchemaStep {
        /// The database.
        path: PathBuf,
        /// Its version.
        from: i64,
        /// The version it was to get.
        to: i64,
    },
    /// Tables, indexes, triggers or views are not those of the version.
    #[error("the tables of `{}` are not those of its schema version", path.display())]
    Schema {
        /// The database.
        path: PathBuf,
    },
    /// The database belongs to another cluster, lineage or epoch than its keyring.
    #[error("`{}` has another {field} than its keyring", path.display())]
    OtherStore {
        /// The database.
        path: PathBuf,
        /// `cluster`, `lineage`, `epoch` or `format`.
        field: &'static str,
    },
    /// A row is not a record, or not the record that its columns say.
    #[error("{kind} number {index} of `{}` is not a record", path.display())]
    Record {
        /// The database.
        path: PathBuf,
        /// Its kind.
        kind: Kind,
        /// Its position in canonical order, from 0.
        index: u64,
        /// Why.
        source: DecodeError,
    },
    /// The records, each sound by itself, are not those of the last commit.
    #[error("the {what} of `{}` is not that of its last commit: a page of an earlier state was put back", path.display())]
    Digest {
        /// The database.
        path: PathBuf,
        /// `state digest` or `nonce digest`.
        what: &'static str,
    },
    /// The store is behind what this node has already seen.
    #[error("`{}` was rolled back: it is at sequence {found}, the witness has seen {witnessed}", path.display())]
    RolledBack {
        /// The database.
        path: PathBuf,
        /// Its sequence.
        found: Sequence,
        /// The sequence of the witness.
        witnessed: Sequence,
    },
    /// The same sequence as the witness, and other contents.
    #[error("`{}` has other contents at sequence {at} than the witness has seen", path.display())]
    Forked {
        /// The database.
        path: PathBuf,
        /// The sequence of both.
        at: Sequence,
    },
    /// The witness knows another history.
    #[error("`{}` is of lineage {found}, the witness has seen lineage {witnessed}", path.display())]
    OtherLineage {
        /// The keyring.
        path: PathBuf,
        /// The lineage on disk.
        found: Lineage,
        /// The lineage of the witness.
        witnessed: Lineage,
    },
    /// A signed document is older than one this node has already accepted.
    #[error("the {document} was rolled back: version {found}, the witness has seen {witnessed}")]
    DocumentRolledBack {
        /// `nodeset` or `keyring`.
        document: &'static str,
        /// Its version.
        found: u64,
        /// The version of the witness.
        witnessed: u64,
    },
    /// A signed document has the version that this node has accepted, and other bytes.
    #[error("the {document} of version {version} is not the one that the witness has seen")]
    DocumentForked {
        /// `nodeset` or `keyring`.
        document: &'static str,
        /// The version of both.
        version: u64,
    },
    /// The witness is gone, and the store has served.
    #[error("the witness `{}` is missing, and the store is at sequence {sequence}: it may be an older copy", path.display())]
    NoWitness {
        /// Where the witness would be.
        path: PathBuf,
        /// The store's sequence.
        sequence: Sequence,
    },
    /// A store is there already; nothing is overwritten.
    #[error("`{}` exists; nothing is overwritten", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// The witness knows a store that the caller did not name.
    #[error("the witness knows a store of lineage {lineage} at sequence {sequence}, which would be given up")]
    WitnessExpects {
        /// Its lineage.
        lineage: Lineage,
        /// Its sequence.
        sequence: Sequence,
    },
    /// Another file was put in the place of an open database.
    #[error("`{}` is not the file any more that this process has open", path.display())]
    Moved {
        /// The database.
        path: PathBuf,
    },
    /// What was read back is not what was written.
    #[error("the new store does not read back as it was written")]
    ReadBack,
    /// A record was given twice.
    #[error("{kind} number {index} of the import comes twice")]
    Duplicate {
        /// Its kind.
        kind: Kind,
        /// How many records were imported before it.
        index: u64,
    },
    /// A keyring or operator key is not one that can be worked with here.
    #[error("{0}")]
    Misuse(&'static str),
    /// A record that refers to others could not be followed.
    #[error("cannot verify `{}`", path.display())]
    Store {
        /// The database.
        path: PathBuf,
        /// Why.
        source: Box<StoreError>,
    },
    /// The operating system failed.
    #[error("cannot {step} `{}`", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite failed.
    #[error("cannot {step} `{}`", path.display())]
    Sqlite {
        /// What was tried.
        step: &'static str,
        /// The database.
        path: PathBuf,
        /// Why.
        source: SqliteError,
    },
}

fn list(pages: &[u32]) -> String {
    pages.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

impl OpenError {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Document { source, .. } => source.class(),
            Self::Untrusted { source, .. } => source.class(),
            Self::Unlock { source, .. } => source.class(),
            Self::Witness { source, .. } => source.class(),
            Self::NothingThere { .. } => ErrorClass::NotFound,
            Self::KeyringMissing { .. } | Self::DatabaseMissing { .. } => ErrorClass::MissingKey,
            Self::Locked { .. } => ErrorClass::Locked,
            Self::Empty { .. }
            | Self::Cut { .. }
            | Self::FirstPage { .. }
            | Self::Pages { .. }
            | Self::Structure { .. }
            | Self::Record { .. } => ErrorClass::Corrupt,
            Self::Plaintext { .. }
            | Self::Journal { .. }
            | Self::NotEncrypted { .. }
            | Self::Application { .. }
            | Self::Schema { .. }
            | Self::Digest { .. }
            | Self::Forked { .. }
            | Self::Moved { .. }
            | Self::DocumentForked { .. } => ErrorClass::Tampered,
            Self::OtherStore { .. } => ErrorClass::WrongKey,
            Self::SchemaVersion { .. } | Self::SchemaOutdated { .. } => ErrorClass::Unsupported,
            Self::RolledBack { .. } | Self::OtherLineage { .. } | Self::DocumentRolledBack { .. } => {
                ErrorClass::RolledBack
            }
            Self::NoWitness { .. } | Self::ReadBack | Self::SchemaStep { .. } => ErrorClass::NotProven,
            Self::Exists { .. } | Self::WitnessExpects { .. } => ErrorClass::Conflict,
            Self::NotAFile { .. } | Self::Duplicate { .. } | Self::Misuse(_) => ErrorClass::Misuse,
            Self::Io { .. } => ErrorClass::Io,
            Self::Store { source, .. } => source.class(),
            Self::Sqlite { source, .. } => class_of(source.fault()),
        }
    }

    /// The stable code; each has a page under `runbooks/errors`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Document { source, .. } => source.code(),
            Self::Untrusted { source, .. } => source.code(),
            Self::Unlock { source, .. } => source.code(),
            Self::Witness { source, .. } => source.code(),
            Self::Store { source, .. } => source.code(),
            Self::NothingThere { .. } => "UB-S101",
            Self::KeyringMissing { .. } => "UB-S102",
            Self::DatabaseMissing { .. } => "UB-S103",
            Self::Locked { .. } => "UB-S104",
            Self::Plaintext { .. } => "UB-S105",
            Self::Empty { .. } | Self::Cut { .. } | Self::NotAFile { .. } => "UB-S106",
            Self::Journal { .. } => "UB-S107",
            Self::FirstPage { .. } | Self::Pages { .. } => "UB-S108",
            Self::Structure { .. } | Self::Record { .. } | Self::Schema { .. } => "UB-S109",
            Self::Application { .. } | Self::OtherStore { .. } => "UB-S110",
            Self::SchemaVersion { .. } | Self::SchemaOutdated { .. } => "UB-S111",
            Self::Digest { .. } => "UB-S112",
            Self::RolledBack { .. } => "UB-S113",
            Self::Forked { .. } | Self::Moved { .. } | Self::DocumentForked { .. } => "UB-S114",
            Self::OtherLineage { .. } => "UB-S115",
            Self::DocumentRolledBack { .. } => "UB-S116",
            Self::NoWitness { .. } => "UB-S117",
            Self::Exists { .. } => "UB-S118",
            Self::WitnessExpects { .. } => "UB-S119",
            Self::NotEncrypted { .. } | Self::ReadBack | Self::SchemaStep { .. } => "UB-S120",
            Self::Duplicate { .. } | Self::Misuse(_) => "UB-S121",
            Self::Io { .. } | Self::Sqlite { .. } => "UB-S122",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Untrusted { source, .. } => Some(source.hint()),
            Self::Unlock { source, .. } => Some(source.hint()),
            Self::Witness { source, .. } => Some(source.hint()),
            other => other.own_hint().map(str::to_owned),
        }
    }

    fn own_hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NothingThere { .. } => "check the path; `unibus-migrate copy` or `restore` makes a store",
            Self::KeyringMissing { .. } => {
                "put the keyring back from the same copy as the database, or restore a snapshot; no key is made up"
            }
            Self::DatabaseMissing { .. } => {
                "put the database back, or restore a snapshot; none is made in its place"
            }
            Self::Locked { .. } => "stop the process that has it open, or use a command that only reads",
            Self::Plaintext { .. } => {
                "bring it over with `unibus-migrate copy --from sqlite:FILE --to sqlcipher:NEW`; if it stood in the \
                 place of an encrypted store, somebody put it there"
            }
            Self::Empty { .. }
            | Self::Cut { .. }
            | Self::FirstPage { .. }
            | Self::Pages { .. }
            | Self::Structure { .. }
            | Self::Record { .. } => "keep the files as they are for examination, and restore a snapshot",
            Self::Journal { .. } => "keep it for examination, and move it away",
            Self::Digest { .. }
            | Self::Forked { .. }
            | Self::Moved { .. }
            | Self::Schema { .. }
            | Self::Application { .. } => {
                "somebody changed the files: keep them for examination, and restore a snapshot"
            }
            Self::OtherStore { .. } => "put database and keyring of the same store together",
            Self::SchemaOutdated { .. } => "start `membershipd` on it once: that brings it up to date",
            Self::SchemaVersion { .. } => "use the release that wrote it, or a newer one",
            Self::RolledBack { .. } | Self::OtherLineage { .. } | Self::DocumentRolledBack { .. } => {
                "bring the newest files back; to go on with older ones, restore a snapshot with the operator's leave"
            }
            Self::DocumentForked { .. } => "bring back the document that this node has accepted",
            Self::NoWitness { .. } => {
                "bring the witness back from the state directory; without it nobody can tell the newest copy from an \
                 older one"
            }
            Self::Exists { .. } => "choose another path, or move the old store away as a whole",
            Self::WitnessExpects { .. } => "name the store that is given up, or use another state directory",
            Self::Sqlite { source, .. } if source.fault() == Fault::DiskFull => "make room on the disk",
            _ => return None,
        })
    }
}

/// The class of a fault of SQLite.
pub(super) fn class_of(fault: Fault) -> ErrorClass {
    match fault {
        Fault::DiskFull | Fault::Io | Fault::ReadOnly | Fault::Other => ErrorClass::Io,
        Fault::Busy => ErrorClass::Locked,
        Fault::NotADatabase | Fault::Corrupt => ErrorClass::Corrupt,
    }
}

impl From<OpenError> for StoreError {
    /// What a verification found, in the words of every backend.
    fn from(error: OpenError) -> Self {
        let what = error.to_string();
        match error {
            OpenError::Store { source, .. } => *source,
            OpenError::Record { kind, source, .. } => Self::CorruptRecord { kind, source },
            OpenError::RolledBack { found, witnessed, .. } => Self::RolledBack { found, witnessed },
            OpenError::Plaintext { path } => Self::Plaintext { path },
            OpenError::Locked { path } => Self::Locked { path },
            OpenError::Io { step, path, source } => Self::Io { path, step, source },
            OpenError::Sqlite { step, source, .. } => Self::Database { step, code: source.code() },
            other => match other.class() {
                ErrorClass::Corrupt => Self::Corrupt { what },
                _ => Self::Tampered { what },
            },
        }
    }
}
