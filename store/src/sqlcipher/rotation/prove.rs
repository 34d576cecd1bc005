//! What lies on the disk after the copy has taken the name: every page is held against both keys.

use std::fs::File;
use std::path::{Path, PathBuf};

use unibus_keyfile::census::{Census, CensusFacts, DiskScan};
use unibus_keyfile::secret::DatabaseKey;

use super::super::pages::{self, Count};
use super::super::paths;
use super::super::writer::lock;
use super::{OpenError, Rotation, RotationError, Run};
use crate::backend::Backend;

/// Reads everything back through the production proof, counts pages by key, and signs what it found.
pub(super) fn run(run: &Run<'_>, rotation: &Rotation) -> Result<Census, RotationError> {
    let store = run.store;
    let report = store.verify_all()?;
    let current = store.current();
    let (new, old) = (current.database_key(rotation.to)?, current.database_key(rotation.from)?);
    let (count, bytes) = pages_of(run, [&new, &old])?;
    let under = |at: usize| count.under.get(at).copied().unwrap_or_default();
    if under(1) > 0 {
        let what = format!("{} pages of `{}`", under(1), store.paths.database.display());
        return Err(RotationError::Remains { epoch: rotation.from, what });
    }
    if count.unknown > 0 {
        return Err(OpenError::Pages { path: store.paths.database.clone(), pages: Vec::new() }.into());
    }
    if let Some(path) = copy_under(&old, &store.paths)? {
        let what = format!("`{}`", path.display());
        return Err(RotationError::Remains { epoch: rotation.from, what });
    }
    let keyring = &current.keyring;
    let records = report.census.total();
    Census::sign(
        &run.options.own,
        CensusFacts {
            cluster: *keyring.cluster(),
            lineage: *keyring.lineage(),
            keyring_version: keyring.version(),
            keyring_hash: keyring.hash(),
            stream: "sqlcipher".to_owned(),
            barrier: report.position.sequence.0,
            barrier_id: rand::random(),
            digest: *report.position.digest.as_bytes(),
            records,
            entries: vec![(rotation.to, records)],
            unsealed: 0,
            undecryptable: 0,
            disk: Some(DiskScan { files: 2, bytes, envelopes: vec![(rotation.to, under(0))] }),
            created: store.unix_now(),
        },
    )
    .map_err(RotationError::Document)
}

/// Counts the pages of database and log by key, and their bytes.
fn pages_of(run: &Run<'_>, keys: [&DatabaseKey; 2]) -> Result<(Count, u64), RotationError> {
    let store = run.store;
    let (database, wal) = (&store.paths.database, store.paths.wal.clone());
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { step: "read", path, source }
    };
    // No checkpoint, or pages would change under the count.
    let no_checkpoint = lock(&store.shared.checkpoint);
    let current = store.current();
    let file = current.readers.open_here().raw(database)?;
    let salt = pages::salt_of(file).map_err(failed(database))?.ok_or(OpenError::ReadBack)?;
    let in_database = pages::count(file, &keys).map_err(failed(database))?;
    let bytes = file.metadata().map_err(failed(database))?.len();
    drop(no_checkpoint);
    // Between two commits, because a log is written over from its beginning.
    let copies = keys.map(copy_of);
    let writer = store.writer().map_err(|_| RotationError::ReadOnly)?;
    let in_log = writer.between_commits(move |_| {
        let [new, old] = &copies;
        pages::count_log(&wal, &salt, &[new, old])
    })?;
    let in_log = in_log.map_err(failed(&store.paths.wal))?;
    let logged = paths::metadata(&store.paths.wal)?.map_or(0, |found| found.len());
    Ok((in_database.plus(&in_log), bytes.saturating_add(logged)))
}

fn copy_of(key: &DatabaseKey) -> DatabaseKey {
    DatabaseKey::init_with(|out| out.copy_from_slice(key.expose_to_sqlcipher()))
}

/// A file in the folder of the database that the key opens: the old one under another name, or a copy of it.
fn copy_under(key: &DatabaseKey, paths: &paths::Paths) -> Result<Option<PathBuf>, RotationError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { step: "read", path, source }
    };
    for entry in std::fs::read_dir(&paths.folder).map_err(failed(&paths.folder))? {
        let path = entry.map_err(failed(&paths.folder))?.path();
        // Those that this process has open are counted otherwise, and must not be closed.
        let is_own = path == paths.database || paths::companions(&paths.database).contains(&path);
        let is_file = paths::metadata(&path)?.is_some_and(|found| found.is_file());
        if is_own || !is_file {
            continue;
        }
        // What cannot be read by the owner of the store is not the store.
        let Ok(file) = File::open(&path) else { continue };
        if pages::is_database_under(&file, key).unwrap_or(false) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
