//! Public names: clusters, lineages, epochs, sequences, fingerprints, nodes, times.

use std::{fmt, num::NonZeroU32, str::FromStr};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{derive, digest::sha256, key_text};

/// Identity of a cluster: SHA-256 of a label and the operator's public key (SPEC keyfile, section 2).
///
/// Its text form, the *cluster pin*, is bech32m with the prefix `ubc`, so a typo is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId([u8; 32]);

impl ClusterId {
    /// Names the cluster of this operator's Ed25519 public key.
    #[must_use]
    pub fn of_operator(public: &[u8; 32]) -> Self {
        Self(sha256(&[derive::CLUSTER_LABEL, public]))
    }

    /// Takes the bytes as they stand in a document.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Short digest for logs and the posture.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&key_text::encode_lower(key_text::PIN_PREFIX, &self.0))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

impl FromStr for ClusterId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = key_text::decode(key_text::PIN_PREFIX, text.trim()).ok_or(ParseIdError("cluster pin"))?;
        <[u8; 32]>::try_from(bytes.as_slice()).map(Self).map_err(|_| ParseIdError("cluster pin"))
    }
}

/// Text that is not the name it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct ParseIdError(pub &'static str);

/// Identity of one unbroken history of a store. A restore starts a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lineage([u8; 16]);

impl Lineage {
    /// Draws a new one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Takes the bytes as they stand in a document.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lineage({self})")
    }
}

impl FromStr for Lineage {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| ParseIdError("lineage"))?;
        <[u8; 16]>::try_from(bytes.as_slice()).map(Self).map_err(|_| ParseIdError("lineage"))
    }
}

/// Number of a key generation in a keyring, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(NonZeroU32);

impl Epoch {
    /// The first epoch.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// Takes a stored number; 0 is none.
    #[must_use]
    pub fn from_stored(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The epoch after this one; `None` after 2^32 - 1.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of committed writes of a store, or of an entry in the sealed log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 of a signed document's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DocumentHash([u8; 32]);

impl DocumentHash {
    /// Takes the bytes as they stand in a document.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Hashes a document.
    #[must_use]
    pub fn of(document: &[u8]) -> Self {
        Self(sha256(&[document]))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for DocumentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for DocumentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DocumentHash({self})")
    }
}

/// Short public digest of a key (80 bits), for logs, runbooks and comparing by voice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 10]);

impl Fingerprint {
    /// Bytes of a fingerprint (SPEC keyfile, section 2).
    pub const LEN: usize = 10;

    /// Names public key bytes.
    #[must_use]
    pub fn of(public: &[u8]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, ..] = sha256(&[derive::FINGERPRINT_LABEL, public]);
        Self([a, b, c, d, e, f, g, h, i, j])
    }

    /// Takes the bytes as they stand in a document.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 10]) -> Self {
        Self(bytes)
    }

    /// The 10 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 10] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = BASE32_NOPAD.encode(&self.0).to_lowercase();
        f.write_str("fp")?;
        for (i, c) in text.chars().enumerate() {
            if i % 4 == 0 {
                f.write_str(if i == 0 { ":" } else { "-" })?;
            }
            write!(f, "{c}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Name of a node: 1 to 63 of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(String);

impl NodeName {
    /// Longest name, in bytes.
    pub const MAX: usize = 63;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(fits) {
            return Err(ParseIdError("node name (1 to 63 of a-z, 0-9 and -)"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A time in whole seconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixTime(u64);

impl UnixTime {
    /// Takes seconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = i64::try_from(self.0)
            .ok()
            .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
            .and_then(|t| t.format(&Rfc3339).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "@{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_pin_reads_back_and_a_typo_is_refused() {
        let id = ClusterId::of_operator(&[7; 32]);
        let pin = id.to_string();
        assert!(pin.starts_with("ubc1"));
        assert_eq!(pin.parse::<ClusterId>(), Ok(id));
        for at in 4..pin.len() {
            let mut bytes = pin.clone().into_bytes();
            bytes[at] = if bytes[at] == b'q' { b'p' } else { b'q' };
            assert!(String::from_utf8(bytes).unwrap().parse::<ClusterId>().is_err(), "typo at {at}");
            assert!(pin[..at].parse::<ClusterId>().is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_fingerprint_is_four_groups_of_four() {
        let text = Fingerprint::of(b"key").to_string();
        assert_eq!(text.len(), "fp:xxxx-xxxx-xxxx-xxxx".len());
        assert_eq!(text.matches('-').count(), 3);
    }

    #[test]
    fn node_names_are_bounded() {
        for bad in ["", "A", "a b", "a/b", &"a".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        assert!("node-1".parse::<NodeName>().is_ok());
    }

    #[test]
    fn times_print_as_rfc_3339() {
        assert_eq!(UnixTime::from_seconds(0).to_string(), "1970-01-01T00:00:00Z");
    }
}
