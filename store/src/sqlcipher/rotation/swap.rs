//! The copy takes the database's name. Writes wait for this, and for nothing else of a rotation.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use unibus_keyfile::durable;

use super::super::current::{Current, Place};
use super::super::meta::{self, Meta};
use super::super::open::{self, Access, CacheKib};
use super::super::paths::{self, OpenHere, Paths};
use super::super::readers::Readers;
use super::super::writer::{Parts, count_pages, lock};
use super::changes;
use super::copy::{Copied, FEW, row, sqlite, sync, take};
use super::{OpenError, Rotation, RotationError, Run, Watcher, wait_a_little};
use crate::failpoint;

/// How long writes wait for reads that still need the log, before they go on and it is tried again.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long a connection waits otherwise.
const USUAL_PATIENCE: Duration = Duration::from_secs(5);

/// Puts the copy in place. Gives the longest time that writes had to wait.
pub(super) fn run(run: &mut Run<'_>, rotation: &Rotation, copied: Copied) -> Result<Duration, RotationError> {
    let store = run.store;
    let (mut copied, mut longest) = (copied, Duration::ZERO);
    loop {
        run.say(rotation, "swap", (0, 0));
        let changes = take(run)?;
        copied.apply(run, &changes)?;
        if changes.len() > FEW {
            continue;
        }
        // A verification reads the file that is to be replaced: it is waited for here, not by writes.
        let no_checkpoint = lock(&store.shared.checkpoint);
        let swap = Swap {
            copied,
            paths: store.paths.clone(),
            place: store.place.clone(),
            watcher: Arc::clone(run.watcher),
        };
        let writer = store.writer().map_err(|_| RotationError::ReadOnly)?;
        let (ended, paused) = writer.between_commits(move |parts| {
            let began = Instant::now();
            let ended = swap.run(parts);
            (ended, began.elapsed())
        })?;
        drop(no_checkpoint);
        longest = longest.max(paused);
        match ended? {
            Ended::Done(old) => {
                return wait_for(old, run).map(|()| longest);
            }
            Ended::Again(again) => copied = *again,
        }
        // Somebody reads for long: an export, or a tool beside the daemon.
        run.say(rotation, "wait for a reader", (0, 0));
        wait_a_little(run.watcher)?;
    }
}

/// Until nobody reads the old file any more: only then is nothing opened by the old key.
fn wait_for(old: Arc<Current>, run: &Run<'_>) -> Result<(), RotationError> {
    let end = old.readers.end();
    drop(old);
    while !end.has_come() {
        wait_a_little(run.watcher)?;
    }
    Ok(())
}

struct Swap {
    copied: Copied,
    paths: Paths,
    place: Place,
    watcher: Arc<dyn Watcher>,
}

enum Ended {
    /// Gives what was current before.
    Done(Arc<Current>),
    /// A reader was in the way: the copy, up to date.
    Again(Box<Copied>),
}

