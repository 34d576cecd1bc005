//! The files of a plaintext source: what they are before and after, and how SQLite may open them without a
//! byte of them changing (SPEC store, section 9.2).

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::PlaintextError;

/// First bytes of every SQLite database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Offset of the byte that says whether readers use a WAL (2) or not (1).
const READ_VERSION: usize = 19;
/// Bytes of the part of the header that is looked at.
const HEAD_BYTES: usize = 20;
/// A folder in memory: what is put there never reaches a disk of ours.
const MEMORY_FOLDER: &str = "/dev/shm";
/// `f_type` of tmpfs.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Page cache of the reading connection, in KiB.
const CACHE_KIB: i32 = 8_192;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Result<Option<Self>, PlaintextError> {
        match std::fs::metadata(path) {
            Ok(meta) => Ok(Some(Self {
                device: meta.dev(),
                inode: meta.ino(),
                bytes: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PlaintextError::Io { step: "look at", path: path.to_owned(), source }),
        }
    }
}

/// The database with its WAL and journal, as they were at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamps {
    database: Option<Stamp>,
    wal: Option<Stamp>,
    journal: Option<Stamp>,
}

impl Stamps {
    pub(super) fn of(database: &Path) -> Result<Self, PlaintextError> {
        Ok(Self {
            database: Stamp::of(database)?,
            wal: Stamp::of(&beside(database, "-wal"))?,
            journal: Stamp::of(&beside(database, "-journal"))?,
        })
    }

    /// A text that is the same as long as nothing changes.
    pub(super) fn text(&self) -> String {
        let one = |stamp: &Option<Stamp>| {
            stamp.as_ref().map_or_else(
                || "-".to_owned(),
                |s| format!("{}.{}.{}.{}.{}", s.device, s.inode, s.bytes, s.modified.0, s.modified.1),
            )
        };
        format!("{}/{}/{}", one(&self.database), one(&self.wal), one(&self.journal))
    }

    pub(super) fn bytes(&self) -> u64 {
        [self.database, self.wal].iter().flatten().fold(0, |sum, stamp| sum.saturating_add(stamp.bytes))
    }
}

/// The file beside `database` whose name ends in `suffix`.
fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether the header says that a WAL may hold the newest pages.
fn uses_wal(database: &Path) -> Result<bool, PlaintextError> {
    let io =
        |step: &'static str| move |source| PlaintextError::Io { step, path: database.to_owned(), source };
    if std::fs::metadata(database).is_ok_and(|meta| !meta.is_file()) {
        return Err(PlaintextError::NotAFile { path: database.to_owned() });
    }
    let file = match File::open(database) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(PlaintextError::Missing { path: database.to_owned() });
        }
        Err(source) => return Err(io("open")(source)),
    };
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.take(u64::try_from(HEAD_BYTES).unwrap_or_default()).read_to_end(&mut head).map_err(io("read"))?;
    if !head.starts_with(MAGIC) {
        return Err(PlaintextError::NotSqlite { path: database.to_owned() });
    }
    Ok(head.get(READ_VERSION) == Some(&2))
}

/// Opens `database` and begins a read transaction, in the way that changes nothing.
pub(super) fn open(database: &Path) -> Result<Connection, PlaintextError> {
    let fail = |source| PlaintextError::sqlite("open", database, source);
    let wal_mode = uses_wal(database)?;
    let has_wal = beside(database, "-wal").exists();
    let attempt = match (wal_mode, has_wal) {
        // Nobody has it open, and nothing is pending: a plain opening would leave `-wal` and `-shm` behind.
        (true, false) => return begin(connect_immutable(database).map_err(fail)?).map_err(fail),
        // Left behind by a crash, or in use. Exclusive locking keeps the index of the WAL in memory; it is
        // refused while somebody has the database open, and then there is an index to share.
        (true, true) => connect_alone(database).and_then(begin).or_else(|error| match code(&error) {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => connect(database).and_then(begin),
            _ => Err(error),
        }),
        (false, _) => connect(database).and_then(begin),
    };
    match attempt {
        Ok(connection) => Ok(connection),
        Err(error) if needs_scratch(&error) => in_memory(database),
        Err(error) => Err(fail(error)),
    }
}

fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    error.sqlite_error_code()
}

