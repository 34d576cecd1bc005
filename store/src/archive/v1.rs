//! The bytes of a snapshot of version 1: header, payload sizes, trailer (SPEC store, section 6).

use unibus_keyfile::aad;
use unibus_keyfile::digest::{StateDigest, sha256};
use unibus_keyfile::error::DecodeError;
use unibus_keyfile::id::{ClusterId, Lineage, NodeName, Sequence, UnixTime};
use unibus_keyfile::nodeset::{MAX_NODES, MAX_RECOVERY};
use unibus_keyfile::secret::KEY_BYTES;
use unibus_keyfile::stream::{CHUNK_BYTES, TAG_BYTES};
use unibus_keyfile::suite::{self, ENCAPSULATION_BYTES, SIGNATURE_BYTES, SUITE_1};

/// First bytes of a snapshot (SPEC store, section 6.1).
pub const MAGIC: [u8; 6] = *b"UBSNAP";

/// The version that is written (SPEC store, section 6.1).
pub const VERSION_1: u16 = 1;

/// Bytes of magic, version and header length (SPEC store, section 6.1).
pub const PREFIX_BYTES: usize = 12;

/// Most bytes of a header (SPEC store, section 6.1).
pub const MAX_HEADER_BYTES: usize = 4 << 20;

/// Most bytes of an embedded document (SPEC store, section 6.1).
pub const MAX_DOCUMENT_BYTES: usize = (1 << 20) + 1024;

/// Most recipients (SPEC store, section 6.1).
pub const MAX_RECIPIENTS: usize = MAX_NODES + MAX_RECOVERY;

/// Bytes of a wrapped snapshot key (SPEC store, section 6.2).
pub const WRAPPED_BYTES: usize = ENCAPSULATION_BYTES + KEY_BYTES + suite::TAG_BYTES;

/// Bytes of a chunk in the file (SPEC store, section 6.3).
pub const SEALED_CHUNK_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

/// First bytes of the trailer (SPEC store, section 6.5).
pub const TRAILER_MAGIC: [u8; 6] = *b"UBSEND";

/// Bytes of the trailer (SPEC store, section 6.5).
pub const TRAILER_BYTES: usize = 6 + 2 + 8 + 8 + 32 + SIGNATURE_BYTES;

/// Bytes of the trailer that the hash covers: all before it.
pub(super) const TRAILER_HASHED_BYTES: usize = 6 + 2 + 8 + 8;

/// Label of the signature (SPEC store, section 6.5).
pub const SIGNATURE_LABEL: &[u8] = b"unibus/snapshot/signature/v1";

/// Label of the wraps (SPEC store, section 6.2).
pub const WRAP_LABEL: &[u8] = b"unibus/snapshot/wrap/v1";

/// The snapshot key, wrapped to one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wrap {
    /// The recipient's id.
    pub recipient: [u8; 32],
    /// Encapsulation, sealed key and tag.
    pub wrapped: Box<[u8; WRAPPED_BYTES]>,
}

impl Wrap {
    /// Puts a wrap together; `None` when the wrapped key has another length than [`WRAPPED_BYTES`].
    #[must_use]
    pub fn new(recipient: [u8; 32], wrapped: &[u8]) -> Option<Self> {
        let wrapped = <&[u8; WRAPPED_BYTES]>::try_from(wrapped).ok()?;
        Some(Self { recipient, wrapped: Box::new(*wrapped) })
    }
}

/// Everything about a snapshot that stands in it in clear. Nothing in it is to be believed before the snapshot was
/// verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "complete by nature: SPEC store, section 6.1")]
pub struct Header {
    /// The cluster.
    pub cluster: ClusterId,
    /// The history that the records were taken from.
    pub lineage: Lineage,
    /// The store's sequence at which they were taken.
    pub sequence: Sequence,
    /// The keyed digest of the records.
    pub digest: StateDigest,
    /// When the snapshot was made.
    pub created: UnixTime,
    /// Public signing key of the node that made it.
    pub signer: [u8; 32],
    /// Name of that node.
    pub node: NodeName,
    /// Salt of the chunk key.
    pub salt: [u8; 32],
    /// The nodeset, as signed.
    pub nodeset: Vec<u8>,
    /// The keyring, as signed.
    pub keyring: Vec<u8>,
    /// The snapshot key, wrapped to each recipient.
    pub wraps: Vec<Wrap>,
}

