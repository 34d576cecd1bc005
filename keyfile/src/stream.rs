//! STREAM (Hoang, Reyhanitabar, Rogaway, Vizar 2015) of AES-256-GCM-SIV in 64 KiB chunks
//! (SPEC keyfile, section 10). Each key seals one stream, so the nonce prefix is zero.

use std::fmt;

use aead_stream::{NewStream, StreamBE32, StreamPrimitive};
use aes_gcm_siv::{Aes256GcmSiv, KeyInit};

use crate::{error::OpenError, secret::ChunkKey};

/// Plaintext bytes of every chunk but the last.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes that sealing adds to a chunk.
pub const TAG_BYTES: usize = 16;

/// Whether more chunks follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature")]
pub enum Position {
    /// More chunks follow.
    Middle,
    /// The last chunk.
    Last,
}

struct Chunks {
    stream: StreamBE32<Aes256GcmSiv>,
    aad: Vec<u8>,
    next: Option<u32>,
}

impl Chunks {
    fn new(key: &ChunkKey, aad: &[u8]) -> Self {
        let cipher = Aes256GcmSiv::new(key.expose().into());
        Self { stream: StreamBE32::from_aead(cipher, &[0; 7].into()), aad: aad.to_vec(), next: Some(0) }
    }

    fn number(&mut self, position: Position) -> Result<u32, OpenError> {
        let number = self.next.ok_or(OpenError::Unauthentic)?;
        self.next = if position == Position::Last { None } else { number.checked_add(1) };
        Ok(number)
    }
}

/// Seals the chunks of one stream, in order.
pub struct ChunkSealer(Chunks);

impl ChunkSealer {
    /// Starts a stream. Every chunk is bound to `aad`. A key must seal one stream only.
    #[must_use]
    pub fn new(key: &ChunkKey, aad: &[u8]) -> Self {
        Self(Chunks::new(key, aad))
    }

    /// Seals the next chunk in place; the tag is appended.
    ///
    /// # Errors
    /// [`OpenError::Unauthentic`] after the last chunk, or after 2^32 of them.
    pub fn seal(&mut self, chunk: &mut Vec<u8>, position: Position) -> Result<(), OpenError> {
        let number = self.0.number(position)?;
        let sealed = self.0.stream.encrypt_in_place(number, position == Position::Last, &self.0.aad, chunk);
        sealed.map_err(|_| OpenError::Unauthentic)
    }
}

impl fmt::Debug for ChunkSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkSealer([REDACTED])")
    }
}

/// Opens the chunks of one stream, in order.
pub struct ChunkOpener(Chunks);

impl ChunkOpener {
    /// Starts at the first chunk.
    #[must_use]
    pub fn new(key: &ChunkKey, aad: &[u8]) -> Self {
        Self(Chunks::new(key, aad))
    }

    /// Opens the next chunk in place; the tag is removed.
    ///
    /// # Errors
    /// [`OpenError::Unauthentic`] when it was changed, moved, or is the last one and not said to be.
    pub fn open(&mut self, chunk: &mut Vec<u8>, position: Position) -> Result<(), OpenError> {
        let number = self.0.number(position)?;
        let opened = self.0.stream.decrypt_in_place(number, position == Position::Last, &self.0.aad, chunk);
        opened.map_err(|_| OpenError::Unauthentic)
    }
}

impl fmt::Debug for ChunkOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkOpener([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ChunkKey {
        ChunkKey::init_with(|b| b.fill(5))
    }

    #[test]
    fn chunks_open_in_their_order_only() {
        let mut sealer = ChunkSealer::new(&key(), b"aad");
        let (mut one, mut two) = (b"one".to_vec(), b"two".to_vec());
        sealer.seal(&mut one, Position::Middle).unwrap();
        sealer.seal(&mut two, Position::Last).unwrap();
        assert!(sealer.seal(&mut vec![], Position::Last).is_err());

        let mut opener = ChunkOpener::new(&key(), b"aad");
        opener.open(&mut one.clone(), Position::Middle).unwrap();
        opener.open(&mut two.clone(), Position::Last).unwrap();
        assert!(ChunkOpener::new(&key(), b"aad").open(&mut two.clone(), Position::Last).is_err(), "dropped");
        assert!(ChunkOpener::new(&key(), b"aad").open(&mut one.clone(), Position::Last).is_err(), "cut");
        assert!(
            ChunkOpener::new(&key(), b"other").open(&mut one.clone(), Position::Middle).is_err(),
            "moved"
        );
    }
}
