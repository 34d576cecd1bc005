//! Reader of the plaintext sources `sqlite:` and `kv-plain:` (SPEC store, section 9).
//!
//! The source is never changed: not its file, not its WAL, not its journal, not its buckets. Records come one at a time, in canonical
//! order; a row that is no valid record is handed over as such, by table and row number,
//! with the reason and without its content.

#[cfg(feature = "sealed-log")]
mod buckets;
mod file;
mod rows;
pub mod sample;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use unibus_keyfile::error::{ErrorClass, KeyError};

#[cfg(feature = "sealed-log")]
pub use buckets::{Buckets, Remarks};
pub use rows::{Place, Rejected, Row};

use self::file::Stamps;
use self::rows::Shape;
use crate::record::Kind;
#[cfg(feature = "sealed-log")]
use crate::sealed_log::LogError;

/// Why a plaintext source cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaintextError {
    /// The file is not there.
    #[error("`{}` does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A folder, a device or a socket.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The first bytes are not those of a SQLite database.
    #[error("`{}` is not a plaintext SQLite database", path.display())]
    NotSqlite {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused a step.
    #[error("cannot {step} `{}`", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file could not be given its name.
    #[error("cannot finish the file")]
    File(#[source] KeyError),
    /// SQLite refused a step.
    #[error("cannot {step} `{}`", path.display())]
    Sqlite {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: rusqlite::Error,
    },
    /// A journal must be rolled back before it can be read, and there is no room in memory for a copy.
    #[error("`{}` was left in the middle of a change, and there is no room in memory to undo it in a copy", path.display())]
    HotJournal {
        /// The file.
        path: PathBuf,
    },
    /// A table of the source format is not there.
    #[error("`{}` has no table `{table}`", path.display())]
    NoTable {
        /// The file.
        path: PathBuf,
        /// The table.
        table: &'static str,
    },
    /// A column without which no row is a record is not there.
    #[error("table `{table}` of `{}` has no column `{column}`", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// The servers of the buckets are not reached, or refuse.
    #[cfg(feature = "sealed-log")]
    #[error(transparent)]
    Servers(Box<LogError>),
    /// A bucket of the source format is not there.
    #[error("`{}` has no bucket `{bucket}`", path.display())]
    NoBucket {
        /// The servers.
        path: PathBuf,
        /// The bucket.
        bucket: &'static str,
    },
    /// A bucket that is to be made is there.
    #[error("`{}` has a bucket `{bucket}`", path.display())]
    BucketExists {
        /// The servers.
        path: PathBuf,
        /// The bucket.
        bucket: &'static str,
    },
    /// Somebody wrote to the source in the meantime.
    #[error("`{}` changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(feature = "sealed-log")]
impl From<LogError> for PlaintextError {
    fn from(error: LogError) -> Self {
        Self::Servers(Box::new(error))
    }
}

impl PlaintextError {
    fn sqlite(step: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        Self::Sqlite { step, path: path.to_owned(), source }
    }

    /// Class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Missing { .. } | Self::NotAFile { .. } | Self::NotSqlite { .. } => ErrorClass::Misuse,
            Self::NoTable { .. } | Self::NoColumn { .. } | Self::NoBucket { .. } => ErrorClass::Misuse,
            #[cfg(feature = "sealed-log")]
            Self::Servers(source) => source.class(),
            Self::Io { .. } | Self::HotJournal { .. } => ErrorClass::Io,
            Self::File(source) => source.class(),
            Self::Sqlite { source, .. } => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                    ErrorClass::Locked
                }
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                    ErrorClass::Corrupt
                }
                _ => ErrorClass::Io,
            },
            Self::Changed { .. } | Self::BucketExists { .. } => ErrorClass::Conflict,
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::NotAFile { .. } | Self::NotSqlite { .. } => "UB-S070",
            Self::NoTable { .. } | Self::NoColumn { .. } => "UB-S071",
            Self::Io { .. } | Self::Sqlite { .. } | Self::File(_) => "UB-S072",
            Self::HotJournal { .. } => "UB-S073",
            Self::Changed { .. } => "UB-S074",
            Self::NoBucket { .. } => "UB-S075",
            Self::BucketExists { .. } => "UB-S076",
            #[cfg(feature = "sealed-log")]
            Self::Servers(source) => source.code(),
        }
    }

    /// What to do next, in one sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::NotAFile { .. } => "check the path after `sqlite:`",
            Self::NotSqlite { .. } => {
                "an encrypted store is named `sqlcipher:PATH`, a snapshot `snapshot:PATH`"
            }
            Self::NoTable { .. } | Self::NoColumn { .. } => {
                "the source format is in store/SPEC.md, section 9; rename tables or columns in a copy, or by views \
                 turned into tables"
            }
            Self::Io { .. } | Self::Sqlite { .. } | Self::File(_) => {
                "check the disk and the rights of the user that runs this"
            }
            Self::HotJournal { .. } => {
                "start and stop the program that wrote it, so that it recovers its database, and run this again"
            }
            Self::NoBucket { .. } => {
                "check the address and the account of the identity: the buckets are named in store/SPEC.md, section 9.4; \
                 none was made"
            }
            Self::BucketExists { .. } => {
                "write a sample where none of the buckets is; nothing is overwritten"
            }
            #[cfg(feature = "sealed-log")]
            Self::Servers(source) => match source.as_ref() {
                LogError::Unreachable { .. } => {
                    "check the address, and that a majority of the servers is up; nothing was changed"
                }
                LogError::NotAdmitted { .. } => {
                    "give --from-internal-id-file or --internal-id-file: an identity that may use these buckets"
                }
                LogError::ServerNotTrusted { .. } | LogError::Ca { .. } => {
                    "give --from-ca or --ca: the CA that signed the servers' certificates, in PEM; they must name the \
                     host as the URL does"
                }
                _ => "enable JetStream for the account of that identity",
            },
            Self::Changed { .. } => {
                "stop the program that writes to it, and run this again; nothing was kept"
            }
        }
    }
}

