//! The one place where SQLCipher gets its key, and where a connection gets its settings.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use zeroize::Zeroizing;

/// Length of `x'` + 64 hex digits + `'`, the form in which SQLCipher takes a raw key.
const RAW_KEY_TEXT_BYTES: usize = 67;

/// How a connection is going to be used; decides flags, locking and what closing it may do to the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Reads a store that nobody else has open, and leaves every byte as it was: exclusive locking keeps the
    /// WAL index on the heap (no `-shm`), and closing does not checkpoint.
    Proof,
    /// Reads beside a writer, possibly one in another process.
    Reader,
    /// The one writer of a store in service.
    Writer,
    /// Fills a new file that has no name yet, so that nothing needs to be durable before the end.
    Build,
}

/// Most memory the page cache of a connection may take, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CacheKib(pub(super) u32);

impl CacheKib {
    /// Larger than any control data in practice: reads then cost what they cost without encryption.
    pub(super) const SERVING: Self = Self(262_144);
    /// For tools that pass over the data once, whatever its size. The structure check looks each row up in its
    /// index: below this it decrypts pages over and over at 1,000,000 records.
    pub(super) const STREAMING: Self = Self(32_768);
    /// For an import, whose second index is filled in another order than the tables.
    pub(super) const IMPORTING: Self = Self(32_768);
}

/// Opens `path` with `key` and applies every setting. Some settings read the first page: a wrong key shows here.
pub(super) fn connect(
    path: &Path,
    key: &[u8; 32],
    access: Access,
    cache: CacheKib,
) -> Result<Connection, rusqlite::Error> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if access == Access::Build {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    // An absolute path cannot be taken for a `file:` address, whose parameters could switch locking off.
    let absolute = std::path::absolute(path).map_err(|_| rusqlite::Error::InvalidPath(path.to_path_buf()))?;
    let connection = Connection::open_with_flags(absolute, flags)?;
    if access == Access::Writer {
        // Before the key is there: from here on SQLite's allocator wipes and locks, for the whole process. An import
        // or a proof alone does without, because two system calls for each allocation make it four times as slow.
        // SQLCipher wipes and locks its own keys whatever this says.
        connection.execute_batch("PRAGMA cipher_memory_security = ON")?;
    }
    give_key(&connection, key)?;
    configure(&connection, access, cache)?;
    Ok(connection)
}

/// Hands the raw key over in a buffer of ours, which is wiped: as SQL text it would stay in freed heap memory.
#[expect(unsafe_code, reason = "rusqlite has no safe call for sqlite3_key_v2")]
pub(super) fn give_key(connection: &Connection, key: &[u8; 32]) -> Result<(), rusqlite::Error> {
    let text = raw_key_text(key);
    let length = std::ffi::c_int::try_from(text.len()).unwrap_or_default();
    // SAFETY: the handle is open for the length of the borrow, the name is a C string literal, and the pointer
    // and length describe `text`, which outlives the call; SQLCipher copies what it keeps.
    let code =
        unsafe { ffi::sqlite3_key_v2(connection.handle(), c"main".as_ptr(), text.as_ptr().cast(), length) };
    if code == ffi::SQLITE_OK {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
}

/// `x'<64 hex digits>'`: any other length would be taken for a passphrase, without a word.
fn raw_key_text(key: &[u8; 32]) -> Zeroizing<[u8; RAW_KEY_TEXT_BYTES]> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    let mut text = Zeroizing::new([b'\''; RAW_KEY_TEXT_BYTES]);
    let (head, hex) = text.split_at_mut(2);
    head.copy_from_slice(b"x'");
    for (pair, byte) in hex.chunks_exact_mut(2).zip(key) {
        if let [high, low] = pair {
            *high = digit(byte >> 4);
            *low = digit(byte & 15);
        }
    }
    text
}

fn configure(connection: &Connection, access: Access, cache: CacheKib) -> Result<(), rusqlite::Error> {
    // Not stored in the file, so every connection must say it, before its first read.
    connection.execute_batch("PRAGMA cipher_hmac_algorithm = HMAC_SHA256")?;
    if access == Access::Proof {
        connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(
        DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
        matches!(access, Access::Proof | Access::Reader),
    )?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(&format!(
        "PRAGMA cache_size = -{}; PRAGMA cell_size_check = ON; PRAGMA secure_delete = ON; PRAGMA foreign_keys = ON;",
        cache.0
    ))?;
    connection.execute_batch(match access {
        Access::Proof | Access::Reader => "PRAGMA query_only = ON",
        // The writer thread checkpoints by itself, so that a verification can hold it off.
        Access::Writer => "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0",
        Access::Build => {
            "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE"
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_key_is_written_as_a_blob_literal() {
        let mut key = [0; 32];
        key[0] = 0x1f;
        key[31] = 0xa0;
        let text = raw_key_text(&key);
        assert_eq!(&text[..6], b"x'1f00");
        assert_eq!(&text[63..], b"0a0'");
        assert_eq!(text.len(), 67);
    }
}
