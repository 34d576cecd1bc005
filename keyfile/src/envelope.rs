//! Bytes of a sealed value, outside and inside (SPEC keyfile, section 7).

use zeroize::Zeroizing;

use crate::{digest::StateDigest, error::DecodeError, id::Epoch};

/// First bytes of an envelope.
pub const MAGIC: [u8; 4] = *b"UBE1";
/// Bytes of the header: magic, epoch, nonce.
pub const HEADER_BYTES: usize = 4 + 4 + NONCE_BYTES;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;
/// Smallest plaintext, in bytes; every larger one is twice the one before.
pub const MIN_PLAINTEXT_BYTES: usize = 256;
/// Largest plaintext, in bytes.
pub const MAX_PLAINTEXT_BYTES: usize = 1 << 20;
/// Longest identity, in bytes.
pub const MAX_IDENTITY_BYTES: usize = 1024;

/// Bytes of a plaintext besides identity, record and padding.
pub const FIXED_BYTES: usize = 1 + 1 + 4 + 32 + 4;

/// The header of an envelope, and where its parts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The header as read; part of the AAD.
    pub header: &'a [u8],
    /// Epoch under which it is sealed.
    pub epoch: Epoch,
    /// Nonce.
    pub nonce: [u8; NONCE_BYTES],
    /// Ciphertext and tag.
    pub sealed: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Takes an envelope apart.
    ///
    /// # Errors
    /// [`DecodeError`]: cut short, not an envelope, epoch zero, or of a size that no padding gives.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let Some((header, sealed)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(DecodeError::Truncated { needed: HEADER_BYTES, found: bytes.len() });
        };
        let &[m0, m1, m2, m3, e0, e1, e2, e3, ref nonce @ ..] = header else {
            return Err(DecodeError::Truncated { needed: HEADER_BYTES, found: bytes.len() });
        };
        if [m0, m1, m2, m3] != MAGIC {
            return Err(DecodeError::Magic { expected: "sealed envelope" });
        }
        let epoch =
            Epoch::from_stored(u32::from_be_bytes([e0, e1, e2, e3])).ok_or(DecodeError::Field("epoch"))?;
        let nonce = <[u8; NONCE_BYTES]>::try_from(nonce).map_err(|_| DecodeError::Field("nonce"))?;
        let plain = sealed.len().saturating_sub(TAG_BYTES);
        if !(MIN_PLAINTEXT_BYTES..=MAX_PLAINTEXT_BYTES).contains(&plain) || !plain.is_power_of_two() {
            return Err(DecodeError::Field("sealed length"));
        }
        Ok(Self { header, epoch, nonce, sealed })
    }

    /// The header bytes of a new envelope.
    #[must_use]
    pub fn header(epoch: Epoch, nonce: &[u8; NONCE_BYTES]) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let (magic, rest) = out.split_at_mut(MAGIC.len());
        let (number, to_nonce) = rest.split_at_mut(4);
        magic.copy_from_slice(&MAGIC);
        number.copy_from_slice(&epoch.get().to_be_bytes());
        to_nonce.copy_from_slice(nonce);
        out
    }
}

/// Whether an entry puts a record or removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature: an entry puts or removes")]
pub enum Operation {
    /// The record stands from here on.
    Put,
    /// The record is gone from here on.
    Tombstone,
}

/// The plaintext of an entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Plaintext {
    /// Kind of the record.
    pub kind: u8,
    /// Put or tombstone.
    pub operation: Operation,
    /// Identity of the record.
    pub identity: Vec<u8>,
    /// State digest after this entry.
    pub digest_after: StateDigest,
    /// The record; empty for a tombstone.
    pub record: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plaintext(kind {}, {:?}, [REDACTED])", self.kind, self.operation)
    }
}

/// Size of a plaintext after padding: the next of 256, 512, 1024, ... bytes; `None` when it is over the limit.
#[must_use]
pub fn padded_len(content: usize) -> Option<usize> {
    let padded = content.max(MIN_PLAINTEXT_BYTES).checked_next_power_of_two()?;
    (padded <= MAX_PLAINTEXT_BYTES).then_some(padded)
}

impl Plaintext {
    /// Writes the padded plaintext, with room for the tag.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] when identity or record are over their limits; [`DecodeError::Field`] for a
    /// tombstone that carries a record.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, DecodeError> {
        let padded = self.padded_len()?;
        let mut out = Zeroizing::new(Vec::with_capacity(padded.saturating_add(TAG_BYTES)));
        self.append_to(&mut out, padded);
        Ok(out)
    }

    /// Size of this plaintext after padding.
    pub(crate) fn padded_len(&self) -> Result<usize, DecodeError> {
        if self.identity.len() > MAX_IDENTITY_BYTES {
            return Err(too_large("identity", self.identity.len(), MAX_IDENTITY_BYTES));
        }
        if self.operation == Operation::Tombstone && !self.record.is_empty() {
            return Err(DecodeError::Field("tombstone"));
        }
        let content = FIXED_BYTES.saturating_add(self.identity.len()).saturating_add(self.record.len());
        padded_len(content).ok_or_else(|| too_large("record", content, MAX_PLAINTEXT_BYTES))
    }

    /// Appends the plaintext, padded to `padded` bytes; `out` has the room.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>, padded: usize) {
        let end = out.len().saturating_add(padded);
        out.push(self.kind);
        out.push(match self.operation {
            Operation::Put => 1,
            Operation::Tombstone => 2,
        });
        crate::aad::part(out, &self.identity);
        out.extend_from_slice(self.digest_after.as_bytes());
        crate::aad::part(out, &self.record);
        out.resize(end, 0);
    }

    /// Reads a padded plaintext; the padding must be zero and of the right length.
    ///
    /// # Errors
    /// [`DecodeError`], naming what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        PlaintextRef::decode(bytes).map(|plaintext| plaintext.to_plaintext())
    }
}

