//! Reads a snapshot: first everything without a key, then the records with one.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use unibus_keyfile::derive;
use unibus_keyfile::digest::{RunningHash, StateDigest, StateHasher};
use unibus_keyfile::error::DecodeError;
use unibus_keyfile::id::{ClusterId, Fingerprint};
use unibus_keyfile::keyring::{Keyring, Secrets};
use unibus_keyfile::node_key::{NodeKey, NodeKeyFile};
use unibus_keyfile::nodeset::Nodeset;
use unibus_keyfile::operator_key::RecoveryKey;
use unibus_keyfile::secret::{ChunkKey, SnapshotKey};
use unibus_keyfile::stream::{CHUNK_BYTES, ChunkOpener, Position as ChunkPosition};
use unibus_keyfile::suite::{self, WrappingKey};
use zeroize::Zeroizing;

use super::frame::{END_BYTES, Progress};
use super::v1::{
    Header, PREFIX_BYTES, SEALED_CHUNK_BYTES, SIGNATURE_LABEL, TRAILER_BYTES, TRAILER_HASHED_BYTES, Trailer,
    chunk_aad, padded_chunks,
};
use super::{ArchiveError, recipients};
use crate::record::RECORD_MAX_BYTES;

fn io_error(source: io::Error) -> ArchiveError {
    ArchiveError::Io { step: "read", source }
}

/// What was verified about a snapshot without any key: it is complete, unchanged, and made by a node of its cluster.
#[derive(Debug, Clone)]
pub struct Verified {
    header: Header,
    nodeset: Nodeset,
    keyring: Keyring,
    chunk_aad: [u8; 32],
    header_bytes: u64,
    chunks: u64,
    file_bytes: u64,
    hash: [u8; 32],
}

impl Verified {
    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The nodeset in the snapshot.
    #[must_use]
    pub const fn nodeset(&self) -> &Nodeset {
        &self.nodeset
    }

    /// The keyring in the snapshot.
    #[must_use]
    pub const fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Bytes of the file.
    #[must_use]
    pub const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// SHA-256 of the file up to its hash: names this snapshot.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Who can open it: names, and fingerprints of their wrapping keys.
    #[must_use]
    pub fn recipients(&self) -> Vec<(String, Fingerprint)> {
        let nodes = self.nodeset.nodes().iter().map(|node| (&node.name, &node.wrapping_public));
        let all = self.nodeset.recovery().iter().map(|one| (&one.name, &one.wrapping_public)).chain(nodes);
        all.filter(|(_, key)| self.header.wraps.iter().any(|wrap| wrap.recipient == *key.id()))
            .map(|(name, key)| (name.to_string(), key.fingerprint()))
            .collect()
    }

    /// Unwraps the snapshot key and the keyring.
    ///
    /// # Errors
    /// [`ArchiveError::NotARecipient`]; [`ArchiveError::Unauthentic`] and [`ArchiveError::Unlock`].
    pub fn unlock(&self, recipient: &Recipient<'_>) -> Result<Unlocked, ArchiveError> {
        match recipient {
            Recipient::Node(file) => {
                let keys: Vec<WrappingKey> = file.slots().iter().map(NodeKey::wrapping).collect();
                let chunk_key = self.chunk_key(&keys.iter().collect::<Vec<_>>())?;
                Ok(Unlocked { chunk_key, secrets: self.keyring.unlock(file)? })
            }
            Recipient::Recovery(key) => {
                let chunk_key = self.chunk_key(&[key.wrapping()])?;
                Ok(Unlocked { chunk_key, secrets: self.keyring.unlock_with_recovery(*key)? })
            }
        }
    }

    fn chunk_key(&self, keys: &[&WrappingKey]) -> Result<ChunkKey, ArchiveError> {
        let hit = self.header.wraps.iter().find_map(|wrap| {
            keys.iter().find(|key| *key.public().id() == wrap.recipient).map(|key| (wrap, *key))
        });
        let Some((wrap, key)) = hit else {
            let expected = self.recipients();
            let expected: Vec<String> =
                expected.into_iter().map(|(name, key)| format!("{name} ({key})")).collect();
            let found: Vec<String> = keys.iter().map(|key| key.public().fingerprint().to_string()).collect();
            return Err(ArchiveError::NotARecipient {
                expected: expected.join(", "),
                found: found.join(", "),
            });
        };
        let info = self.header.wrap_info(&wrap.recipient);
        let key =
            SnapshotKey::unwrap_from(key, &info, wrap.wrapped.as_slice()).ok_or(ArchiveError::Unauthentic)?;
        Ok(derive::snapshot_chunk_key(&key, &self.header.salt))
    }
}

