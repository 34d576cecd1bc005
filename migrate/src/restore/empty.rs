//! A store that is there already and holds nothing: what a first start of the daemon leaves.

use std::path::PathBuf;

use unibus_keyfile::durable::{self, LockFile};
use unibus_store::sqlcipher::{Keys, OpenError};

use crate::error::MigrateError;
use crate::open::{Sealed, Target};
use crate::source::beside;

/// What SQLite keeps beside a database.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// An empty store in the place of the target.
#[derive(Debug)]
pub(super) struct EmptyStore {
    database: PathBuf,
}

impl EmptyStore {
    /// The store that is there; none if there is nothing.
    ///
    /// # Errors
    /// `Exists` for anything else than a store; `NotEmpty`; `Open` with `Locked`.
    pub(super) fn at(target: &Target) -> Result<Option<Self>, MigrateError> {
        let database = target.location.database.clone();
        if database.symlink_metadata().is_err() {
            return Ok(None);
        }
        let opened = Sealed::open(target.location.clone(), Keys::Node(std::sync::Arc::clone(&target.own)));
        let Ok(opened) = opened else { return Err(MigrateError::Exists { path: database }) };
        let records = opened.census()?.total();
        drop(opened);
        if records > 0 {
            return Err(MigrateError::NotEmpty { store: database.display().to_string(), records });
        }
        let path = beside(&database, ".lock");
        match LockFile::try_exclusive(&path)? {
            Some(_) => Ok(Some(Self { database })),
            None => Err(OpenError::Locked { path }.into()),
        }
    }

    /// Takes its name away, until the new store is complete.
    pub(super) fn set_aside(self) -> Result<SetAside, MigrateError> {
        let mark = format!(".empty-{:08x}", rand::random::<u32>());
        let mut aside = SetAside { moved: Vec::new() };
        for suffix in SUFFIXES {
            let name = beside(&self.database, suffix);
            if name.symlink_metadata().is_ok() {
                let other = beside(&name, &mark);
                durable::take_name(&name, &other)?;
                aside.moved.push((name, other));
            }
        }
        Ok(aside)
    }
}

/// The empty store under another name. Dropped, it gets its own back.
#[derive(Debug)]
pub(super) struct SetAside {
    moved: Vec<(PathBuf, PathBuf)>,
}

impl SetAside {
    /// The new store is complete: the empty one may go.
    pub(super) fn forget(mut self) {
        for (_, other) in self.moved.drain(..) {
            // What stays holds nothing, and is in nobody's way.
            drop(std::fs::remove_file(other));
        }
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        for (name, other) in &self.moved {
            // If this fails, the error that led here is the one to tell; the name says what the file is.
            drop(durable::take_name(other, name));
        }
    }
}