/// The plaintext of an entry, borrowed from the bytes that it was opened into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PlaintextRef<'a> {
    /// Kind of the record.
    pub kind: u8,
    /// Put or tombstone.
    pub operation: Operation,
    /// Identity of the record.
    pub identity: &'a [u8],
    /// State digest after this entry.
    pub digest_after: StateDigest,
    /// The record; empty for a tombstone.
    pub record: &'a [u8],
}

impl<'a> PlaintextRef<'a> {
    /// Reads a padded plaintext; the padding must be zero and of the right length.
    ///
    /// # Errors
    /// [`DecodeError`], naming what is wrong.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let short = DecodeError::Truncated { needed: FIXED_BYTES, found: bytes.len() };
        let Some((&[kind, operation], rest)) = bytes.split_first_chunk::<2>() else { return Err(short) };
        let operation = match operation {
            1 => Operation::Put,
            2 => Operation::Tombstone,
            _ => return Err(DecodeError::Field("operation")),
        };
        let (identity, rest) = part(rest, "identity", MAX_IDENTITY_BYTES)?;
        let Some((digest, rest)) = rest.split_first_chunk::<32>() else { return Err(short) };
        let (record, padding) = part(rest, "record", MAX_PLAINTEXT_BYTES)?;
        if operation == Operation::Tombstone && !record.is_empty() {
            return Err(DecodeError::Field("tombstone"));
        }
        let content = FIXED_BYTES.saturating_add(identity.len()).saturating_add(record.len());
        // Folded, not searched: the padding of a good plaintext is read to its end anyway.
        let not_zero = padding.iter().fold(0, |all, byte| all | byte);
        if padded_len(content) != Some(bytes.len()) || not_zero != 0 {
            return Err(DecodeError::Field("padding"));
        }
        Ok(Self { kind, operation, identity, digest_after: StateDigest::from_bytes(*digest), record })
    }

    /// Copies it, to keep it longer than the buffer it lies in.
    #[must_use]
    pub fn to_plaintext(&self) -> Plaintext {
        Plaintext {
            kind: self.kind,
            operation: self.operation,
            identity: self.identity.to_vec(),
            digest_after: self.digest_after,
            record: Zeroizing::new(self.record.to_vec()),
        }
    }
}

impl std::fmt::Debug for PlaintextRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PlaintextRef(kind {}, {:?}, [REDACTED])", self.kind, self.operation)
    }
}

fn part<'a>(bytes: &'a [u8], what: &'static str, limit: usize) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Err(DecodeError::Truncated { needed: 4, found: bytes.len() });
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > limit {
        return Err(too_large(what, length, limit));
    }
    rest.split_at_checked(length).ok_or(DecodeError::Truncated { needed: length, found: rest.len() })
}

fn too_large(what: &'static str, found: usize, limit: usize) -> DecodeError {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    DecodeError::TooLarge { what, found: number(found), limit: number(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(record: usize) -> Plaintext {
        Plaintext {
            kind: 1,
            operation: Operation::Put,
            identity: vec![1, 2, 3],
            digest_after: StateDigest::from_bytes([9; 32]),
            record: Zeroizing::new(vec![7; record]),
        }
    }

    #[test]
    fn sizes_show_only_their_class() {
        let sizes: Vec<usize> =
            [0, 100, 211, 212, 400, 900].iter().map(|n| sample(*n).encode().unwrap().len()).collect();
        assert_eq!(sizes, [256, 256, 256, 512, 512, 1024]);
        assert!(sample(MAX_PLAINTEXT_BYTES).encode().is_err());
    }

    #[test]
    fn a_plaintext_reads_back_and_padding_is_checked() {
        for record in [0, 1, 211, 212, 5000] {
            let bytes = sample(record).encode().unwrap();
            assert_eq!(Plaintext::decode(&bytes).unwrap(), sample(record));
            let mut bad = bytes.to_vec();
            *bad.last_mut().unwrap() ^= 1;
            assert!(Plaintext::decode(&bad).is_err() || record == 211 && bad.len() == 256);
            let mut long = bytes.to_vec();
            long.resize(bytes.len() * 2, 0);
            assert_eq!(Plaintext::decode(&long), Err(DecodeError::Field("padding")));
        }
    }
}
