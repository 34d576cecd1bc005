//! A node's signed word about its own replica at one barrier (SPEC keyfile, section 5.6).
//!
//! A rotation is proven by the censuses of all nodes: each names what stands under which epoch in its own view, and
//! what a scan of its own disk finds. The word is about what the node looked at; what it can be built on is for
//! whoever compares them all.

use minicbor::{Decode, Encode, bytes::ByteVec};

use crate::{
    error::{DecodeError, DocumentError},
    id::{ClusterId, DocumentHash, Epoch, Fingerprint, Lineage, NodeName, UnixTime},
    keyring::{Keyring, MAX_EPOCHS},
    node_key::{NodeKey, NodeKeyFile},
    nodeset::{Nodeset, container_error, fixed},
    signed::{self, Kind},
    suite::Signature25519,
};

/// Most bytes of a stream's name.
pub const MAX_STREAM_BYTES: usize = 255;
const DOCUMENT: &str = Kind::Census.name();

#[derive(Encode, Decode)]
#[cbor(map)]
struct CountBody {
    #[n(0)]
    epoch: u32,
    #[n(1)]
    count: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct DiskBody {
    #[n(0)]
    files: u64,
    #[n(1)]
    bytes: u64,
    #[n(2)]
    envelopes: Vec<CountBody>,
}

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
    stream: String,
    #[n(6)]
    barrier: u64,
    #[n(7)]
    barrier_id: ByteVec,
    #[n(8)]
    digest: ByteVec,
    #[n(9)]
    records: u64,
    #[n(10)]
    entries: Vec<CountBody>,
    #[n(11)]
    unsealed: u64,
    #[n(12)]
    undecryptable: u64,
    #[n(13)]
    disk: Option<DiskBody>,
    #[n(14)]
    created: u64,
}

/// What a scan of every file of a node's own data folder found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskScan {
    /// Files that were read, each to its end.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Envelopes for each epoch, ascending; an epoch without any is left out.
    pub envelopes: Vec<(Epoch, u64)>,
}

/// What a node found in its own replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CensusFacts {
    /// Cluster.
    pub cluster: ClusterId,
    /// History.
    pub lineage: Lineage,
    /// Version of the keyring that was in force.
    pub keyring_version: u64,
    /// Its hash.
    pub keyring_hash: DocumentHash,
    /// Name of the stream, or `sqlcipher`.
    pub stream: String,
    /// Sequence of the barrier's entry in that stream, or of the store.
    pub barrier: u64,
    /// Identity of the barrier, drawn by whoever set it: so that no earlier word passes for one about it.
    pub barrier_id: [u8; 16],
    /// State digest at the barrier.
    pub digest: [u8; 32],
    /// Live records at the barrier.
    pub records: u64,
    /// Names in the node's view at the barrier for each epoch, ascending; an epoch without any is left out.
    pub entries: Vec<(Epoch, u64)>,
    /// Values that were not sealed.
    pub unsealed: u64,
    /// Values that did not open.
    pub undecryptable: u64,
    /// What stands on its disk; `None` when it did not look.
    pub disk: Option<DiskScan>,
    /// When it was signed, by the node's clock.
    pub created: UnixTime,
}

/// A census whose signature by the node that it names was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    bytes: Vec<u8>,
    node: NodeName,
    facts: CensusFacts,
}

