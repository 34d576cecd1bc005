//! A record as bytes (SPEC store, section 1.2).

use std::fmt;

use zeroize::Zeroizing;

use super::{DecodeError, Kind, RecordBody, RecordId, redact};

/// Most bytes of one record: kind, identity and body together (SPEC store, section 1.2).
pub const RECORD_MAX_BYTES: usize = 65_536;

/// The bytes of one record: what is hashed, exported and imported. Zeroized on drop.
///
/// They are kept as they were read: a field of a later version stays in them and in their hash.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordBytes(Zeroizing<Vec<u8>>);

impl RecordBytes {
    pub(crate) fn of(record: &impl RecordBody) -> Self {
        let capacity = record.body_max_bytes().saturating_add(HEAD_MAX_BYTES);
        let mut out = Zeroizing::new(Vec::with_capacity(capacity));
        record.id().write_head(&mut out);
        record.write_body(&mut out);
        Self(out)
    }

    /// Puts together what a table keeps apart: an identity and a body.
    ///
    /// Nothing about the body is checked but its length; [`Record::decode`](super::Record::decode) does that.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`].
    pub fn assemble(id: &RecordId, body: &[u8]) -> Result<Self, DecodeError> {
        let mut out = Zeroizing::new(Vec::with_capacity(body.len().saturating_add(id.head_len())));
        id.write_head(&mut out);
        out.extend_from_slice(body);
        in_limit(&out)?;
        Ok(Self(out))
    }

    /// Takes the bytes of a record, checking kind, identity and length, not the body.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        split(bytes)?;
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The body: format version and CBOR map, what a table keeps beside the identity.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        body_of(&self.0).unwrap_or_default()
    }

    /// Which record it is.
    ///
    /// # Errors
    /// [`DecodeError`]; not for bytes that a constructor has taken.
    pub fn id(&self) -> Result<RecordId, DecodeError> {
        split(&self.0).map(|(id, _)| id)
    }
}

impl AsRef<[u8]> for RecordBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RecordBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redact::marker(f, "RecordBytes", &self.0)
    }
}

/// Kind, length and the longest identity: room id, zero, key epoch, endpoint.
const HEAD_MAX_BYTES: usize = 1 + 4 + 64 + 1 + 8 + 32;

fn in_limit(bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.len() > RECORD_MAX_BYTES {
        return Err(DecodeError::TooLong { found: bytes.len(), limit: RECORD_MAX_BYTES });
    }
    Ok(())
}

fn split_parts(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first_chunk::<4>()?;
    let (identity, body) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(length)).ok()?)?;
    Some((kind, identity, body))
}

fn body_of(bytes: &[u8]) -> Option<&[u8]> {
    split_parts(bytes).map(|(_, _, body)| body)
}

/// Splits a record into identity and body.
pub(crate) fn split(bytes: &[u8]) -> Result<(RecordId, &[u8]), DecodeError> {
    in_limit(bytes)?;
    let (kind, identity, body) = split_parts(bytes).ok_or(DecodeError::Truncated { offset: bytes.len() })?;
    let kind = Kind::from_number(kind).ok_or(DecodeError::Kind { found: kind })?;
    Ok((RecordId::parse(kind, identity)?, body))
}

/// One value, one encoding: what this version would write is what was read.
pub(crate) fn is_canonical(written: &RecordBytes, read: &[u8]) -> Result<(), DecodeError> {
    if written.as_bytes() == read {
        return Ok(());
    }
    let (id, _) = split(read)?;
    Err(DecodeError::NotCanonical { kind: id.kind() })
}
