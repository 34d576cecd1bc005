//! What can go wrong, with its exit code, its stable code and the next step.

use std::path::PathBuf;

use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::error::{DocumentError, ErrorClass, KeyError, ReceiptError, UnlockError, WitnessError};
use unibus_keyfile::id::{ClusterId, Lineage, Sequence};
use unibus_nats::NatsError;
use unibus_store::archive::ArchiveError;
use unibus_store::blobs::BlobError;
use unibus_store::error::StoreError;
use unibus_store::plaintext::PlaintextError;
use unibus_store::record::DecodeError;
use unibus_store::sealed_log::LogError;
use unibus_store::sqlcipher::OpenError;

use crate::rotate::RotateError;
use crate::source::StoreUrl;

/// Done, but rows had to be left out.
pub const EXIT_QUARANTINED: u8 = 8;
/// Not proven, and therefore not claimed.
pub const EXIT_NOT_PROVEN: u8 = 9;

/// The exit code of each class: the one table of it (design of the tool, exit codes).
#[must_use]
pub fn exit_of(class: ErrorClass) -> u8 {
    match class {
        ErrorClass::Misuse | ErrorClass::Conflict | ErrorClass::NotFound | ErrorClass::Denied => 2,
        ErrorClass::Unavailable => 3,
        ErrorClass::Corrupt | ErrorClass::Tampered | ErrorClass::Unsupported => 4,
        ErrorClass::Locked => 5,
        ErrorClass::WrongKey | ErrorClass::MissingKey => 6,
        ErrorClass::RolledBack => 7,
        ErrorClass::NotProven => EXIT_NOT_PROVEN,
        _ => 1,
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// A key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A signed document is refused.
    #[error("`{}` is refused", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: DocumentError,
    },
    /// A keyring does not open.
    #[error("the keyring `{}` does not open", path.display())]
    Unlock {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: UnlockError,
    },
    /// A witness is refused.
    #[error("the witness in `{}` cannot be used", folder.display())]
    Witness {
        /// The state folder.
        folder: PathBuf,
        /// The reason.
        source: WitnessError,
    },
    /// A store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An encrypted store is not opened or not made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A sealed log is not opened or not filled.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A receipt proves nothing.
    #[error("the receipt `{}` is refused", path.display())]
    Receipt {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Box<ReceiptError>,
    },
    /// Records of a source that is to be removed are not in the target. Nothing was removed.
    #[error("{missing} records of `{store}` are not in the target, and {rejected} rows are no valid records")]
    NotCopied {
        /// The source.
        store: String,
        /// Records that are not in the target.
        missing: u64,
        /// Rows that could not be copied.
        rejected: u64,
    },
    /// A rotation is refused or stops.
    #[error(transparent)]
    Rotate(#[from] RotateError),
    /// The file of the daemon's NATS identity cannot be used.
    #[error(transparent)]
    Identity(#[from] NatsError),
    /// A server of another host would be spoken to, and nothing proves that it is the right one.
    #[error("`{store}` is on another host, and there is no CA to know it by")]
    Unproven {
        /// The store.
        store: StoreUrl,
    },
    /// A sealed log has no folder beside which its nodeset could lie.
    #[error("the nodeset of `{store}` is not given")]
    NoNodeset {
        /// The log.
        store: StoreUrl,
    },
    /// There is no log, and nothing that says where the witness of a new one belongs.
    #[error("there is no sealed log on `{store}`, and making one needs the state folder of its daemon")]
    NoLog {
        /// The log.
        store: StoreUrl,
    },
    /// The target holds a part of another source.
    #[error("`{store}` holds a part of another source than this one")]
    OtherImport {
        /// The log.
        store: StoreUrl,
    },
    /// An import into a log was begun and not ended.
    #[error("the import into `{store}` was not finished")]
    CutShort {
        /// The log.
        store: StoreUrl,
        /// What happened.
        source: Box<Self>,
    },
    /// The sealed content of a blob is not what its record says.
    #[error("a blob in `{}` is refused", folder.display())]
    Blob {
        /// The blob folder.
        folder: PathBuf,
        /// The reason.
        source: BlobError,
    },
    /// A snapshot file refused.
    #[error("snapshot `{}` is refused", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: ArchiveError,
    },
    /// A plaintext source refused.
    #[error(transparent)]
    Plaintext(#[from] PlaintextError),
    /// The operating system refused a step.
    #[error("cannot {step} `{}`", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The output has a name that is taken.
    #[error("`{}` exists", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The target of a restore holds records.
    #[error("`{store}` holds {records} records")]
    NotEmpty {
        /// The store.
        store: String,
        /// How many.
        records: u64,
    },
    /// Source and target are the same file.
    #[error("source and target are the same file, `{}`", path.display())]
    SameFile {
        /// The file.
        path: PathBuf,
    },
    /// This kind of store cannot be used in this place.
    #[error("`{url}` cannot be {role} of `{command}`")]
    Role {
        /// The store.
        url: StoreUrl,
        /// What it was to be.
        role: &'static str,
        /// The command.
        command: &'static str,
        /// What would do.
        hint: &'static str,
    },
    /// The plan is no longer the one that was agreed to.
    #[error("the plan has changed: agreed to {expected}, now {found}")]
    PlanChanged {
        /// Hash that was given.
        expected: String,
        /// Hash of the plan now.
        found: String,
    },
    /// Something would be replaced and nobody agreed.
    #[error("this would replace {what}, and nobody agreed to it")]
    Unconfirmed {
        /// What would be replaced.
        what: String,
    },
    /// Source and target belong to different clusters.
    #[error("the source belongs to cluster {source_cluster}, the target's key to {target_cluster}")]
    OtherCluster {
        /// Cluster of the source.
        source_cluster: ClusterId,
        /// Cluster of the target.
        target_cluster: ClusterId,
    },
    /// No key at hand opens it, and none was named that could.
    #[error("without the node key, the operator key or another recovery key nothing can open `{store}`")]
    KeysLost {
        /// The store or snapshot.
        store: String,
        /// Why the node key is not there.
        source: KeyError,
    },
    /// What was read back is not what was written.
    #[error("the target reads back as {found}, the source was {expected}; the target was not kept")]
    ReadBack {
        /// Digest of the source.
        expected: StateDigest,
        /// Digest of what was read back.
        found: StateDigest,
    },
    /// What was read back has other numbers of records.
    #[error("the target reads back with other numbers of records than were written")]
    Census,
    /// A sealed source was written to.
    #[error("`{store}` changed while it was copied")]
    SourceMoved {
        /// The store.
        store: String,
    },
    /// The witness has seen a later state than the snapshot holds, or another history.
    #[error("the witness has seen lineage {} at sequence {}, the snapshot is of lineage {} at sequence {}",
        witness.0, witness.1, snapshot.0, snapshot.1)]
    RolledBack {
        /// What the witness has seen.
        witness: Box<(Lineage, Sequence)>,
        /// What the snapshot holds.
        snapshot: Box<(Lineage, Sequence)>,
    },
    /// A record of a snapshot does not decode, though it is authentic.
    #[error("snapshot `{}` holds a record that this release cannot read", path.display())]
    Record {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong.
        source: DecodeError,
    },
    /// The daemon that serves the store did not take the date of a drill.
    #[error("the daemon on the state folder `{}` did not take the date: {problem}", state_dir.display())]
    Serving {
        /// The state folder.
        state_dir: PathBuf,
        /// What happened.
        problem: String,
    },
    /// There is no witness to write to.
    #[error("there is no witness in `{}`", state_dir.display())]
    NoWitness {
        /// The state folder.
        state_dir: PathBuf,
    },
    /// A line of the file of revoked keys is no key.
    #[error("line {line} of `{}` is not a signing key (64 hexadecimal digits)", path.display())]
    RevokedLine {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
}

impl MigrateError {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Key(source) => source.class(),
            Self::Document { source, .. } => source.class(),
            Self::Unlock { source, .. } => source.class(),
            Self::Witness { source, .. } => source.class(),
            Self::Store(source) => source.class(),
            Self::Blob { source, .. } => source.class(),
            Self::Open(source) => source.class(),
            Self::Log(source) => source.class(),
            Self::Identity(source) => source.class(),
            Self::Rotate(source) => source.class(),
            // What it says does not follow from what is in it: somebody else wrote it.
            Self::Receipt { source, .. } if source.class() == ErrorClass::NotProven => ErrorClass::Tampered,
            Self::Receipt { source, .. } => source.class(),
            Self::NotCopied { .. } => ErrorClass::NotProven,
            Self::CutShort { source, .. } => match source.class() {
                // Of these the exit code says that nothing was changed.
                ErrorClass::Misuse | ErrorClass::Conflict | ErrorClass::NotFound | ErrorClass::Denied => {
                    ErrorClass::Io
                }
                class => class,
            },
            Self::Plaintext(source) => source.class(),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorClass::NotFound,
            Self::Io { .. } => ErrorClass::Io,
            Self::OtherCluster { .. } => ErrorClass::WrongKey,
            Self::KeysLost { .. } => ErrorClass::MissingKey,
            Self::ReadBack { .. } | Self::Census => ErrorClass::NotProven,
            Self::RolledBack { .. } => ErrorClass::RolledBack,
            Self::Archive { source: ArchiveError::File { source, .. }, .. }
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                ErrorClass::NotFound
            }
            Self::Archive { source, .. } => source.class(),
            Self::Record { .. } => ErrorClass::Unsupported,
            Self::Serving { .. } => ErrorClass::Unavailable,
            Self::NoWitness { .. } => ErrorClass::NotFound,
            Self::Exists { .. }
            | Self::NotEmpty { .. }
            | Self::PlanChanged { .. }
            | Self::OtherImport { .. }
            | Self::SourceMoved { .. } => ErrorClass::Conflict,
            Self::SameFile { .. }
            | Self::Unproven { .. }
            | Self::NoNodeset { .. }
            | Self::NoLog { .. }
            | Self::Role { .. }
            | Self::Unconfirmed { .. }
            | Self::RevokedLine { .. } => ErrorClass::Misuse,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> u8 {
        exit_of(self.class())
    }

    /// The stable code; each has a page under `runbooks/errors`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Key(source) => source.code(),
            Self::Document { source, .. } => source.code(),
            Self::Unlock { source, .. } => source.code(),
            Self::Witness { source, .. } => source.code(),
            Self::Store(source) => source.code(),
            Self::Blob { source, .. } => source.code(),
            Self::Open(source) => source.code(),
            Self::Log(source) => source.code(),
            Self::Identity(source) => source.code(),
            Self::Rotate(source) => source.code(),
            Self::Receipt { source, .. } => source.code(),
            Self::NotCopied { .. } => "UB-M034",
            Self::Plaintext(source) => source.code(),
            Self::Io { .. } => "UB-M001",
            Self::Exists { .. } | Self::NotEmpty { .. } => "UB-M002",
            Self::SameFile { .. } => "UB-M003",
            Self::Role { .. } => "UB-M004",
            Self::PlanChanged { .. } => "UB-M005",
            Self::Unconfirmed { .. } => "UB-M006",
            Self::OtherCluster { .. } => "UB-M007",
            Self::KeysLost { .. } => "UB-M008",
            Self::ReadBack { .. } | Self::Census => "UB-M009",
            Self::RolledBack { .. } => "UB-M010",
            Self::Record { .. } => "UB-M011",
            Self::Serving { .. } => "UB-M014",
            Self::NoWitness { .. } => "UB-M015",
            Self::Archive { source, .. } => source.code(),
            Self::RevokedLine { .. } => "UB-M012",
            Self::SourceMoved { .. } => "UB-M013",
            Self::Unproven { .. } => "UB-M016",
            Self::NoNodeset { .. } => "UB-M017",
            Self::NoLog { .. } => "UB-M018",
            Self::OtherImport { .. } => "UB-M019",
            Self::CutShort { .. } => "UB-M020",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Key(source) => source.hint(),
            Self::Open(OpenError::Document { document: "nodeset", .. }) => {
                "give --nodeset: the file that `unibus-key init` wrote beside the keys".into()
            }
            Self::Open(source) => return source.hint(),
            Self::Log(source) => return source.hint(),
            Self::Identity(source) => return source.hint(),
            Self::Rotate(source) => source.hint(),
            Self::Receipt { source, .. } => source.hint(),
            Self::NotCopied { .. } => {
                "look for what was written to the source after the copy; nothing was removed".into()
            }
            Self::Unproven { .. } => "give --ca: the CA that signed the servers' certificates".into(),
            Self::NoNodeset { .. } => "give --nodeset: the file that `unibus-key init` wrote beside the keys".into(),
            Self::NoLog { .. } => {
                "start `membershipd --store kv` once, which makes it; or give --state-dir, the state folder of the daemon \
                 that will serve it"
                    .into()
            }
            Self::OtherImport { .. } => {
                "run the command again that began it; or stop the daemons and remove the JetStream folders of this log, \
                 which was never served, to begin anew"
                    .into()
            }
            Self::CutShort { source, .. } => {
                let first = match source.as_ref() {
                    Self::SourceMoved { .. } => "stop the daemon that serves the source; then ".to_owned(),
                    other => other.hint().map(|hint| format!("{hint}; then ")).unwrap_or_default(),
                };
                format!("{first}run the same command again: it goes on from what is there; nothing is served before")
            }
            Self::Plaintext(source) => source.hint().to_owned(),
            Self::Io { .. } => "check the path, the room on the disk, and the rights of the user that runs this".into(),
            Self::Exists { .. } => "choose another name, or move the old file away; nothing is overwritten".into(),
            Self::NotEmpty { .. } => {
                "a restore goes into an absent or empty store: move the old one away as a whole, and name it with --supersede".into()
            }
            Self::SameFile { .. } => "name another target; a store is never converted in place".into(),
            Self::Role { hint, .. } => (*hint).into(),
            Self::PlanChanged { .. } => "run it with --dry-run again, and look at what is different".into(),
            Self::Unconfirmed { .. } => "look at the plan with --dry-run, then give --plan HASH or --yes".into(),
            Self::OtherCluster { .. } => "use the key file and the nodeset of the cluster that the source belongs to".into(),
            Self::KeysLost { .. } => {
                "find the node key, or give --operator KEY or --recovery-key FILE; if all of them are lost, what is in \
                 it is lost for everybody, and no tool can change that"
                    .into()
            }
            Self::SourceMoved { .. } => "stop the daemon that serves it, and run this again; nothing was kept".into(),
            Self::ReadBack { .. } | Self::Census => "check memory and disk of this machine, and run it again; the source was not touched".into(),
            Self::RolledBack { .. } => {
                "restore a newer snapshot; or, if the later changes are to be given up, add --accept-rollback --operator KEY"
                    .into()
            }
            Self::Record { .. } => "use the release that wrote it, or a newer one".into(),
            Self::Serving { .. } => "look at its log, and whether the snapshot is of its cluster; the drill itself went well and can be repeated".into(),
            Self::Archive { source: ArchiveError::NotARecipient { .. }, .. } => {
                "give --operator KEY or --recovery-key FILE; `snapshot --nodes` makes one that a node opens too".into()
            }
            Self::Archive { source: ArchiveError::File { .. }, .. } => "check the path, and the rights of the user that runs this".into(),
            Self::Archive { source: ArchiveError::Cluster { .. }, .. } => "use the keys of the cluster that made it".into(),
            Self::Archive { .. } => "use another copy of the snapshot: this one was cut or changed; nothing was touched".into(),
            Self::Blob { .. } => "put the blob folder of the same time back, or have the blob sent again".into(),
            Self::NoWitness { .. } => "check --state-dir: it is the state folder of the daemon".into(),
            Self::RevokedLine { .. } => "write one key a line; lines that begin with # are ignored".into(),
            _ => return None,
        })
    }
}
