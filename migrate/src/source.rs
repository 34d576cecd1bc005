//! Store URLs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A store, as named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreUrl {
    /// `sqlcipher:PATH`, an encrypted database.
    Sqlcipher(PathBuf),
    /// `sqlite:PATH`, a plaintext database: a source, never a target.
    Sqlite(PathBuf),
    /// `snapshot:PATH`, a sealed snapshot file.
    Snapshot(PathBuf),
}

impl StoreUrl {
    /// The file that the URL names.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Sqlcipher(path) | Self::Sqlite(path) | Self::Snapshot(path) => path,
        }
    }

    /// The part before the colon.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Sqlcipher(_) => "sqlcipher",
            Self::Sqlite(_) => "sqlite",
            Self::Snapshot(_) => "snapshot",
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme(), self.path().display())
    }
}

/// Why a text is no store URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreUrlError {
    /// There is no scheme before a colon.
    #[error("a store is named `SCHEME:PATH`, e.g. `sqlcipher:{path}`; the schemes are {SCHEMES}")]
    NoScheme {
        /// What was given.
        path: String,
    },
    /// The scheme is not known.
    #[error("unknown kind of store `{scheme}`; the schemes are {SCHEMES}")]
    UnknownScheme {
        /// What stood before the colon.
        scheme: String,
    },
    /// Nothing follows the colon.
    #[error("`{scheme}:` names no file")]
    NoPath {
        /// What stood before the colon.
        scheme: String,
    },
}

const SCHEMES: &str = "sqlcipher:, sqlite: and snapshot:";

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let Some((scheme, path)) = text.split_once(':') else {
            return Err(StoreUrlError::NoScheme { path: text.to_owned() });
        };
        let make = match scheme {
            "sqlcipher" => Self::Sqlcipher,
            "sqlite" => Self::Sqlite,
            "snapshot" => Self::Snapshot,
            _ => return Err(StoreUrlError::UnknownScheme { scheme: scheme.to_owned() }),
        };
        if path.is_empty() {
            return Err(StoreUrlError::NoPath { scheme: scheme.to_owned() });
        }
        Ok(make(PathBuf::from(path)))
    }
}

/// The file beside `path` with `suffix` appended to its whole name.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The path from the root, without following links: what a plan names.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The folder that holds `path`: `.` for a bare file name.
#[must_use]
pub fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_is_read_and_written_back() {
        for text in ["sqlcipher:a/b.db", "sqlite:/x:y.db", "snapshot:s"] {
            assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bare_path_an_unknown_scheme_and_an_empty_path_are_told_apart() {
        assert!(matches!("a.db".parse::<StoreUrl>(), Err(StoreUrlError::NoScheme { .. })));
        assert!(matches!("kv:nats://x".parse::<StoreUrl>(), Err(StoreUrlError::UnknownScheme { .. })));
        assert!(matches!("sqlite:".parse::<StoreUrl>(), Err(StoreUrlError::NoPath { .. })));
    }

    #[test]
    fn a_suffix_goes_behind_the_extension() {
        assert_eq!(beside(Path::new("a/control.db"), ".keyring"), Path::new("a/control.db.keyring"));
        assert_eq!(folder_of(Path::new("control.db")), Path::new("."));
    }
}
