//! Seals and opens entries of the sealed log under one epoch (SPEC keyfile, section 7).

use std::fmt;

use aes::Aes256Enc;
use aes_gcm_siv::{
    AesGcmSiv, KeyInit,
    aead::{AeadInOut, inout::InOutBuf},
};
use zeroize::Zeroizing;

use crate::{
    aad::Place,
    derive,
    envelope::{Envelope, HEADER_BYTES, NONCE_BYTES, Plaintext, PlaintextRef, TAG_BYTES},
    error::{DecodeError, OpenError},
    id::{ClusterId, Epoch},
    secret::EpochKey,
};

/// A nonce for one seal: neither `Clone` nor `Copy`, and [`Sealer::seal`] consumes it.
#[derive(Debug)]
pub struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    /// Draws 96 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Fixes the nonce, for vectors. AES-GCM-SIV (RFC 8452) survives a repeat; equal plaintexts then show.
    #[must_use]
    pub const fn fixed(bytes: [u8; NONCE_BYTES]) -> Self {
        Self(bytes)
    }
}

/// AES-256-GCM-SIV needs only the forward direction of AES; `Aes256Enc` does not compute the other for each message.
type Cipher = AesGcmSiv<Aes256Enc>;

/// Seals and opens under the record key of one epoch.
pub struct Sealer {
    epoch: Epoch,
    cipher: Cipher,
}

