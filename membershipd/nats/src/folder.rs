//! The folder of JetStream: our locks on it, and the note of what it was made with.
//!
//! nats-server itself locks nothing: two of them on one folder both acknowledge. And it starts on a folder that it
//! cannot decrypt, and then deletes what somebody makes anew; so it must not be started with another key at all.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

mod wipe;

pub use wipe::{DOOMED, Places, WIPED, Wiped};

use unibus_keyfile::durable::{self, LockFile, Sync};
use unibus_keyfile::error::KeyError;

use crate::config::{Cipher, ServerKey};
use crate::error::NatsError;

/// The supervisor's lock, in the folder.
pub const LOCK: &str = "unibus.lock";
/// The lock that nats-server itself holds, through the guard, in the folder.
pub const CHILD_LOCK: &str = "unibus.child.lock";
/// The note of what the folder was made with, in the folder. It holds no secret.
pub const MARKER: &str = "unibus.cipher";

/// First line of the note.
const MARKER_HEAD: &str = "unibus-nats-folder 1";
/// Folders below which nothing is looked for; nats-server's own are five deep.
const MAX_DEPTH: usize = 12;

/// The folder, held.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: LockFile,
}

impl Folder {
    /// Makes the folder when it is not there, and takes it.
    ///
    /// # Errors
    /// [`NatsError::Locked`] when another process has it, or a nats-server still runs on it; [`NatsError::Folder`]
    /// when it cannot be written.
    pub fn take(path: &Path) -> Result<Self, NatsError> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| NatsError::Folder { step, path, source }
        };
        let path = std::path::absolute(path).map_err(failed("find", path))?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed("create", &path))?;
        let lock = lock(&path.join(LOCK))?;
        // A nats-server that outlived its supervisor holds this one. It is given back: the guard takes it.
        drop(self::lock(&path.join(CHILD_LOCK))?);
        let probe = durable::temporary_name(&path.join("probe"));
        let written = fs::File::create_new(&probe).and_then(|file| file.sync_all());
        let _gone_either_way = fs::remove_file(&probe);
        written.map_err(failed("write to", &path))?;
        let folder = Self { path, _lock: lock };
        // What a crash left of a wipe: nobody may find it again.
        folder.remove_doomed()?;
        Ok(folder)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lock that the guard takes for nats-server.
    #[must_use]
    pub fn child_lock(&self) -> PathBuf {
        self.path.join(CHILD_LOCK)
    }

    /// Whether a nats-server, or its guard, still runs on the folder.
    ///
    /// # Errors
    /// [`NatsError::Folder`].
    pub fn is_in_use(&self) -> Result<bool, NatsError> {
        match lock(&self.child_lock()) {
            Ok(lock) => {
                drop(lock);
                Ok(false)
            }
            Err(NatsError::Locked { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Refuses the folder when it was made with another cipher or key than is given now; notes them when it is empty.
    ///
    /// # Errors
    /// [`NatsError::OtherServerKey`], [`NatsError::UnknownServerKey`]; nothing in the folder has changed then.
    pub fn check_cipher(&self, wanted: Option<&(Cipher, ServerKey)>) -> Result<(), NatsError> {
        let wanted = Made::with(wanted);
        let marker = self.path.join(MARKER);
        let data = Data::of(&self.path)?;
        let note = self.read_marker(&marker)?;
        if data.files == 0 {
            // An empty folder belongs to whoever comes first.
            if note.as_ref() == Some(&wanted) {
                return Ok(());
            }
            return self.note(&wanted);
        }
        let unknown =
            |what: &str| Err(NatsError::UnknownServerKey { path: self.path.clone(), what: what.to_owned() });
        match note {
            Some(found) if found != wanted => Err(NatsError::OtherServerKey {
                path: self.path.clone(),
                found: found.to_string(),
                wanted: wanted.to_string(),
            }),
            Some(Made::Plain) | None if data.keys > 0 => {
                unknown("it holds encrypted streams, and no note of their key")
            }
            Some(Made::Encrypted { .. }) if data.plain > 0 => {
                unknown("it holds streams that are not encrypted beside encrypted ones")
            }
            Some(_) => Ok(()),
            // It has no note because something else than this program made it.
            None if wanted == Made::Plain => self.note(&wanted),
            None => unknown(
                "it holds streams that are not encrypted, and nats-server would convert them in place",
            ),
        }
    }

    fn note(&self, made: &Made) -> Result<(), NatsError> {
        durable::replace(&self.path.join(MARKER), made.to_text().as_bytes(), 0o600, Sync::Disk)
            .map_err(of_file)
    }

    fn read_marker(&self, marker: &Path) -> Result<Option<Made>, NatsError> {
        let text = match unibus_keyfile::file::read_document(marker) {
            Ok(bytes) => String::from_utf8(bytes).unwrap_or_default(),
            Err(KeyError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(of_file(error)),
        };
        Made::from_text(&text).map(Some).ok_or_else(|| NatsError::UnknownServerKey {
            path: self.path.clone(),
            what: format!("`{MARKER}` is damaged"),
        })
    }
}

fn lock(path: &Path) -> Result<LockFile, NatsError> {
    match LockFile::try_exclusive(path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(NatsError::Locked { path: path.to_owned() }),
        Err(error) => Err(of_file(error)),
    }
}

fn of_file(error: KeyError) -> NatsError {
    match error {
        KeyError::Io { step, path, source } => NatsError::Folder { step, path, source },
        other => NatsError::Folder {
            step: "use a file in",
            path: PathBuf::new(),
            source: std::io::Error::other(other.to_string()),
        },
    }
}

/// What a folder was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Made {
    Plain,
    Encrypted { cipher: String, key: String, generation: u32 },
}

impl Made {
    fn with(given: Option<&(Cipher, ServerKey)>) -> Self {
        given.map_or(Self::Plain, |(cipher, key)| Self::Encrypted {
            cipher: cipher.name().to_owned(),
            key: key.fingerprint().to_string(),
            generation: key.generation(),
        })
    }

    fn to_text(&self) -> String {
        match self {
            Self::Plain => format!("{MARKER_HEAD}\ncipher off\n"),
            Self::Encrypted { cipher, key, generation } => {
                let mut text = format!("{MARKER_HEAD}\ncipher {cipher}\nkey {key}\n");
                if *generation > 1 {
                    text.push_str(&format!("generation {generation}\n"));
                }
                text
            }
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(MARKER_HEAD)?.strip_prefix("\ncipher ")?;
        if rest == "off\n" {
            return Some(Self::Plain);
        }
        let (cipher, rest) = rest.split_once('\n')?;
        let lines = rest.strip_prefix("key ")?.strip_suffix('\n')?;
        let (key, generation) = match lines.split_once("\ngeneration ") {
            None => (lines, 1),
            Some((key, number)) => {
                let generation = number.parse().ok().filter(|found: &u32| *found > 1)?;
                (generation.to_string() == number).then_some((key, generation))?
            }
        };
        let known = [Cipher::Aes, Cipher::ChaCha].into_iter().any(|known| known.name() == cipher);
        (known && !key.is_empty() && !key.contains('\n')).then(|| Self::Encrypted {
            cipher: cipher.to_owned(),
            key: key.to_owned(),
            generation,
        })
    }
}

impl std::fmt::Display for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain => f.write_str("no server-side key"),
            Self::Encrypted { cipher, key, .. } => write!(f, "{cipher} and the key {key}"),
        }
    }
}

/// Fingerprint and generation of the server-side key that a folder notes to be made with, for the choice among several
/// keys. None is noted in an empty folder, one without encryption, or a damaged note.
#[must_use]
pub fn noted_key(folder: &Path) -> Option<(String, u32)> {
    let bytes = unibus_keyfile::file::read_document(&folder.join(MARKER)).ok()?;
    match Made::from_text(std::str::from_utf8(&bytes).ok()?)? {
        Made::Plain => None,
        Made::Encrypted { key, generation, .. } => Some((key, generation)),
    }
}

/// What nats-server has left in a folder.
#[derive(Debug, Default)]
struct Data {
    /// Files.
    files: u64,
    /// Streams and groups with a wrapped key.
    keys: u64,
    /// Streams and groups without.
    plain: u64,
}

impl Data {
    fn of(folder: &Path) -> Result<Self, NatsError> {
        let mut data = Self::default();
        let top = folder.join("jetstream");
        match fs::symlink_metadata(&top) {
            Ok(_) => data.add(&top, 0)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(NatsError::Folder { step: "look at", path: top, source }),
        }
        Ok(data)
    }

    fn add(&mut self, folder: &Path, depth: usize) -> Result<(), NatsError> {
        let failed = |source| NatsError::Folder { step: "read", path: folder.to_owned(), source };
        let (mut has_key, mut has_meta) = (false, false);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                // Blocks are many, and tell nothing that the folder above does not.
                if depth < MAX_DEPTH && entry.file_name() != "msgs" {
                    self.add(&entry.path(), depth.saturating_add(1))?;
                }
                continue;
            }
            self.files = self.files.saturating_add(1);
            has_key |= entry.file_name() == "meta.key";
            has_meta |= entry.file_name() == "meta.inf";
        }
        self.keys = self.keys.saturating_add(u64::from(has_key));
        self.plain = self.plain.saturating_add(u64::from(has_meta && !has_key));
        Ok(())
    }
}
