//! Errors of key files: reading them, and their text.

use std::path::PathBuf;

use super::{DecodeError, ErrorClass};
use crate::id::ClusterId;

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
            Self::TooLarge { .. } => "UB-K014",
            Self::Parse { source, .. } => source.code(),
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
            Self::TooLarge { .. } => "name a key file; no key file is this large".into(),
            Self::Parse { source, .. } => source.hint(),
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

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked | Self::Passphrase => "UB-K019",
            _ => "UB-K014",
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Locked => {
                "give the passphrase: at the prompt, with --passphrase-stdin or --passphrase-fd".into()
            }
            Self::Passphrase => "try the passphrase again; after that, use the copy of the key file".into(),
            Self::TooMany { .. } => "drop keys that are no longer needed (`unibus-key retire FILE`)".into(),
            Self::Mixed { .. } => "put the lines of each node into a file of its own".into(),
            Self::Payload { source: DecodeError::Version { .. }, .. } => {
                "use a release that reads this key file".into()
            }
            _ => "restore the key file from its copy; `unibus-key inspect FILE` shows what it holds".into(),
        }
    }
}
