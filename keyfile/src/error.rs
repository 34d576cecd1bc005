//! Error enums, their classes and their codes.

use std::path::PathBuf;

use crate::id::{ClusterId, Epoch, Fingerprint};

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
}

/// Why a file cannot be used as a key file or read safely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file is not there.
    #[error("`{}` does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
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
    /// The path is a symbolic link.
    #[error("`{}` is a symbolic link; give the file itself", path.display())]
    Symlink {
        /// The file.
        path: PathBuf,
    },
    /// The path is not a regular file.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Group or world may read or write it.
    #[error("`{}` has mode {mode:04o}: group and others must have no access (chmod 600)", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Permission bits found.
        mode: u32,
    },
    /// It belongs to neither this process's user nor root.
    #[error("`{}` belongs to user {found}, not to user {expected} or root", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// User id of this process.
        expected: u32,
        /// User id found.
        found: u32,
    },
    /// It is larger than any key file.
    #[error("`{}` has {found} bytes, more than the {limit} of a key file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Size found, in bytes.
        found: u64,
        /// Limit, in bytes.
        limit: u64,
    },
    /// Its text is not a key file.
    #[error("{origin} is not a usable key file")]
    Parse {
        /// Where the text came from: a path, a variable, a command.
        origin: String,
        /// What is wrong.
        source: KeyTextError,
    },
    /// The file was made for another cluster.
    #[error("{origin} belongs to cluster {found}, not to {expected}")]
    Cluster {
        /// Where the key came from.
        origin: String,
        /// Cluster that was expected.
        expected: ClusterId,
        /// Cluster that is pinned in the key file.
        found: ClusterId,
    },
    /// Two ways to give the key at once.
    #[error("the key is given in two ways ({first} and {second}); give one")]
    Ambiguous {
        /// One way.
        first: &'static str,
        /// The other way.
        second: &'static str,
    },
    /// No way to get the key was given.
    #[error("no node key was given")]
    NotGiven,
    /// The key command failed.
    #[error("the key command {problem}")]
    Command {
        /// What happened.
        problem: String,
    },
    /// A file that must not be overwritten exists.
    #[error("`{}` exists; nothing is overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

impl KeyError {
    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Missing { .. } | Self::NotGiven => ErrorClass::MissingKey,
            Self::Io { .. } | Self::Command { .. } => ErrorClass::Io,
            Self::Parse { source, .. } => source.class(),
            Self::Cluster { .. } => ErrorClass::WrongKey,
            _ => ErrorClass::Misuse,
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::NotGiven => "UB-K010",
            Self::Io { .. } => "UB-K011",
            Self::Symlink { .. } | Self::NotAFile { .. } => "UB-K012",
            Self::Mode { .. } | Self::Owner { .. } => "UB-K013",
            Self::TooLarge { .. } | Self::Parse { .. } => "UB-K014",
            Self::Cluster { .. } => "UB-K015",
            Self::Ambiguous { .. } => "UB-K016",
            Self::Command { .. } => "UB-K017",
            Self::Exists { .. } => "UB-K018",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { .. } => {
                "put the key file back, or recover with the operator key and the disk or a snapshot; no new key \
                 is made where one is expected"
                    .into()
            }
            Self::NotGiven => "give --at-rest-key-file, UNIBUS_AT_REST_KEY, the systemd credential at-rest.key \
                               or --at-rest-key-command"
                .into(),
            Self::Io { .. } => "check the path and the rights of the user that runs this".into(),
            Self::Symlink { .. } | Self::NotAFile { .. } => "name the regular file itself".into(),
            Self::Mode { path, .. } => {
                format!("chmod 600 {}; if others could read it, rotate the key", path.display())
            }
            Self::Owner { path, .. } => format!("chown it to the user that runs this: {}", path.display()),
            Self::TooLarge { .. } | Self::Parse { .. } => {
                "restore the key file from its copy; `unibus-key inspect FILE` shows what it holds".into()
            }
            Self::Cluster { .. } => "use the key file and the nodeset that were made for this cluster".into(),
            Self::Ambiguous { .. } => "unset one of the two".into(),
            Self::Command { .. } => "run the command by hand and look at its output on stderr".into(),
            Self::Exists { .. } => "choose another name, or move the old file away".into(),
        }
    }
}

