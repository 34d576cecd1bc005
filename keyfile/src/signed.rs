//! The container that all signed documents share (SPEC keyfile, section 5).
//!
//! ```text
//! magic 4 | version 1 | kind 1 | body length 4 | body | signatures 1 | (public key 32 | signature 64) x n
//! ```
//! The signature covers everything before the signature count. The body is CBOR in the one encoding that the
//! encoder of this crate gives; each decoder encodes again and compares.

use crate::{
    error::DecodeError,
    id::DocumentHash,
    suite::{self, SIGNATURE_BYTES, Signature25519},
};

/// First bytes of a signed document.
pub const MAGIC: [u8; 4] = *b"UBSD";
/// Version of the container.
pub const VERSION_1: u8 = 1;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 10;
/// Most bytes of a body.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// Most signatures of a document.
pub const MAX_SIGNATURES: usize = 4;

/// First part of what every signature of a document is over.
pub const SIGN_LABEL: &[u8] = b"unibus/signed/v1";

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The list of nodes and recovery recipients; signed by the operator.
    Nodeset,
    /// All epochs and their wrapped secrets; signed by a node.
    Keyring,
    /// A node that asks to be enrolled; signed by itself.
    Request,
    /// A further recovery recipient; unsigned keys cannot sign, so it carries a checksum instead.
    Recovery,
    /// A node's word that it has unlocked a keyring; signed by itself.
    Acknowledgement,
    /// A node's word about its own replica; signed by itself.
    Census,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Nodeset => 1,
            Self::Keyring => 2,
            Self::Request => 3,
            Self::Recovery => 4,
            Self::Acknowledgement => 5,
            Self::Census => 6,
        }
    }

    /// The kind that the header of these bytes names; nothing else of them is looked at.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let (&[m0, m1, m2, m3, _version, number], _) = bytes.split_first_chunk::<6>()?;
        let known = [
            Self::Nodeset,
            Self::Keyring,
            Self::Request,
            Self::Recovery,
            Self::Acknowledgement,
            Self::Census,
        ];
        if [m0, m1, m2, m3] == MAGIC { known.into_iter().find(|kind| kind.number() == number) } else { None }
    }

    /// Name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodeset => "nodeset",
            Self::Keyring => "keyring",
            Self::Request => "enrolment request",
            Self::Recovery => "recovery recipient",
            Self::Acknowledgement => "acknowledgement",
            Self::Census => "census",
        }
    }
}

/// A document that was taken apart; its signatures are not yet judged.
#[derive(Debug)]
pub struct Document<'a> {
    /// The body, as read.
    pub body: &'a [u8],
    /// Public keys whose signatures verified, in order.
    pub signers: Vec<[u8; 32]>,
    /// SHA-256 over all bytes.
    pub hash: DocumentHash,
}

/// Why a container is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContainerError {
    Decode(DecodeError),
    Signature,
}

impl From<DecodeError> for ContainerError {
    fn from(source: DecodeError) -> Self {
        Self::Decode(source)
    }
}

/// Puts a document together and signs it with each key.
#[must_use]
pub fn encode(kind: Kind, body: &[u8], keys: &[&Signature25519]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len() + 1 + keys.len() * (32 + SIGNATURE_BYTES));
    out.extend_from_slice(&MAGIC);
    out.push(VERSION_1);
    out.push(kind.number());
    crate::aad::part(&mut out, body);
    let signed = out.clone();
    out.push(u8::try_from(keys.len()).unwrap_or(u8::MAX));
    for key in keys {
        out.extend_from_slice(&key.public());
        out.extend_from_slice(&key.sign(SIGN_LABEL, &signed));
    }
    out
}

/// Takes a document apart and verifies every signature in it.
pub(crate) fn decode(kind: Kind, bytes: &[u8]) -> Result<Document<'_>, ContainerError> {
    let limit = HEADER_BYTES + MAX_BODY_BYTES + 1 + MAX_SIGNATURES * (32 + SIGNATURE_BYTES);
    if bytes.len() > limit {
        let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        return Err(DecodeError::TooLarge { what: kind.name(), found, limit }.into());
    }
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(DecodeError::Truncated { needed: HEADER_BYTES, found: bytes.len() }.into());
    };
    let &[m0, m1, m2, m3, version, number, l0, l1, l2, l3] = header;
    if [m0, m1, m2, m3] != MAGIC || number != kind.number() {
        return Err(DecodeError::Magic { expected: kind.name() }.into());
    }
    if version != VERSION_1 {
        return Err(DecodeError::Version { found: u16::from(version) }.into());
    }
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    let body_bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if body_bytes > MAX_BODY_BYTES {
        let limit = u64::try_from(MAX_BODY_BYTES).unwrap_or(u64::MAX);
        return Err(DecodeError::TooLarge { what: "body", found: u64::from(length), limit }.into());
    }
    let Some((body, rest)) = rest.split_at_checked(body_bytes) else {
        return Err(DecodeError::Truncated {
            needed: HEADER_BYTES.saturating_add(body_bytes),
            found: bytes.len(),
        }
        .into());
    };
    let signed = bytes.get(..HEADER_BYTES.saturating_add(body_bytes)).unwrap_or_default();
    let Some((&count, mut rest)) = rest.split_first() else {
        return Err(
            DecodeError::Truncated { needed: bytes.len().saturating_add(1), found: bytes.len() }.into()
        );
    };
    if usize::from(count) > MAX_SIGNATURES {
        return Err(DecodeError::Field("signature count").into());
    }
    let mut signers = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let Some((public, after)) = rest.split_first_chunk::<32>() else {
            return Err(DecodeError::Truncated {
                needed: bytes.len().saturating_add(32),
                found: bytes.len(),
            }
            .into());
        };
        let Some((signature, after)) = after.split_first_chunk::<SIGNATURE_BYTES>() else {
            return Err(DecodeError::Truncated {
                needed: bytes.len().saturating_add(SIGNATURE_BYTES),
                found: bytes.len(),
            }
            .into());
        };
        if signers.contains(public) {
            return Err(DecodeError::Field("signature").into());
        }
        if !suite::verify(public, SIGN_LABEL, signed, signature) {
            return Err(ContainerError::Signature);
        }
        signers.push(*public);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(DecodeError::Trailing { bytes: rest.len() }.into());
    }
    Ok(Document { body, signers, hash: DocumentHash::of(bytes) })
}

/// Decodes a CBOR body strictly: nothing may follow, and it must be the one encoding of its value.
pub(crate) fn decode_body<'b, T>(body: &'b [u8]) -> Result<T, DecodeError>
where
    T: minicbor::Decode<'b, ()> + minicbor::Encode<()>,
{
    let value: T = minicbor::decode(body).map_err(|_| DecodeError::Field("body"))?;
    let again = encode_body(&value);
    if again != body {
        return Err(DecodeError::NotCanonical);
    }
    Ok(value)
}

/// Encodes a CBOR body.
pub(crate) fn encode_body<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    // Writing to memory cannot fail.
    minicbor::to_vec(value).unwrap_or_default()
}
