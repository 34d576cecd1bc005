//! Entry names: what a record is called where others can see it (SPEC keyfile, section 8).

use std::fmt;

use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{
    derive,
    digest::keyed_hmac,
    id::ClusterId,
    secret::{EpochKey, StateKey},
};

/// Bytes of the MAC that an entry name keeps.
pub const NAME_BYTES: usize = 20;
/// Characters of an entry name.
pub const NAME_CHARS: usize = 32;

/// Base32 of 160 bits of HMAC-SHA-256(name key, kind, identity), in lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryName([u8; NAME_CHARS]);

impl EntryName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Base32 is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryName({})", self.as_str())
    }
}

/// Blinds names under one key: an epoch's name key, or the state key's for nonces.
pub struct Blinder(Hmac<Sha256>);

impl Blinder {
    /// Keeps the keyed state, so that a name costs its own bytes only.
    #[must_use]
    pub fn new(epoch: &EpochKey, cluster: &ClusterId) -> Self {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        derive::expand(cluster.as_bytes(), epoch.expose(), derive::EPOCH_NAME, &mut key);
        Self(keyed_hmac(&key))
    }

    /// Blinds the names of nonces, under a key that does not change with the epoch: a nonce counts once per cluster
    /// also while an epoch changes, whichever node sees the change first.
    #[must_use]
    pub fn of_state(state: &StateKey, cluster: &ClusterId) -> Self {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        derive::expand(cluster.as_bytes(), state.expose(), derive::STATE_NONCE, &mut key);
        Self(keyed_hmac(&key))
    }

    /// The entry name of a record.
    #[must_use]
    pub fn name(&self, kind: u8, identity: &[u8]) -> EntryName {
        let mut mac = self.0.clone();
        mac.update(&[kind]);
        mac.update(identity);
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut out = [0; NAME_CHARS];
        if let Some((head, _)) = full.split_first_chunk::<NAME_BYTES>() {
            BASE32_NOPAD.encode_mut(head, &mut out);
        }
        out.make_ascii_lowercase();
        EntryName(out)
    }
}

impl fmt::Debug for Blinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Blinder([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_depend_on_key_kind_and_identity_and_show_none() {
        let cluster = ClusterId::from_bytes([1; 32]);
        let one = Blinder::new(&EpochKey::init_with(|b| b.fill(1)), &cluster);
        let two = Blinder::new(&EpochKey::init_with(|b| b.fill(2)), &cluster);
        let name = one.name(1, b"alice");
        assert_eq!(name.as_str().len(), NAME_CHARS);
        assert_eq!(name, one.name(1, b"alice"));
        for other in [one.name(2, b"alice"), one.name(1, b"alicf"), two.name(1, b"alice")] {
            assert_ne!(name, other);
        }
        let state = StateKey::init_with(|b| b.fill(1));
        assert_ne!(name, Blinder::of_state(&state, &cluster).name(1, b"alice"), "a key of another kind");
        assert!(name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    }
}
