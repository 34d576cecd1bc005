//! Connections that read, so that reads do not wait for commits.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use rusqlite::Connection;
use unibus_keyfile::secret::DatabaseKey;

use super::open::{self, Access, CacheKib};
use super::paths::{NoNewWal, OpenHere};
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
    open_here: Arc<OpenHere>,
}

impl Readers {
    /// For a store in service: as many as are wanted at once.
    pub(super) fn beside_a_writer(path: PathBuf, key: DatabaseKey, open_here: Arc<OpenHere>) -> Self {
        let (idle, cache) = (Mutex::new(Vec::new()), CacheKib::SERVING);
        Self(Arc::new(Inner {
            idle,
            path,
            key,
            cache,
            access: Access::Reader,
            alone: None,
            _no_new_wal: None,
            open_here,
        }))
    }

    /// For a store that is only read, by the connection that proved it.
    pub(super) fn only(
        path: PathBuf,
        key: DatabaseKey,
        (access, connection): (Access, Connection),
        (no_new_wal, open_here): (Option<NoNewWal>, OpenHere),
    ) -> Self {
        let alone = (access == Access::Proof).then(|| Mutex::new(()));
        let (idle, cache) = (Mutex::new(vec![connection]), CacheKib::STREAMING);
        let open_here = Arc::new(open_here);
        Self(Arc::new(Inner { idle, path, key, cache, access, alone, _no_new_wal: no_new_wal, open_here }))
    }

    /// The key of the database.
    pub(super) fn key(&self) -> &DatabaseKey {
        &self.0.key
    }

    /// The mark of the database that these read.
    pub(super) fn open_here(&self) -> &Arc<OpenHere> {
        &self.0.open_here
    }

    /// Tells when nobody reads over these any more.
    pub(super) fn end(&self) -> End {
        End(Arc::downgrade(&self.0))
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

/// Whether readers, which were put out of service, are still reading.
pub(super) struct End(Weak<Inner>);

impl End {
    pub(super) fn has_come(&self) -> bool {
        self.0.strong_count() == 0
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
