//! What a receipt proves, drawn again from the documents inside it (SPEC keyfile, section 14).

use super::{Backend, Receipt};
use crate::{
    error::ReceiptError,
    id::{ClusterId, DocumentHash, Epoch, Fingerprint, Lineage, NodeName, UnixTime},
    nodeset::Nodeset,
};

mod keyrings;
mod words;

use keyrings::Keyrings;
use words::{ACKNOWLEDGEMENT, CENSUS, FORGOTTEN, words};

/// What a receipt proves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiptReport {
    /// Hash of the receipt.
    pub hash: DocumentHash,
    /// Hash of the receipt before.
    pub previous: Option<DocumentHash>,
    /// Cluster.
    pub cluster: ClusterId,
    /// Whether the cluster is the one that the caller pinned. If not, anybody may have made it.
    pub pinned: bool,
    /// History of the store.
    pub lineage: Lineage,
    /// Where the records are.
    pub backend: Backend,
    /// The node that signed the receipt.
    pub signer: NodeName,
    /// The nodes whose words are in it.
    pub nodes: Vec<NodeName>,
    /// Nodes that were taken out of the nodeset for it: what stands on their disks was not looked at.
    pub fenced: Vec<NodeName>,
    /// Version of the nodeset.
    pub nodeset_version: u64,
    /// Version of the keyring in which the old epochs are destroyed.
    pub keyring_version: u64,
    /// The epochs that were destroyed.
    pub from: Vec<Epoch>,
    /// The epoch that took their place.
    pub to: Epoch,
    /// Whether the new epoch counts as exposed already.
    pub exposed: bool,
    /// Whether recovery recipients can still open the destroyed epochs.
    pub retained: bool,
    /// The stream that was counted.
    pub stream: String,
    /// Sequence of the barrier.
    pub barrier: u64,
    /// State digest at the barrier.
    pub digest: [u8; 32],
    /// Live records at the barrier.
    pub records: u64,
    /// Names at the barrier, all under the new epoch.
    pub entries: u64,
    /// Whether every node scanned its own disk, and none found an envelope of a destroyed epoch of this rotation.
    pub physical: bool,
    /// Other epochs, gone before, of which a disk still holds envelopes.
    pub residue: Vec<Epoch>,
    /// When it began, by the clock of the signer.
    pub started: UnixTime,
    /// When it was done.
    pub finished: UnixTime,
}

pub(super) fn verify(receipt: &Receipt, pin: Option<&ClusterId>) -> Result<ReceiptReport, ReceiptError> {
    let draft = receipt.draft();
    let bytes = &receipt.contents.nodeset;
    let nodeset = match pin {
        Some(pin) => Nodeset::decode(bytes, pin),
        None => Nodeset::decode_unpinned(bytes),
    };
    let nodeset = nodeset.map_err(|source| ReceiptError::Document { document: "nodeset", source })?;
    if receipt.contents.cluster != *nodeset.cluster() {
        return Err(ReceiptError::Differs("cluster"));
    }
    let signer = nodeset
        .node_of(&receipt.signer)
        .ok_or_else(|| ReceiptError::Signer { found: Fingerprint::of(&receipt.signer) })?;
    if draft.fenced.iter().any(|fenced| nodeset.nodes().iter().any(|node| node.name == *fenced)) {
        return Err(ReceiptError::Differs("fenced"));
    }
    let nodes: Vec<NodeName> = match draft.backend {
        Backend::Kv => nodeset.nodes().iter().map(|node| node.name.clone()).collect(),
        Backend::Sqlcipher => vec![signer.name.clone()],
    };
    let keyrings = Keyrings::of(draft, &nodeset)?;
    let acknowledged = words(&draft.acknowledgements, ACKNOWLEDGEMENT, &nodes, &nodeset)?;
    words::acknowledged(&acknowledged, draft, &keyrings)?;
    let censuses = words(&draft.censuses, CENSUS, &nodes, &nodeset)?;
    let counted = words::counted(&censuses, draft, &keyrings)?;
    let forgotten = words(&draft.forgotten, FORGOTTEN, &nodes, &nodeset)?;
    words::forgotten(&forgotten, draft, &keyrings)?;
    words::in_time(draft, &acknowledged, &censuses, &forgotten)?;
    let (physical, residue) = words::on_disk(&censuses, draft);
    Ok(ReceiptReport {
        hash: receipt.hash(),
        previous: draft.previous,
        cluster: *nodeset.cluster(),
        pinned: pin.is_some(),
        lineage: draft.lineage,
        backend: draft.backend,
        signer: signer.name.clone(),
        nodes,
        fenced: draft.fenced.clone(),
        nodeset_version: nodeset.version(),
        keyring_version: keyrings.last.version(),
        from: draft.from.clone(),
        to: draft.to,
        exposed: keyrings.last.primary().exposed,
        retained: draft.retained,
        stream: counted.stream.clone(),
        barrier: counted.barrier,
        digest: counted.digest,
        records: draft.records,
        entries: draft.entries,
        physical,
        residue,
        started: draft.started,
        finished: draft.finished,
    })
}