/// Whether the source cannot be read where it lies without writing beside it: a journal waits to be rolled
/// back, or a WAL has no index and the folder cannot be written.
fn needs_scratch(error: &rusqlite::Error) -> bool {
    let Some(error) = error.sqlite_error() else { return false };
    error.extended_code == ffi::SQLITE_READONLY_ROLLBACK
        || error.extended_code == ffi::SQLITE_READONLY_RECOVERY
        || error.extended_code == ffi::SQLITE_READONLY_CANTINIT
        || error.extended_code == ffi::SQLITE_IOERR_LOCK
        || matches!(error.code, ErrorCode::CannotOpen | ErrorCode::ReadOnly)
}

fn connect(database: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    configure(Connection::open_with_flags(absolute(database)?, flags)?)
}

/// Not merely read-only, or the exclusive lock cannot be taken; nothing is ever written.
fn connect_alone(database: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(absolute(database)?, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    // Before anything reads the file: the first look at a WAL decides where its index is kept.
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    configure(connection)
}

/// Without locks and without looking for a WAL: only for a database that has none.
fn connect_immutable(database: &Path) -> Result<Connection, rusqlite::Error> {
    let mut address = String::from("file://");
    for &byte in absolute(database)?.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/.-_".contains(&byte) {
            address.push(char::from(byte));
        } else {
            address.push_str(&format!("%{byte:02X}"));
        }
    }
    address.push_str("?immutable=1");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    configure(Connection::open_with_flags(address, flags)?)
}

/// A name that begins with a slash cannot be taken for a `file:` address.
fn absolute(path: &Path) -> Result<PathBuf, rusqlite::Error> {
    std::path::absolute(path).map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))
}

fn configure(connection: Connection) -> Result<Connection, rusqlite::Error> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.execute_batch(&format!(
        "PRAGMA query_only = ON; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA cache_size = -{CACHE_KIB}"
    ))?;
    Ok(connection)
}

fn begin(connection: Connection) -> Result<Connection, rusqlite::Error> {
    connection.execute_batch("BEGIN")?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// Reads a copy in memory, where SQLite may roll the journal back. The copy has a name for a moment only.
fn in_memory(database: &Path) -> Result<Connection, PlaintextError> {
    let unusable = || PlaintextError::HotJournal { path: database.to_owned() };
    let folder = Path::new(MEMORY_FOLDER);
    let system = rustix::fs::statfs(folder).map_err(|_| unusable())?;
    if u64::try_from(system.f_type) != Ok(TMPFS_MAGIC) {
        return Err(unusable());
    }
    let free = u64::try_from(system.f_bsize).unwrap_or_default().saturating_mul(system.f_bavail);
    let mut needed = 0_u64;
    for suffix in ["", "-wal", "-journal"] {
        needed = needed.saturating_add(Stamp::of(&beside(database, suffix))?.map_or(0, |stamp| stamp.bytes));
    }
    // Rolling back and reading may need as much again as the journal, which is below the whole.
    if needed.saturating_mul(2) > free {
        return Err(unusable());
    }
    let scratch = Scratch::new(folder)?;
    let copy = scratch.0.join("source");
    for suffix in ["", "-wal", "-journal"] {
        let from = beside(database, suffix);
        if from.exists() {
            copy_private(&from, &beside(&copy, suffix))?;
        }
    }
    let fail = |source| PlaintextError::sqlite("recover a copy of", database, source);
    let connection = Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fail)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(fail)?;
    // From here on the open file alone keeps it; dropping `scratch` takes the names away.
    begin(configure(connection).map_err(fail)?).map_err(fail)
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: &Path) -> Result<Self, PlaintextError> {
        let path = folder.join(format!("unibus-{:032x}", rand::random::<u128>()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|source| PlaintextError::Io {
            step: "create",
            path: path.clone(),
            source,
        })?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Only names in memory are left if this fails, and the next start of the machine takes them.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn copy_private(from: &Path, to: &Path) -> Result<(), PlaintextError> {
    let io = |step: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| PlaintextError::Io { step, path, source }
    };
    let mut reader = File::open(from).map_err(io("open", from))?;
    let mut writer = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(io("create", to))?;
    std::io::copy(&mut reader, &mut writer).map_err(io("copy", from))?;
    Ok(())
}
