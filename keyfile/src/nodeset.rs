//! The nodeset: the operator-signed list of nodes and recovery recipients (SPEC keyfile, section 5.1).

use minicbor::{Decode, Encode, bytes::ByteVec};

use crate::{
    error::{DecodeError, DocumentError},
    id::{ClusterId, DocumentHash, Fingerprint, Lineage, NodeName, UnixTime},
    operator_key::{OperatorKey, RecoveryKey},
    signed::{self, ContainerError, Kind},
    suite::{self, RecipientPublic},
};

/// Most nodes of a cluster.
pub const MAX_NODES: usize = 64;
/// Most recovery recipients of a cluster.
pub const MAX_RECOVERY: usize = 16;
/// Name of the operator among the recovery recipients.
pub const OPERATOR: &str = "operator";

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name.
    pub name: NodeName,
    /// Ed25519 public key.
    pub signing_public: [u8; 32],
    /// X-Wing public key.
    pub wrapping_public: RecipientPublic,
    /// When it was enrolled with these keys.
    pub since: UnixTime,
}

impl Member {
    /// Names the node's key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.signing_public)
    }
}

/// A recovery recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Name for people; the operator's own is `operator`.
    pub name: NodeName,
    /// X-Wing public key.
    pub wrapping_public: RecipientPublic,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct MemberBody {
    #[n(0)]
    name: String,
    #[n(1)]
    signing_public: ByteVec,
    #[n(2)]
    wrapping_public: ByteVec,
    #[n(3)]
    since: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct RecoveryBody {
    #[n(0)]
    name: String,
    #[n(1)]
    wrapping_public: ByteVec,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    cluster: ByteVec,
    #[n(1)]
    lineage: ByteVec,
    #[n(2)]
    version: u64,
    #[n(3)]
    previous: Option<ByteVec>,
    #[n(4)]
    nodes: Vec<MemberBody>,
    #[n(5)]
    recovery: Vec<RecoveryBody>,
}

/// What the next nodeset shall say, before the operator signs it.
#[derive(Clone, Debug)]
pub struct Plan {
    cluster: ClusterId,
    lineage: Lineage,
    version: u64,
    previous: Option<DocumentHash>,
    nodes: Vec<Member>,
    recovery: Vec<Recovery>,
}

impl Plan {
    /// The first nodeset of a cluster: no node yet, the operator as recovery recipient.
    #[must_use]
    pub fn first(operator: &OperatorKey) -> Self {
        Self {
            cluster: operator.cluster_id(),
            lineage: Lineage::random(),
            version: 1,
            previous: None,
            nodes: Vec::new(),
            recovery: vec![Recovery {
                name: operator_name(),
                wrapping_public: operator.wrapping().public().clone(),
            }],
        }
    }

    /// Adds a node; one of the same name is replaced.
    #[must_use]
    pub fn with_node(mut self, member: Member) -> Self {
        self.nodes.retain(|node| node.name != member.name);
        self.nodes.push(member);
        self.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }

    /// Leaves a node out.
    #[must_use]
    pub fn without_node(mut self, name: &NodeName) -> Self {
        self.nodes.retain(|node| node.name != *name);
        self
    }

    /// Adds a recovery recipient; one of the same name is replaced.
    #[must_use]
    pub fn with_recovery(mut self, recovery: Recovery) -> Self {
        self.recovery.retain(|r| r.name != recovery.name);
        self.recovery.push(recovery);
        self
    }

    /// Signs the nodeset.
    ///
    /// # Errors
    /// [`DocumentError::Cluster`] when this operator roots another cluster; [`DocumentError::Invalid`] when the
    /// plan breaks a limit or two entries share a key.
    pub fn sign(self, operator: &OperatorKey) -> Result<Nodeset, DocumentError> {
        if operator.cluster_id() != self.cluster {
            let (expected, found) = (self.cluster, operator.cluster_id());
            return Err(DocumentError::Cluster { document: Kind::Nodeset.name(), expected, found });
        }
        let body = signed::encode_body(&Body {
            cluster: self.cluster.as_bytes().to_vec().into(),
            lineage: self.lineage.as_bytes().to_vec().into(),
            version: self.version,
            previous: self.previous.map(|hash| hash.as_bytes().to_vec().into()),
            nodes: self
                .nodes
                .iter()
                .map(|node| MemberBody {
                    name: node.name.to_string(),
                    signing_public: node.signing_public.to_vec().into(),
                    wrapping_public: node.wrapping_public.as_bytes().to_vec().into(),
                    since: node.since.seconds(),
                })
                .collect(),
            recovery: self
                .recovery
                .iter()
                .map(|r| RecoveryBody {
                    name: r.name.to_string(),
                    wrapping_public: r.wrapping_public.as_bytes().to_vec().into(),
                })
                .collect(),
        });
        let bytes = signed::encode(Kind::Nodeset, &body, &[operator.signing()]);
        Nodeset::decode(&bytes, &self.cluster).map_err(|error| match error {
            DocumentError::Decode { source, .. } => {
                DocumentError::Invalid(format!("cannot sign this nodeset: {source}"))
            }
            other => other,
        })
    }
}

#[expect(clippy::expect_used, reason = "the constant is a valid name")]
fn operator_name() -> NodeName {
    OPERATOR.parse().expect("`operator` is a valid name")
}

/// A nodeset whose signature by the pinned operator was verified.
#[derive(Clone, Debug)]
pub struct Nodeset {
    bytes: Vec<u8>,
    hash: DocumentHash,
    plan: Plan,
}

impl Nodeset {
    /// Decodes a nodeset and verifies that the operator of this cluster signed it.
    ///
    /// # Errors
    /// [`DocumentError`]: damaged, of another cluster, or not signed by its operator.
    pub fn decode(bytes: &[u8], cluster: &ClusterId) -> Result<Self, DocumentError> {
        let document = Kind::Nodeset.name();
        let opened =
            signed::decode(Kind::Nodeset, bytes).map_err(|error| container_error(document, error))?;
        let decode = |source| DocumentError::Decode { document, source };
        let body: Body = signed::decode_body(opened.body).map_err(decode)?;
        let plan = plan_of(body).map_err(decode)?;
        if plan.cluster != *cluster {
            return Err(DocumentError::Cluster { document, expected: *cluster, found: plan.cluster });
        }
        match opened.signers.as_slice() {
            [signer] if ClusterId::of_operator(signer) == *cluster => {}
            [signer, ..] => return Err(DocumentError::Signer { document, found: Fingerprint::of(signer) }),
            [] => return Err(DocumentError::Signature { document }),
        }
        Ok(Self { bytes: bytes.to_vec(), hash: opened.hash, plan })
    }

    /// Decodes a nodeset as its own cluster's, for readers that have nothing to pin: whoever relies on it must
    /// compare [`Nodeset::cluster`] with a pin that came another way.
    ///
    /// # Errors
    /// [`DocumentError`], as [`Nodeset::decode`].
    pub fn decode_unpinned(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = Kind::Nodeset.name();
        let opened =
            signed::decode(Kind::Nodeset, bytes).map_err(|error| container_error(document, error))?;
        let [signer] = opened.signers.as_slice() else { return Err(DocumentError::Signature { document }) };
        Self::decode(bytes, &ClusterId::of_operator(signer))
    }

    /// The bytes of the document.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the document.
    #[must_use]
    pub const fn hash(&self) -> DocumentHash {
        self.hash
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterId {
        &self.plan.cluster
    }

    /// Identity of this chain of nodesets.
    #[must_use]
    pub const fn lineage(&self) -> &Lineage {
        &self.plan.lineage
    }

    /// Version, from 1.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.plan.version
    }

    /// Hash of the version before.
    #[must_use]
    pub const fn previous(&self) -> Option<DocumentHash> {
        self.plan.previous
    }

    /// The nodes, by name.
    #[must_use]
    pub fn nodes(&self) -> &[Member] {
        &self.plan.nodes
    }

    /// The recovery recipients, the operator first.
    #[must_use]
    pub fn recovery(&self) -> &[Recovery] {
        &self.plan.recovery
    }

    /// The node with this signing key.
    #[must_use]
    pub fn node_of(&self, signing_public: &[u8; 32]) -> Option<&Member> {
        self.plan.nodes.iter().find(|node| node.signing_public == *signing_public)
    }

    /// Everybody to whom secrets are wrapped: nodes, then recovery recipients.
    pub fn recipients(&self) -> impl Iterator<Item = &RecipientPublic> {
        let nodes = self.plan.nodes.iter().map(|node| &node.wrapping_public);
        nodes.chain(self.plan.recovery.iter().map(|r| &r.wrapping_public))
    }

    /// The next version, to be changed and signed.
    #[must_use]
    pub fn next(&self) -> Plan {
        let mut plan = self.plan.clone();
        plan.version = plan.version.saturating_add(1);
        plan.previous = Some(self.hash);
        plan
    }
}

pub(crate) fn container_error(document: &'static str, error: ContainerError) -> DocumentError {
    match error {
        ContainerError::Decode(source) => DocumentError::Decode { document, source },
        ContainerError::Signature => DocumentError::Signature { document },
    }
}

pub(crate) fn fixed<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], DecodeError> {
    <[u8; N]>::try_from(bytes).map_err(|_| DecodeError::Field(field))
}

