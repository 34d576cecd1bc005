//! The chunks of a sealed blob, wherever they lie (SPEC store, sections 7.2 and 7.3).

use std::io::{self, Read};
use std::path::Path;

use unibus_keyfile::derive;
use unibus_keyfile::digest::RunningHash;
use unibus_keyfile::error::DecodeError;
use unibus_keyfile::secret::BlobKey;
use unibus_keyfile::stream::{CHUNK_BYTES, ChunkOpener, ChunkSealer, Position, TAG_BYTES};
use zeroize::Zeroizing;

use super::{BlobError, HEADER_BYTES, check_header, chunk_aad, header, padded_bytes};
use crate::record::{Blob, StorageName};

/// Bytes of a full chunk, sealed.
pub(super) const SEALED_CHUNK_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

pub(super) fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Chunks of a blob of `size` bytes; none when there is no such blob.
#[cfg(feature = "sealed-log")]
pub(super) fn chunks_of(size: u64) -> Option<u64> {
    Some(padded_bytes(size)?.div_ceil(wide(CHUNK_BYTES)))
}

/// Seals a content; gives each sealed chunk to `put`, the first one behind the header. Gives hash and size.
pub(super) fn seal(
    (key, name): (&BlobKey, &StorageName),
    content: &mut dyn Read,
    limit: u64,
    place: &Path,
    put: &mut dyn FnMut(&[u8]) -> Result<(), BlobError>,
) -> Result<([u8; 32], u64), BlobError> {
    let mut sealing = Sealing {
        place,
        put,
        sealer: ChunkSealer::new(&derive::blob_chunk_key(key), &chunk_aad(name)),
        chunk: Zeroizing::new(Vec::with_capacity(SEALED_CHUNK_BYTES)),
        chunks: 0,
    };
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
        sealing.take(read)?;
    }
    let mut padding = padded_bytes(size).ok_or(BlobError::TooLarge { limit })?.saturating_sub(size);
    buffer.fill(0);
    while padding > 0 {
        let length = usize::try_from(padding).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        sealing.take(buffer.get(..length).unwrap_or_default())?;
        padding = padding.saturating_sub(wide(length));
    }
    sealing.seal(Position::Last)?;
    Ok((hash.finish(), size))
}

struct Sealing<'p> {
    place: &'p Path,
    put: &'p mut dyn FnMut(&[u8]) -> Result<(), BlobError>,
    sealer: ChunkSealer,
    chunk: Zeroizing<Vec<u8>>,
    chunks: u64,
}

impl Sealing<'_> {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
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
        let (path, number) = (self.place, self.chunks);
        let refused = |_| BlobError::Chunk { path: path.to_owned(), number };
        self.sealer.seal(&mut self.chunk, position).map_err(refused)?;
        if number == 0 {
            (self.put)(&[&header(), self.chunk.as_slice()].concat())?;
        } else {
            (self.put)(&self.chunk)?;
        }
        self.chunk.clear();
        self.chunks = number.saturating_add(1);
        Ok(())
    }
}

/// Gives the next bytes of a sealed blob: appends as many as are asked for, fewer only at its end.
pub(super) type Sealed = dyn FnMut(u64, &mut Vec<u8>) -> Result<(), BlobError>;

/// Opens chunk after chunk; gives the content, without its padding, to `take`.
pub(super) fn open(
    blob: &Blob,
    place: &Path,
    source: &mut Sealed,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), BlobError> {
    let damaged = |source| BlobError::Decode { path: place.to_owned(), source };
    let mut chunk = Zeroizing::new(Vec::with_capacity(SEALED_CHUNK_BYTES));
    source(wide(HEADER_BYTES), &mut chunk)?;
    let short = DecodeError::Truncated { needed: HEADER_BYTES, found: chunk.len() };
    let head = <[u8; HEADER_BYTES]>::try_from(chunk.as_slice()).map_err(|_| damaged(short))?;
    check_header(head).map_err(damaged)?;
    let key = derive::blob_chunk_key(&blob.key);
    let mut opener = ChunkOpener::new(&key, &chunk_aad(&blob.storage_name));
    let mut hash = RunningHash::new();
    let mut padded = padded_bytes(blob.size_bytes()).unwrap_or(0);
    let (mut size, mut number) = (blob.size_bytes(), 0_u64);
    while padded > 0 {
        let length = padded.min(wide(CHUNK_BYTES));
        padded = padded.saturating_sub(length);
        chunk.clear();
        source(length.saturating_add(wide(TAG_BYTES)), &mut chunk)?;
        let position = if padded == 0 { Position::Last } else { Position::Middle };
        let refused = |_| BlobError::Chunk { path: place.to_owned(), number };
        opener.open(&mut chunk, position).map_err(refused)?;
        number = number.saturating_add(1);
        let here = usize::try_from(size).unwrap_or(usize::MAX).min(chunk.len());
        let (content, padding) = chunk.split_at_checked(here).unwrap_or_default();
        if padding.iter().any(|&byte| byte != 0) {
            return Err(BlobError::Content { path: place.to_owned() });
        }
        hash.update(content);
        take(content);
        size = size.saturating_sub(wide(here));
    }
    if hash.finish() == *blob.sha256.as_bytes() {
        Ok(())
    } else {
        Err(BlobError::Content { path: place.to_owned() })
    }
}
