//! A node's signed word that it has unlocked a version of the keyring (SPEC keyfile, section 5.5).
//!
//! Before it signs, the node seals and opens a value under every epoch: so the word says that its keys and its
//! ciphers work, not only that bytes came out of a wrap.

use minicbor::{Decode, Encode, bytes::ByteVec};
use zeroize::Zeroizing;

use crate::{
    aad::Place,
    digest::StateDigest,
    envelope::{Operation, Plaintext},
    error::{DecodeError, DocumentError},
    id::{ClusterId, DocumentHash, Epoch, Fingerprint, Lineage, NodeName, Sequence, UnixTime},
    keyring::{EpochState, Keyring, MAX_EPOCHS, Secrets},
    node_key::{NodeKey, NodeKeyFile},
    nodeset::{Nodeset, container_error, fixed},
    seal::{Nonce, Sealer},
    signed::{self, Kind},
    suite::Signature25519,
};

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    cluster: ByteVec,
    #[n(1)]
    lineage: ByteVec,
    #[n(2)]
    keyring_version: u64,
    #[n(3)]
    keyring_hash: ByteVec,
    #[n(4)]
    node: String,
    #[n(5)]
    epochs: Vec<u32>,
    #[n(6)]
    created: u64,
}

/// An acknowledgement whose signature by the node that it names was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    bytes: Vec<u8>,
    cluster: ClusterId,
    lineage: Lineage,
    keyring_version: u64,
    keyring_hash: DocumentHash,
    node: NodeName,
    epochs: Vec<Epoch>,
    created: UnixTime,
}

impl Acknowledgement {
    /// Tries the keys and signs that they work. Every key of the file signs, so that whoever knows only an earlier
    /// one can follow.
    ///
    /// # Errors
    /// [`DocumentError::Cluster`] when the key file is of another cluster than the keyring;
    /// [`DocumentError::Invalid`] when these are not the keyring's secrets, or one of them does not open what it
    /// sealed.
    pub fn sign(
        own: &NodeKeyFile,
        keyring: &Keyring,
        secrets: &Secrets,
        now: UnixTime,
    ) -> Result<Self, DocumentError> {
        let cluster = *keyring.cluster();
        if *own.cluster() != cluster {
            let (expected, found) = (*own.cluster(), cluster);
            return Err(DocumentError::Cluster { document: "keyring", expected, found });
        }
        if !keyring.fits(secrets) {
            return Err(DocumentError::Invalid("these are not the secrets of this keyring".into()));
        }
        let live = keyring.epochs().iter().filter(|entry| entry.state != EpochState::Destroyed);
        let mut epochs = Vec::new();
        for number in live.map(|entry| entry.number) {
            try_epoch(number, keyring, secrets)?;
            epochs.push(number);
        }
        let found = Self {
            bytes: Vec::new(),
            cluster,
            lineage: *keyring.lineage(),
            keyring_version: keyring.version(),
            keyring_hash: keyring.hash(),
            node: own.name().clone(),
            epochs,
            created: now,
        };
        let keys: Vec<Signature25519> = own.slots().iter().map(NodeKey::signing).collect();
        let body = signed::encode_body(&found.body());
        let bytes = signed::encode(Kind::Acknowledgement, &body, &keys.iter().collect::<Vec<_>>());
        Ok(Self { bytes, ..found })
    }

    /// Decodes an acknowledgement and verifies that the very node of the nodeset that it names signed it.
    ///
    /// # Errors
    /// [`DocumentError`]: damaged, of another cluster, or not signed by the key that the nodeset lists for the node
    /// that it names.
    pub fn decode(bytes: &[u8], nodeset: &Nodeset) -> Result<Self, DocumentError> {
        let document = Kind::Acknowledgement.name();
        let opened =
            signed::decode(Kind::Acknowledgement, bytes).map_err(|error| container_error(document, error))?;
        let decode = |source| DocumentError::Decode { document, source };
        let body: Body = signed::decode_body(opened.body).map_err(decode)?;
        let found = fields_of(&body, bytes).map_err(decode)?;
        if found.cluster != *nodeset.cluster() {
            let (expected, found) = (*nodeset.cluster(), found.cluster);
            return Err(DocumentError::Cluster { document, expected, found });
        }
        let Some(first) = opened.signers.first() else { return Err(DocumentError::Signature { document }) };
        let is_the_node = |signer| nodeset.node_of(signer).is_some_and(|node| node.name == found.node);
        if !opened.signers.iter().any(is_the_node) {
            return Err(DocumentError::Signer { document, found: Fingerprint::of(first) });
        }
        Ok(found)
    }