impl Swap {
    /// Runs on the writer's thread, between two commits: nothing is written but by this.
    fn run(self, parts: &mut Parts) -> Result<Ended, RotationError> {
        let Self { mut copied, paths, place, watcher } = self;
        let failed = |error| sqlite("read", &paths.database, error);
        let changes = changes::take(&parts.connection).map_err(|error| row(&paths.database, error))?;
        let changes = changes.ok_or(OpenError::ReadBack)?;
        if changes.len() > FEW {
            copied.bring(&parts.hasher, &changes)?;
            return Ok(Ended::Again(Box::new(copied)));
        }
        copied.bring(&parts.hasher, &changes)?;
        // With an empty log the old file is complete by itself: whichever of the two has the name after a crash, no
        // log of the other lies beside it.
        if !log_is_emptied(&parts.connection).map_err(failed)? {
            return Ok(Ended::Again(Box::new(copied)));
        }
        let Copied { connection, path, key, meta } = copied;
        close(connection, &path)?;
        // From the rename on the old file has no name. What is written to it would be lost, and its log would be
        // taken for that of the new one.
        place_file(&watcher, &path, &paths).inspect_err(|_| {
            if !parts.open_here.has_its_name(&paths.database) {
                parts.shared.poison("putting the copy in place");
            }
        })?;
        let put = || -> Result<_, RotationError> {
            failpoint::reach("rotation::renamed").map_err(|source| OpenError::Io {
                step: "open",
                path: paths.database.clone(),
                source,
            })?;
            let identity =
                paths.look()?.ok_or_else(|| OpenError::NothingThere { path: paths.database.clone() })?;
            let open_here = Arc::new(OpenHere::new(identity));
            let mut connection =
                open::connect(&paths.database, key.expose_to_sqlcipher(), Access::Writer, CacheKib::SERVING)
                    .map_err(failed)?;
            if meta::read(&connection).map_err(failed)? != Some(meta) {
                return Err(OpenError::Forked { path: paths.database.clone(), at: meta.sequence }.into());
            }
            count_pages(&mut connection, &parts.logged).map_err(failed)?;
            // Closing the old one must not touch what lies beside its name now.
            parts
                .connection
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
                .map_err(failed)?;
            Ok((connection, open_here))
        };
        let (connection, open_here) = put().inspect_err(|_| {
            parts.shared.poison("opening the copy under the new key");
        })?;
        let readers = Readers::beside_a_writer(paths.database.clone(), key, Arc::clone(&open_here));
        Ok(Ended::Done(hand_over(parts, (connection, open_here), (readers, meta), &place)))
    }
}

fn hand_over(
    parts: &mut Parts,
    (connection, open_here): (Connection, Arc<OpenHere>),
    (readers, meta): (Readers, Meta),
    place: &Place,
) -> Arc<Current> {
    // Dropped in this order: the old connection before the mark of its file.
    drop(std::mem::replace(&mut parts.connection, connection));
    drop(std::mem::replace(&mut parts.open_here, open_here));
    parts.logged.store(0, std::sync::atomic::Ordering::Relaxed);
    parts.shared.moved(meta);
    let old = place.now();
    let (nodeset, keyring, secrets) = (old.nodeset.clone(), old.keyring.clone(), Arc::clone(&old.secrets));
    drop(old);
    place.replace(Current { readers, nodeset, keyring, secrets, epoch: meta.epoch })
}

/// Brings all of the log into the database, and cuts it to nothing. Not while somebody reads from it.
fn log_is_emptied(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.busy_timeout(PATIENCE)?;
    let busy: Result<i64, _> = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    connection.busy_timeout(USUAL_PATIENCE)?;
    Ok(busy? == 0)
}

/// The copy becomes a database like any other: log mode, no file beside it, on the disk.
fn close(connection: Connection, path: &Path) -> Result<(), RotationError> {
    let failed = |error| sqlite("write", path, error);
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))?;
    paths::companions(path).iter().try_for_each(|path| paths::remove(path))?;
    sync(path)
}

fn place_file(watcher: &Arc<dyn Watcher>, path: &Path, paths: &Paths) -> Result<(), RotationError> {
    let mut result = Ok(());
    watcher.replacing(&mut || {
        result = (|| -> Result<(), RotationError> {
            failpoint::reach("rotation::swap").map_err(|source| OpenError::Io {
                step: "replace",
                path: paths.database.clone(),
                source,
            })?;
            durable::take_over(path, &paths.database)
                .map_err(|source| OpenError::Document { document: "database", source })?;
            failpoint::reach("rotation::taken").map_err(|source| OpenError::Io {
                step: "sync the folder of",
                path: paths.database.clone(),
                source,
            })?;
            // Those of the old file: empty, and an index of an empty log.
            paths::companions(&paths.database).iter().try_for_each(|path| paths::remove(path))?;
            Ok(())
        })();
    });
    result
}