impl Header {
    /// The header's bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] when a document, or the number of recipients, is over its limit.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut rest = Vec::with_capacity(self.nodeset.len() + self.keyring.len() + 4096);
        rest.extend(SUITE_1.to_be_bytes());
        rest.extend([0; 2]);
        rest.extend(self.cluster.as_bytes());
        rest.extend(self.lineage.as_bytes());
        rest.extend(self.sequence.0.to_be_bytes());
        rest.extend(self.digest.as_bytes());
        rest.extend(self.created.seconds().to_be_bytes());
        rest.extend(self.signer);
        rest.extend(self.salt);
        put_part(&mut rest, "node name", self.node.as_str().as_bytes(), NodeName::MAX)?;
        put_part(&mut rest, "nodeset", &self.nodeset, MAX_DOCUMENT_BYTES)?;
        put_part(&mut rest, "keyring", &self.keyring, MAX_DOCUMENT_BYTES)?;
        let count = limited("recipients", self.wraps.len(), MAX_RECIPIENTS)?;
        rest.extend(count.to_be_bytes());
        for wrap in &self.wraps {
            rest.extend(wrap.recipient);
            rest.extend(wrap.wrapped.as_slice());
        }
        let length = limited("header", rest.len().saturating_add(PREFIX_BYTES), MAX_HEADER_BYTES)?;
        let mut out = Vec::with_capacity(rest.len().saturating_add(PREFIX_BYTES));
        out.extend(MAGIC);
        out.extend(VERSION_1.to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(rest);
        Ok(out)
    }

    /// How long the header is that begins with these bytes.
    ///
    /// # Errors
    /// [`DecodeError`]: not a snapshot, of an unknown version, or over the limit.
    pub fn length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, DecodeError> {
        let &[m0, m1, m2, m3, m4, m5, v0, v1, l0, l1, l2, l3] = prefix;
        if [m0, m1, m2, m3, m4, m5] != MAGIC {
            return Err(DecodeError::Magic { expected: "snapshot" });
        }
        let version = u16::from_be_bytes([v0, v1]);
        if version != VERSION_1 {
            return Err(DecodeError::Version { found: version });
        }
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        limited("header", length, MAX_HEADER_BYTES)?;
        Ok(length)
    }

    /// Takes the header off the beginning of `bytes`, and gives what follows it.
    ///
    /// # Errors
    /// [`DecodeError`], naming what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() else {
            return Err(DecodeError::Truncated { needed: PREFIX_BYTES, found: bytes.len() });
        };
        let length = Self::length(prefix)?;
        let Some((header, after)) = bytes.split_at_checked(length) else {
            return Err(DecodeError::Truncated { needed: length, found: bytes.len() });
        };
        let rest = header.get(PREFIX_BYTES..).ok_or(DecodeError::Field("header length"))?;
        let mut rest = Rest(rest);
        if u16::from_be_bytes(rest.array()?) != SUITE_1 {
            return Err(DecodeError::Field("suite"));
        }
        if rest.array::<2>()? != [0; 2] {
            return Err(DecodeError::Field("reserved"));
        }
        let decoded = Self {
            cluster: ClusterId::from_bytes(rest.array()?),
            lineage: Lineage::from_bytes(rest.array()?),
            sequence: Sequence(u64::from_be_bytes(rest.array()?)),
            digest: StateDigest::from_bytes(rest.array()?),
            created: UnixTime::from_seconds(u64::from_be_bytes(rest.array()?)),
            signer: rest.array()?,
            salt: rest.array()?,
            node: rest.name()?,
            nodeset: rest.part("nodeset", MAX_DOCUMENT_BYTES)?.to_vec(),
            keyring: rest.part("keyring", MAX_DOCUMENT_BYTES)?.to_vec(),
            wraps: rest.wraps()?,
        };
        if !rest.0.is_empty() {
            return Err(DecodeError::Trailing { bytes: rest.0.len() });
        }
        Ok((decoded, after))
    }

    /// What the wrap to this recipient is bound to (SPEC store, section 6.2).
    #[must_use]
    pub fn wrap_info(&self, recipient: &[u8; 32]) -> Vec<u8> {
        aad::parts(&[
            WRAP_LABEL,
            &SUITE_1.to_be_bytes(),
            self.cluster.as_bytes(),
            self.lineage.as_bytes(),
            &self.sequence.0.to_be_bytes(),
            &self.salt,
            recipient,
        ])
    }
}

/// The AAD of every chunk: SHA-256 of the header as it stands in the file (SPEC store, section 6.3).
#[must_use]
pub fn chunk_aad(header: &[u8]) -> [u8; 32] {
    sha256(&[header])
}