impl Sealer {
    /// Derives the record key and keeps its schedule.
    #[must_use]
    pub fn new(epoch: Epoch, key: &EpochKey, cluster: &ClusterId) -> Self {
        let mut record = Zeroizing::new([0; 32]);
        derive::expand(cluster.as_bytes(), key.expose(), derive::EPOCH_RECORD, &mut record);
        Self { epoch, cipher: Cipher::new((&*record).into()) }
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Seals a plaintext for one place; gives the envelope.
    ///
    /// # Errors
    /// [`DecodeError`] when the plaintext is over its limits.
    // Compiled where it is called, as the next but one: the parts of the cipher then end up in one place with their
    // caller and are inlined into each other, which makes entries of 256 bytes a third faster.
    #[inline]
    pub fn seal(
        &self,
        plaintext: &Plaintext,
        place: &Place<'_>,
        nonce: Nonce,
    ) -> Result<Vec<u8>, DecodeError> {
        let padded = plaintext.padded_len()?;
        let length = HEADER_BYTES.saturating_add(padded).saturating_add(TAG_BYTES);
        // Wiped on the way out of an error only: what leaves in the end is sealed.
        let mut out = Zeroizing::new(Vec::with_capacity(length));
        out.extend_from_slice(&Envelope::header(self.epoch, &nonce.0));
        plaintext.append_to(&mut out, padded);
        let (header, body) = out.split_at_mut(HEADER_BYTES);
        let tag = place
            .with_aad(header, |aad| {
                self.cipher.encrypt_inout_detached(&nonce.0.into(), aad, InOutBuf::from(body))
            })
            .map_err(|_| DecodeError::Field("record"))?;
        out.extend_from_slice(&tag);
        Ok(std::mem::take(&mut *out))
    }

    /// Opens an envelope that stands at this place.
    ///
    /// # Errors
    /// [`OpenError`]: not an envelope, of another epoch, not authentic at this place, or badly formed inside.
    pub fn open(&self, bytes: &[u8], place: &Place<'_>) -> Result<Plaintext, OpenError> {
        let mut buffer = Zeroizing::new(Vec::new());
        self.open_into(bytes, place, &mut buffer).map(|plaintext| plaintext.to_plaintext())
    }

    /// As [`Sealer::open`], into a buffer that can be used again: for reading many entries.
    ///
    /// # Errors
    /// [`OpenError`], as [`Sealer::open`]; the buffer then holds nothing that was not authenticated.
    #[inline]
    pub fn open_into<'b>(
        &self,
        bytes: &[u8],
        place: &Place<'_>,
        buffer: &'b mut Zeroizing<Vec<u8>>,
    ) -> Result<PlaintextRef<'b>, OpenError> {
        let envelope = Envelope::decode(bytes).map_err(OpenError::Decode)?;
        if envelope.epoch != self.epoch {
            return Err(OpenError::Epoch { found: envelope.epoch });
        }
        let Some((body, tag)) = envelope.sealed.split_last_chunk::<TAG_BYTES>() else {
            return Err(OpenError::Unauthentic);
        };
        if buffer.capacity() < body.len() {
            // Not grown in place: that would leave a copy of the earlier plaintext behind.
            *buffer = Zeroizing::new(Vec::with_capacity(body.len()));
        }
        buffer.clear();
        buffer.extend_from_slice(body);
        let opened = place.with_aad(envelope.header, |aad| {
            let text = InOutBuf::from(buffer.as_mut_slice());
            self.cipher.decrypt_inout_detached(&envelope.nonce.into(), aad, text, tag.into())
        });
        if opened.is_err() {
            buffer.clear();
            return Err(OpenError::Unauthentic);
        }
        PlaintextRef::decode(buffer).map_err(OpenError::Contents)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer(epoch {}, [REDACTED])", self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::StateDigest,
        envelope::Operation,
        id::{Lineage, Sequence},
    };

    fn plaintext() -> Plaintext {
        Plaintext {
            kind: 1,
            operation: Operation::Put,
            identity: b"id".to_vec(),
            digest_after: StateDigest::EMPTY,
            record: Zeroizing::new(b"record".to_vec()),
        }
    }

    #[test]
    fn a_value_opens_at_its_own_place_only() {
        let (a, b) = (ClusterId::from_bytes([1; 32]), ClusterId::from_bytes([2; 32]));
        let (l, m) = (Lineage::from_bytes([1; 16]), Lineage::from_bytes([2; 16]));
        let sealer = Sealer::new(Epoch::FIRST, &EpochKey::generate(), &a);
        let here = Place { cluster: &a, lineage: &l, stream: "s", name: "n", sequence: Sequence(7) };
        let bytes = sealer.seal(&plaintext(), &here, Nonce::random()).unwrap();
        assert_eq!(sealer.open(&bytes, &here).unwrap(), plaintext());
        for there in [
            Place { cluster: &b, ..here },
            Place { lineage: &m, ..here },
            Place { stream: "t", ..here },
            Place { name: "o", ..here },
            Place { sequence: Sequence(8), ..here },
        ] {
            assert_eq!(sealer.open(&bytes, &there), Err(OpenError::Unauthentic), "{there:?}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let cluster = ClusterId::from_bytes([1; 32]);
        let lineage = Lineage::from_bytes([1; 16]);
        let sealer = Sealer::new(Epoch::FIRST, &EpochKey::generate(), &cluster);
        let place =
            Place { cluster: &cluster, lineage: &lineage, stream: "s", name: "n", sequence: Sequence(1) };
        let bytes = sealer.seal(&plaintext(), &place, Nonce::random()).unwrap();
        for at in 0..bytes.len() {
            assert!(sealer.open(&bytes[..at], &place).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(sealer.open(&bad, &place).is_err(), "flip at {at}.{bit}");
            }
        }
    }

    #[test]
    fn another_epoch_is_named_before_it_is_tried() {
        let cluster = ClusterId::from_bytes([1; 32]);
        let lineage = Lineage::from_bytes([1; 16]);
        let key = EpochKey::generate();
        let two = Epoch::FIRST.next().unwrap();
        let place =
            Place { cluster: &cluster, lineage: &lineage, stream: "s", name: "n", sequence: Sequence(1) };
        let bytes = Sealer::new(two, &key, &cluster).seal(&plaintext(), &place, Nonce::random()).unwrap();
        let one = Sealer::new(Epoch::FIRST, &key, &cluster);
        assert_eq!(one.open(&bytes, &place), Err(OpenError::Epoch { found: two }));
    }
}
