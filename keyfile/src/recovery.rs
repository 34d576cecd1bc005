//! The public half of a further recovery key, on its way to the operator (SPEC keyfile, section 5.4).
//!
//! A wrapping key cannot sign, so the document carries a checksum against accidents only. Against an attacker
//! who swaps it on the way the two people compare the fingerprint.

use minicbor::{Decode, Encode, bytes::ByteVec};

use crate::{
    armour,
    error::{DecodeError, DocumentError},
    nodeset::{container_error, fixed},
    signed::{self, Kind},
    suite::{RecipientPublic, SUITE_1},
};

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    suite: u16,
    #[n(1)]
    wrapping_public: ByteVec,
    #[n(2)]
    checksum: ByteVec,
}

/// Encodes the public half of a recovery key.
#[must_use]
pub fn encode(public: &RecipientPublic) -> Vec<u8> {
    let body = signed::encode_body(&Body {
        suite: SUITE_1,
        wrapping_public: public.as_bytes().to_vec().into(),
        checksum: public.id().to_vec().into(),
    });
    signed::encode(Kind::Recovery, &body, &[])
}

/// Encodes it in its armour.
#[must_use]
pub fn to_text(public: &RecipientPublic) -> String {
    armour::encode(armour::RECOVERY_LABEL, &encode(public))
}

/// Decodes the public half of a recovery key.
///
/// # Errors
/// [`DocumentError::Decode`]: damaged, or its checksum does not fit.
pub fn decode(bytes: &[u8]) -> Result<RecipientPublic, DocumentError> {
    let document = Kind::Recovery.name();
    let opened = signed::decode(Kind::Recovery, bytes).map_err(|error| container_error(document, error))?;
    let decode = |source| DocumentError::Decode { document, source };
    if !opened.signers.is_empty() {
        return Err(decode(DecodeError::Field("signature count")));
    }
    let body: Body = signed::decode_body(opened.body).map_err(decode)?;
    public_of(&body).map_err(decode)
}

/// Reads it in its armour.
///
/// # Errors
/// [`DocumentError`], as [`decode`].
pub fn parse(text: &str) -> Result<RecipientPublic, DocumentError> {
    let failed = |source| DocumentError::Decode { document: Kind::Recovery.name(), source };
    decode(&armour::decode(armour::RECOVERY_LABEL, text).map_err(failed)?)
}

fn public_of(body: &Body) -> Result<RecipientPublic, DecodeError> {
    if body.suite != SUITE_1 {
        return Err(DecodeError::Version { found: body.suite });
    }
    let public = RecipientPublic::from_bytes(&body.wrapping_public)?;
    if fixed::<32>(&body.checksum, "checksum")? != *public.id() {
        return Err(DecodeError::Field("checksum"));
    }
    Ok(public)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator_key::ExtraRecoveryKey;

    #[test]
    fn a_recipient_reads_back_and_every_flip_and_cut_is_refused() {
        let key = ExtraRecoveryKey::generate();
        assert_eq!(parse(&to_text(key.public())).unwrap(), *key.public());
        let bytes = encode(key.public());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_err(), "flip at {at}");
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