/// The number of chunks to which a payload of `chunks` chunks is padded: its four highest bits are kept, rounded up
/// (SPEC store, section 6.4). `None` when there is no such number.
#[must_use]
pub fn padded_chunks(chunks: u64) -> Option<u64> {
    let bits = u64::BITS.saturating_sub(chunks.leading_zeros());
    let step = 1_u64.checked_shl(bits.saturating_sub(4))?;
    chunks.max(1).checked_next_multiple_of(step)
}

/// The end of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "complete by nature: SPEC store, section 6.5")]
pub struct Trailer {
    /// Number of chunks.
    pub chunks: u64,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// SHA-256 of everything before it.
    pub hash: [u8; 32],
    /// The node's signature of the hash.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Trailer {
    /// The part that the hash covers.
    #[must_use]
    pub(super) fn encode_hashed(chunks: u64, file_bytes: u64) -> [u8; TRAILER_HASHED_BYTES] {
        let mut out = [0; TRAILER_HASHED_BYTES];
        let numbers = [chunks.to_be_bytes(), file_bytes.to_be_bytes()];
        let bytes = TRAILER_MAGIC.into_iter().chain([0; 2]).chain(numbers.into_iter().flatten());
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = from;
        }
        out
    }

    /// The trailer's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Self::encode_hashed(self.chunks, self.file_bytes).to_vec();
        out.extend(self.hash);
        out.extend(self.signature);
        out
    }

    /// Decodes a trailer.
    ///
    /// # Errors
    /// [`DecodeError`]: not a trailer, or a reserved byte is not zero.
    pub fn decode(bytes: &[u8; TRAILER_BYTES]) -> Result<Self, DecodeError> {
        let mut rest = Rest(bytes);
        if rest.array::<6>()? != TRAILER_MAGIC {
            return Err(DecodeError::Magic { expected: "snapshot's trailer" });
        }
        if rest.array::<2>()? != [0; 2] {
            return Err(DecodeError::Field("reserved"));
        }
        Ok(Self {
            chunks: u64::from_be_bytes(rest.array()?),
            file_bytes: u64::from_be_bytes(rest.array()?),
            hash: rest.array()?,
            signature: rest.array()?,
        })
    }
}

/// What has not been decoded yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.0.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { needed: N, found: self.0.len() });
        };
        self.0 = rest;
        Ok(*taken)
    }

    fn part(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).unwrap_or(usize::MAX);
        limited(what, length, limit)?;
        let Some((taken, rest)) = self.0.split_at_checked(length) else {
            return Err(DecodeError::Truncated { needed: length, found: self.0.len() });
        };
        self.0 = rest;
        Ok(taken)
    }

    fn name(&mut self) -> Result<NodeName, DecodeError> {
        let name = std::str::from_utf8(self.part("node name", NodeName::MAX)?).ok();
        name.and_then(|name| name.parse().ok()).ok_or(DecodeError::Field("node name"))
    }

    fn wraps(&mut self) -> Result<Vec<Wrap>, DecodeError> {
        let count = usize::try_from(u32::from_be_bytes(self.array()?)).unwrap_or(usize::MAX);
        limited("recipients", count, MAX_RECIPIENTS)?;
        (0..count).map(|_| Ok(Wrap { recipient: self.array()?, wrapped: Box::new(self.array()?) })).collect()
    }
}