/// Verifies a snapshot without any key: structure, lengths, hash, signature, that the signer is a node of the nodeset
/// inside, that the operator of the cluster signed that nodeset, and that the recipients are those of the nodeset.
///
/// Without `pin` the cluster is the one that the snapshot names: whoever relies on it must compare it with a pin that
/// came another way. Only files that do not change meanwhile can be verified; reading checks again.
///
/// # Errors
/// [`ArchiveError`], naming what is wrong.
pub fn verify(reader: &mut (impl Read + Seek), pin: Option<&ClusterId>) -> Result<Verified, ArchiveError> {
    let file_bytes = reader.seek(SeekFrom::End(0)).map_err(io_error)?;
    reader.seek(SeekFrom::Start(0)).map_err(io_error)?;
    let (header_bytes, header, trailer_hash, trailer) = read_clear_parts(reader, file_bytes)?;
    if trailer_hash != trailer.hash {
        return Err(ArchiveError::Hash);
    }
    if !suite::verify(&header.signer, SIGNATURE_LABEL, &trailer.hash, &trailer.signature) {
        return Err(ArchiveError::Signature);
    }
    if let Some(expected) = pin.filter(|expected| **expected != header.cluster) {
        return Err(ArchiveError::Cluster { expected: *expected, found: header.cluster });
    }
    let nodeset = Nodeset::decode(&header.nodeset, &header.cluster)?;
    let is_signer = |node: &unibus_keyfile::nodeset::Member| node.name == header.node;
    if !nodeset.node_of(&header.signer).is_some_and(is_signer) {
        return Err(ArchiveError::Signer { found: Fingerprint::of(&header.signer) });
    }
    let keyring = Keyring::decode(&header.keyring, &nodeset, None)?;
    if *keyring.lineage() != header.lineage {
        return Err(ArchiveError::Contents { what: "the keyring is of another lineage" });
    }
    check_recipients(&header, &nodeset)?;
    Ok(Verified {
        chunk_aad: chunk_aad(&header_bytes),
        header_bytes: u64::try_from(header_bytes.len()).unwrap_or(u64::MAX),
        header,
        nodeset,
        keyring,
        chunks: trailer.chunks,
        file_bytes,
        hash: trailer.hash,
    })
}

type ClearParts = (Vec<u8>, Header, [u8; 32], Trailer);

/// Reads all of the file; gives header, the hash as it is and the trailer as it says.
fn read_clear_parts(reader: &mut impl Read, file_bytes: u64) -> Result<ClearParts, ArchiveError> {
    let mut prefix = [0; PREFIX_BYTES];
    read_all(reader, &mut prefix)?;
    let length = Header::length(&prefix)?;
    let mut bytes = prefix.to_vec();
    let rest = u64::try_from(length.saturating_sub(PREFIX_BYTES)).unwrap_or(u64::MAX);
    reader.by_ref().take(rest).read_to_end(&mut bytes).map_err(io_error)?;
    let (header, _) = Header::decode(&bytes)?;
    let mut hash = RunningHash::new();
    hash.update(&bytes);

    let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let around = wide(bytes.len()).saturating_add(wide(TRAILER_BYTES));
    let payload = file_bytes.checked_sub(around).ok_or_else(|| truncated(file_bytes, around))?;
    let chunks = payload.checked_div(wide(SEALED_CHUNK_BYTES)).unwrap_or(0);
    let mut chunk = vec![0; SEALED_CHUNK_BYTES];
    for _ in 0..chunks {
        read_all(reader, &mut chunk)?;
        hash.update(&chunk);
    }
    let mut trailer = [0; TRAILER_BYTES];
    read_all(reader, &mut trailer)?;
    hash.update(trailer.first_chunk::<TRAILER_HASHED_BYTES>().unwrap_or(&[0; TRAILER_HASHED_BYTES]));
    let trailer = Trailer::decode(&trailer)?;
    if trailer.file_bytes != file_bytes
        || trailer.chunks != chunks
        || payload != chunks.saturating_mul(wide(SEALED_CHUNK_BYTES))
        || padded_chunks(chunks) != Some(chunks)
    {
        return Err(DecodeError::Field("length").into());
    }
    Ok((bytes, header, hash.finish(), trailer))
}

fn truncated(found: u64, needed: u64) -> ArchiveError {
    let narrow = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    DecodeError::Truncated { needed: narrow(needed), found: narrow(found) }.into()
}

