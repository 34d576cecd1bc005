//! Lists what lies under the audited folders.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};

use super::report::{NotChecked, Place, Reason};

/// Bytes of an extended attribute, or of a list of their names, that Linux allows.
const ATTRIBUTE_BYTES: usize = 65_536;

/// What tells that a file is still the one that was listed, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    pub(crate) bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The stamp of the file that has this name now.
    pub(crate) fn now(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// When the file was last written, in seconds since 1970-01-01 UTC.
    pub(crate) fn modified_seconds(&self) -> i64 {
        self.modified.0
    }
}

/// A regular file.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) path: PathBuf,
    /// The path as a report may show it.
    pub(crate) shown: String,
    pub(crate) stamp: Stamp,
    /// Whether it has holes, which need not be read.
    pub(crate) is_sparse: bool,
}

/// All that was listed.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: Vec<Listed>,
    pub(crate) not_checked: Vec<NotChecked>,
    pub(crate) folders: u64,
    pub(crate) special: u64,
}

/// Files that were written to so shortly before the latest are likely to be written to again: a node alone on its log
/// writes at least every 1.25 s.
const RESTLESS_SECONDS: i64 = 3;

impl Listing {
    /// Takes the files out that are likely to change while they are read.
    pub(crate) fn take_restless(&mut self) -> Vec<Listed> {
        let latest = self.files.iter().map(|file| file.stamp.modified_seconds()).max().unwrap_or(0);
        let since = latest.saturating_sub(RESTLESS_SECONDS);
        let (restless, quiet) =
            mem::take(&mut self.files).into_iter().partition(|file| file.stamp.modified_seconds() >= since);
        self.files = quiet;
        restless
    }
}

/// Looks at names, link targets and attributes; says whether the bytes give a value away. The arguments are the file's
/// number, the file as shown, the place and the bytes.
pub(crate) type Look<'look> = dyn FnMut(&str, Place, &[u8]) -> bool + 'look;

/// Lists the folders and files of `roots`, without following symbolic links beneath them.
pub(crate) fn list(roots: &[PathBuf], look: &mut Look<'_>) -> Listing {
    let mut walk = Walk { listing: Listing::default(), roots: Vec::new(), look };
    for root in roots {
        match fs::canonicalize(root) {
            Ok(root) => walk.roots.push(root),
            Err(error) => walk.unreadable(root.display().to_string(), &error),
        }
    }
    walk.roots.sort();
    walk.roots.dedup();
    let mut pending: Vec<(PathBuf, String)> = Vec::new();
    for root in walk.roots.clone().into_iter().rev() {
        // A root inside another one is listed with that one.
        if !walk.roots.iter().any(|other| *other != root && root.starts_with(other)) {
            let shown = root.display().to_string();
            pending.push((root, shown));
        }
    }
    while let Some((path, shown)) = pending.pop() {
        walk.visit(path, shown, &mut pending);
    }
    walk.listing
}

struct Walk<'walk, 'look> {
    listing: Listing,
    roots: Vec<PathBuf>,
    look: &'walk mut Look<'look>,
}

impl Walk<'_, '_> {
    fn visit(&mut self, path: PathBuf, shown: String, pending: &mut Vec<(PathBuf, String)>) {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => return self.unreadable(shown, &error),
        };
        let kind = metadata.file_type();
        self.attributes(&path, &shown);
        if kind.is_dir() {
            self.listing.folders += 1;
            self.children(&path, &shown, pending);
        } else if kind.is_file() {
            let is_sparse = metadata.blocks().saturating_mul(512) < metadata.len();
            self.listing.files.push(Listed { path, shown, stamp: Stamp::of(&metadata), is_sparse });
        } else if kind.is_symlink() {
            self.link(&path, shown);
        } else if kind.is_block_device() {
            self.listing.not_checked.push(NotChecked { file: shown, reason: Reason::Device });
        } else {
            self.listing.special += 1;
        }
    }

    fn children(&mut self, folder: &Path, shown: &str, pending: &mut Vec<(PathBuf, String)>) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(shown.to_owned(), &error),
        };
        let mut names = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => names.push(entry.file_name()),
                Err(error) => self.unreadable(shown.to_owned(), &error),
            }
        }
        names.sort_unstable_by(|one, other| other.cmp(one));
        for name in names {
            let path = folder.join(&name);
            let shown = self.shown_name(&path, shown, &name);
            pending.push((path, shown));
        }
    }

    /// The child's path for reports: its name unless that gives a value away.
    fn shown_name(&mut self, path: &Path, folder: &str, name: &OsStr) -> String {
        let withheld = || {
            let inode = fs::symlink_metadata(path).map_or(0, |metadata| metadata.ino());
            format!("{folder}/<inode {inode}>")
        };
        // The look records hits under the name that it is given, so that it must not be given the true one.
        if (self.look)(&withheld(), Place::Name, name.as_bytes()) {
            withheld()
        } else {
            format!("{folder}/{}", name.display())
        }
    }

    fn link(&mut self, path: &Path, shown: String) {
        match fs::read_link(path) {
            Ok(target) => {
                (self.look)(&shown, Place::LinkTarget, target.as_os_str().as_bytes());
                // A link to nowhere holds nothing but its own text.
                let Ok(target) = fs::canonicalize(path) else { return };
                if !self.roots.iter().any(|root| target.starts_with(root)) {
                    self.listing.not_checked.push(NotChecked { file: shown, reason: Reason::LeadsOutside });
                }
            }
            Err(error) => self.unreadable(shown, &error),
        }
    }

    /// Not every file system has attributes: one that refuses to list them has none.
    fn attributes(&mut self, path: &Path, shown: &str) {
        let mut names = vec![0; ATTRIBUTE_BYTES];
        let Ok(length) = llistxattr(path, names.as_mut_slice()) else { return };
        if length == 0 {
            return;
        }
        names.truncate(length);
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            (self.look)(shown, Place::Attribute, name);
            let mut value = vec![0; ATTRIBUTE_BYTES];
            match lgetxattr(path, OsStr::from_bytes(name), value.as_mut_slice()) {
                Ok(length) => {
                    (self.look)(shown, Place::Attribute, value.get(..length).unwrap_or_default());
                }
                Err(error) => self.unreadable(shown.to_owned(), &error.into()),
            }
        }
    }

    fn unreadable(&mut self, file: String, error: &io::Error) {
        let reason = Reason::Unreadable(error.kind().to_string());
        self.listing.not_checked.push(NotChecked { file, reason });
    }
}
