//! SHA-256, and the state digest: a keyed set hash over all live records (SPEC keyfile, section 9).

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{id::ParseIdError, secret::StateKey};

/// SHA-256 over the parts, one after the other.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// HMAC-SHA-256 (RFC 2104) under a 32-byte key: HMAC pads a short key with zeros to its block.
pub(crate) fn keyed_hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    Hmac::new((&*block).into())
}

/// A running SHA-256, for what does not fit in memory.
#[derive(Clone, Default)]
pub struct RunningHash(Sha256);

impl RunningHash {
    /// Starts with nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes so far.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl fmt::Debug for RunningHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunningHash")
    }
}

/// Hashes canonical records under a state key.
pub struct StateHasher(Hmac<Sha256>);

impl StateHasher {
    /// Keeps the keyed state, so that a record costs its own bytes only.
    #[must_use]
    pub fn new(key: &StateKey) -> Self {
        Self(keyed_hmac(key.expose()))
    }

    /// HMAC-SHA-256(state key, record).
    #[must_use]
    pub fn hash(&self, record: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(record);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for StateHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateHasher([REDACTED])")
    }
}

/// The sum modulo 2^256 of the hashes of all live records, as 32 big-endian bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateDigest([u8; 32]);

impl StateDigest {
    /// The digest of no records.
    pub const EMPTY: Self = Self([0; 32]);

    /// Takes the bytes as they are stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Puts a record in.
    pub fn add(&mut self, hash: &[u8; 32]) {
        let mut carry = 0_u16;
        for (mine, theirs) in self.0.iter_mut().zip(hash).rev() {
            let [high, low] = (u16::from(*mine) + u16::from(*theirs) + carry).to_be_bytes();
            *mine = low;
            carry = u16::from(high);
        }
    }

    /// Takes a record out.
    pub fn subtract(&mut self, hash: &[u8; 32]) {
        let mut borrow = false;
        for (mine, theirs) in self.0.iter_mut().zip(hash).rev() {
            let (once, first) = mine.overflowing_sub(*theirs);
            let (twice, second) = once.overflowing_sub(u8::from(borrow));
            *mine = twice;
            borrow = first || second;
        }
    }
}

impl Default for StateDigest {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Display for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateDigest({self})")
    }
}

impl FromStr for StateDigest {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| ParseIdError("state digest"))?;
        <[u8; 32]>::try_from(bytes.as_slice()).map(Self).map_err(|_| ParseIdError("state digest"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sum_wraps_at_two_to_the_256() {
        let mut digest = StateDigest([0xff; 32]);
        let mut one = [0; 32];
        one[31] = 1;
        digest.add(&one);
        assert_eq!(digest, StateDigest::EMPTY);
        digest.subtract(&one);
        assert_eq!(digest, StateDigest([0xff; 32]));
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_taking_out_undoes(hashes in proptest::collection::vec(any::<[u8; 32]>(), 0..20)) {
            let mut forward = StateDigest::EMPTY;
            let mut backward = StateDigest::EMPTY;
            hashes.iter().for_each(|h| forward.add(h));
            hashes.iter().rev().for_each(|h| backward.add(h));
            prop_assert_eq!(forward, backward);
            hashes.iter().for_each(|h| forward.subtract(h));
            prop_assert_eq!(forward, StateDigest::EMPTY);
        }
    }
}
