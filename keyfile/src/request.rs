//! A node asks to be enrolled (SPEC keyfile, section 5.3): its public keys, signed by themselves.
//!
//! The signature proves possession of the signing key and binds name, cluster and wrapping key to it. A wrapping
//! key cannot sign, so possession of *its* private half is vouched for by the signing key and proven only when the
//! node first unwraps a keyring. Whoever names a wrapping key that is not his gains nothing: what is wrapped to it
//! is closed to him, and a key that the nodeset already lists is refused there.

use minicbor::{Decode, Encode, bytes::ByteVec};

use crate::{
    armour,
    error::{DecodeError, DocumentError},
    id::{ClusterId, Fingerprint, UnixTime},
    node_key::{NodeKey, NodeKeyFile},
    nodeset::{Member, container_error, fixed},
    signed::{self, Kind},
    suite::{self, RecipientPublic, SUITE_1, Signature25519},
};

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    suite: u16,
    #[n(1)]
    cluster: ByteVec,
    #[n(2)]
    name: String,
    #[n(3)]
    signing_public: ByteVec,
    #[n(4)]
    wrapping_public: ByteVec,
    #[n(5)]
    created: u64,
}

/// An enrolment request whose own signature was verified.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
    cluster: ClusterId,
    member: Member,
    vouchers: Vec<[u8; 32]>,
}

impl Request {
    /// Makes the request of this key file's current key. Earlier keys of the file sign too, which shows that a
    /// node that changes its key is still the same node.
    ///
    /// # Errors
    /// [`DocumentError::Invalid`] when the key file has no key.
    pub fn make(own: &NodeKeyFile, now: UnixTime) -> Result<Self, DocumentError> {
        let member = own.member(now);
        let body = signed::encode_body(&Body {
            suite: SUITE_1,
            cluster: own.cluster().as_bytes().to_vec().into(),
            name: member.name.to_string(),
            signing_public: member.signing_public.to_vec().into(),
            wrapping_public: member.wrapping_public.as_bytes().to_vec().into(),
            created: now.seconds(),
        });
        let keys: Vec<Signature25519> = own.slots().iter().map(NodeKey::signing).collect();
        Self::decode(&signed::encode(Kind::Request, &body, &keys.iter().collect::<Vec<_>>()))
    }

    /// Decodes a request and verifies that the key which it names first signed it.
    ///
    /// # Errors
    /// [`DocumentError`]: damaged, or signed by another key than the one it is for.
    pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = Kind::Request.name();
        let opened =
            signed::decode(Kind::Request, bytes).map_err(|error| container_error(document, error))?;
        let decode = |source| DocumentError::Decode { document, source };
        let body: Body = signed::decode_body(opened.body).map_err(decode)?;
        let (cluster, member) = fields_of(&body).map_err(decode)?;
        let Some((first, vouchers)) = opened.signers.split_first() else {
            return Err(DocumentError::Signature { document });
        };
        if *first != member.signing_public {
            return Err(DocumentError::Signer { document, found: Fingerprint::of(first) });
        }
        Ok(Self { bytes: bytes.to_vec(), cluster, member, vouchers: vouchers.to_vec() })
    }

    /// Reads a request in its armour.
    ///
    /// # Errors
    /// [`DocumentError`], as [`Request::decode`].
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let decode = |source| DocumentError::Decode { document: Kind::Request.name(), source };
        Self::decode(&armour::decode(armour::REQUEST_LABEL, text).map_err(decode)?)
    }

    /// The request in its armour.
    #[must_use]
    pub fn to_text(&self) -> String {
        armour::encode(armour::REQUEST_LABEL, &self.bytes)
    }

    /// The bytes of the document.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The cluster that is pinned in the node's key file.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The node as it asks to be listed; `since` is when the request was made.
    #[must_use]
    pub const fn member(&self) -> &Member {
        &self.member
    }

    /// Names the node's key: what is compared by voice. It stands for the whole request, which only the holder
    /// of that key could sign.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.member.fingerprint()
    }

    /// Whether this key signed the request too, besides the one it is for.
    #[must_use]
    pub fn is_vouched_for_by(&self, signing_public: &[u8; 32]) -> bool {
        self.vouchers.contains(signing_public)
    }
}

fn fields_of(body: &Body) -> Result<(ClusterId, Member), DecodeError> {
    if body.suite != SUITE_1 {
        return Err(DecodeError::Version { found: body.suite });
    }
    let signing_public = fixed(&body.signing_public, "signing key")?;
    if !suite::is_signing_public(&signing_public) {
        return Err(DecodeError::Field("signing key"));
    }
    let member = Member {
        name: body.name.parse().map_err(|_| DecodeError::Field("node name"))?,
        signing_public,
        wrapping_public: RecipientPublic::from_bytes(&body.wrapping_public)?,
        since: UnixTime::from_seconds(body.created),
    };
    Ok((ClusterId::from_bytes(fixed(&body.cluster, "cluster")?), member))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

    fn own() -> NodeKeyFile {
        NodeKeyFile::generate("alpha".parse().unwrap(), ClusterId::from_bytes([3; 32]))
    }

    #[test]
    fn a_request_reads_back_and_every_flip_and_cut_is_refused() {
        let own = own();
        let request = Request::make(&own, NOW).unwrap();
        let again = Request::parse(&request.to_text()).unwrap();
        assert_eq!(again.member(), &own.member(NOW));
        assert_eq!(again.cluster(), own.cluster());
        for at in 0..request.as_bytes().len() {
            let mut bad = request.as_bytes().to_vec();
            bad[at] ^= 1;
            assert!(Request::decode(&bad).is_err(), "flip at {at}");
            assert!(Request::decode(&request.as_bytes()[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_request_for_a_key_that_did_not_sign_it_is_refused() {
        let (own, mallory) = (own(), own());
        let body = Request::make(&own, NOW).unwrap();
        let body = &body.as_bytes()[signed::HEADER_BYTES..];
        let length = body.len() - 1 - 32 - suite::SIGNATURE_BYTES;
        let planted = signed::encode(Kind::Request, &body[..length], &[&mallory.slots()[0].signing()]);
        assert!(matches!(Request::decode(&planted), Err(DocumentError::Signer { .. })));
        let unsigned = signed::encode(Kind::Request, &body[..length], &[]);
        assert!(matches!(Request::decode(&unsigned), Err(DocumentError::Signature { .. })));
    }

    #[test]
    fn a_node_that_changes_its_key_vouches_with_the_old_one() {
        let mut own = own();
        let old = *own.slots()[0].signing_public();
        assert!(!Request::make(&own, NOW).unwrap().is_vouched_for_by(&old));
        own.rotate().unwrap();
        assert!(Request::make(&own, NOW).unwrap().is_vouched_for_by(&old));
    }
}
