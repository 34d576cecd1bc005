//! Reads key files and small documents from disk, with the checks of SPEC keyfile, section 3.4.

use std::{fs::File, io::Read, os::unix::fs::MetadataExt, path::Path};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use crate::error::{KeyError, KeyTextError};

/// Largest key file, in bytes.
pub const MAX_KEY_FILE_BYTES: u64 = 16 * 1024;
/// Largest signed document, in bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 2 * 1024 * 1024;

fn open(path: &Path) -> Result<(File, std::fs::Metadata), KeyError> {
    let io = |step| move |source: std::io::Error| KeyError::Io { step, path: path.into(), source };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT) => return Err(KeyError::Missing { path: path.into() }),
        Err(rustix::io::Errno::LOOP) => return Err(KeyError::Symlink { path: path.into() }),
        Err(errno) => return Err(io("open")(errno.into())),
    };
    let metadata = file.metadata().map_err(io("look at"))?;
    if !metadata.is_file() {
        return Err(KeyError::NotAFile { path: path.into() });
    }
    Ok((file, metadata))
}

fn read(path: &Path, mut file: impl Read, size: u64, limit: u64) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if size > limit {
        return Err(KeyError::TooLarge { path: path.into(), found: size, limit });
    }
    // Sized before it is filled: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(limit).unwrap_or(0).saturating_add(1)));
    let read = file.by_ref().take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|source| KeyError::Io { step: "read", path: path.into(), source })?;
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if found > limit {
        return Err(KeyError::TooLarge { path: path.into(), found, limit });
    }
    Ok(bytes)
}

/// Checks kind, owner and mode of a secret file, without reading it.
///
/// # Errors
/// [`KeyError`], as [`read_secret_text`].
pub fn check_secret(path: &Path) -> Result<(), KeyError> {
    let (_file, metadata) = open(path)?;
    check_access(path, &metadata)
}

fn check_access(path: &Path, metadata: &std::fs::Metadata) -> Result<(), KeyError> {
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path: path.into(), mode });
    }
    check_owner(path, metadata)
}

fn check_owner(path: &Path, metadata: &std::fs::Metadata) -> Result<(), KeyError> {
    let expected = rustix::process::geteuid().as_raw();
    if metadata.uid() != expected && metadata.uid() != 0 {
        return Err(KeyError::Owner { path: path.into(), expected, found: metadata.uid() });
    }
    Ok(())
}

/// Reads a secret file as text.
///
/// # Errors
/// [`KeyError`] when it is missing, a link, not a file, open to group or others, of another owner, too large or
/// not text.
pub fn read_secret_text(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let (file, metadata) = open(path)?;
    check_access(path, &metadata)?;
    text_of(path, read(path, file, metadata.len(), MAX_KEY_FILE_BYTES)?)
}

/// Reads a systemd credential as text (`LoadCredential=`, `LoadCredentialEncrypted=`).
///
/// systemd gives the service user access by an ACL, which shows as group access in the mode (0440). That is taken
/// where the folder of the credential keeps others out; everything else is as for a key file.
///
/// # Errors
/// [`KeyError`], as [`read_secret_text`].
pub fn read_credential_text(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let (file, metadata) = open(path)?;
    let mode = metadata.mode() & 0o7777;
    let mask_of_an_acl = mode & 0o077 == 0o040 && path.parent().is_some_and(is_closed_to_others);
    if mode & 0o077 != 0 && !mask_of_an_acl {
        return Err(KeyError::Mode { path: path.into(), mode });
    }
    check_owner(path, &metadata)?;
    text_of(path, read(path, file, metadata.len(), MAX_KEY_FILE_BYTES)?)
}

/// Whether the folder is a real one of this user or root, into which nobody else can look or write.
fn is_closed_to_others(folder: &Path) -> bool {
    std::fs::symlink_metadata(folder).is_ok_and(|metadata| {
        let owner = metadata.uid();
        let ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
        metadata.is_dir() && ours && metadata.mode() & 0o027 == 0
    })
}

fn text_of(path: &Path, mut bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, KeyError> {
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(bad) => {
            drop(Zeroizing::new(bad.into_bytes()));
            Err(KeyError::Parse { origin: format!("`{}`", path.display()), source: KeyTextError::NotText })
        }
    }
}

/// Reads a public document (nodeset, keyring, witness).
///
/// # Errors
/// [`KeyError`] when it is missing, a link, not a file, too large or unreadable.
pub fn read_document(path: &Path) -> Result<Vec<u8>, KeyError> {
    let (file, metadata) = open(path)?;
    read(path, file, metadata.len(), MAX_DOCUMENT_BYTES).map(|mut bytes| std::mem::take(&mut *bytes))
}
