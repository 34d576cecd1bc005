//! The copy under the new key: all rows of one moment, then what was written since, then a proof of all of it.

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use unibus_keyfile::durable;
use unibus_keyfile::id::Epoch;
use unibus_keyfile::secret::{DatabaseKey, StateKey};

use super::super::meta::{self, Meta};
use super::super::open::{self, Access, CacheKib};
use super::super::proof::Expected;
use super::super::query::{self, RowError, RowFault};
use super::super::schema::Schema;
use super::super::{nonce, paths};
use super::changes::{self, Changes};
use super::{OpenError, Rotation, RotationError, Run, remove_left_overs};
use crate::domain::Scan;
use crate::error::StoreError;
use crate::failpoint;
use crate::record::Kind;

/// So few changed rows are brought over while writes wait.
pub(super) const FEW: usize = 256;
/// Rows between two looks at clock and watcher.
const STRIDE: u64 = 256;

/// A copy, complete and proven at one moment, and open for what was written since.
pub(super) struct Copied {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) key: DatabaseKey,
    /// Where it stands.
    pub(super) meta: Meta,
}

/// Makes the copy.
pub(super) fn run(run: &mut Run<'_>, rotation: &Rotation) -> Result<Copied, RotationError> {
    let store = run.store;
    let current = store.current();
    remove_left_overs(&store.paths)?;
    let path = store.paths.next.clone();
    let writer = store.writer().map_err(|_| RotationError::ReadOnly)?;
    let followed = writer.between_commits(|parts| changes::follow(&parts.connection))?;
    followed.map_err(|error| sqlite("follow the changes of", &store.paths.database, error))?;
    let key = current.database_key(rotation.to)?;
    make_file(&path, &store.paths.database)?;
    let connection = open(&path, &key)?;
    let rows = Rows {
        run,
        rotation,
        to: rotation.to,
        schema: store.schema,
        began: Instant::now(),
        done: 0,
        total: 0,
    };
    let meta = current.readers.with_fresh(|source| {
        let source = source.map_err(|error| sqlite("open", &store.paths.database, error))?;
        rows.copy(&source, &connection)
    })?;
    let mut copied = Copied { connection, path, key, meta };
    run.reach("rotation::copying")?;
    loop {
        let changes = take(run)?;
        let few = changes.len() <= FEW;
        copied.apply(run, &changes)?;
        if few {
            break;
        }
    }
    run.say(rotation, "verify", (0, 0));
    copied.proven(current.secrets.state_key(), store.schema)
}

/// What was changed since the last time.
pub(super) fn take(run: &Run<'_>) -> Result<Changes, RotationError> {
    let database = &run.store.paths.database;
    let writer = run.store.writer().map_err(|_| RotationError::ReadOnly)?;
    let taken = writer.between_commits(|parts| changes::take(&parts.connection))?;
    taken.map_err(|error| row(database, error))?.ok_or_else(|| OpenError::ReadBack.into())
}

/// With the mode of the database: whoever could read that can read this.
fn make_file(path: &Path, database: &Path) -> Result<(), RotationError> {
    let mode = paths::metadata(database)?.map_or(0o600, |found| found.permissions().mode() & 0o777);
    durable::create_new(path, b"", mode)
        .map_err(|source| OpenError::Document { document: "copy", source }.into())
}

fn open(path: &Path, key: &DatabaseKey) -> Result<Connection, RotationError> {
    open::connect(path, key.expose_to_sqlcipher(), Access::Build, CacheKib::IMPORTING)
        .map_err(|error| sqlite("make", path, error))
}

pub(super) fn sqlite(step: &'static str, path: &Path, error: rusqlite::Error) -> RotationError {
    OpenError::Sqlite { step, path: path.into(), source: error.into() }.into()
}

pub(super) fn row(path: &Path, error: RowError) -> RotationError {
    match error {
        RowError::Sqlite(error) => sqlite("copy", path, error),
        RowError::Decode(source) => StoreError::CorruptRecord { kind: Kind::User, source }.into(),
    }
}

impl Copied {
    /// Brings changes over. Its own account of the digests has to be that of the store.
    pub(super) fn apply(&mut self, run: &Run<'_>, changes: &Changes) -> Result<(), RotationError> {
        self.bring(&run.store.hasher, changes)
    }

    pub(super) fn bring(
        &mut self,
        hasher: &unibus_keyfile::digest::StateHasher,
        changes: &Changes,
    ) -> Result<(), RotationError> {
        let after = changes::apply(&self.connection, hasher, self.meta, changes);
        let after = after.map_err(|error| row(&self.path, error))?;
        if after != (Meta { epoch: self.meta.epoch, ..changes.meta }) {
            return Err(OpenError::ReadBack.into());
        }
        self.meta = after;
        Ok(())
    }