fn put_part(out: &mut Vec<u8>, what: &'static str, bytes: &[u8], limit: usize) -> Result<(), DecodeError> {
    out.extend(limited(what, bytes.len(), limit)?.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn limited(what: &'static str, found: usize, limit: usize) -> Result<u32, DecodeError> {
    let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    u32::try_from(found).ok().filter(|_| found <= limit).ok_or_else(|| DecodeError::TooLarge {
        what,
        found: wide(found),
        limit: wide(limit),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            cluster: ClusterId::from_bytes([1; 32]),
            lineage: Lineage::from_bytes([2; 16]),
            sequence: Sequence(3),
            digest: StateDigest::from_bytes([4; 32]),
            created: UnixTime::from_seconds(5),
            signer: [6; 32],
            node: "alpha".parse().unwrap(),
            salt: [7; 32],
            nodeset: vec![8; 40],
            keyring: vec![9; 50],
            wraps: vec![Wrap::new([10; 32], &[11; WRAPPED_BYTES]).unwrap()],
        }
    }

    #[test]
    fn a_header_reads_back_and_gives_what_follows() {
        let bytes = sample().encode().unwrap();
        let long = [bytes.as_slice(), b"payload"].concat();
        assert_eq!(Header::decode(&long), Ok((sample(), b"payload".as_slice())));
    }

    #[test]
    fn a_header_cut_anywhere_is_refused() {
        let bytes = sample().encode().unwrap();
        for at in 0..bytes.len() {
            assert!(
                matches!(Header::decode(&bytes[..at]), Err(DecodeError::Truncated { .. })),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn each_field_of_a_header_is_checked() {
        let bytes = sample().encode().unwrap();
        let with = |at: usize, value: u8| {
            let mut bad = bytes.clone();
            bad[at] = value;
            Header::decode(&bad).map(|_| ())
        };
        assert_eq!(with(0, 0), Err(DecodeError::Magic { expected: "snapshot" }));
        assert_eq!(with(7, 2), Err(DecodeError::Version { found: 2 }));
        assert!(matches!(with(8, 0xff), Err(DecodeError::TooLarge { what: "header", .. })));
        assert_eq!(with(13, 2), Err(DecodeError::Field("suite")));
        assert_eq!(with(14, 1), Err(DecodeError::Field("reserved")));
        let name = 12 + 4 + 32 + 16 + 8 + 32 + 8 + 32 + 32;
        assert!(matches!(with(name, 1), Err(DecodeError::TooLarge { what: "node name", .. })));
        assert_eq!(with(name + 4, b'A'), Err(DecodeError::Field("node name")));
        assert!(matches!(with(name + 9, 1), Err(DecodeError::TooLarge { what: "nodeset", .. })));
        assert!(matches!(with(name + 53, 1), Err(DecodeError::TooLarge { what: "keyring", .. })));
        assert!(matches!(with(name + 107, 1), Err(DecodeError::TooLarge { what: "recipients", .. })));
        assert_eq!(with(name + 110, 0), Err(DecodeError::Trailing { bytes: 32 + WRAPPED_BYTES }));
    }

    #[test]
    fn the_constants_are_those_of_the_specification() {
        let spec = include_str!("../../SPEC.md");
        let section = spec.split("\n## ").find(|section| section.starts_with("6 Snapshot")).unwrap();
        let wanted = [
            ("VERSION_1", usize::from(VERSION_1)),
            ("PREFIX_BYTES", PREFIX_BYTES),
            ("MAX_HEADER_BYTES", MAX_HEADER_BYTES),
            ("MAX_DOCUMENT_BYTES", MAX_DOCUMENT_BYTES),
            ("MAX_RECIPIENTS", MAX_RECIPIENTS),
            ("WRAPPED_BYTES", WRAPPED_BYTES),
            ("SEALED_CHUNK_BYTES", SEALED_CHUNK_BYTES),
            ("TRAILER_BYTES", TRAILER_BYTES),
            ("RECORD_MAX_BYTES", crate::record::RECORD_MAX_BYTES),
        ];
        for (name, value) in wanted {
            assert!(section.contains(&format!("| `{name}` | {value} |")), "{name} is {value}");
        }
        for text in [&MAGIC, &TRAILER_MAGIC].map(|magic| std::str::from_utf8(magic).unwrap()) {
            assert!(section.contains(&format!("| magic | `{text}` |")), "{text}");
        }
        for label in [SIGNATURE_LABEL, WRAP_LABEL, unibus_keyfile::derive::SNAPSHOT_CHUNKS] {
            assert!(section.contains(&format!("`{}`", std::str::from_utf8(label).unwrap())));
        }
    }

    #[test]
    fn a_trailer_reads_back() {
        let trailer = Trailer { chunks: 1, file_bytes: 2, hash: [3; 32], signature: [4; 64] };
        let bytes: [u8; TRAILER_BYTES] = trailer.encode().try_into().unwrap();
        assert_eq!(Trailer::decode(&bytes), Ok(trailer));
        for at in 0..8 {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert!(Trailer::decode(&bad).is_err());
        }
    }

    #[test]
    fn padding_keeps_four_bits() {
        let padded: Vec<_> =
            [0, 1, 2, 15, 16, 17, 18, 31, 33, 100, 129].map(padded_chunks).into_iter().flatten().collect();
        assert_eq!(padded, [1, 1, 2, 15, 16, 18, 18, 32, 36, 104, 144]);
        assert_eq!(padded_chunks(u64::MAX), None);
        for chunks in 1..5_000 {
            let padded = padded_chunks(chunks).unwrap();
            assert_eq!(padded_chunks(padded), Some(padded), "a size of the ladder stays");
            assert!(padded - chunks <= chunks / 8);
        }
    }
}
