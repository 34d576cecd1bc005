//! SQLite's errors, told apart by what an operator can do about them.

use std::fmt;

use rusqlite::ErrorCode;

/// An error of SQLite or SQLCipher. Shows its text, which never holds data.
pub struct SqliteError(rusqlite::Error);

/// What an error of SQLite means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// No room on the disk, or a limit on file size was reached.
    DiskFull,
    /// The operating system failed to read or write.
    Io,
    /// Another connection holds a lock.
    Busy,
    /// The database, its folder or its file system is read-only.
    ReadOnly,
    /// Not a database under this key: the first page does not authenticate.
    NotADatabase,
    /// A page does not authenticate, or the structure is damaged.
    Corrupt,
    /// Anything else: a mistake of this program.
    Other,
}

impl SqliteError {
    /// What it means.
    #[must_use]
    pub fn fault(&self) -> Fault {
        of(&self.0)
    }

    pub(super) fn code(&self) -> i32 {
        code(&self.0)
    }
}

/// What an error means.
pub(super) fn of(error: &rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Fault::DiskFull,
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Fault::Io,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Fault::Busy,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Fault::ReadOnly,
        Some(ErrorCode::NotADatabase) => Fault::NotADatabase,
        Some(ErrorCode::DatabaseCorrupt) => Fault::Corrupt,
        _ => Fault::Other,
    }
}

/// SQLite's extended result code; 0 for what is not an error of SQLite.
pub(super) fn code(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().map_or(0, |error| error.extended_code)
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for SqliteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            rusqlite::Error::SqliteFailure(error, _) => {
                write!(f, "sqlite: {} ({})", error, error.extended_code)
            }
            other => write!(f, "sqlite: {other}"),
        }
    }
}

impl fmt::Debug for SqliteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for SqliteError {}