    /// Reads all of it back as any opening does: pages, structure, records, digests. And waits for the disk.
    fn proven(self, state_key: &StateKey, schema: Schema) -> Result<Self, RotationError> {
        let Self { connection, path, key, meta } = self;
        connection.close().map_err(|(_, error)| sqlite("write", &path, error))?;
        let [wal, ..] = paths::companions(&path);
        let Meta { cluster, lineage, epoch, .. } = meta;
        let expected = Expected { path: &path, wal: &wal, cluster, lineage, epoch, state_key, schema };
        let connect = || open::connect(&path, key.expose_to_sqlcipher(), Access::Proof, CacheKib::STREAMING);
        let (connection, proof) = expected.prove(connect)?;
        drop(connection);
        if proof.meta != meta {
            return Err(OpenError::ReadBack.into());
        }
        sync(&path)?;
        let connection = open(&path, &key)?;
        Ok(Self { connection, path, key, meta })
    }
}

pub(super) fn sync(path: &Path) -> Result<(), RotationError> {
    let failed = |source| OpenError::Io { step: "sync", path: path.into(), source };
    failpoint::reach("rotation::sync").map_err(failed)?;
    Ok(std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(failed)?)
}

/// The rows on their way.
struct Rows<'r, 'o> {
    run: &'r Run<'o>,
    rotation: &'r Rotation,
    to: Epoch,
    schema: Schema,
    began: Instant,
    done: u64,
    total: u64,
}

/// What stops a scan.
enum Halt {
    Rotation(RotationError),
    Row(RowFault),
    Sqlite(rusqlite::Error),
}

impl From<RowFault> for Halt {
    fn from(fault: RowFault) -> Self {
        Self::Row(fault)
    }
}

impl From<rusqlite::Error> for Halt {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Rows<'_, '_> {
    /// Everything as it is at one moment; gives where that stands, under the new epoch.
    fn copy(mut self, source: &Connection, target: &Connection) -> Result<Meta, RotationError> {
        let (from, to) = (self.run.store.paths.database.clone(), self.run.store.paths.next.clone());
        self.all(source, target).map_err(|halt| match halt {
            Halt::Rotation(error) => error,
            Halt::Row(fault) => row(&from, fault.error),
            Halt::Sqlite(error) => sqlite("copy into", &to, error),
        })
    }

    fn all(&mut self, source: &Connection, target: &Connection) -> Result<Meta, Halt> {
        let snapshot = source.unchecked_transaction()?;
        let found = meta::read(&snapshot)?;
        let found = found.ok_or(Halt::Rotation(OpenError::ReadBack.into()))?;
        let meta = Meta { epoch: self.to, ..found };
        self.total = query::census(&snapshot)?.total();
        self.run.say(self.rotation, "copy", (0, self.total));
        self.schema.create(target)?;
        target.execute_batch("BEGIN")?;
        for kind in Kind::ALL {
            query::scan(&snapshot, Scan::Kind(kind), &mut |_, id, body| -> Result<_, Halt> {
                query::insert(target, &id, body)?;
                self.count()?;
                Ok(ControlFlow::Continue(()))
            })
            .map(drop)?;
        }
        let mut statement = snapshot.prepare("SELECT signer, nonce, expires_at FROM nonces")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let bytes = |column| row.get_ref(column).map(|value| value.as_blob().unwrap_or_default());
            nonce::insert(target, (bytes(0)?, bytes(1)?, row.get(2)?))?;
        }
        meta::insert(target, &meta)?;
        target.execute_batch("COMMIT")?;
        Ok(meta)
    }

    fn count(&mut self) -> Result<(), Halt> {
        self.done = self.done.saturating_add(1);
        if !self.done.is_multiple_of(STRIDE) && self.run.options.pace.is_none() {
            return Ok(());
        }
        if self.done == STRIDE {
            self.run.reach("rotation::within").map_err(Halt::Rotation)?;
        }
        self.run.say(self.rotation, "copy", (self.done, self.total));
        self.keep_pace()
    }

    /// Waits as the pace wants, and notices that it is to stop.
    fn keep_pace(&self) -> Result<(), Halt> {
        loop {
            if self.run.watcher.wants_stop() {
                return Err(Halt::Rotation(RotationError::Stopped));
            }
            let Some(per_second) = self.run.options.pace else { return Ok(()) };
            let due = Duration::from_millis(self.done.saturating_mul(1000) / per_second.max(1));
            let Some(wait) = due.checked_sub(self.began.elapsed()) else { return Ok(()) };
            if wait < Duration::from_millis(1) {
                return Ok(());
            }
            // Nothing unparks this thread: it is a bounded wait for the clock, which is what a pace is.
            std::thread::park_timeout(wait.min(Duration::from_millis(50)));
        }
    }
}
