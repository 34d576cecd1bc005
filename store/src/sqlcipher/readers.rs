//! Connections that read, so that reads do not wait for commits.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use unibus_keyfile::secret::DatabaseKey;

use super::open::{self, Access, CacheKib};
use super::paths::NoNewWal;
use super::view::database;
use super::writer::lock;
use crate::error::StoreError;

/// Most idle connections that are kept, each with its own cache.
const IDLE_MAX: usize = 4;

/// The connections of one handle that read. Clones share them.
#[derive(Clone)]
pub(super) struct Readers(Arc<Inner>);

struct Inner {
    // Dropped before the empty log that they made is removed.
    idle: Mutex<Vec<Connection>>,
    path: PathBuf,
    key: DatabaseKey,
    cache: CacheKib,
    access: Access,
    /// Set when at most one connection may be open: it locks out every other.
    alone: Option<Mutex<()>>,
    _no_new_wal: Option<NoNewWal>,
}

impl Readers {
    /// For a store in service: as many as are wanted at once.
    pub(super) fn beside_a_writer(path: PathBuf, key: DatabaseKey, cache: CacheKib) -> Self {
        let idle = Mutex::new(Vec::new());
        Self(Arc::new(Inner {
            idle,
            path,
            key,
            cache,
            access: Access::Reader,
            alone: None,
            _no_new_wal: None,
        }))
    }

    /// For a store that is only read, by the connection that proved it.
    pub(super) fn only(
        path: PathBuf,
        key: DatabaseKey,
        (access, connection): (Access, Connection),
        no_new_wal: Option<NoNewWal>,
    ) -> Self {
        let alone = (access == Access::Proof).then(|| Mutex::new(()));
        let (idle, cache) = (Mutex::new(vec![connection]), CacheKib::STREAMING);
        Self(Arc::new(Inner { idle, path, key, cache, access, alone, _no_new_wal: no_new_wal }))
    }

    /// Reads in one transaction.
    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _alone = self.0.alone.as_ref().map(lock);
        let failed = |error: rusqlite::Error| database("read", &error);
        let idle = lock(&self.0.idle).pop();
        let connection = idle.map_or_else(|| self.0.connect(self.0.cache), Ok).map_err(failed)?;
        execute(&connection, "BEGIN").map_err(failed)?;
        let result = read(&connection);
        // A connection whose transaction does not end, or that saw a bad page, is not used again.
        let is_sound =
            execute(&connection, "ROLLBACK").is_ok() && !matches!(result, Err(StoreError::Corrupt { .. }));
        let mut idle = lock(&self.0.idle);
        if is_sound && idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        result
    }

    /// Reads over a connection with an empty cache: what it sees comes from the disk.
    pub(super) fn with_fresh<T>(&self, read: impl FnOnce(Result<Connection, rusqlite::Error>) -> T) -> T {
        let _alone = self.0.alone.as_ref().map(lock);
        if self.0.alone.is_some() {
            lock(&self.0.idle).clear();
        }
        read(self.0.connect(CacheKib::STREAMING))
    }
}

impl Inner {
    fn connect(&self, cache: CacheKib) -> Result<Connection, rusqlite::Error> {
        open::connect(&self.path, self.key.expose_to_sqlcipher(), self.access, cache)
    }
}

fn execute(connection: &Connection, text: &str) -> Result<(), rusqlite::Error> {
    connection.prepare_cached(text)?.raw_execute().map(drop)
}
