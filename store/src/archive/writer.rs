//! Writes a snapshot: into anything, and into a file that a crash leaves whole or absent.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use unibus_keyfile::derive;
use unibus_keyfile::digest::RunningHash;
use unibus_keyfile::durable;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::{NodeKey, NodeKeyFile};
use unibus_keyfile::nodeset::{Member, Nodeset};
use unibus_keyfile::secret::SnapshotKey;
use unibus_keyfile::stream::{CHUNK_BYTES, ChunkSealer, Position as ChunkPosition, TAG_BYTES};
use unibus_keyfile::suite::{RecipientPublic, Signature25519};
use zeroize::Zeroizing;

use super::frame::Progress;
use super::reader::{Snapshot, Verified};
use super::v1::{
    Header, SEALED_CHUNK_BYTES, SIGNATURE_LABEL, TRAILER_BYTES, Trailer, Wrap, chunk_aad, padded_chunks,
};
use super::{ArchiveError, recipients};
use crate::error::StoreError;
use crate::record::RecordId;
use crate::store::{Census, ExportSink, Position};

/// Who can open a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Readers {
    /// The recovery recipients: the operator, and whoever else was added.
    Recovery,
    /// Those, and every node.
    RecoveryAndNodes,
}

/// Who makes a snapshot, when, and for whom.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "the caller puts it together")]
pub struct Origin<'a> {
    /// The nodeset, which goes into the file.
    pub nodeset: &'a Nodeset,
    /// The keyring of the store's lineage, which goes into the file.
    pub keyring: &'a Keyring,
    /// The node that signs.
    pub node: &'a NodeKeyFile,
    /// The time.
    pub now: UnixTime,
    /// Who can open it.
    pub readers: Readers,
}

impl<'a> Origin<'a> {
    /// The node's key and entry in the nodeset.
    fn signer(&self) -> Result<(&'a NodeKey, &'a Member), ArchiveError> {
        let mut slots = self.node.slots().iter();
        let found = slots.find_map(|slot| Some((slot, self.nodeset.node_of(slot.signing_public())?)));
        found.ok_or_else(|| ArchiveError::Signer { found: self.node.member(self.now).fingerprint() })
    }

    fn header(&self, position: &Position, key: &SnapshotKey) -> Result<Header, ArchiveError> {
        let (_, member) = self.signer()?;
        let mut header = Header {
            cluster: *self.nodeset.cluster(),
            lineage: position.lineage,
            sequence: position.sequence,
            digest: position.digest,
            created: self.now,
            signer: member.signing_public,
            node: member.name.clone(),
            salt: rand::random(),
            nodeset: self.nodeset.as_bytes().to_vec(),
            keyring: self.keyring.as_bytes().to_vec(),
            wraps: Vec::new(),
        };
        let nodes = self.nodeset.nodes().iter().map(|node| &node.wrapping_public);
        let nodes: Vec<&RecipientPublic> =
            if self.readers == Readers::RecoveryAndNodes { nodes.collect() } else { Vec::new() };
        for recipient in recipients(self.nodeset).chain(nodes) {
            let wrapped = key.wrap_to(recipient, &header.wrap_info(recipient.id()))?;
            header.wraps.extend(Wrap::new(*recipient.id(), &wrapped));
        }
        Ok(header)
    }
}

/// Seals chunks, hashes and writes them.
struct Sealing<W> {
    sink: W,
    hash: RunningHash,
    sealer: ChunkSealer,
    chunks: u64,
}

impl<W: Write> Sealing<W> {
    /// Seals and writes the next chunk, and leaves the buffer empty.
    fn seal(&mut self, chunk: &mut Vec<u8>, position: ChunkPosition) -> Result<(), ArchiveError> {
        let number = self.chunks;
        self.sealer.seal(chunk, position).map_err(|_| ArchiveError::Chunk { number })?;
        self.chunks = number.saturating_add(1);
        // From here on the buffer holds ciphertext only.
        self.hash.update(chunk);
        let written = self.sink.write_all(chunk).map_err(io_error("write"));
        chunk.clear();
        written
    }
}