    fn body(&self) -> Body {
        Body {
            cluster: self.cluster.as_bytes().to_vec().into(),
            lineage: self.lineage.as_bytes().to_vec().into(),
            keyring_version: self.keyring_version,
            keyring_hash: self.keyring_hash.as_bytes().to_vec().into(),
            node: self.node.to_string(),
            epochs: self.epochs.iter().map(|epoch| epoch.get()).collect(),
            created: self.created.seconds(),
        }
    }

    /// Whether it is about exactly this keyring: lineage, version and hash.
    #[must_use]
    pub fn is_of(&self, keyring: &Keyring) -> bool {
        self.cluster == *keyring.cluster()
            && self.lineage == *keyring.lineage()
            && self.keyring_version == keyring.version()
            && self.keyring_hash == keyring.hash()
    }

    /// The bytes of the document.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The history that the keyring belongs to.
    #[must_use]
    pub const fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Version of the keyring.
    #[must_use]
    pub const fn keyring_version(&self) -> u64 {
        self.keyring_version
    }

    /// Hash of the keyring.
    #[must_use]
    pub const fn keyring_hash(&self) -> DocumentHash {
        self.keyring_hash
    }

    /// The node whose word it is.
    #[must_use]
    pub const fn node(&self) -> &NodeName {
        &self.node
    }

    /// The epochs that it can open, ascending.
    #[must_use]
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// When it was signed, by the node's clock.
    #[must_use]
    pub const fn created(&self) -> UnixTime {
        self.created
    }
}

/// Seals a value under an epoch and opens it again.
fn try_epoch(number: Epoch, keyring: &Keyring, secrets: &Secrets) -> Result<(), DocumentError> {
    let refused =
        || DocumentError::Invalid(format!("the key of epoch {number} does not open what it sealed"));
    let sealer = Sealer::new(number, secrets.epoch(number).ok_or_else(refused)?, keyring.cluster());
    let value = Plaintext {
        kind: 0,
        operation: Operation::Put,
        identity: keyring.version().to_be_bytes().to_vec(),
        digest_after: StateDigest::EMPTY,
        record: Zeroizing::new(b"a value to try the key with".to_vec()),
    };
    // No log has an entry of this stream: what is sealed here opens nowhere else.
    let place = Place {
        cluster: keyring.cluster(),
        lineage: keyring.lineage(),
        stream: Kind::Acknowledgement.name(),
        name: "",
        sequence: Sequence(0),
    };
    let sealed = sealer.seal(&value, &place, Nonce::random()).map_err(|_| refused())?;
    if sealer.open(&sealed, &place).map_err(|_| refused())? == value { Ok(()) } else { Err(refused()) }
}

fn fields_of(body: &Body, bytes: &[u8]) -> Result<Acknowledgement, DecodeError> {
    if body.keyring_version == 0 {
        return Err(DecodeError::Field("keyring version"));
    }
    if body.epochs.is_empty() || body.epochs.len() > MAX_EPOCHS {
        return Err(DecodeError::Field("epochs"));
    }
    let mut epochs: Vec<Epoch> = Vec::with_capacity(body.epochs.len());
    for number in &body.epochs {
        let number = Epoch::from_stored(*number).ok_or(DecodeError::Field("epoch"))?;
        if epochs.last().is_some_and(|last| *last >= number) {
            return Err(DecodeError::Field("epoch order"));
        }
        epochs.push(number);
    }
    Ok(Acknowledgement {
        bytes: bytes.to_vec(),
        cluster: ClusterId::from_bytes(fixed(&body.cluster, "cluster")?),
        lineage: Lineage::from_bytes(fixed(&body.lineage, "lineage")?),
        keyring_version: body.keyring_version,
        keyring_hash: DocumentHash::from_bytes(fixed(&body.keyring_hash, "keyring hash")?),
        node: body.node.parse().map_err(|_| DecodeError::Field("node name"))?,
        epochs,
        created: UnixTime::from_seconds(body.created),
    })
}
