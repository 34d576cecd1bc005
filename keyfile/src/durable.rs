//! Files that a crash leaves old or new, never in between; and locks between processes.

#![expect(clippy::disallowed_methods, reason = "this is the module that renames, with the syncs around it")]

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use crate::error::KeyError;

/// Whether a replacement must have reached the disk when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Sync {
    /// File and folder are synced: it survives a power loss.
    Disk,
    /// It survives the end of this process; after a power loss the old or the new one is there.
    Later,
}

fn io(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { step, path, source }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name beside `path` for a file that is not complete yet.
#[must_use]
pub fn temporary_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{:016x}.tmp", rand::random::<u64>()));
    parent(path).join(name)
}

/// Marks a file under a temporary name as being written, for as long as it is open (`flock(2)`).
///
/// # Errors
/// The operating system's reason.
pub fn hold(file: &File) -> std::io::Result<()> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).map_err(Into::into)
}

/// Removes the files under temporary names of `path` that no process holds any more: what killed runs left. For
/// paths whose writers [`hold`] what they write; what cannot be removed stays for the next run.
pub fn remove_left_overs(path: &Path) {
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    for entry in std::fs::read_dir(parent(path)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let random = rest.and_then(|rest| rest.strip_suffix(b".tmp")).unwrap_or_default();
        if random.len() != 16 || !random.iter().all(u8::is_ascii_hexdigit) {
            continue;
        }
        let file = OpenOptions::new().read(true).custom_flags(no_follow()).open(entry.path());
        if file.is_ok_and(|file| hold(&file).is_ok()) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// The flag that opens no symbolic link.
fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

/// Syncs a folder, so that the names in it survive a power loss.
///
/// # Errors
/// [`KeyError::Io`].
pub fn sync_dir(folder: &Path) -> Result<(), KeyError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(io("sync the folder", folder))
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32, sync: Sync) -> Result<PathBuf, KeyError> {
    let temporary = temporary_name(path);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The umask takes bits away; a nodeset that the service cannot read is of no use.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        if sync == Sync::Disk {
            file.sync_all()?;
        }
        Ok(())
    })();
    written.map_err(|source| {
        let _gone_either_way = std::fs::remove_file(&temporary);
        KeyError::Io { step: "write", path: path.to_owned(), source }
    })?;
    Ok(temporary)
}

/// Replaces a file: written under another name, synced, renamed, folder synced.
///
/// # Errors
/// [`KeyError::Io`]; the old file is then still there.
pub fn replace(path: &Path, bytes: &[u8], mode: u32, sync: Sync) -> Result<(), KeyError> {
    let temporary = write_temporary(path, bytes, mode, sync)?;
    if let Err(source) = std::fs::rename(&temporary, path) {
        let _gone_either_way = std::fs::remove_file(&temporary);
        return Err(KeyError::Io { step: "rename to", path: path.to_owned(), source });
    }
    if sync == Sync::Disk { sync_dir(parent(path)) } else { Ok(()) }
}

/// Creates a file that must not exist; a crash leaves all of it or nothing.
///
/// # Errors
/// [`KeyError::Exists`] when it exists; [`KeyError::Io`].
pub fn create_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    let temporary = write_temporary(path, bytes, mode, Sync::Disk)?;
    take_name(&temporary, path).inspect_err(|_| {
        let _gone_either_way = std::fs::remove_file(&temporary);
    })
}

/// Gives a complete, synced file its final name, unless that name is taken.
///
/// # Errors
/// [`KeyError::Exists`] when the name is taken; [`KeyError::Io`].
pub fn take_name(temporary: &Path, path: &Path) -> Result<(), KeyError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => sync_dir(parent(path)),
        Err(rustix::io::Errno::EXIST) => Err(KeyError::Exists { path: path.to_owned() }),
        // File systems without RENAME_NOREPLACE: a hard link refuses a taken name too.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => match std::fs::hard_link(temporary, path)
        {
            Ok(()) => {
                std::fs::remove_file(temporary).map_err(io("remove", temporary))?;
                sync_dir(parent(path))
            }
            Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(KeyError::Exists { path: path.to_owned() })
            }
            Err(source) => Err(KeyError::Io { step: "name", path: path.to_owned(), source }),
        },
        Err(errno) => Err(KeyError::Io { step: "rename to", path: path.to_owned(), source: errno.into() }),
    }
}

/// Gives a complete, synced file the name of another one, which loses it; the folder is synced.
///
/// # Errors
/// [`KeyError::Io`]; if it is the folder that could not be synced, the name may be the new file's.
pub fn take_over(temporary: &Path, path: &Path) -> Result<(), KeyError> {
    std::fs::rename(temporary, path).map_err(io("rename to", path))?;
    sync_dir(parent(path))
}

/// A lock between processes (`flock(2)`); gone with its holder, however that ends.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    _file: File,
}

impl LockFile {
    /// Takes the lock if nobody has it; `None` when another process does.
    ///
    /// # Errors
    /// [`KeyError::Io`] when the lock file cannot be opened.
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>, KeyError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io("open the lock file", path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(io("lock", path)(errno.into())),
        }
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_new_overwrites_nothing_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        create_new(&path, b"one", 0o600).unwrap();
        assert!(matches!(create_new(&path, b"two", 0o600), Err(KeyError::Exists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        replace(&path, b"two", 0o600, Sync::Disk).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_is_being_written_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.snapshot");
        let (dead, alive) = (temporary_name(&path), temporary_name(&path));
        let others =
            [folder.path().join(".a.snapshot.tmp"), temporary_name(&folder.path().join("b.snapshot"))];
        std::fs::write(&dead, b"dead").unwrap();
        others.iter().for_each(|other| std::fs::write(other, b"other").unwrap());
        let writing = File::create(&alive).unwrap();
        hold(&writing).unwrap();
        remove_left_overs(&path);
        assert!(!dead.exists() && alive.exists() && others.iter().all(|other| other.exists()));
        drop(writing);
        remove_left_overs(&path);
        assert!(!alive.exists());
    }

    #[test]
    fn a_lock_is_held_once_and_free_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = LockFile::try_exclusive(&path).unwrap();
        assert!(first.is_some());
        assert!(LockFile::try_exclusive(&path).unwrap().is_none());
        drop(first);
        assert!(LockFile::try_exclusive(&path).unwrap().is_some());
    }
}
