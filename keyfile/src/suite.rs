//! The public-key suite: HPKE (RFC 9180) with X-Wing to wrap, Ed25519 (RFC 8032) to sign.
//!
//! Suite 1 is HPKE base mode, X-Wing KEM (0x647a), HKDF-SHA-256, AES-256-GCM. Base mode does not authenticate the
//! sender; the Ed25519 signature over the document that carries a wrap does (SPEC keyfile, section 4).

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, kem::XWing};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    derive,
    digest::sha256,
    error::DecodeError,
    id::Fingerprint,
    secret::{KEY_BYTES, Seed},
};

type Aead = hpke::aead::AesGcm256;
type Kdf = hpke::kdf::HkdfSha256;

/// Number of the suite, in every document that carries a wrap.
pub const SUITE_1: u16 = 1;
/// Bytes of an X-Wing public key.
pub const WRAPPING_PUBLIC_BYTES: usize = 1216;
/// Bytes of an X-Wing encapsulation.
pub const ENCAPSULATION_BYTES: usize = 1120;
/// Bytes of an AEAD tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The public wrapping key of a recipient.
#[derive(Clone, PartialEq, Eq)]
pub struct RecipientPublic {
    bytes: Vec<u8>,
    id: [u8; 32],
}

impl RecipientPublic {
    /// Takes the 1216 bytes of an X-Wing public key.
    ///
    /// # Errors
    /// [`DecodeError::Field`] when they are not such a key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        <XWing as Kem>::PublicKey::from_bytes(bytes).map_err(|_| DecodeError::Field("wrapping key"))?;
        Ok(Self { bytes: bytes.to_vec(), id: sha256(&[derive::RECIPIENT_LABEL, bytes]) })
    }

    /// The 1216 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Name of the recipient in documents: SHA-256 of a label and the key.
    #[must_use]
    pub const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Short digest for people: of the id, so that a keyring, which holds only ids, names recipients alike.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.id)
    }

    /// Seals `secret` to this recipient, bound to `info`: encapsulation, ciphertext, tag.
    ///
    /// # Errors
    /// [`DecodeError::Field`] when the key cannot be used.
    pub fn wrap(&self, info: &[u8], secret: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let refused = |_| DecodeError::Field("wrapping key");
        let public = <XWing as Kem>::PublicKey::from_bytes(&self.bytes).map_err(refused)?;
        let (enc, mut context) =
            hpke::setup_sender::<Aead, Kdf, XWing>(&OpModeS::Base, &public, info).map_err(refused)?;
        let sealed = context.seal(secret, &[]).map_err(refused)?;
        let mut out = enc.to_bytes().to_vec();
        out.extend_from_slice(&sealed);
        Ok(out)
    }
}

impl fmt::Debug for RecipientPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientPublic({})", self.fingerprint())
    }
}

/// The private half of a wrapping key, derived from a seed when it is needed.
pub struct WrappingKey {
    private: <XWing as Kem>::PrivateKey,
    public: RecipientPublic,
}

impl WrappingKey {
    /// Derives the key of this seed and label.
    #[must_use]
    pub fn derive(seed: &Seed, label: &[u8]) -> Self {
        let mut ikm = Zeroizing::new([0; KEY_BYTES]);
        derive::expand(&[], seed.expose(), label, &mut ikm);
        // 32 bytes are the X-Wing seed itself (draft-connolly-cfrg-xwing-kem, section 5.2), so this cannot fail;
        // the second path derives from the same bytes.
        let private = <XWing as Kem>::PrivateKey::from_bytes(ikm.as_slice())
            .unwrap_or_else(|_| <XWing as Kem>::derive_keypair(ikm.as_slice()).0);
        let bytes = XWing::sk_to_pk(&private).to_bytes().to_vec();
        let id = sha256(&[derive::RECIPIENT_LABEL, &bytes]);
        Self { private, public: RecipientPublic { bytes, id } }
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &RecipientPublic {
        &self.public
    }

    /// Opens what was wrapped to this key; `None` when it does not authenticate under `info`.
    #[must_use]
    pub fn unwrap(&self, info: &[u8], wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (enc, sealed) = wrapped.split_at_checked(ENCAPSULATION_BYTES)?;
        let enc = <XWing as Kem>::EncappedKey::from_bytes(enc).ok()?;
        let mut context =
            hpke::setup_receiver::<Aead, Kdf, XWing>(&OpModeR::Base, &self.private, &enc, info).ok()?;
        context.open(sealed, &[]).ok().map(Zeroizing::new)
    }
}

impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappingKey({}, [REDACTED])", self.public.fingerprint())
    }
}

