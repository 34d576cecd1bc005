//! Everything that nats-server keeps, removed from the folder, so that it comes back from the other servers.
//!
//! The streams get a doomed name first, in one step that is on the disk before anything is removed: a crash leaves all
//! of them, or none and something that the next start removes. Half a folder would be worse than none.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use unibus_keyfile::durable::{self, Sync, sync_dir};
use unibus_keyfile::error::KeyError;

use super::{Folder, Made, of_file};
use crate::config::{Cipher, ServerKey};
use crate::error::NatsError;

/// Where nats-server keeps its streams, in the folder.
pub(super) const STREAMS: &str = "jetstream";
/// How the name of a folder begins that is being removed.
pub const DOOMED: &str = "doomed.";
/// The note of the last wipe, in the folder. It holds no secret.
pub const WIPED: &str = "unibus.wiped";

/// First line of the note.
const HEAD: &str = "unibus-nats-wiped 1";
/// Longest name of an operation, in bytes.
const MAX_OPERATION: usize = 64;

/// Is told the place that a wipe has come to, and fails it there: what a test does. Nothing else does.
pub type Places = fn(&'static str) -> std::io::Result<()>;

/// What is known of the last wipe of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wiped {
    /// The operation that it was part of.
    pub operation: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Whether the server is proven to hold everything again.
    pub proven: bool,
}

impl Wiped {
    /// A wipe that was done then, and is not proven.
    ///
    /// # Errors
    /// [`NatsError::Setting`] for a name that is no name of an operation: letters, digits and `-`.
    pub fn new(operation: &str, at: u64) -> Result<Self, NatsError> {
        if !is_operation(operation) {
            return Err(NatsError::Setting {
                setting: "the operation",
                problem: "letters, digits and `-` are wanted".into(),
            });
        }
        Ok(Self { operation: operation.to_owned(), at, proven: false })
    }

    fn to_text(&self) -> String {
        let proven = if self.proven { "yes" } else { "no" };
        format!("{HEAD}\noperation {}\nat {}\nproven {proven}\n", self.operation, self.at)
    }

    fn from_text(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(HEAD)?.strip_prefix("\noperation ")?;
        let (operation, rest) = rest.split_once("\nat ")?;
        let (at, proven) = rest.split_once("\nproven ")?;
        let proven = match proven {
            "yes\n" => true,
            "no\n" => false,
            _ => return None,
        };
        let is_canonical = at.parse::<u64>().is_ok_and(|number| number.to_string() == at);
        (is_operation(operation) && is_canonical).then(|| at.parse().ok()).flatten().map(|at| Self {
            operation: operation.to_owned(),
            at,
            proven,
        })
    }
}

