//! Cheap look at files that only this process may change: were they put in another's place or cut?

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What a file was when the store was opened.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    /// Device and inode; none while the file has not been there yet.
    identity: Option<(u64, u64)>,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    /// May grow, never shrink: the size last seen.
    Grows(u64),
    /// May appear, and then have any size.
    Held,
    /// Never changes: size and time of the last change.
    Stays(u64, (i64, i64)),
}

/// What became of a watched file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It is no longer there, or cannot be looked at.
    Gone(PathBuf),
    /// Another file stands in its place.
    Replaced(PathBuf),
    /// It is shorter than before.
    Cut(PathBuf),
    /// It was written to.
    Written(PathBuf),
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, what) = match self {
            Self::Gone(path) => (path, "is gone"),
            Self::Replaced(path) => (path, "was replaced by another file"),
            Self::Cut(path) => (path, "was cut"),
            Self::Written(path) => (path, "was written to by another process"),
        };
        write!(f, "`{}` {what}", path.display())
    }
}

impl Watched {
    /// Watches a file that grows: the database.
    ///
    /// # Errors
    /// The system's reason for not letting us look at it.
    pub fn growing(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.into(),
            identity: Some((found.dev(), found.ino())),
            rule: Rule::Grows(found.len()),
        })
    }

    /// Watches a file that stays as it is: the keyring.
    ///
    /// # Errors
    /// The system's reason for not letting us look at it.
    pub fn constant(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        let rule = Rule::Stays(found.len(), (found.mtime(), found.mtime_nsec()));
        Ok(Self { path: path.into(), identity: Some((found.dev(), found.ino())), rule })
    }

    /// Watches a file that a writer makes when it needs it, and holds open from then on: the write-ahead log.
    #[must_use]
    pub fn held(path: &Path) -> Self {
        let found = std::fs::symlink_metadata(path).ok();
        let identity = found.map(|found| (found.dev(), found.ino()));
        Self { path: path.into(), identity, rule: Rule::Held }
    }

    /// Watches what stands there now: this process itself has put it there.
    pub fn renew(&mut self) {
        let found = std::fs::symlink_metadata(&self.path).ok();
        self.identity = found.as_ref().map(|found| (found.dev(), found.ino()));
        let Some(found) = found else { return };
        match &mut self.rule {
            Rule::Grows(seen) => *seen = found.len(),
            Rule::Stays(size, time) => (*size, *time) = (found.len(), (found.mtime(), found.mtime_nsec())),
            Rule::Held => {}
        }
    }

    /// Looks, and says what changed.
    pub fn look(&mut self) -> Option<Change> {
        let found = match (std::fs::symlink_metadata(&self.path), self.identity) {
            (Ok(found), _) => found,
            (Err(_), None) => return None,
            (Err(_), Some(_)) => return Some(Change::Gone(self.path.clone())),
        };
        let identity = (found.dev(), found.ino());
        if *self.identity.get_or_insert(identity) != identity {
            return Some(Change::Replaced(self.path.clone()));
        }
        match &mut self.rule {
            Rule::Grows(seen) if found.len() < *seen => Some(Change::Cut(self.path.clone())),
            Rule::Grows(seen) => {
                *seen = found.len();
                None
            }
            Rule::Stays(size, time)
                if (found.len(), (found.mtime(), found.mtime_nsec())) != (*size, *time) =>
            {
                Some(Change::Written(self.path.clone()))
            }
            Rule::Held | Rule::Stays(..) => None,
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test does what an intruder does")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn growing_file_may_grow_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, [1; 100]).unwrap();
        let mut watched = Watched::growing(&path).unwrap();
        assert_eq!(watched.look(), None);
        fs::write(&path, [1; 200]).unwrap();
        assert_eq!(watched.look(), None);
        fs::write(&path, [1; 150]).unwrap();
        assert_eq!(watched.look(), Some(Change::Cut(path.clone())));
        fs::write(folder.path().join("other"), [1; 200]).unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        assert_eq!(watched.look(), Some(Change::Replaced(path.clone())));
        fs::remove_file(&path).unwrap();
        assert_eq!(watched.look(), Some(Change::Gone(path)));
    }

    #[test]
    fn constant_file_may_not_change_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        fs::write(&path, [1; 100]).unwrap();
        let mut watched = Watched::constant(&path).unwrap();
        assert_eq!(watched.look(), None);
        fs::write(&path, [2; 101]).unwrap();
        assert_eq!(watched.look(), Some(Change::Written(path)));
    }

    #[test]
    fn held_file_may_appear_and_not_go_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db-wal");
        let mut watched = Watched::held(&path);
        assert_eq!(watched.look(), None);
        fs::write(&path, [1; 100]).unwrap();
        assert_eq!(watched.look(), None);
        fs::write(&path, []).unwrap();
        assert_eq!(watched.look(), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(watched.look(), Some(Change::Gone(path.clone())));
        assert_eq!(Watched::held(&path).look(), None);
    }

    #[test]
    fn symbolic_link_to_the_same_bytes_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("db"), folder.path().join("moved"));
        fs::write(&path, [1; 100]).unwrap();
        let mut watched = Watched::growing(&path).unwrap();
        fs::rename(&path, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &path).unwrap();
        assert_eq!(watched.look(), Some(Change::Replaced(path)));
    }
}