impl Census {
    /// Signs what this node found. Every key of the file signs, so that whoever knows only an earlier one can follow.
    /// Counts are put in order, and those of 0 are left out.
    ///
    /// # Errors
    /// [`DocumentError::Cluster`] when the key file is of another cluster; [`DocumentError::Invalid`] when an epoch
    /// is counted twice, or a field breaks its rule.
    pub fn sign(own: &NodeKeyFile, facts: CensusFacts) -> Result<Self, DocumentError> {
        if *own.cluster() != facts.cluster {
            let (expected, found) = (*own.cluster(), facts.cluster);
            return Err(DocumentError::Cluster { document: DOCUMENT, expected, found });
        }
        let mut facts = facts;
        in_order(&mut facts.entries);
        if let Some(disk) = &mut facts.disk {
            in_order(&mut disk.envelopes);
        }
        let body = body_of(own.name(), &facts);
        let keys: Vec<Signature25519> = own.slots().iter().map(NodeKey::signing).collect();
        let encoded = signed::encode_body(&body);
        let bytes = signed::encode(Kind::Census, &encoded, &keys.iter().collect::<Vec<_>>());
        let invalid = |source| DocumentError::Invalid(format!("cannot sign this census: {source}"));
        let (node, again) = fields_of(&body).map_err(invalid)?;
        if encoded.len() > signed::MAX_BODY_BYTES || again != facts {
            return Err(DocumentError::Invalid("cannot sign this census: it does not read back".into()));
        }
        Ok(Self { bytes, node, facts })
    }

    /// Decodes a census and verifies that the very node of the nodeset that it names signed it.
    ///
    /// # Errors
    /// [`DocumentError`]: damaged, of another cluster, or not signed by the key that the nodeset lists for the node
    /// that it names.
    pub fn decode(bytes: &[u8], nodeset: &Nodeset) -> Result<Self, DocumentError> {
        let opened = signed::decode(Kind::Census, bytes).map_err(|error| container_error(DOCUMENT, error))?;
        let decode = |source| DocumentError::Decode { document: DOCUMENT, source };
        let body: Body = signed::decode_body(opened.body).map_err(decode)?;
        let (node, facts) = fields_of(&body).map_err(decode)?;
        if facts.cluster != *nodeset.cluster() {
            let (expected, found) = (*nodeset.cluster(), facts.cluster);
            return Err(DocumentError::Cluster { document: DOCUMENT, expected, found });
        }
        let Some(first) = opened.signers.first() else {
            return Err(DocumentError::Signature { document: DOCUMENT });
        };
        let is_the_node = |signer| nodeset.node_of(signer).is_some_and(|member| member.name == node);
        if !opened.signers.iter().any(is_the_node) {
            return Err(DocumentError::Signer { document: DOCUMENT, found: Fingerprint::of(first) });
        }
        Ok(Self { bytes: bytes.to_vec(), node, facts })
    }

    /// Whether it was made under exactly this keyring: lineage, version and hash.
    #[must_use]
    pub fn is_of(&self, keyring: &Keyring) -> bool {
        self.facts.cluster == *keyring.cluster()
            && self.facts.lineage == *keyring.lineage()
            && self.facts.keyring_version == keyring.version()
            && self.facts.keyring_hash == keyring.hash()
    }

    /// The bytes of the document.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The node whose word it is.
    #[must_use]
    pub const fn node(&self) -> &NodeName {
        &self.node
    }

    /// Everything that it says.
    #[must_use]
    pub const fn facts(&self) -> &CensusFacts {
        &self.facts
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterId {
        &self.facts.cluster
    }

    /// The history.
    #[must_use]
    pub const fn lineage(&self) -> &Lineage {
        &self.facts.lineage
    }

    /// Version of the keyring that was in force.
    #[must_use]
    pub const fn keyring_version(&self) -> u64 {
        self.facts.keyring_version
    }

    /// Hash of that keyring.
    #[must_use]
    pub const fn keyring_hash(&self) -> DocumentHash {
        self.facts.keyring_hash
    }

    /// The stream that was counted.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.facts.stream
    }

    /// Sequence of the barrier.
    #[must_use]
    pub const fn barrier(&self) -> u64 {
        self.facts.barrier
    }

    /// Identity of the barrier.
    #[must_use]
    pub const fn barrier_id(&self) -> &[u8; 16] {
        &self.facts.barrier_id
    }