/// An Ed25519 signing key, derived from a seed when it is needed.
pub struct Signature25519(SigningKey);

impl Signature25519 {
    /// Derives the key of this seed and label.
    #[must_use]
    pub fn derive(seed: &Seed, label: &[u8]) -> Self {
        let mut secret = [0; KEY_BYTES];
        derive::expand(&[], seed.expose(), label, &mut secret);
        let key = SigningKey::from_bytes(&secret);
        secret.zeroize();
        Self(key)
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a message under a label, so that a signature for one purpose is none for another.
    #[must_use]
    pub fn sign(&self, label: &[u8], message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(&labelled(label, message)).to_bytes()
    }

    /// As [`Self::sign`], over exactly these bytes; for protocols that have a label of their own, like RFC 9421.
    #[must_use]
    pub fn sign_bare(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for Signature25519 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature25519({}, [REDACTED])", Fingerprint::of(&self.public()))
    }
}

fn labelled(label: &[u8], message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + label.len() + message.len());
    crate::aad::part(&mut out, label);
    out.extend_from_slice(message);
    out
}

/// Whether the signature is one of this key over this message under this label.
///
/// Strict: small-order keys and non-canonical signatures are refused.
#[must_use]
pub fn verify(public: &[u8; 32], label: &[u8], message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    verify_bare(public, &labelled(label, message), signature)
}

/// As [`verify`], over exactly these bytes; for protocols that have a label of their own, like RFC 9421.
#[must_use]
pub fn verify_bare(public: &[u8; 32], message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public) else { return false };
    key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
}

/// The X25519 form of an Ed25519 public key: the same point on the curve's other model (RFC 7748, section 4.1).
#[must_use]
pub fn exchange_public(public: &[u8; 32]) -> Option<[u8; 32]> {
    let key = VerifyingKey::from_bytes(public).ok().filter(|key| !key.is_weak())?;
    Some(key.to_montgomery().to_bytes())
}

/// Whether the bytes are an Ed25519 public key that [`verify`] can accept: on the curve, and not of small order.
#[must_use]
pub fn is_signing_public(public: &[u8; 32]) -> bool {
    VerifyingKey::from_bytes(public).is_ok_and(|key| !key.is_weak())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrap_opens_with_its_own_key_and_info_only() {
        let seed = Seed::generate();
        let key = WrappingKey::derive(&seed, derive::NODE_WRAP);
        let wrapped = key.public().wrap(b"info", b"secret").unwrap();
        assert_eq!(key.unwrap(b"info", &wrapped).unwrap().as_slice(), b"secret");
        assert!(key.unwrap(b"other", &wrapped).is_none());
        let other = WrappingKey::derive(&seed, derive::RECOVERY_WRAP);
        assert!(other.unwrap(b"info", &wrapped).is_none());
        for at in [0, 500, ENCAPSULATION_BYTES, wrapped.len() - 1] {
            let mut bad = wrapped.clone();
            bad[at] ^= 1;
            assert!(key.unwrap(b"info", &bad).is_none(), "flip at {at}");
        }
        assert!(key.unwrap(b"info", &wrapped[..ENCAPSULATION_BYTES - 1]).is_none());
    }

    #[test]
    fn a_signature_is_bound_to_its_label() {
        let key = Signature25519::derive(&Seed::generate(), derive::NODE_SIGN);
        let signature = key.sign(b"a", b"message");
        assert!(verify(&key.public(), b"a", b"message", &signature));
        assert!(!verify(&key.public(), b"b", b"message", &signature));
        assert!(!verify(&key.public(), b"a", b"massage", &signature));
        assert!(!verify(&[0; 32], b"a", b"message", &signature));
    }

    #[test]
    fn the_exchange_form_of_a_key_is_that_of_other_software() {
        // The key of RFC 8032, section 7.1, test 1; u = (1 + y) / (1 - y) computed in Python.
        let decode = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let public = decode("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let expected = decode("d85e07ec22b0ad881537c2f44d662d1a143cf830c57aca4305d85c7a90f6b62e");
        let public: [u8; 32] = public.try_into().unwrap();
        assert_eq!(exchange_public(&public).unwrap().as_slice(), expected);
        assert_eq!(exchange_public(&[0; 32]), None);
    }

    #[test]
    fn private_keys_print_redacted() {
        let seed = Seed::generate();
        assert!(format!("{:?}", WrappingKey::derive(&seed, b"x")).contains("REDACTED"));
        assert!(format!("{:?}", Signature25519::derive(&seed, b"x")).contains("REDACTED"));
    }
}
