//! How a store is opened.

use std::path::{Path, PathBuf};

use unibus_keyfile::id::UnixTime;

use super::schema::Schema;
use crate::keys::Keys;

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Mode {
    /// To serve: takes the lock, moves the witness.
    ReadWrite,
    /// To read: changes nothing, also beside a daemon that serves.
    ReadOnly,
}

/// How a store is opened: where it lies, with which key, what for.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    pub(super) database: PathBuf,
    pub(super) nodeset: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) keys: Keys,
    pub(super) mode: Mode,
    pub(super) now: UnixTime,
    /// Another than that of this release in tests only.
    pub(super) schema: Schema,
}

impl OpenOptions {
    /// Opens `database` for reading and writing, with `nodeset` and the state directory `state` beside it. `now`
    /// is the time of the proof.
    #[must_use]
    pub fn new(database: &Path, keys: Keys, now: UnixTime) -> Self {
        let folder = match database.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let (nodeset, state_dir) = (folder.join("nodeset"), folder.join("state"));
        Self {
            database: database.into(),
            nodeset,
            state_dir,
            keys,
            mode: Mode::ReadWrite,
            now,
            schema: Schema::CURRENT,
        }
    }

    /// Takes the nodeset from another file.
    #[must_use]
    pub fn nodeset(mut self, path: &Path) -> Self {
        self.nodeset = path.into();
        self
    }

    /// Takes the witness from another directory.
    #[must_use]
    pub fn state_dir(mut self, path: &Path) -> Self {
        self.state_dir = path.into();
        self
    }

    /// Opens for another purpose.
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }
}