/// Chunks on their way to the thread that seals them, and their buffers on the way back.
struct SealingThread<W> {
    full: SyncSender<(Chunk, ChunkPosition)>,
    empty: Receiver<Chunk>,
    thread: JoinHandle<Result<Sealing<W>, ArchiveError>>,
}

type Chunk = Zeroizing<Vec<u8>>;

/// Chunks that wait to be sealed.
const CHUNKS_WAITING: usize = 2;

fn empty_chunk() -> Chunk {
    Zeroizing::new(Vec::with_capacity(SEALED_CHUNK_BYTES))
}

impl<W: Write + Send + 'static> SealingThread<W> {
    fn start(mut sealing: Sealing<W>) -> Result<Self, ArchiveError> {
        let (full, chunks) = mpsc::sync_channel::<(Chunk, ChunkPosition)>(CHUNKS_WAITING);
        let (give_back, empty) = mpsc::channel();
        let work = move || {
            for (mut chunk, position) in chunks {
                sealing.seal(&mut chunk, position)?;
                // Refused only when no more chunks come.
                drop(give_back.send(chunk));
            }
            Ok(sealing)
        };
        let thread = thread::Builder::new().name("unibus-seal".to_owned()).spawn(work);
        Ok(Self { full, empty, thread: thread.map_err(io_error("start a thread to write"))? })
    }
}

impl<W> SealingThread<W> {
    /// Waits until all is written.
    fn end(self) -> Result<Sealing<W>, ArchiveError> {
        let Self { full, thread, .. } = self;
        drop(full);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[expect(clippy::large_enum_variant, reason = "there is one of them")]
enum Stage<W> {
    Here(Sealing<W>),
    There(SealingThread<W>),
    Failed,
}

/// Writes one snapshot into a sink, in constant memory.
pub struct Writer<W> {
    stage: Stage<W>,
    signing: Signature25519,
    /// Plaintext of the chunk that is being filled.
    chunk: Chunk,
    chunks: u64,
    header_bytes: u64,
    progress: Progress,
}

impl<W: fmt::Debug> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("records", &self.progress.count()).finish_non_exhaustive()
    }
}

