//! Sealed blobs as files of one folder.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use unibus_keyfile::durable;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::secret::BlobKey;

use super::{BlobError, Orphan, chunks, file_bytes, name_of};
use crate::record::{Blob, BlobHash, StorageName, Timestamp};

fn io_error<'p>(step: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> BlobError + 'p {
    move |source| BlobError::Io { step, path: path.to_owned(), source }
}

/// A folder of sealed blobs.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn open(folder: &Path) -> Result<Self, BlobError> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {
                let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
                durable::sync_dir(parent.unwrap_or(Path::new(".")))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                std::fs::read_dir(folder).map_err(io_error("read the folder", folder))?;
            }
            Err(error) => return Err(io_error("create the folder", folder)(error)),
        }
        Ok(Self(folder.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn path_of(&self, name: &StorageName) -> PathBuf {
        self.0.join(name.to_string())
    }

    pub(super) fn put(
        &self,
        (key, name): (Arc<BlobKey>, StorageName),
        content: &mut dyn Read,
        limit: u64,
        now: Timestamp,
    ) -> Result<Blob, BlobError> {
        let path = self.path_of(&name);
        let temporary = durable::temporary_name(&path);
        let stored = write(&temporary, (&key, &name), content, limit);
        let stored = stored.and_then(|(hash, size)| {
            let blob = Blob::new(BlobHash::from_bytes(hash), size, key, name, now)?;
            durable::take_name(&temporary, &path)?;
            Ok(blob)
        });
        stored.inspect_err(|_| {
            let _gone_either_way = std::fs::remove_file(&temporary);
        })
    }

    /// Opens the file of a blob, whose length must be right. Gives what reads it.
    pub(super) fn source(
        &self,
        blob: &Blob,
    ) -> Result<impl FnMut(u64, &mut Vec<u8>) -> Result<(), BlobError> + use<>, BlobError> {
        let path = self.path_of(&blob.storage_name);
        // A link is followed nowhere, and a pipe must not block the opening.
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BlobError::Missing { path }),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        let metadata = file.metadata().map_err(io_error("read", &path))?;
        let (expected, found) = (file_bytes(blob.size_bytes()).unwrap_or(u64::MAX), metadata.len());
        if !metadata.is_file() || expected != found {
            return Err(BlobError::Length { path, expected, found });
        }
        Ok(move |bytes: u64, out: &mut Vec<u8>| {
            let read = Read::by_ref(&mut file).take(bytes).read_to_end(out);
            read.map(|_| ()).map_err(io_error("read", &path))
        })
    }

    pub(super) fn remove(&self, name: &StorageName) -> Result<(), BlobError> {
        let path = self.path_of(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    pub(super) fn orphans(
        &self,
        before: UnixTime,
        is_named: &dyn Fn(&StorageName) -> bool,
    ) -> Result<Vec<Orphan>, BlobError> {
        let io = |source| io_error("read the folder", &self.0)(source);
        let mut orphans = Vec::new();
        for entry in std::fs::read_dir(&self.0).map_err(io)? {
            let entry = entry.map_err(io)?;
            let is_orphan = match parse(entry.file_name().as_bytes()) {
                Some(Named::Blob(name)) => !is_named(&name),
                Some(Named::Temporary) => true,
                None => false,
            };
            let Ok(metadata) = entry.metadata() else { continue };
            let is_old = u64::try_from(metadata.mtime()).is_ok_and(|seconds| seconds < before.seconds());
            if is_orphan && is_old && metadata.is_file() {
                orphans.push(Orphan { path: entry.path(), bytes: metadata.len() });
            }
        }
        orphans.sort();
        Ok(orphans)
    }

    pub(super) fn remove_orphans(&self, orphans: &[Orphan]) -> Result<(), BlobError> {
        for orphan in orphans {
            std::fs::remove_file(&orphan.path).map_err(io_error("remove", &orphan.path))?;
        }
        durable::sync_dir(&self.0)?;
        Ok(())
    }
}

enum Named {
    Blob(StorageName),
    Temporary,
}

/// Whether a file's name is one that this module gives: a storage name, or a temporary name made of one.
fn parse(name: &[u8]) -> Option<Named> {
    let name = std::str::from_utf8(name).ok()?;
    if let Some(name) = name_of(name) {
        return Some(Named::Blob(name));
    }
    let (stem, _) = name.strip_prefix('.')?.strip_suffix(".tmp")?.split_once('.')?;
    name_of(stem).map(|_| Named::Temporary)
}

/// Writes and syncs a sealed content; gives its hash and size.
fn write(
    path: &Path,
    seal_for: (&BlobKey, &StorageName),
    content: &mut dyn Read,
    limit: u64,
) -> Result<([u8; 32], u64), BlobError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file: File = file.map_err(io_error("create", path))?;
    let mut put = |sealed: &[u8]| file.write_all(sealed).map_err(io_error("write", path));
    let stored = chunks::seal(seal_for, content, limit, path, &mut put)?;
    file.sync_all().map_err(io_error("sync", path))?;
    Ok(stored)
}
