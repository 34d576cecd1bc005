//! Why a rotation is refused or stops.

use std::path::PathBuf;

use unibus_keyfile::error::{ErrorClass, KeyError};
use unibus_keyfile::id::NodeName;
use unibus_keyfile::id::UnixTime;
use unibus_store::keys::Refusal;
use unibus_store::sqlcipher::rotation::RotationError;

use crate::source::StoreUrl;

/// Days for which a drill of the recovery counts.
pub const DRILL_HOLDS_DAYS: u64 = 30;

/// Why a rotation is refused or stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// Something is not as it has to be. Nothing was changed.
    #[error("`{command}` is refused: {why}")]
    Refused {
        /// The command.
        command: &'static str,
        /// What is not as it has to be.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// The recovery key was not tried for too long.
    #[error("the recovery key was {}", last.map_or_else(
        || "never tried".to_owned(), |at| format!("last tried at {at}, more than {DRILL_HOLDS_DAYS} days ago")))]
    Drill {
        /// When it was.
        last: Option<UnixTime>,
    },
    /// A database refuses.
    #[error(transparent)]
    Database(#[from] RotationError),
    /// The daemon that serves the store refuses, or its rotation stopped.
    #[error("{message}")]
    FromDaemon {
        /// The stable code.
        code: &'static str,
        /// Class of the error.
        class: ErrorClass,
        /// What happened.
        message: String,
        /// What to do next.
        hint: String,
    },
    /// The daemon that serves the store cannot be spoken to any more.
    #[error("the daemon on the state folder `{}` does not answer: {problem}", state_dir.display())]
    Silent {
        /// The state folder.
        state_dir: PathBuf,
        /// What happened.
        problem: String,
    },
    /// The running daemon does not answer.
    #[error("the daemon of `{}` does not answer: {problem}", state_dir.display())]
    Daemon {
        /// Its state folder.
        state_dir: PathBuf,
        /// What happened.
        problem: String,
    },
    /// Not all nodes are well; what was done before stays done.
    #[error("`{command}` does not go on: {why}")]
    Unwell {
        /// The command.
        command: &'static str,
        /// What is not well.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// A command on another node did not end well.
    #[error("the command on `{node}` ended with {code}: {why}")]
    Elsewhere {
        /// The node.
        node: NodeName,
        /// Its exit code.
        code: i32,
        /// Its own words.
        why: String,
    },
    /// The key file is not the one that belongs here. Nothing was changed.
    #[error("`{command}` is refused: {why}")]
    WrongKey {
        /// The command.
        command: &'static str,
        /// What is wrong with it, with fingerprints.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// The daemon refuses, with a code and an exit code of its own.
    #[error("the daemon refuses: {}", .0.message)]
    Refusal(Refusal),
    /// Another run is at it.
    #[error("another `{command}` is at it: it holds `{}`", path.display())]
    Busy {
        /// The command.
        command: &'static str,
        /// The lock.
        path: PathBuf,
    },
    /// It waits for the operator.
    #[error("the new key of `{node}` is not approved yet")]
    NotApproved {
        /// The node.
        node: NodeName,
        /// What the operator has to do.
        hint: String,
    },
    /// The rotation is done and proven, and its receipt could not be written to the named file.
    #[error("the rotation is done and proven, and its receipt was not written to `{}`", path.display())]
    ReceiptFile {
        /// The file.
        path: PathBuf,
        /// How to get it again.
        hint: String,
        /// What happened.
        #[source]
        source: Box<KeyError>,
    },
    /// There is no rotation to go on with, or to take back.
    #[error("no rotation is under way in `{store}`")]
    NothingToResume {
        /// The store.
        store: StoreUrl,
    },
}

impl RotateError {
    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Drill { .. } => ErrorClass::Conflict,
            Self::Database(source) => source.class(),
            Self::FromDaemon { class, .. } => *class,
            Self::Silent { .. } => ErrorClass::Unavailable,
            Self::Refused { .. } => ErrorClass::Conflict,
            Self::NothingToResume { .. } => ErrorClass::NotFound,
            Self::Daemon { .. } | Self::Unwell { .. } => ErrorClass::Unavailable,
            Self::Elsewhere { .. } | Self::NotApproved { .. } => ErrorClass::NotProven,
            Self::WrongKey { .. } => ErrorClass::WrongKey,
            Self::Busy { .. } => ErrorClass::Locked,
            Self::ReceiptFile { source, .. } => source.class(),
            Self::Refusal(refusal) => match refusal.exit {
                6 => ErrorClass::WrongKey,
                4 => ErrorClass::Tampered,
                3 => ErrorClass::Unavailable,
                1 => ErrorClass::Io,
                _ => ErrorClass::Conflict,
            },
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Drill { .. } => "UB-M023",
            Self::Database(source) => source.code(),
            Self::FromDaemon { code, .. } => code,
            Self::Silent { .. } => "UB-M024",
            Self::Refused { .. } => "UB-M021",
            Self::NothingToResume { .. } => "UB-M022",
            Self::Daemon { .. } => "UB-M031",
            Self::Unwell { .. } => "UB-M032",
            Self::Elsewhere { .. } => "UB-M033",
            Self::WrongKey { .. } => "UB-M040",
            Self::Refusal(_) => "UB-M041",
            Self::Busy { .. } => "UB-M042",
            Self::NotApproved { .. } => "UB-M043",
            Self::ReceiptFile { .. } => "UB-M044",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Refused { hint, .. }
            | Self::FromDaemon { hint, .. }
            | Self::Unwell { hint, .. }
            | Self::WrongKey { hint, .. }
            | Self::ReceiptFile { hint, .. }
            | Self::NotApproved { hint, .. } => hint.clone(),
            Self::Refusal(refusal) => format!("{} [{}]", refusal.hint, refusal.code),
            Self::Busy { .. } => "wait until it is done; then run it again".to_owned(),
            Self::Daemon { .. } => "start the daemon, name its --state-dir, and run it again".to_owned(),
            Self::Elsewhere { .. } => {
                "look at that node; run it again once it is well: nodes that are done are not done twice"
                    .to_owned()
            }
            Self::Drill { .. } => {
                "make a snapshot and try it: `drill --operator KEY --in FILE`, with the node's key and --state-dir; or \
                 go on without with --no-drill, which the receipt says"
                    .to_owned()
            }
            Self::Database(source) => source.hint().unwrap_or_else(|| "look at `status`".to_owned()),
            Self::Silent { .. } => {
                "look at its log; the rotation goes on in it, or `resume STORE` goes on where it was".to_owned()
            }
            Self::NothingToResume { .. } => {
                "look at `status`; `rotate epoch STORE` begins a rotation".to_owned()
            }
        }
    }
}