fn io_error(step: &'static str) -> impl FnOnce(io::Error) -> ArchiveError {
    move |source| ArchiveError::Io { step, source }
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl<W: Write> Writer<W> {
    /// Draws a snapshot key, wraps it, and writes the header.
    ///
    /// # Errors
    /// [`ArchiveError::Signer`] when the node is not in the nodeset; what the sink gives.
    pub fn begin(mut sink: W, origin: &Origin<'_>, position: &Position) -> Result<Self, ArchiveError> {
        let key = SnapshotKey::generate();
        let header = origin.header(position, &key)?;
        let bytes = header.encode()?;
        let (slot, _) = origin.signer()?;
        let mut hash = RunningHash::new();
        hash.update(&bytes);
        sink.write_all(&bytes).map_err(io_error("write"))?;
        let chunk_key = derive::snapshot_chunk_key(&key, &header.salt);
        let sealer = ChunkSealer::new(&chunk_key, &chunk_aad(&bytes));
        Ok(Self {
            stage: Stage::Here(Sealing { sink, hash, sealer, chunks: 0 }),
            signing: slot.signing(),
            chunk: empty_chunk(),
            chunks: 0,
            header_bytes: wide(bytes.len()),
            progress: Progress::default(),
        })
    }

    /// Adds the next record, in canonical order.
    ///
    /// # Errors
    /// [`ArchiveError::Record`] for what is no record or out of order; what the sink gives.
    pub fn push(&mut self, record: &[u8]) -> Result<(), ArchiveError> {
        let number = self.progress.count();
        self.progress.take(record).map_err(|what| ArchiveError::Record { number, what })?;
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        self.put(&length.to_be_bytes())?;
        self.put(record)
    }

    /// Ends the payload, pads it, and signs. Gives the sink back.
    ///
    /// # Errors
    /// What the sink gives.
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        let end = std::mem::take(&mut self.progress).end();
        self.put(&[0; 4])?;
        self.put(&end)?;
        let chunks = padded_chunks(self.chunks.saturating_add(1))
            .ok_or(ArchiveError::Misuse { what: "is too long" })?;
        while self.chunks.saturating_add(1) < chunks {
            self.seal(ChunkPosition::Middle)?;
        }
        self.seal(ChunkPosition::Last)?;
        let payload = chunks.saturating_mul(wide(SEALED_CHUNK_BYTES));
        let file_bytes = self.header_bytes.saturating_add(payload).saturating_add(wide(TRAILER_BYTES));
        let Sealing { mut sink, mut hash, .. } = match self.stage {
            Stage::Here(sealing) => sealing,
            Stage::There(thread) => thread.end()?,
            Stage::Failed => return Err(ArchiveError::Misuse { what: "has failed before" }),
        };
        hash.update(&Trailer::encode_hashed(chunks, file_bytes));
        let hash = hash.finish();
        let signature = self.signing.sign(SIGNATURE_LABEL, &hash);
        let trailer = Trailer { chunks, file_bytes, hash, signature };
        sink.write_all(&trailer.encode()).map_err(io_error("write"))?;
        sink.flush().map_err(io_error("write"))?;
        Ok(sink)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            if self.chunk.len() == CHUNK_BYTES {
                self.seal(ChunkPosition::Middle)?;
            }
            let room = CHUNK_BYTES.saturating_sub(self.chunk.len());
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.chunk.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Fills the chunk with zeros where it is not full, seals and writes it.
    fn seal(&mut self, position: ChunkPosition) -> Result<(), ArchiveError> {
        self.chunk.resize(CHUNK_BYTES, 0);
        self.chunks = self.chunks.saturating_add(1);
        match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Here(mut sealing) => {
                sealing.seal(&mut self.chunk, position)?;
                self.stage = Stage::Here(sealing);
            }
            Stage::There(thread) => {
                let next = thread.empty.try_recv().unwrap_or_else(|_| empty_chunk());
                let chunk = std::mem::replace(&mut self.chunk, next);
                if thread.full.send((chunk, position)).is_err() {
                    // It has given up, and says why.
                    thread.end()?;
                    return Err(ArchiveError::Misuse { what: "has failed before" });
                }
                self.stage = Stage::There(thread);
            }
            Stage::Failed => return Err(ArchiveError::Misuse { what: "has failed before" }),
        }
        Ok(())
    }
}

impl<W: Write + Send + 'static> Writer<W> {
    /// Seals, hashes and writes on a thread of its own from now on.
    fn on_a_thread(mut self) -> Result<Self, ArchiveError> {
        self.stage = match self.stage {
            Stage::Here(sealing) => Stage::There(SealingThread::start(sealing)?),
            other => other,
        };
        Ok(self)
    }
}

/// Whether a snapshot may take the place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Existing {
    /// A file of that name is left as it is, and the snapshot is not made.
    Refuse,
    /// A file of that name is replaced, once the new one is complete.
    Replace,
}

/// A snapshot file in the making: it has its name when it is complete, synced and verified, and not before.
///
/// As an [`ExportSink`] it takes a store's export. Dropped before [`SnapshotFile::finish`], it leaves nothing.
pub struct SnapshotFile<'a> {
    origin: Origin<'a>,
    path: PathBuf,
    existing: Existing,
    temporary: Temporary,
    state: State,
}

#[expect(clippy::large_enum_variant, reason = "there is one of them")]
enum State {
    Fresh(File),
    Writing(Writer<File>),
    Failed(ArchiveError),
    Gone,
}

/// Removes the file when it is dropped under its temporary name.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _gone_either_way = std::fs::remove_file(path);
        }
    }
}

