//! Scratch folders that are kept on failure, and whole folders compared byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A folder of one test. It is removed when the test passes and kept, with its path printed, when it fails.
#[derive(Debug)]
pub struct Scratch {
    folder: Option<tempfile::TempDir>,
}

impl Scratch {
    /// A new, empty folder that only its owner can enter.
    ///
    /// # Panics
    /// When it cannot be created.
    #[must_use]
    pub fn new() -> Self {
        Self { folder: Some(tempfile::Builder::new().prefix("unibus-test-").tempdir().unwrap()) }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new("/nonexistent"), tempfile::TempDir::path)
    }

    /// A path below the folder.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("kept for inspection: {}", folder.keep().display());
        }
    }
}

/// What lies at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder and its mode.
    Folder(u32),
    /// A file, its mode and every byte.
    File(u32, Vec<u8>),
    /// A symbolic link and where it points.
    Link(PathBuf),
    /// A socket, pipe or device.
    Other,
}

/// Everything below a folder, by relative path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents(pub BTreeMap<PathBuf, Entry>);

impl Contents {
    /// Reads everything.
    ///
    /// # Panics
    /// When something cannot be read.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let mut found = BTreeMap::new();
        collect(folder, folder, &mut found);
        Self(found)
    }

    /// Says what differs, in words; empty when nothing does.
    #[must_use]
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let mut said = Vec::new();
        for (path, entry) in &self.0 {
            let path = path.display();
            match (entry, later.0.get(Path::new(&path.to_string()))) {
                (_, None) => said.push(format!("{path}: gone")),
                (before, Some(after)) if before == after => {}
                (Entry::File(_, before), Some(Entry::File(_, after))) => {
                    let at = before.iter().zip(after).take_while(|(before, after)| before == after).count();
                    let (before, after) = (before.len(), after.len());
                    said.push(format!(
                        "{path}: changed at byte {at}, {before} -> {after} bytes (or its mode)"
                    ));
                }
                (_, Some(_)) => said.push(format!("{path}: its kind or mode changed")),
            }
        }
        let new = later.0.keys().filter(|path| !self.0.contains_key(*path));
        said.extend(new.map(|path| format!("{}: new", path.display())));
        said
    }

    /// Asserts that nothing below the folder has changed since.
    ///
    /// # Panics
    /// Naming each difference.
    #[track_caller]
    pub fn assert_unchanged(&self, folder: &Path, after: &str) {
        let difference = self.difference(&Self::of(folder));
        assert!(difference.is_empty(), "{after} changed the folder:\n{}", difference.join("\n"));
    }

    /// Puts the folder back to these contents.
    ///
    /// # Panics
    /// When something cannot be written.
    pub fn put_back(&self, folder: &Path) {
        if folder.exists() {
            fs::remove_dir_all(folder).unwrap();
        }
        fs::create_dir_all(folder).unwrap();
        for (path, entry) in &self.0 {
            let path = folder.join(path);
            match entry {
                Entry::Folder(_) => fs::create_dir_all(&path).unwrap(),
                Entry::File(mode, bytes) => {
                    fs::write(&path, bytes).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                }
                Entry::Link(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
                Entry::Other => {}
            }
        }
        for (path, entry) in &self.0 {
            if let Entry::Folder(mode) = entry {
                fs::set_permissions(folder.join(path), fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
    }
}

fn collect(top: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Entry>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // A running process may remove a file between listing and looking.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let mode = meta.permissions().mode() & 0o7777;
        let name = path.strip_prefix(top).unwrap().to_path_buf();
        if meta.is_dir() {
            found.insert(name, Entry::Folder(mode));
            collect(top, &path, found);
        } else if meta.is_symlink() {
            found.insert(name, Entry::Link(fs::read_link(&path).unwrap()));
        } else if meta.is_file() {
            let Ok(bytes) = fs::read(&path) else { continue };
            found.insert(name, Entry::File(mode, bytes));
        } else {
            found.insert(name, Entry::Other);
        }
    }
}

/// Every regular file below a folder.
#[must_use]
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let of_files = |(path, entry)| matches!(entry, Entry::File(..)).then(|| folder.join(path));
    Contents::of(folder).0.into_iter().filter_map(of_files).collect()
}
