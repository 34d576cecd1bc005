//! Sealed blobs (SPEC store, sections 7 and 8.8): in a folder, or in an object store of the log's JetStream account.
//!
//! Each content is sealed under a random key of its own, which only the blob's record keeps, and stored under a random
//! name, which only that record keeps, too. So rotation never rewrites a blob, and forgetting the record forgets the
//! blob. A blob is complete and stored before its record is committed: what a crash leaves between the two is an orphan,
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

mod chunks;
mod error;
mod folder;
#[cfg(feature = "sealed-log")]
mod objects;
mod v1;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unibus_keyfile::id::UnixTime;
use unibus_keyfile::secret::BlobKey;
use zeroize::Zeroizing;

use crate::record::{Blob, StorageName, Timestamp};
use chunks::Sealed;
use folder::Folder;
#[cfg(feature = "sealed-log")]
use objects::Objects;

pub use error::BlobError;
#[cfg(feature = "sealed-log")]
pub use objects::{BUCKET, BUCKET_STREAM, BucketUse};
pub use v1::{
    CHUNK_LABEL, HEADER_BYTES, MAGIC, MIN_PADDED_BYTES, VERSION_1, check_header, chunk_aad, file_bytes,
    header, padded_bytes,
};

/// Where sealed blobs lie.
#[derive(Debug, Clone)]
pub struct BlobStore(Backing);

#[derive(Debug, Clone)]
enum Backing {
    Folder(Folder),
    #[cfg(feature = "sealed-log")]
    Objects(Box<Objects>),
}

/// What lies there and no record names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Orphan {
    /// The file, or the object store and the object's name.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

/// The storage name that a file or object has; there is one text for each.
fn name_of(text: &str) -> Option<StorageName> {
    text.parse::<StorageName>().ok().filter(|name| name.to_string() == text)
}

impl BlobStore {
    /// Opens a folder; makes it, with mode 0700, when there is none.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn open(folder: &Path) -> Result<Self, BlobError> {
        Folder::open(folder).map(|folder| Self(Backing::Folder(folder)))
    }

    /// Opens the object store of the account that `client` is signed in to. `runtime` does the work; it must be one
    /// that no caller of this store blocks.
    ///
    /// # Errors
    /// [`BlobError::NoBucket`], [`BlobError::OtherSettings`], [`BlobError::Unavailable`].
    #[cfg(feature = "sealed-log")]
    pub fn objects(
        client: async_nats::Client,
        runtime: tokio::runtime::Handle,
        bucket: BucketUse,
    ) -> Result<Self, BlobError> {
        Objects::open(client, runtime, bucket).map(|objects| Self(Backing::Objects(Box::new(objects))))
    }

    /// The folder, if it is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.0 {
            Backing::Folder(folder) => Some(folder.path()),
            #[cfg(feature = "sealed-log")]
            Backing::Objects(_) => None,
        }
    }

    /// The file of that name; for an object, what stands for it in errors.
    #[must_use]
    pub fn path_of(&self, name: &StorageName) -> PathBuf {
        match &self.0 {
            Backing::Folder(folder) => folder.path_of(name),
            #[cfg(feature = "sealed-log")]
            Backing::Objects(_) => objects::path_of(name),
        }
    }

    /// Seals and stores a content of at most `limit` bytes, and gives the record to commit. Until that is done the blob
    /// is an orphan. Memory is constant.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`], [`BlobError::Source`], [`BlobError::Io`]; nothing is left behind then.
    /// [`BlobError::Unavailable`]: an orphan may be.
    pub fn put(&self, content: &mut impl Read, limit: u64, now: Timestamp) -> Result<Blob, BlobError> {
        let (key, name) = (Arc::new(BlobKey::generate()), StorageName::random());
        let mut content = content.take(limit.saturating_add(1));
        match &self.0 {
            Backing::Folder(folder) => folder.put((key, name), &mut content, limit, now),
            #[cfg(feature = "sealed-log")]
            Backing::Objects(objects) => objects.put((key, name), &mut content, limit, now),
        }
    }

    /// The content of a blob, checked against its record.
    ///
    /// # Errors
    /// [`BlobError`], naming the file or object and what is wrong with it.
    pub fn get(&self, blob: &Blob) -> Result<Zeroizing<Vec<u8>>, BlobError> {
        // What lies there vouches for the size before memory is taken.
        let mut source = self.source(blob)?;
        let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(blob.size_bytes()).unwrap_or(0)));
        self.read(blob, &mut *source, &mut |part| content.extend_from_slice(part))?;
        Ok(content)
    }

    /// Checks a blob against its record, in constant memory.
    ///
    /// # Errors
    /// As [`BlobStore::get`].
    pub fn check(&self, blob: &Blob) -> Result<(), BlobError> {
        let mut source = self.source(blob)?;
        self.read(blob, &mut *source, &mut |_| ())
    }

    fn source(&self, blob: &Blob) -> Result<Box<Sealed>, BlobError> {
        match &self.0 {
            Backing::Folder(folder) => Ok(Box::new(folder.source(blob)?)),
            #[cfg(feature = "sealed-log")]
            Backing::Objects(objects) => Ok(Box::new(objects.source(blob)?)),
        }
    }

    fn read(&self, blob: &Blob, source: &mut Sealed, take: &mut dyn FnMut(&[u8])) -> Result<(), BlobError> {
        let path = self.path_of(&blob.storage_name);
        chunks::open(blob, &path, source, take)?;
        let mut rest = Vec::new();
        source(1, &mut rest)?;
        let expected = file_bytes(blob.size_bytes()).unwrap_or(u64::MAX);
        let found = expected.saturating_add(chunks::wide(rest.len()));
        if found == expected { Ok(()) } else { Err(BlobError::Length { path, expected, found }) }
    }

    /// Removes a blob whose record was refused, or is gone. One that is not there is no error.
    ///
    /// # Errors
    /// [`BlobError::Io`], [`BlobError::Unavailable`].
    pub fn remove(&self, name: &StorageName) -> Result<(), BlobError> {
        match &self.0 {
            Backing::Folder(folder) => folder.remove(name),
            #[cfg(feature = "sealed-log")]
            Backing::Objects(objects) => objects.remove(name),
        }
    }

    /// What no record names and was last written before `before`: what crashes left. The time keeps away from those
    /// whose record is about to be committed. What is not ours is not listed.
    ///
    /// # Errors
    /// [`BlobError::Io`], [`BlobError::Unavailable`].
    pub fn orphans(
        &self,
        before: UnixTime,
        is_named: &dyn Fn(&StorageName) -> bool,
    ) -> Result<Vec<Orphan>, BlobError> {
        match &self.0 {
            Backing::Folder(folder) => folder.orphans(before, is_named),
            #[cfg(feature = "sealed-log")]
            Backing::Objects(objects) => objects.orphans(before, is_named),
        }
    }

    /// Removes orphans.
    ///
    /// # Errors
    /// [`BlobError::Io`], [`BlobError::Unavailable`].
    pub fn remove_orphans(&self, orphans: &[Orphan]) -> Result<(), BlobError> {
        match &self.0 {
            Backing::Folder(folder) => folder.remove_orphans(orphans),
            #[cfg(feature = "sealed-log")]
            Backing::Objects(objects) => objects.remove_orphans(orphans),
        }
    }
}