impl fmt::Debug for SnapshotFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'a> SnapshotFile<'a> {
    /// Opens a file of mode 0600 under a temporary name beside `path`.
    ///
    /// # Errors
    /// [`ArchiveError::Name`] when `path` is taken and may not be replaced; [`ArchiveError::File`];
    /// [`ArchiveError::Signer`] and [`ArchiveError::Document`] when node, nodeset and keyring do not belong together.
    pub fn create(path: &Path, existing: Existing, origin: Origin<'a>) -> Result<Self, ArchiveError> {
        origin.signer()?;
        // The keyring must be readable with this nodeset alone: that is all that the file carries.
        Keyring::decode(origin.keyring.as_bytes(), origin.nodeset, None)?;
        if existing == Existing::Refuse && std::fs::symlink_metadata(path).is_ok() {
            return Err(unibus_keyfile::error::KeyError::Exists { path: path.to_owned() }.into());
        }
        durable::remove_left_overs(path);
        let temporary = durable::temporary_name(path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary);
        let file =
            file.map_err(|source| ArchiveError::File { step: "create", path: temporary.clone(), source })?;
        durable::hold(&file).map_err(|source| ArchiveError::File {
            step: "lock",
            path: temporary.clone(),
            source,
        })?;
        let temporary = Temporary(Some(temporary));
        Ok(Self { origin, path: path.to_owned(), existing, temporary, state: State::Fresh(file) })
    }

    /// Writes the header. The position is that of the records to come.
    ///
    /// # Errors
    /// [`ArchiveError`]; the file is then lost.
    pub fn begin(&mut self, position: &Position) -> Result<(), ArchiveError> {
        if position.lineage != *self.origin.keyring.lineage() {
            return Err(ArchiveError::Misuse { what: "needs the keyring of its own lineage" });
        }
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Fresh(file) => {
                self.state = State::Writing(Writer::begin(file, &self.origin, position)?.on_a_thread()?);
                Ok(())
            }
            other => {
                self.state = other;
                Err(ArchiveError::Misuse { what: "has begun already" })
            }
        }
    }

    /// Adds the next record, in canonical order.
    ///
    /// # Errors
    /// [`ArchiveError`], as [`Writer::push`].
    pub fn push(&mut self, record: &[u8]) -> Result<(), ArchiveError> {
        match &mut self.state {
            State::Writing(writer) => writer.push(record),
            _ => Err(ArchiveError::Misuse { what: "has not begun" }),
        }
    }

    /// Completes the file, syncs it, reads it back, and gives it its name.
    ///
    /// # Errors
    /// [`ArchiveError`], also what a step before left undone; there is then no file of that name, or the old one.
    pub fn finish(mut self) -> Result<Verified, ArchiveError> {
        let writer = match std::mem::replace(&mut self.state, State::Gone) {
            State::Writing(writer) => writer,
            State::Failed(error) => return Err(error),
            State::Fresh(_) | State::Gone => return Err(ArchiveError::Misuse { what: "has not begun" }),
        };
        let Some(temporary) = self.temporary.0.clone() else {
            return Err(ArchiveError::Misuse { what: "is finished" });
        };
        let file = writer.finish()?;
        file.sync_all().map_err(|source| ArchiveError::File {
            step: "sync",
            path: temporary.clone(),
            source,
        })?;
        drop(file);
        let verified = Snapshot::open(&temporary, Some(self.origin.nodeset.cluster()))?.into_verified();
        match self.existing {
            Existing::Refuse => durable::take_name(&temporary, &self.path)?,
            Existing::Replace => {
                rustix::fs::rename(&temporary, &self.path).map_err(|errno| ArchiveError::File {
                    step: "rename to",
                    path: self.path.clone(),
                    source: errno.into(),
                })?;
                let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
                durable::sync_dir(folder.unwrap_or(Path::new(".")))?;
            }
        }
        self.temporary.0 = None;
        Ok(verified)
    }

    /// Keeps the reason, for [`SnapshotFile::finish`].
    fn stopped(&mut self, result: Result<(), ArchiveError>) -> Result<(), StoreError> {
        result.map_err(|error| {
            self.state = State::Failed(error);
            StoreError::Stopped
        })
    }
}

impl ExportSink for SnapshotFile<'_> {
    fn begin(&mut self, position: &Position, _: &Census) -> Result<(), StoreError> {
        let result = SnapshotFile::begin(self, position);
        self.stopped(result)
    }

    fn record(&mut self, _: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        let result = self.push(bytes);
        self.stopped(result)
    }
}

const _: () = assert!(SEALED_CHUNK_BYTES == CHUNK_BYTES + TAG_BYTES);