/// Rows of each table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RowCounts {
    /// Rows of `users`.
    pub users: u64,
    /// Rows of `rooms`.
    pub rooms: u64,
    /// Rows of `members`.
    pub members: u64,
    /// Rows of `room_keys`.
    pub room_keys: u64,
}

impl RowCounts {
    /// All rows.
    #[must_use]
    pub fn total(&self) -> u64 {
        [self.users, self.rooms, self.members, self.room_keys].iter().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

/// A plaintext source, open in one read transaction, or read into sealed tables.
#[derive(Debug)]
pub struct PlaintextSource {
    path: PathBuf,
    connection: Connection,
    shape: Shape,
    origin: Origin,
}

/// Where the tables come from, and what tells whether they are still the same there.
#[derive(Debug)]
enum Origin {
    File {
        before: Stamps,
        version: i64,
    },
    #[cfg(feature = "sealed-log")]
    Buckets(Box<buckets::Loaded>),
}

impl PlaintextSource {
    /// Opens `path`, checks that the tables of the source format are there, and begins the read transaction.
    ///
    /// # Errors
    /// Every [`PlaintextError`] but `Changed`.
    pub fn open(path: &Path) -> Result<Self, PlaintextError> {
        let before = Stamps::of(path)?;
        let connection = file::open(path)?;
        let version = data_version(&connection).map_err(|e| PlaintextError::sqlite("read", path, e))?;
        let shape = Shape::of(&connection, path)?;
        Ok(Self { path: path.to_owned(), connection, shape, origin: Origin::File { before, version } })
    }

    /// Reads all buckets, each up to its last sequence, into sealed tables in a file without a name.
    ///
    /// # Errors
    /// `Servers`, `NoBucket`, `Sqlite`, `Io`.
    #[cfg(feature = "sealed-log")]
    pub fn open_buckets(buckets: &Buckets) -> Result<Self, PlaintextError> {
        let path = buckets.name();
        let folder = crate::sqlcipher::scratch::folder();
        let connection = crate::sqlcipher::scratch::create(&folder).map_err(|source| PlaintextError::Io {
            step: "make a file for the time being in",
            path: folder,
            source,
        })?;
        let loaded = buckets::Loaded::read(buckets, &connection)?;
        let shape = Shape::of(&connection, &path)?;
        Ok(Self { path, connection, shape, origin: Origin::Buckets(Box::new(loaded)) })
    }

    /// What is said of buckets beside their records; none of a database.
    #[cfg(feature = "sealed-log")]
    #[must_use]
    pub fn remarks(&self) -> Option<&Remarks> {
        match &self.origin {
            Origin::File { .. } => None,
            Origin::Buckets(loaded) => Some(&loaded.remarks),
        }
    }

    /// A text that stays the same as long as nobody writes to the source.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        match &self.origin {
            Origin::File { before, .. } => before.text(),
            #[cfg(feature = "sealed-log")]
            Origin::Buckets(loaded) => loaded.fingerprint(),
        }
    }

