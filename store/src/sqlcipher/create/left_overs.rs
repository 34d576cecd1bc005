//! Folders of stores that were never finished.

use std::path::PathBuf;

use unibus_keyfile::digest::sha256;

use super::super::error::OpenError;
use super::super::paths::Paths;

/// How the folder of an unfinished store is named, before the database it is for and the random part.
const FOLDER_PREFIX: &str = ".unibus-new-";

/// Names the folders of one database's unfinished stores: two databases may lie in one folder.
pub(super) fn folder_prefix(paths: &Paths) -> String {
    let name = paths.database.file_name().unwrap_or_default();
    let [a, b, c, d, ..] = sha256(&[name.as_encoded_bytes()]);
    format!("{FOLDER_PREFIX}{a:02x}{b:02x}{c:02x}{d:02x}-")
}

/// The folders of unfinished stores that were meant for this database.
pub(super) fn left_overs(paths: &Paths) -> Result<Vec<PathBuf>, OpenError> {
    let failed = |source| OpenError::Io { step: "list", path: paths.folder.clone(), source };
    let (mut found, prefix) = (Vec::new(), folder_prefix(paths));
    for entry in std::fs::read_dir(&paths.folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes what dead runs have left. Only the holder of the lock may.
pub(in super::super) fn remove_left_overs(paths: &Paths) -> Result<(), OpenError> {
    for folder in left_overs(paths)? {
        let removed = std::fs::remove_dir_all(&folder);
        removed.map_err(|source| OpenError::Io { step: "remove", path: folder, source })?;
    }
    Ok(())
}
