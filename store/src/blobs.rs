//! The folder of sealed blobs (SPEC store, section 7).
//!
//! Each content is sealed under a random key of its own, which only the blob's record keeps, and stored under a random
//! name, which only that record keeps, too. So rotation never rewrites a blob, and forgetting the record forgets the
//! blob. A file is complete and synced before its record is committed: what a crash leaves between the two is an orphan,
//! found by [`BlobStore::orphans`].
//!
//! Everything here blocks: it is not for an async thread.
//!
//! ```
//! use unibus_store::{blobs::BlobStore, record::Timestamp};
//!
//! let folder = tempfile::tempdir()?;
//! let blobs = BlobStore::open(&folder.path().join("blobs"))?;
//! let blob = blobs.put(&mut b"content".as_slice(), 1 << 20, Timestamp::from_micros(0)?)?;
//! assert_eq!(blobs.get(&blob)?.as_slice(), b"content");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod v1;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use unibus_keyfile::derive;
use unibus_keyfile::digest::RunningHash;
use unibus_keyfile::durable;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::secret::BlobKey;
use unibus_keyfile::stream::{CHUNK_BYTES, ChunkOpener, ChunkSealer, Position, TAG_BYTES};
use zeroize::Zeroizing;

use crate::record::{Blob, BlobHash, StorageName, Timestamp};

pub use error::BlobError;
pub use v1::{
    CHUNK_LABEL, HEADER_BYTES, MAGIC, MIN_PADDED_BYTES, VERSION_1, check_header, chunk_aad, file_bytes,
    header, padded_bytes,
};

/// Bytes of a full chunk in the file.
const SEALED_CHUNK_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

/// A folder of sealed blobs.
#[derive(Debug, Clone)]
pub struct BlobStore {
    folder: PathBuf,
}

/// A file of the folder that no record names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Orphan {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn io_error<'p>(step: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> BlobError + 'p {
    move |source| BlobError::Io { step, path: path.to_owned(), source }
}

impl BlobStore {
    /// Opens a folder; makes it, with mode 0700, when there is none.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn open(folder: &Path) -> Result<Self, BlobError> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {
                let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
                durable::sync_dir(parent.unwrap_or(Path::new(".")))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                std::fs::read_dir(folder).map_err(io_error("read the folder", folder))?;
            }
            Err(error) => return Err(io_error("create the folder", folder)(error)),
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of that name.
    #[must_use]
    pub fn path_of(&self, name: &StorageName) -> PathBuf {
        self.folder.join(name.to_string())
    }

    /// Seals and stores a content of at most `limit` bytes, and gives the record to commit. Until that is done the file
    /// is an orphan. Memory is constant.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`], [`BlobError::Source`], [`BlobError::Io`]; nothing is left behind then.
    pub fn put(&self, content: &mut impl Read, limit: u64, now: Timestamp) -> Result<Blob, BlobError> {
        let (key, name) = (Arc::new(BlobKey::generate()), StorageName::random());
        let path = self.path_of(&name);
        let temporary = durable::temporary_name(&path);
        let stored = write(&temporary, &key, &name, &mut content.take(limit.saturating_add(1)), limit);
        let stored = stored.and_then(|(hash, size)| {
            let blob = Blob::new(BlobHash::from_bytes(hash), size, key, name, now)?;
            durable::take_name(&temporary, &path)?;
            Ok(blob)
        });
        stored.inspect_err(|_| {
            let _gone_either_way = std::fs::remove_file(&temporary);
        })
    }

    /// The content of a blob, checked against its record.
    ///
    /// # Errors
    /// [`BlobError`], naming the file and what is wrong with it.
    pub fn get(&self, blob: &Blob) -> Result<Zeroizing<Vec<u8>>, BlobError> {
        // Opened before memory is taken: the file's length vouches for the size.
        let opened = Opened::open(self, blob)?;
        let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(blob.size_bytes()).unwrap_or(0)));
        opened.read(&mut |part| content.extend_from_slice(part))?;
        Ok(content)
    }

    /// Checks a blob against its record, in constant memory.
    ///
    /// # Errors
    /// As [`BlobStore::get`].
    pub fn check(&self, blob: &Blob) -> Result<(), BlobError> {
        Opened::open(self, blob)?.read(&mut |_| ())
    }

    /// Files that no record names and that were last written before `before`: what crashes left. The time keeps
    /// away from those whose record is about to be committed. Files that are not ours are not listed.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn orphans(
        &self,
        before: UnixTime,
        is_named: &dyn Fn(&StorageName) -> bool,
    ) -> Result<Vec<Orphan>, BlobError> {
        let io = |source| io_error("read the folder", &self.folder)(source);
        let mut orphans = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let is_orphan = match parse(entry.file_name().as_bytes()) {
                Some(Named::Blob(name)) => !is_named(&name),
                Some(Named::Temporary) => true,
                None => false,
            };
            let Ok(metadata) = entry.metadata() else { continue };
            let is_old = u64::try_from(metadata.mtime()).is_ok_and(|seconds| seconds < before.seconds());
            if is_orphan && is_old && metadata.is_file() {
                orphans.push(Orphan { path: entry.path(), bytes: metadata.len() });
            }
        }
        orphans.sort();
        Ok(orphans)
    }

    /// Removes orphans.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn remove_orphans(&self, orphans: &[Orphan]) -> Result<(), BlobError> {
        for orphan in orphans {
            std::fs::remove_file(&orphan.path).map_err(io_error("remove", &orphan.path))?;
        }
        durable::sync_dir(&self.folder)?;
        Ok(())
    }
}

enum Named {
    Blob(StorageName),
    Temporary,
}

