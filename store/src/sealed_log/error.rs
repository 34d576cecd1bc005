//! Why a sealed log is not opened or not made. Each refusal has its own name.

use std::path::PathBuf;
use std::time::Duration;

use unibus_keyfile::error::{DocumentError, ErrorClass, KeyError, UnlockError, WitnessError};
use unibus_keyfile::id::{Fingerprint, Lineage, Sequence};

use crate::error::StoreError;

/// Why a sealed log is refused. Nothing was deleted or made anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A document or the witness cannot be read from or written to the disk.
    #[error("cannot use the file of the {document}")]
    Document {
        /// Which one.
        document: &'static str,
        /// Why.
        source: KeyError,
    },
    /// The nodeset's file is refused.
    #[error("cannot trust `{}`", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DocumentError,
    },
    /// A document in the log is refused.
    #[error("cannot trust the {document} at sequence {sequence} of the log")]
    UntrustedEntry {
        /// Which document.
        document: &'static str,
        /// Where it stands.
        sequence: Sequence,
        /// Why.
        source: DocumentError,
    },
    /// This node's key opens nothing here.
    #[error("cannot unlock the keyring of the log")]
    Unlock(#[source] UnlockError),
    /// The nodeset does not know this node.
    #[error("node `{node}` is not in the nodeset (version {version}){}", keys_of(listed.as_ref(), found))]
    NotInNodeset {
        /// Name in the key file.
        node: String,
        /// Version of the nodeset.
        version: u64,
        /// Fingerprint of the key that it lists for a node of that name, if it does.
        listed: Option<Fingerprint>,
        /// Fingerprints of the keys of the key file, the current one first.
        found: Vec<Fingerprint>,
    },
    /// The nodeset knows this node, and the keyring is not wrapped for it yet.
    #[error(
        "the keyring of the log (version {version}) is not wrapped for node `{node}` yet: it is for nodeset \
         {wrapped_for}, and nodeset {nodeset} is the newest"
    )]
    NotWrapped {
        /// Name in the key file.
        node: String,
        /// Version of the keyring.
        version: u64,
        /// Version of the nodeset that it was wrapped for.
        wrapped_for: u64,
        /// Version of the newest nodeset at hand.
        nodeset: u64,
    },
    /// The witness is refused.
    #[error("cannot trust the witness `{}`", path.display())]
    Witness {
        /// The witness's file.
        path: PathBuf,
        /// Why.
        source: WitnessError,
    },
    /// There is no witness, and the log has entries that nobody else vouches for.
    #[error("there is no witness `{}`, and the log stands at sequence {sequence}", path.display())]
    NoWitness {
        /// Where the witness would be.
        path: PathBuf,
        /// Where the log stands.
        sequence: Sequence,
    },
    /// The servers cannot be reached, or have no quorum, for longer than the budget.
    #[error("no answer within {} s: {why}", waited.as_secs())]
    Unreachable {
        /// What was missing last.
        why: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// The server refuses this identity, or the account has no right to JetStream.
    #[error("the server does not let this node in: {why}")]
    NotAdmitted {
        /// What the server says.
        why: String,
    },
    /// The server's certificate is not one that the CA has signed for that host, or it shows none.
    #[error("the server is not the one that was meant: {why}")]
    ServerNotTrusted {
        /// What is wrong with it.
        why: String,
    },
    /// The file of the CA is of no use.
    #[error("cannot use the CA `{}`: {why}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The server is too old.
    #[error("nats-server {found} is too old, at least {needed} is needed")]
    ServerTooOld {
        /// Its version.
        found: String,
        /// The oldest that does.
        needed: &'static str,
    },
    /// JetStream is not enabled for the account.
    #[error("JetStream is not enabled: {why}")]
    NoJetStream {
        /// What the server says.
        why: String,
    },
    /// The stream is not there although the witness has seen it. None is made in its place.
    #[error(
        "the stream {stream} is not there, and the witness has seen it at sequence {sequence} of lineage {lineage}"
    )]
    StreamMissing {
        /// Its name.
        stream: &'static str,
        /// Where the witness saw it.
        sequence: Sequence,
        /// Its lineage.
        lineage: Lineage,
    },
    /// There is no stream, and this access does not make one.
    #[error("there is no stream {stream}")]
    NothingThere {
        /// Its name.
        stream: &'static str,
    },
    /// A stream of that name has other settings than ours.
    #[error("the stream {stream} has `{setting}` = {found}, wanted {wanted}")]
    OtherSettings {
        /// Its name.
        stream: &'static str,
        /// The first setting that differs.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// A stream of that name holds something else than a sealed log.
    #[error("the stream {stream} is not a sealed log: {what}")]
    NotALog {
        /// Its name.
        stream: &'static str,
        /// What was found.
        what: String,
    },
    /// An import into this log was begun and not ended.
    #[error("an import into this log was not finished")]
    HalfImported,
    /// The log holds records already.
    #[error("the log holds {records} records")]
    NotEmpty {
        /// How many.
        records: u64,
    },
    /// Another process of this node has the log open for serving.
    #[error("another process holds the lock `{}`", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Another one drives a rotation of this log.
    #[error("a rotation of this log is being driven by another process, on this node or on another")]
    Driven,
    /// A rotation waits for nodes that do not answer.
    #[error("waited {} s {what}: {nodes}", waited.as_secs())]
    NodesMissing {
        /// For what.
        what: &'static str,
        /// Names of the nodes.
        nodes: String,
        /// For how long.
        waited: Duration,
    },
    /// The proof at the end of a rotation failed. The old epoch was not destroyed.
    #[error("the nodes do not prove that the old epoch is gone: {why}")]
    NotProven {
        /// What they say.
        why: String,
    },
    /// The log is older than what this node has seen.
    #[error("the log is rolled back: it stands at sequence {found}, this node has seen {witnessed}")]
    RolledBack {
        /// The log's sequence.
        found: Sequence,
        /// The witness's sequence.
        witnessed: Sequence,
    },
    /// The log is of another lineage than the one that this node has seen.
    #[error("the log is of lineage {found}, this node has seen lineage {witnessed}")]
    OtherLineage {
        /// The log's.
        found: Lineage,
        /// The witness's.
        witnessed: Lineage,
    },
    /// A document of the log is older than what this node has seen.
    #[error("the {document} of the log is rolled back: version {found}, this node has seen {witnessed}")]
    DocumentRolledBack {
        /// Which document.
        document: &'static str,
        /// The version found.
        found: u64,
        /// The version seen.
        witnessed: u64,
    },
    /// Something in the log was changed by somebody without the keys.
    #[error("the log is tampered with at sequence {sequence}: {what}")]
    Tampered {
        /// Where.
        sequence: Sequence,
        /// What does not fit.
        what: String,
    },
    /// The caller asks for something that makes no sense.
    #[error("{0}")]
    Misuse(&'static str),
    /// The store refuses.
    #[error("cannot use the log")]
    Store(#[source] StoreError),
}

impl LogError {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Document { source, .. } => source.class(),
            Self::Untrusted { source, .. } => source.class(),
            // An entry of the log is not a file that was given wrongly: somebody put it there.
            Self::UntrustedEntry { source, .. } => match source.class() {
                ErrorClass::Misuse | ErrorClass::Conflict => ErrorClass::Tampered,
                class => class,
            },
            Self::Unlock(source) => source.class(),
            Self::Witness { source, .. } => source.class(),
            Self::Store(source) => source.class(),
            Self::NotInNodeset { .. } | Self::NotWrapped { .. } => ErrorClass::WrongKey,
            Self::NoWitness { .. } | Self::HalfImported => ErrorClass::NotProven,
            Self::Unreachable { .. } | Self::NoJetStream { .. } => ErrorClass::Unavailable,
            Self::NotAdmitted { .. } | Self::ServerNotTrusted { .. } => ErrorClass::Denied,
            Self::ServerTooOld { .. } => ErrorClass::Unsupported,
            Self::StreamMissing { .. } => ErrorClass::MissingKey,
            Self::NothingThere { .. } => ErrorClass::NotFound,
            Self::OtherSettings { .. } | Self::NotALog { .. } | Self::Tampered { .. } => ErrorClass::Tampered,
            Self::NotEmpty { .. } => ErrorClass::Conflict,
            Self::Locked { .. } | Self::Driven => ErrorClass::Locked,
            Self::NodesMissing { .. } => ErrorClass::Unavailable,
            Self::NotProven { .. } => ErrorClass::NotProven,
            Self::RolledBack { .. } | Self::OtherLineage { .. } | Self::DocumentRolledBack { .. } => {
                ErrorClass::RolledBack
            }
            Self::Misuse(_) | Self::Ca { .. } => ErrorClass::Misuse,
        }
    }

    /// The stable code, which names a page of `runbooks/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Document { source, .. } => source.code(),
            Self::Untrusted { source, .. } | Self::UntrustedEntry { source, .. } => source.code(),
            Self::Unlock(source) => source.code(),
            Self::Witness { source, .. } => source.code(),
            Self::Store(source) => source.code(),
            Self::NotInNodeset { .. } => "UB-L001",
            Self::NoWitness { .. } => "UB-L002",
            Self::Unreachable { .. } => "UB-L003",
            Self::NotAdmitted { .. } => "UB-L004",
            Self::ServerTooOld { .. } => "UB-L005",
            Self::NoJetStream { .. } => "UB-L006",
            Self::StreamMissing { .. } => "UB-L007",
            Self::NothingThere { .. } => "UB-L008",
            Self::OtherSettings { .. } => "UB-L009",
            Self::NotALog { .. } => "UB-L010",
            Self::HalfImported => "UB-L011",
            Self::NotEmpty { .. } => "UB-L012",
            Self::Locked { .. } => "UB-L013",
            Self::RolledBack { .. } | Self::DocumentRolledBack { .. } => "UB-L014",
            Self::OtherLineage { .. } => "UB-L015",
            Self::Tampered { .. } => "UB-L016",
            Self::Misuse(_) => "UB-L017",
            Self::NotWrapped { .. } => "UB-L018",
            Self::ServerNotTrusted { .. } => "UB-L019",
            Self::Ca { .. } => "UB-L020",
            Self::Driven => "UB-L021",
            Self::NodesMissing { .. } => "UB-L022",
            Self::NotProven { .. } => "UB-L023",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Document { document: "nodeset", .. } => {
                "give --nodeset: the file that `unibus-key init` wrote beside the keys".into()
            }
            Self::Document { source, .. } => source.hint(),
            Self::Untrusted { source, .. } | Self::UntrustedEntry { source, .. } => source.hint(),
            Self::Unlock(source) => source.hint(),
            Self::Witness { source, .. } => source.hint(),
            Self::NotInNodeset { listed: Some(_), .. } => {
                "this is an earlier key file of this node, or another node's of the same name: put the current one in \
                 its place"
                    .into()
            }
            Self::NotInNodeset { .. } => {
                "enrol this node: `unibus-key request` here, `unibus-key approve` with the operator key, and bring the \
                 new nodeset to one node of the cluster"
                    .into()
            }
            Self::NotWrapped { .. } => {
                "bring the new nodeset to a node that serves, in place of its --nodeset file: it wraps the keyring for \
                 this node within a second, and needs no restart"
                    .into()
            }
            Self::NoWitness { .. } => {
                "put the witness back; or take a snapshot with the operator key and restore it".into()
            }
            Self::Unreachable { .. } => {
                "start the other nodes: a majority must be up and reach each other; this one tries again when it is \
                 started again"
                    .into()
            }
            Self::NotAdmitted { .. } => {
                "give the --internal-id-file that the daemon of this node was started with".into()
            }
            Self::ServerNotTrusted { .. } => {
                "give --ca: the CA that signed the servers' certificates; they must name the host as the URL does".into()
            }
            Self::Ca { .. } => "give the certificate of the CA, in PEM, with --ca".into(),
            Self::ServerTooOld { .. } => "install a newer nats-server, or name one with --nats-server-bin".into(),
            Self::NoJetStream { .. } => "enable JetStream for the account of the control plane".into(),
            Self::StreamMissing { .. } => {
                "put the JetStream folder back, or start the other nodes that still have the stream; nothing was made \
                 in its place. If it is lost for good, restore a snapshot"
                    .into()
            }
            Self::NothingThere { .. } => "start `membershipd --store kv` once: its first start makes the log".into(),
            Self::OtherSettings { .. } | Self::NotALog { .. } => {
                "find out who made or changed that stream; this program neither changes nor deletes it".into()
            }
            Self::HalfImported => {
                "run the `unibus-migrate copy` or `restore` again that was interrupted; nothing is served before".into()
            }
            Self::NotEmpty { .. } => "an import needs a log that never held a record".into(),
            Self::NodesMissing { .. } => {
                "start the daemons of these nodes, then `unibus-migrate resume`; a node that is gone for good is left \
                 out with --fence"
                    .into()
            }
            Self::NotProven { .. } => {
                "nothing was destroyed; see to what is named, then `unibus-migrate resume`".into()
            }
            Self::Driven => {
                "let it finish; if it was killed, `unibus-migrate resume` goes on a few seconds later".into()
            }
            Self::Locked { .. } => "another daemon or tool of this node has it; stop it first".into(),
            Self::RolledBack { .. } | Self::OtherLineage { .. } | Self::DocumentRolledBack { .. } => {
                "put the newer JetStream folders back, or restore a snapshot with the operator key".into()
            }
            Self::Tampered { .. } => {
                "keep the folders as they are for examination; `unibus-migrate snapshot` still exports what is sound"
                    .into()
            }
            Self::Misuse(_) | Self::Store(_) => return None,
        })
    }
}

fn keys_of(listed: Option<&Fingerprint>, found: &[Fingerprint]) -> String {
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let found = found.join(", ");
    match listed {
        Some(listed) => format!(" with a key of this key file: it lists {listed}, the file has {found}"),
        None => format!("; the key file has {found}"),
    }
}

impl From<StoreError> for LogError {
    fn from(source: StoreError) -> Self {
        Self::Store(source)
    }
}

impl From<LogError> for StoreError {
    /// What a store answers where opening a log would give a reason of its own.
    fn from(error: LogError) -> Self {
        match error {
            LogError::Store(source) => source,
            LogError::RolledBack { found, witnessed } => Self::RolledBack { found, witnessed },
            LogError::NotEmpty { records } => Self::NotEmpty { records },
            other => match other.class() {
                ErrorClass::Unavailable | ErrorClass::Io => {
                    Self::Unavailable { why: "the log cannot be read now" }
                }
                _ => Self::Tampered { what: other.to_string() },
            },
        }
    }
}
