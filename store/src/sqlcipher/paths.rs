//! Where the files of a store lie, and what is looked at before SQLite sees them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use super::error::OpenError;
use super::wal::{self, PAGE_BYTES};
use super::writer::lock;

/// First bytes of a SQLite database that is not encrypted.
const PLAINTEXT_HEADER: &[u8; 16] = b"SQLite format 3\0";

/// The files of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paths {
    /// The folder of the database.
    pub(super) folder: PathBuf,
    pub(super) database: PathBuf,
    pub(super) wal: PathBuf,
    pub(super) shm: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) keyring: PathBuf,
    pub(super) lock: PathBuf,
    /// The copy under a new key, while a rotation makes it; the rest of the name is as of the database.
    pub(super) next: PathBuf,
    /// What a rotation has collected for its receipt.
    pub(super) evidence: PathBuf,
}

impl Paths {
    /// Made absolute, because a relative name that begins with `file:` is an address to SQLite.
    pub(super) fn of(database: &Path) -> Result<Self, OpenError> {
        let database = std::path::absolute(database).map_err(|source| OpenError::Io {
            step: "find",
            path: database.into(),
            source,
        })?;
        let folder = database.parent().unwrap_or(Path::new("/")).to_path_buf();
        let beside = |suffix: &str| {
            let mut name = OsString::from(database.as_os_str());
            name.push(suffix);
            PathBuf::from(name)
        };
        let (wal, shm, journal) = (beside("-wal"), beside("-shm"), beside("-journal"));
        let (next, evidence) = (beside(".next"), beside(".rotation"));
        let (keyring, lock) = (beside(".keyring"), beside(".lock"));
        Ok(Self { folder, wal, shm, journal, keyring, lock, next, evidence, database })
    }

    /// What the database file is, before SQLite opens it. `None`: it is not there.
    pub(super) fn look(&self) -> Result<Option<Identity>, OpenError> {
        let Some(metadata) = metadata(&self.database)? else { return Ok(None) };
        let path = self.database.clone();
        if !metadata.is_file() {
            return Err(OpenError::NotAFile { path });
        }
        let identity = Identity(metadata.dev(), metadata.ino());
        if metadata.len() == 0 {
            return Err(OpenError::Empty { path });
        }
        // A process that has the database open must not open and close its file: that drops all its locks.
        if !is_open_here(identity) && self.first_bytes()? == *PLAINTEXT_HEADER {
            return Err(OpenError::Plaintext { path });
        }
        self.whole_pages(metadata.len())?;
        if self::metadata(&self.journal)?.is_some() {
            return Err(OpenError::Journal { path: self.journal.clone() });
        }
        Ok(Some(identity))
    }

    fn first_bytes(&self) -> Result<[u8; 16], OpenError> {
        let mut bytes = [0; 16];
        let read = File::open(&self.database).and_then(|mut file| {
            let mut taken = 0;
            while let Some(rest) = bytes.get_mut(taken..).filter(|rest| !rest.is_empty()) {
                match file.read(rest)? {
                    0 => break,
                    count => taken += count,
                }
            }
            Ok(())
        });
        read.map_err(|source| OpenError::Io { step: "read", path: self.database.clone(), source })?;
        Ok(bytes)
    }

    /// A checkpoint that a full disk stopped can leave part of a page; all of it is then in the log.
    fn whole_pages(&self, bytes: u64) -> Result<(), OpenError> {
        let page = u64::from(PAGE_BYTES);
        let cut = OpenError::Cut { path: self.database.clone(), found: bytes };
        if bytes < page {
            return Err(cut);
        }
        if bytes.is_multiple_of(page) {
            return Ok(());
        }
        let last = u32::try_from(bytes.div_ceil(page)).unwrap_or(u32::MAX);
        let logged = wal::pages(&self.wal).map_err(|source| OpenError::Io {
            step: "read",
            path: self.wal.clone(),
            source,
        })?;
        if logged.contains(&last) { Ok(()) } else { Err(cut) }
    }
}

/// The files that SQLite may make for a database, beside it.
pub(super) fn companions(database: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|suffix| {
        let mut name = OsString::from(database.as_os_str());
        name.push(suffix);
        PathBuf::from(name)
    })
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> Result<(), OpenError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(OpenError::Io { step: "remove", path: path.into(), source: error })
        }
        _ => Ok(()),
    }
}

/// The file's metadata; none if it is not there. A link is not followed.
pub(super) fn metadata(path: &Path) -> Result<Option<Metadata>, OpenError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { step: "look at", path: path.into(), source }),
    }
}

/// Device and inode of a database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity(u64, u64);

/// The databases that this process has open, and how often.
static OPEN_HERE: Mutex<BTreeMap<Identity, u32>> = Mutex::new(BTreeMap::new());

fn is_open_here(identity: Identity) -> bool {
    lock(&OPEN_HERE).contains_key(&identity)
}

/// Says for its lifetime that this process has a database open. Whoever has a connection to it holds this too.
#[derive(Debug)]
pub(super) struct OpenHere {
    identity: Identity,
    /// The file itself, once somebody wanted it: closed with this, that is, after the last connection.
    raw: OnceLock<File>,
}

impl OpenHere {
    pub(super) fn new(identity: Identity) -> Self {
        let mut open = lock(&OPEN_HERE);
        let count = open.entry(identity).or_default();
        *count = count.saturating_add(1);
        Self { identity, raw: OnceLock::new() }
    }

    /// Whether the file still has this name.
    pub(super) fn has_its_name(&self, path: &Path) -> bool {
        let found = std::fs::symlink_metadata(path);
        found.is_ok_and(|found| Identity(found.dev(), found.ino()) == self.identity)
    }

    /// The database file, to be read as it lies on the disk.
    pub(super) fn raw(&self, path: &Path) -> Result<&File, OpenError> {
        if let Some(file) = self.raw.get() {
            return Ok(file);
        }
        let failed = |source| OpenError::Io { step: "read", path: path.into(), source };
        let file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        // Kept whatever it is: if it is the database after all, closing it would drop the locks of this process.
        let is_ours = Identity(found.dev(), found.ino()) == self.identity;
        let file = self.raw.get_or_init(|| file);
        if is_ours { Ok(file) } else { Err(OpenError::Moved { path: path.into() }) }
    }
}

impl Drop for OpenHere {
    fn drop(&mut self) {
        let mut open = lock(&OPEN_HERE);
        match open.get_mut(&self.identity) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => drop(open.remove(&self.identity)),
        }
    }
}

/// Takes away an empty `-wal` that opening the database for reading has made where there was none.
#[derive(Debug)]
pub(super) struct NoNewWal {
    path: PathBuf,
    was_there: bool,
}

impl NoNewWal {
    pub(super) fn before_opening(paths: &Paths) -> Result<Self, OpenError> {
        Ok(Self { path: paths.wal.clone(), was_there: metadata(&paths.wal)?.is_some() })
    }
}

impl Drop for NoNewWal {
    fn drop(&mut self) {
        if !self.was_there && std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.len() == 0)
        {
            // If it stays, it is an empty log: no harm.
            drop(std::fs::remove_file(&self.path));
        }
    }
}