/// Whether a file's name is one that this module gives: a storage name, or a temporary name made of one.
fn parse(name: &[u8]) -> Option<Named> {
    let name = std::str::from_utf8(name).ok()?;
    let canonical = |text: &str| text.parse::<StorageName>().ok().filter(|name| name.to_string() == text);
    if let Some(name) = canonical(name) {
        return Some(Named::Blob(name));
    }
    let (stem, _) = name.strip_prefix('.')?.strip_suffix(".tmp")?.split_once('.')?;
    canonical(stem).map(|_| Named::Temporary)
}

/// Writes and syncs a sealed content; gives its hash and size.
fn write(
    path: &Path,
    key: &BlobKey,
    name: &StorageName,
    content: &mut impl Read,
    limit: u64,
) -> Result<([u8; 32], u64), BlobError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut sealing = Sealing {
        path,
        file: file.map_err(io_error("create", path))?,
        sealer: ChunkSealer::new(&derive::blob_chunk_key(key), &chunk_aad(name)),
        chunk: Zeroizing::new(Vec::with_capacity(SEALED_CHUNK_BYTES)),
        chunks: 0,
    };
    sealing.file.write_all(&header()).map_err(io_error("write", path))?;
    let (mut hash, mut size) = (RunningHash::new(), 0_u64);
    let mut buffer = Zeroizing::new(vec![0; CHUNK_BYTES]);
    loop {
        let read = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(BlobError::Source(error)),
        };
        size = size.saturating_add(wide(read.len()));
        if size > limit {
            return Err(BlobError::TooLarge { limit });
        }
        hash.update(read);
        sealing.put(read)?;
    }
    let mut padding = padded_bytes(size).ok_or(BlobError::TooLarge { limit })?.saturating_sub(size);
    buffer.fill(0);
    while padding > 0 {
        let length = usize::try_from(padding).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        sealing.put(buffer.get(..length).unwrap_or_default())?;
        padding = padding.saturating_sub(wide(length));
    }
    sealing.seal(Position::Last)?;
    sealing.file.sync_all().map_err(io_error("sync", path))?;
    Ok((hash.finish(), size))
}

struct Sealing<'p> {
    path: &'p Path,
    file: File,
    sealer: ChunkSealer,
    chunk: Zeroizing<Vec<u8>>,
    chunks: u64,
}

impl Sealing<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        while !bytes.is_empty() {
            if self.chunk.len() == CHUNK_BYTES {
                self.seal(Position::Middle)?;
            }
            let room = CHUNK_BYTES.saturating_sub(self.chunk.len());
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.chunk.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn seal(&mut self, position: Position) -> Result<(), BlobError> {
        let (path, number) = (self.path, self.chunks);
        let refused = |_| BlobError::Chunk { path: path.to_owned(), number };
        self.sealer.seal(&mut self.chunk, position).map_err(refused)?;
        self.file.write_all(&self.chunk).map_err(io_error("write", path))?;
        self.chunk.clear();
        self.chunks = number.saturating_add(1);
        Ok(())
    }
}

/// A sealed blob whose length is right.
struct Opened<'b> {
    path: PathBuf,
    file: File,
    blob: &'b Blob,
}

impl<'b> Opened<'b> {
    fn open(store: &BlobStore, blob: &'b Blob) -> Result<Self, BlobError> {
        let path = store.path_of(&blob.storage_name);
        // A link is followed nowhere, and a pipe must not block the opening.
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BlobError::Missing { path }),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        let metadata = file.metadata().map_err(io_error("read", &path))?;
        let (expected, found) = (file_bytes(blob.size_bytes()).unwrap_or(u64::MAX), metadata.len());
        if !metadata.is_file() || expected != found {
            return Err(BlobError::Length { path, expected, found });
        }
        Ok(Self { path, file, blob })
    }

    /// Opens chunk after chunk; gives the content, without its padding, to `take`.
    fn read(mut self, take: &mut dyn FnMut(&[u8])) -> Result<(), BlobError> {
        let mut head = [0; HEADER_BYTES];
        self.file.read_exact(&mut head).map_err(io_error("read", &self.path))?;
        check_header(head).map_err(|source| BlobError::Decode { path: self.path.clone(), source })?;
        let key = derive::blob_chunk_key(&self.blob.key);
        let mut opener = ChunkOpener::new(&key, &chunk_aad(&self.blob.storage_name));
        let mut hash = RunningHash::new();
        let mut chunk = Zeroizing::new(Vec::with_capacity(SEALED_CHUNK_BYTES));
        let mut padded = padded_bytes(self.blob.size_bytes()).unwrap_or(0);
        let (mut size, mut number) = (self.blob.size_bytes(), 0_u64);
        while padded > 0 {
            let length = padded.min(wide(CHUNK_BYTES));
            padded = padded.saturating_sub(length);
            chunk.clear();
            let sealed = length.saturating_add(wide(TAG_BYTES));
            let read = Read::by_ref(&mut self.file).take(sealed).read_to_end(&mut chunk);
            read.map_err(io_error("read", &self.path))?;
            let position = if padded == 0 { Position::Last } else { Position::Middle };
            let refused = |_| BlobError::Chunk { path: self.path.clone(), number };
            opener.open(&mut chunk, position).map_err(refused)?;
            number = number.saturating_add(1);
            let here = usize::try_from(size).unwrap_or(usize::MAX).min(chunk.len());
            let (content, padding) = chunk.split_at_checked(here).unwrap_or_default();
            if padding.iter().any(|&byte| byte != 0) {
                return Err(BlobError::Content { path: self.path });
            }
            hash.update(content);
            take(content);
            size = size.saturating_sub(wide(here));
        }
        if hash.finish() == *self.blob.sha256.as_bytes() {
            Ok(())
        } else {
            Err(BlobError::Content { path: self.path })
        }
    }
}