fn read_all(reader: &mut impl Read, out: &mut [u8]) -> Result<(), ArchiveError> {
    reader.read_exact(out).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => DecodeError::Truncated { needed: out.len(), found: 0 }.into(),
        _ => io_error(error),
    })
}

/// All recovery recipients, then either no node or all of them, each once and in the order of the nodeset.
fn check_recipients(header: &Header, nodeset: &Nodeset) -> Result<(), ArchiveError> {
    let recovery: Vec<_> = recipients(nodeset).map(suite::RecipientPublic::id).collect();
    let nodes = nodeset.nodes().iter().map(|node| node.wrapping_public.id());
    let all: Vec<_> = recovery.iter().copied().chain(nodes).collect();
    let wraps: Vec<_> = header.wraps.iter().map(|wrap| &wrap.recipient).collect();
    if wraps == recovery || wraps == all { Ok(()) } else { Err(ArchiveError::Recipients) }
}

/// Whose key opens a snapshot.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature: who is in a nodeset")]
pub enum Recipient<'a> {
    /// A node.
    Node(&'a NodeKeyFile),
    /// The operator, or a further recovery recipient.
    Recovery(&'a dyn RecoveryKey),
}

/// The keys of a snapshot.
#[derive(Debug)]
pub struct Unlocked {
    chunk_key: ChunkKey,
    secrets: Secrets,
}

impl Unlocked {
    /// The secrets of the keyring in the snapshot.
    #[must_use]
    pub const fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The secrets of the keyring in the snapshot, to carry the state key over.
    #[must_use]
    pub fn into_secrets(self) -> Secrets {
        self.secrets
    }
}

/// A snapshot file that was verified, held open so that no other can take its place.
#[derive(Debug)]
pub struct Snapshot {
    file: File,
    verified: Verified,
}

impl Snapshot {
    /// Opens and verifies a snapshot file.
    ///
    /// # Errors
    /// [`ArchiveError::File`] when it cannot be opened or is no regular file; [`ArchiveError`], as [`verify`].
    pub fn open(path: &Path, pin: Option<&ClusterId>) -> Result<Self, ArchiveError> {
        let io = |source| ArchiveError::File { step: "open", path: path.to_owned(), source };
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        // A pipe must not block the opening; it is refused right behind.
        let mut file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(io(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        let verified = verify(&mut file, pin)?;
        Ok(Self { file, verified })
    }

    /// What was verified.
    #[must_use]
    pub const fn verified(&self) -> &Verified {
        &self.verified
    }

    /// What was verified, without the file.
    #[must_use]
    pub fn into_verified(self) -> Verified {
        self.verified
    }

    /// Starts reading the records.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn records<'s>(&'s mut self, unlocked: &Unlocked) -> Result<Records<'s, File>, ArchiveError> {
        Records::start(&mut self.file, &self.verified, unlocked)
    }
}

/// What a snapshot was found to hold, once all of it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Number of records.
    pub records: u64,
    /// Digest of the records, which is that of the header.
    pub digest: StateDigest,
}

/// The records of a verified snapshot, one after the other, in constant memory.
///
/// The whole file is hashed again while it is read. Nothing that was read may be relied on before
/// [`Records::next_record`] has given `None`.
pub struct Records<'r, R> {
    reader: &'r mut R,
    verified: &'r Verified,
    opener: ChunkOpener,
    hasher: StateHasher,
    hash: RunningHash,
    /// Chunks that were opened.
    opened: u64,
    /// Plaintext of the chunk that is being read, and how far it was read.
    chunk: Zeroizing<Vec<u8>>,
    at: usize,
    record: Zeroizing<Vec<u8>>,
    progress: Progress,
    digest: StateDigest,
    summary: Option<Summary>,
}

impl<R> fmt::Debug for Records<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("read", &self.progress.count()).finish_non_exhaustive()
    }
}

impl<'r, R: Read + Seek> Records<'r, R> {
    /// Starts reading. The reader must be the one that was verified.
    ///
    /// # Errors
    /// [`ArchiveError::Io`]; [`ArchiveError::Changed`] when it is another one.
    pub fn start(
        reader: &'r mut R,
        verified: &'r Verified,
        unlocked: &Unlocked,
    ) -> Result<Self, ArchiveError> {
        reader.seek(SeekFrom::Start(0)).map_err(io_error)?;
        let mut header = Vec::new();
        reader.by_ref().take(verified.header_bytes).read_to_end(&mut header).map_err(io_error)?;
        if chunk_aad(&header) != verified.chunk_aad {
            return Err(ArchiveError::Changed);
        }
        let mut hash = RunningHash::new();
        hash.update(&header);
        Ok(Self {
            reader,
            verified,
            opener: ChunkOpener::new(&unlocked.chunk_key, &verified.chunk_aad),
            hasher: StateHasher::new(unlocked.secrets.state_key()),
            hash,
            opened: 0,
            chunk: Zeroizing::new(Vec::with_capacity(SEALED_CHUNK_BYTES)),
            at: 0,
            record: Zeroizing::new(Vec::with_capacity(RECORD_MAX_BYTES)),
            progress: Progress::default(),
            digest: StateDigest::EMPTY,
            summary: None,
        })
    }