    /// Bytes of the database and its WAL, or of the buckets.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match &self.origin {
            Origin::File { before, .. } => before.bytes(),
            #[cfg(feature = "sealed-log")]
            Origin::Buckets(loaded) => loaded.bytes(),
        }
    }

    /// Rows of each table.
    ///
    /// # Errors
    /// `Sqlite`.
    pub fn counts(&self) -> Result<RowCounts, PlaintextError> {
        let count = |kind| self.shape.count(&self.connection, kind).map_err(|e| self.failed(e));
        let counts = RowCounts {
            users: count(Kind::User)?,
            rooms: count(Kind::Room)?,
            members: count(Kind::Member)?,
            room_keys: count(Kind::RoomKey)?,
        };
        Ok(match &self.origin {
            Origin::File { .. } => counts,
            #[cfg(feature = "sealed-log")]
            Origin::Buckets(loaded) => loaded.add_rejected(counts),
        })
    }

    /// Hands over every row, one at a time; valid records come in canonical order.
    ///
    /// # Errors
    /// `Sqlite`, or what `visit` gives.
    pub fn read<E>(&self, mut visit: impl FnMut(Row) -> Result<(), E>) -> Result<(), E>
    where
        E: From<PlaintextError>,
    {
        let failed = |error| self.failed(error).into();
        match &self.origin {
            Origin::File { .. } => self.shape.read(&self.connection, &mut visit, &failed),
            #[cfg(feature = "sealed-log")]
            Origin::Buckets(loaded) => {
                for (_, rejected) in &loaded.rejected {
                    visit(Row::Rejected(rejected.clone()))?;
                }
                let mut visit = |row: Row| visit(buckets::placed(row));
                self.shape.read(&self.connection, &mut visit, &failed)
            }
        }
    }

    /// Ends the transaction and proves that nobody wrote to the source since it was opened.
    ///
    /// # Errors
    /// `Changed`, `Sqlite`, `Io`.
    pub fn finish(self) -> Result<(), PlaintextError> {
        let is_unchanged = match &self.origin {
            Origin::File { before, version } => {
                self.connection.execute_batch("COMMIT").map_err(|e| self.failed(e))?;
                let now = data_version(&self.connection).map_err(|e| self.failed(e))?;
                now == *version && Stamps::of(&self.path)? == *before
            }
            #[cfg(feature = "sealed-log")]
            Origin::Buckets(loaded) => loaded.is_unchanged()?,
        };
        if is_unchanged { Ok(()) } else { Err(PlaintextError::Changed { path: self.path }) }
    }

    /// Names of the servers that keep the buckets; none of a database.
    #[cfg(feature = "sealed-log")]
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        match &self.origin {
            Origin::File { .. } => Vec::new(),
            Origin::Buckets(loaded) => loaded.servers().into_iter().collect(),
        }
    }

    /// Removes the buckets, each only if nobody wrote to it since it was read here; a file is left to its owner. The
    /// caller has proven that everything in them is kept elsewhere.
    ///
    /// # Errors
    /// `Changed` for one that is not as it was read, and those after it; `Servers`.
    #[cfg(feature = "sealed-log")]
    pub fn remove(self) -> Result<(), PlaintextError> {
        match &self.origin {
            Origin::Buckets(loaded) if loaded.remove()? => Ok(()),
            _ => Err(PlaintextError::Changed { path: self.path }),
        }
    }

    fn failed(&self, source: rusqlite::Error) -> PlaintextError {
        PlaintextError::sqlite("read", &self.path, source)
    }
}

fn data_version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}