    /// State digest at the barrier.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.facts.digest
    }

    /// Live records at the barrier.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.facts.records
    }

    /// Names for each epoch, ascending.
    #[must_use]
    pub fn entries(&self) -> &[(Epoch, u64)] {
        &self.facts.entries
    }

    /// Values that were not sealed.
    #[must_use]
    pub const fn unsealed(&self) -> u64 {
        self.facts.unsealed
    }

    /// Values that did not open.
    #[must_use]
    pub const fn undecryptable(&self) -> u64 {
        self.facts.undecryptable
    }

    /// What stands on its disk; `None` when it did not look.
    #[must_use]
    pub const fn disk(&self) -> Option<&DiskScan> {
        self.facts.disk.as_ref()
    }

    /// When it was signed, by the node's clock.
    #[must_use]
    pub const fn created(&self) -> UnixTime {
        self.facts.created
    }
}

fn in_order(counts: &mut Vec<(Epoch, u64)>) {
    counts.retain(|(_, count)| *count > 0);
    counts.sort_unstable();
}

fn body_of(node: &NodeName, facts: &CensusFacts) -> Body {
    let counts = |all: &[(Epoch, u64)]| -> Vec<CountBody> {
        all.iter().map(|(epoch, count)| CountBody { epoch: epoch.get(), count: *count }).collect()
    };
    Body {
        cluster: facts.cluster.as_bytes().to_vec().into(),
        lineage: facts.lineage.as_bytes().to_vec().into(),
        keyring_version: facts.keyring_version,
        keyring_hash: facts.keyring_hash.as_bytes().to_vec().into(),
        node: node.to_string(),
        stream: facts.stream.clone(),
        barrier: facts.barrier,
        barrier_id: facts.barrier_id.to_vec().into(),
        digest: facts.digest.to_vec().into(),
        records: facts.records,
        entries: counts(&facts.entries),
        unsealed: facts.unsealed,
        undecryptable: facts.undecryptable,
        disk: facts.disk.as_ref().map(|disk| DiskBody {
            files: disk.files,
            bytes: disk.bytes,
            envelopes: counts(&disk.envelopes),
        }),
        created: facts.created.seconds(),
    }
}

/// Ascending, no epoch twice, no count of 0.
fn counts_of(body: &[CountBody], field: &'static str) -> Result<Vec<(Epoch, u64)>, DecodeError> {
    if body.len() > MAX_EPOCHS {
        return Err(DecodeError::Field(field));
    }
    let mut counts: Vec<(Epoch, u64)> = Vec::with_capacity(body.len());
    for entry in body {
        let epoch = Epoch::from_stored(entry.epoch).ok_or(DecodeError::Field("epoch"))?;
        if counts.last().is_some_and(|(last, _)| *last >= epoch) {
            return Err(DecodeError::Field("epoch order"));
        }
        if entry.count == 0 {
            return Err(DecodeError::Field("count"));
        }
        counts.push((epoch, entry.count));
    }
    Ok(counts)
}

fn fields_of(body: &Body) -> Result<(NodeName, CensusFacts), DecodeError> {
    if body.keyring_version == 0 {
        return Err(DecodeError::Field("keyring version"));
    }
    let stream = &body.stream;
    if stream.is_empty() || stream.len() > MAX_STREAM_BYTES || !stream.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(DecodeError::Field("stream"));
    }
    let disk = match &body.disk {
        None => None,
        Some(disk) => Some(DiskScan {
            files: disk.files,
            bytes: disk.bytes,
            envelopes: counts_of(&disk.envelopes, "envelopes")?,
        }),
    };
    let node = body.node.parse().map_err(|_| DecodeError::Field("node name"))?;
    let facts = CensusFacts {
        cluster: ClusterId::from_bytes(fixed(&body.cluster, "cluster")?),
        lineage: Lineage::from_bytes(fixed(&body.lineage, "lineage")?),
        keyring_version: body.keyring_version,
        keyring_hash: DocumentHash::from_bytes(fixed(&body.keyring_hash, "keyring hash")?),
        stream: stream.clone(),
        barrier: body.barrier,
        barrier_id: fixed(&body.barrier_id, "barrier id")?,
        digest: fixed(&body.digest, "digest")?,
        records: body.records,
        entries: counts_of(&body.entries, "entries")?,
        unsealed: body.unsealed,
        undecryptable: body.undecryptable,
        disk,
        created: UnixTime::from_seconds(body.created),
    };
    Ok((node, facts))
}