fn is_operation(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_OPERATION
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Folder {
    /// Removes everything that nats-server has left, and notes it. Locks and notes stay.
    ///
    /// # Errors
    /// [`NatsError::Locked`] while a nats-server runs on it, with nothing changed; [`NatsError::Folder`].
    pub(crate) fn wipe(
        &self,
        wiped: &Wiped,
        server_key: Option<&(Cipher, ServerKey)>,
        places: Places,
    ) -> Result<(), NatsError> {
        if self.is_in_use()? {
            return Err(NatsError::Locked { path: self.child_lock() });
        }
        let reach = |step, place| {
            let failed = |source| NatsError::Folder { step, path: self.path().to_owned(), source };
            places(place).map_err(failed)
        };
        self.remove_doomed()?;
        reach("wipe", "evict::ended")?;
        let streams = self.path().join(STREAMS);
        let doomed = self.path().join(format!("{DOOMED}{STREAMS}"));
        match durable::take_name(&streams, &doomed) {
            Ok(()) => {}
            Err(KeyError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(of_file(error)),
        }
        sync_dir(self.path()).map_err(of_file)?;
        reach("wipe", "evict::doomed")?;
        // One account, and then the others.
        if let Some(first) = folders(&doomed)?.first() {
            fs::remove_dir_all(first).map_err(|source| NatsError::Folder {
                step: "remove",
                path: first.clone(),
                source,
            })?;
        }
        reach("wipe", "evict::removing")?;
        self.remove_doomed()?;
        reach("note the wipe of", "evict::removed")?;
        // The key before the wipe: an operation that was noted is not done again, and its key would be left out.
        self.note(&Made::with(server_key))?;
        self.note_wiped(wiped)
    }

    /// Removes what has a doomed name.
    pub(super) fn remove_doomed(&self) -> Result<(), NatsError> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| NatsError::Folder { step, path, source }
        };
        let mut found = false;
        for entry in fs::read_dir(self.path()).map_err(failed("read", self.path()))? {
            let entry = entry.map_err(failed("read", self.path()))?;
            let is_doomed = entry.file_name().to_str().is_some_and(|name| name.starts_with(DOOMED));
            // Only folders, and never through a link: the name alone gives no right to what it leads to.
            if !is_doomed || !entry.file_type().map_err(failed("look at", &entry.path()))?.is_dir() {
                continue;
            }
            found = true;
            fs::remove_dir_all(entry.path()).map_err(failed("remove", &entry.path()))?;
        }
        if found { sync_dir(self.path()).map_err(of_file) } else { Ok(()) }
    }

    /// Notes a wipe.
    ///
    /// # Errors
    /// [`NatsError::Folder`].
    pub fn note_wiped(&self, wiped: &Wiped) -> Result<(), NatsError> {
        durable::replace(&self.path().join(WIPED), wiped.to_text().as_bytes(), 0o600, Sync::Disk)
            .map_err(of_file)
    }

    /// The note of the last wipe; none where there was none, or the note is damaged: then it is done again.
    #[must_use]
    pub fn wiped(&self) -> Option<Wiped> {
        let bytes = unibus_keyfile::file::read_document(&self.path().join(WIPED)).ok()?;
        Wiped::from_text(std::str::from_utf8(&bytes).ok()?)
    }

    /// Account and stream of everything that lies in the folder.
    ///
    /// # Errors
    /// [`NatsError::Folder`].
    pub fn streams(&self) -> Result<Vec<(String, String)>, NatsError> {
        let mut found = Vec::new();
        for account in folders(&self.path().join(STREAMS))? {
            for stream in folders(&account.join("streams"))? {
                found.push((name(&account), name(&stream)));
            }
        }
        Ok(found)
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The folders in a folder, but those that nats-server hides; none if it is not there.
fn folders(folder: &Path) -> Result<Vec<PathBuf>, NatsError> {
    let failed = |source| NatsError::Folder { step: "read", path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden && entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make what nats-server leaves")]
mod tests {
    use super::*;
    use crate::folder::{LOCK, MARKER};

    const NOWHERE: Places = |_| Ok(());

    fn filled() -> (tempfile::TempDir, Folder) {
        let top = tempfile::tempdir().unwrap();
        let folder = Folder::take(top.path()).unwrap();
        folder.check_cipher(None).unwrap();
        let stream = top.path().join("jetstream/CONTROL/streams/KV_x/msgs");
        fs::create_dir_all(&stream).unwrap();
        fs::write(stream.join("1.blk"), "marked").unwrap();
        (top, folder)
    }

    #[test]
    fn a_wipe_takes_the_streams_and_leaves_locks_and_notes() {
        let (top, folder) = filled();
        assert_eq!(folder.streams().unwrap(), [("CONTROL".to_owned(), "KV_x".to_owned())]);
        let mut wiped = Wiped::new("op-1", 7).unwrap();
        folder.wipe(&wiped, None, NOWHERE).unwrap();
        assert_eq!(folder.wiped().as_ref(), Some(&wiped));
        assert!(!top.path().join("jetstream").exists() && folder.streams().unwrap().is_empty());
        assert!(top.path().join(LOCK).exists() && top.path().join(MARKER).exists());
        wiped.proven = true;
        folder.note_wiped(&wiped).unwrap();
        assert_eq!(folder.wiped(), Some(wiped.clone()));
        // An empty folder is wiped as well.
        folder.wipe(&wiped, None, NOWHERE).unwrap();
    }

    #[test]
    fn what_a_crash_left_is_removed_by_the_next_start_and_a_link_is_not_followed() {
        let (top, folder) = filled();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), top.path().join("doomed.link")).unwrap();
        fs::rename(top.path().join("jetstream"), top.path().join("doomed.jetstream")).unwrap();
        drop(folder);
        drop(Folder::take(top.path()).unwrap());
        assert!(!top.path().join("doomed.jetstream").exists());
        assert!(outside.path().join("kept").exists() && top.path().join("doomed.link").is_symlink());
    }

    #[test]
    fn a_folder_that_a_server_runs_on_is_not_wiped() {
        let (top, folder) = filled();
        let child = super::super::lock(&folder.child_lock()).unwrap();
        let refused = folder.wipe(&Wiped::new("op", 1).unwrap(), None, NOWHERE).unwrap_err();
        assert!(matches!(refused, NatsError::Locked { .. }), "{refused:?}");
        assert!(top.path().join("jetstream/CONTROL/streams/KV_x/msgs/1.blk").exists());
        drop(child);
    }

    #[test]
    fn a_damaged_note_is_none() {
        let (top, folder) = filled();
        let sound = Wiped::new("op", 12).unwrap().to_text();
        for wrong in ["", "x", &sound[..sound.len() - 1], &sound.replace("12", "012"), &format!("{sound}\n")]
        {
            fs::write(top.path().join(WIPED), wrong).unwrap();
            assert_eq!(folder.wiped(), None, "{wrong:?}");
        }
        assert!(Wiped::new("a b", 1).is_err() && Wiped::new("", 1).is_err());
    }
}