    /// The next record's bytes. `None` says that the whole snapshot was read and is whole: order, number, running
    /// hash, padding, digest and the hash of the file.
    ///
    /// # Errors
    /// [`ArchiveError`]; what was read until then is to be thrown away.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>, ArchiveError> {
        if self.summary.is_some() {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length == 0 {
            self.summary = Some(self.end()?);
            return Ok(None);
        }
        if length > RECORD_MAX_BYTES {
            return Err(ArchiveError::Contents { what: "a record is too long" });
        }
        let mut record = std::mem::take(&mut *self.record);
        record.resize(length, 0);
        let read = self.read(&mut record);
        *self.record = record;
        read?;
        let refused = |_| ArchiveError::Contents { what: "a record is malformed or out of order" };
        self.progress.take(&self.record).map_err(refused)?;
        self.digest.add(&self.hasher.hash(&self.record));
        Ok(Some(&self.record))
    }

    /// What the snapshot holds; after [`Records::next_record`] has given `None`.
    #[must_use]
    pub const fn summary(&self) -> Option<Summary> {
        self.summary
    }

    fn end(&mut self) -> Result<Summary, ArchiveError> {
        let mut end = [0; END_BYTES];
        self.read(&mut end)?;
        let progress = std::mem::take(&mut self.progress);
        let records = progress.count();
        if progress.end() != end {
            return Err(ArchiveError::Contents { what: "number or running hash of the records" });
        }
        let not_zero = ArchiveError::Contents { what: "the padding is not zero" };
        if self.chunk.get(self.at..).is_some_and(|rest| rest.iter().any(|&byte| byte != 0)) {
            return Err(not_zero);
        }
        while self.opened < self.verified.chunks {
            self.open_chunk()?;
            if self.chunk.iter().any(|&byte| byte != 0) {
                return Err(not_zero);
            }
        }
        let mut trailer = [0; TRAILER_HASHED_BYTES];
        self.reader.read_exact(&mut trailer).map_err(|_| ArchiveError::Changed)?;
        self.hash.update(&trailer);
        if std::mem::take(&mut self.hash).finish() != self.verified.hash {
            return Err(ArchiveError::Changed);
        }
        if self.digest != self.verified.header.digest {
            return Err(ArchiveError::Contents { what: "the records do not have the digest of the header" });
        }
        Ok(Summary { records, digest: self.digest })
    }

    fn read(&mut self, out: &mut [u8]) -> Result<(), ArchiveError> {
        let mut out = out;
        while !out.is_empty() {
            if self.at >= self.chunk.len() {
                self.open_chunk()?;
            }
            let here = self.chunk.get(self.at..).unwrap_or_default();
            let length = here.len().min(out.len());
            let (now, later) = out.split_at_mut_checked(length).unwrap_or_default();
            for (to, from) in now.iter_mut().zip(here) {
                *to = *from;
            }
            self.at = self.at.saturating_add(length);
            out = later;
        }
        Ok(())
    }

    fn open_chunk(&mut self) -> Result<(), ArchiveError> {
        if self.opened >= self.verified.chunks {
            return Err(ArchiveError::Contents { what: "the payload has no end" });
        }
        self.chunk.clear();
        self.chunk.resize(SEALED_CHUNK_BYTES, 0);
        self.reader.read_exact(&mut self.chunk).map_err(|_| ArchiveError::Changed)?;
        self.hash.update(&self.chunk);
        let number = self.opened;
        self.opened = number.saturating_add(1);
        let position =
            if self.opened == self.verified.chunks { ChunkPosition::Last } else { ChunkPosition::Middle };
        self.opener.open(&mut self.chunk, position).map_err(|_| ArchiveError::Chunk { number })?;
        self.at = 0;
        if self.chunk.len() != CHUNK_BYTES {
            return Err(ArchiveError::Chunk { number });
        }
        Ok(())
    }
}