/// Why text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyTextError {
    /// No key line at all.
    #[error("it holds no key line (a line that starts with `{expected}`)")]
    Empty {
        /// Start of the line that was expected.
        expected: &'static str,
    },
    /// A line that is neither a key, a comment nor empty.
    #[error("line {line} is not a key line (expected `{expected}...`)")]
    NotAKey {
        /// Line number, from 1.
        line: usize,
        /// Start of the line that was expected.
        expected: &'static str,
    },
    /// The checksum does not fit: a typo, or the line was cut.
    #[error("line {line} fails its checksum: a typo, or the line was cut")]
    Checksum {
        /// Line number, from 1.
        line: usize,
    },
    /// The payload is not well formed.
    #[error("line {line} is not well formed")]
    Payload {
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        source: DecodeError,
    },
    /// Lines of one file disagree about node or cluster.
    #[error("line {line} is of another node or cluster than the first")]
    Mixed {
        /// Line number, from 1.
        line: usize,
    },
    /// More key lines than a file may have.
    #[error("more than {limit} keys in one file")]
    TooMany {
        /// Limit.
        limit: usize,
    },
    /// The same key twice.
    #[error("line {line} repeats an earlier key")]
    Repeated {
        /// Line number, from 1.
        line: usize,
    },
    /// The text is not UTF-8 or ASCII.
    #[error("it is not text")]
    NotText,
    /// The key is locked by a passphrase and none was given.
    #[error("it is locked by a passphrase")]
    Locked,
    /// The passphrase is wrong, or the line was changed.
    #[error("the passphrase is wrong, or the line was changed")]
    Passphrase,
}

impl KeyTextError {
    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Payload { source, .. } => source.class(),
            Self::Passphrase | Self::Locked => ErrorClass::WrongKey,
            _ => ErrorClass::Corrupt,
        }
    }
}

/// Why a signed document (nodeset, keyring, request) is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The bytes are not such a document.
    #[error("the {document} is damaged")]
    Decode {
        /// Name of the document.
        document: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// A signature does not verify.
    #[error("a signature of the {document} does not verify")]
    Signature {
        /// Name of the document.
        document: &'static str,
    },
    /// Signed by somebody who may not sign it.
    #[error("the {document} is signed by {found}, who may not sign it")]
    Signer {
        /// Name of the document.
        document: &'static str,
        /// Fingerprint of the signing key.
        found: Fingerprint,
    },
    /// The document is of another cluster.
    #[error("the {document} is of cluster {found}, not of {expected}")]
    Cluster {
        /// Name of the document.
        document: &'static str,
        /// Cluster pinned in the key file.
        expected: ClusterId,
        /// Cluster of the document.
        found: ClusterId,
    },
    /// The keyring was made for a newer nodeset than the one at hand.
    #[error("the nodeset is version {found}, but the keyring was made for version {expected}")]
    OldNodeset {
        /// Version that the keyring names.
        expected: u64,
        /// Version at hand.
        found: u64,
    },
    /// The keyring names another nodeset of the same version.
    #[error("the keyring was made for another nodeset of version {version}")]
    OtherNodeset {
        /// The version of both.
        version: u64,
    },
    /// The keyring is not wrapped to exactly the recipients of its nodeset.
    #[error("the keyring is not wrapped to exactly the recipients of its nodeset")]
    Recipients,
    /// The document cannot be made as asked.
    #[error("{0}")]
    Invalid(String),
}

impl DocumentError {
    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Decode { source, .. } => source.class(),
            Self::Signature { .. } | Self::Signer { .. } | Self::OtherNodeset { .. } | Self::Recipients => {
                ErrorClass::Tampered
            }
            Self::Cluster { .. } => ErrorClass::WrongKey,
            Self::OldNodeset { .. } => ErrorClass::RolledBack,
            Self::Invalid(_) => ErrorClass::Misuse,
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Decode { .. } => "UB-K020",
            Self::Signature { .. } => "UB-K021",
            Self::Signer { .. } => "UB-K022",
            Self::Cluster { .. } => "UB-K023",
            Self::OldNodeset { .. } => "UB-K024",
            Self::OtherNodeset { .. } => "UB-K025",
            Self::Recipients => "UB-K026",
            Self::Invalid(_) => "UB-K027",
        }
    }
}

/// Why a keyring does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnlockError {
    /// None of the keys at hand is a recipient.
    #[error("no key at hand opens it: found {}, wrapped to {}", join(found), join(expected))]
    NotARecipient {
        /// Fingerprints of the recipients.
        expected: Vec<Fingerprint>,
        /// Fingerprints of the wrapping keys at hand.
        found: Vec<Fingerprint>,
    },
    /// The wrap does not authenticate.
    #[error("the secrets wrapped to {recipient} do not authenticate")]
    Unauthentic {
        /// Fingerprint of the recipient.
        recipient: Fingerprint,
    },
    /// What was unwrapped is not well formed or not what the document promises.
    #[error("the unwrapped secrets are not those that the keyring promises")]
    Contents,
    /// An unwrapped key is not the one that the keyring commits to.
    #[error("the unwrapped key of epoch {epoch} is not the one that the keyring commits to")]
    Commitment {
        /// The epoch.
        epoch: Epoch,
    },
}

fn join(list: &[Fingerprint]) -> String {
    let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "nobody".into() } else { texts.join(", ") }
}

impl UnlockError {
    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotARecipient { .. } => ErrorClass::WrongKey,
            _ => ErrorClass::Tampered,
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotARecipient { .. } => "UB-K030",
            Self::Unauthentic { .. } => "UB-K031",
            Self::Contents => "UB-K032",
            Self::Commitment { .. } => "UB-K033",
        }
    }
}

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
}
