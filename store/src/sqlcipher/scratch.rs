//! A sealed table for what does not fit into memory: a file without a name, under a key that is nowhere else.
//!
//! It goes when its connection is closed or its process ends, however that ends; what stays on the disk opens for
//! nobody.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use zeroize::Zeroizing;

use super::open::give_key;

/// Memory that its pages may take, in KiB.
const CACHE_KIB: u32 = 8 * 1024;
/// Holds large files, and does not lie in memory as `/tmp` may.
const USUAL: &str = "/var/tmp";

/// Where such a file is made: `TMPDIR`, else `/var/tmp`, as SQLite does it.
pub(crate) fn folder() -> PathBuf {
    let named = std::env::var_os("TMPDIR").map(PathBuf::from);
    named
        .or_else(|| Some(PathBuf::from(USUAL)))
        .filter(|path| path.is_dir())
        .unwrap_or_else(std::env::temp_dir)
}

/// Makes one in `folder`, inside a transaction that is never ended.
///
/// # Errors
/// What the operating system or SQLite says.
pub(crate) fn create(folder: &Path) -> io::Result<Connection> {
    let path = std::path::absolute(folder)?.join(format!(".unibus-scratch-{:016x}", rand::random::<u64>()));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let made = keyed(&path);
    // Also when it failed: nobody else knows the name.
    std::fs::remove_file(&path)?;
    made.map_err(io::Error::other)
}

fn keyed(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    give_key(&connection, &Zeroizing::new(rand::random::<[u8; 32]>()))?;
    connection.execute_batch("PRAGMA cipher_hmac_algorithm = HMAC_SHA256")?;
    connection.set_prepared_statement_cache_capacity(16);
    // The first page is written here, while the file has its name.
    connection.execute_batch(&format!(
        "PRAGMA cache_size = -{CACHE_KIB}; PRAGMA temp_store = MEMORY; PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN EXCLUSIVE; CREATE TABLE made (it)"
    ))?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_no_name_and_what_reaches_the_disk_is_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let connection = create(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        connection.execute_batch("CREATE TABLE t (value)").unwrap();
        let word = "something to be found ".repeat(40);
        for _ in 0..20_000 {
            connection.prepare_cached("INSERT INTO t VALUES (?1)").unwrap().execute([&word]).unwrap();
        }
        let count: i64 = connection
            .query_row("SELECT count(*) FROM t WHERE value = ?1", [&word], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 20_000);
        // The file that has no name is read through the process's own handle.
        let deleted = |entry: std::fs::DirEntry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            let is_ours = target.to_str()?.contains(".unibus-scratch-") && target.starts_with(folder.path());
            is_ours.then(|| entry.path())
        };
        let files: Vec<_> =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| deleted(entry.ok()?)).collect();
        let bytes = std::fs::read(files.first().unwrap()).unwrap();
        assert!(bytes.len() > 8 << 20, "only {} bytes have left the memory", bytes.len());
        assert!(!bytes.windows(9).any(|window| window == b"something"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        assert!(create(Path::new("/nowhere/at/all")).is_err());
    }
}