fn plan_of(body: Body) -> Result<Plan, DecodeError> {
    if body.version == 0 {
        return Err(DecodeError::Field("version"));
    }
    if body.previous.is_some() != (body.version > 1) {
        return Err(DecodeError::Field("previous"));
    }
    if body.nodes.len() > MAX_NODES {
        return Err(DecodeError::Field("nodes"));
    }
    if body.recovery.is_empty() || body.recovery.len() > MAX_RECOVERY {
        return Err(DecodeError::Field("recovery"));
    }
    let mut nodes: Vec<Member> = Vec::with_capacity(body.nodes.len());
    for node in &body.nodes {
        let name: NodeName = node.name.parse().map_err(|_| DecodeError::Field("node name"))?;
        let signing_public = fixed(&node.signing_public, "signing key")?;
        if !suite::is_signing_public(&signing_public) {
            return Err(DecodeError::Field("signing key"));
        }
        let wrapping_public = RecipientPublic::from_bytes(&node.wrapping_public)?;
        if nodes.last().is_some_and(|last| last.name >= name) {
            return Err(DecodeError::Field("node order"));
        }
        if nodes.iter().any(|n| n.signing_public == signing_public) {
            return Err(DecodeError::Field("signing key"));
        }
        nodes.push(Member {
            name,
            signing_public,
            wrapping_public,
            since: UnixTime::from_seconds(node.since),
        });
    }
    let mut recovery: Vec<Recovery> = Vec::with_capacity(body.recovery.len());
    for r in &body.recovery {
        let name: NodeName = r.name.parse().map_err(|_| DecodeError::Field("recovery name"))?;
        if recovery.iter().any(|other| other.name == name) {
            return Err(DecodeError::Field("recovery name"));
        }
        recovery.push(Recovery { name, wrapping_public: RecipientPublic::from_bytes(&r.wrapping_public)? });
    }
    let mut ids: Vec<&[u8; 32]> = nodes.iter().map(|n| n.wrapping_public.id()).collect();
    ids.extend(recovery.iter().map(|r| r.wrapping_public.id()));
    let wanted = ids.len();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != wanted {
        return Err(DecodeError::Field("wrapping key"));
    }
    Ok(Plan {
        cluster: ClusterId::from_bytes(fixed(&body.cluster, "cluster")?),
        lineage: Lineage::from_bytes(fixed(&body.lineage, "lineage")?),
        version: body.version,
        previous: body.previous.map(|p| fixed(&p, "previous").map(DocumentHash::from_bytes)).transpose()?,
        nodes,
        recovery,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_key::NodeKeyFile;

    fn member(name: &str, operator: &OperatorKey) -> Member {
        NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id()).member(UnixTime::from_seconds(1))
    }

    #[test]
    fn a_nodeset_reads_back_and_chains() {
        let operator = OperatorKey::generate();
        let first = Plan::first(&operator).with_node(member("b", &operator)).sign(&operator).unwrap();
        let second = first.next().with_node(member("a", &operator)).sign(&operator).unwrap();
        assert_eq!(second.version(), 2);
        assert_eq!(second.previous(), Some(first.hash()));
        let again = Nodeset::decode(second.as_bytes(), &operator.cluster_id()).unwrap();
        assert_eq!(again.nodes().iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(again.recipients().count(), 3);
    }

    #[test]
    fn another_operators_signature_is_refused() {
        let (ours, theirs) = (OperatorKey::generate(), OperatorKey::generate());
        let planted = Plan::first(&theirs).with_node(member("a", &theirs)).sign(&theirs).unwrap();
        let refused = Nodeset::decode(planted.as_bytes(), &ours.cluster_id());
        assert!(matches!(refused, Err(DocumentError::Cluster { .. })));
        let mut plan = Plan::first(&ours);
        plan.cluster = theirs.cluster_id();
        assert!(plan.sign(&ours).is_err());
    }

    #[test]
    fn every_flip_and_every_cut_is_refused() {
        let operator = OperatorKey::generate();
        let nodeset = Plan::first(&operator).with_node(member("a", &operator)).sign(&operator).unwrap();
        let bytes = nodeset.as_bytes();
        for at in 0..bytes.len() {
            assert!(Nodeset::decode(&bytes[..at], &operator.cluster_id()).is_err(), "cut at {at}");
            let mut bad = bytes.to_vec();
            bad[at] ^= 0x10;
            assert!(Nodeset::decode(&bad, &operator.cluster_id()).is_err(), "flip at {at}");
        }
        let long = [bytes, &[0]].concat();
        assert!(matches!(
            Nodeset::decode(&long, &operator.cluster_id()),
            Err(DocumentError::Decode { source: DecodeError::Trailing { bytes: 1 }, .. })
        ));
    }
}
