//! The receipt of a rotation: signed JSON that anybody can check offline, with public keys alone (SPEC keyfile,
//! section 14).
//!
//! It carries what it is built on: the nodeset, the keyrings of each step, and each node's own signed words. So it is
//! no claim of the one who signed it: [`Receipt::verify`] draws everything again from what is inside.

use crate::{
    digest::sha256,
    error::{DecodeError, DocumentError, ReceiptError},
    id::{ClusterId, DocumentHash, Epoch, Fingerprint, Lineage, NodeName, UnixTime},
    node_key::NodeKeyFile,
    nodeset::Nodeset,
    suite::{self, SIGNATURE_BYTES},
};

mod body;
mod json;
mod verify;

pub use verify::ReceiptReport;

use body::{contents_of, json_of};
use json::{Fields, Json};

/// What a receipt of this version calls itself.
pub const FORMAT: &str = "unibus-receipt-1";
/// The one operation that there are receipts of.
pub const OPERATION: &str = "rotate epoch";
/// First part of what the signature is over.
pub const RECEIPT_LABEL: &[u8] = b"unibus/receipt/v1";
/// Most bytes of a receipt.
pub const MAX_RECEIPT_BYTES: usize = 4 << 20;
/// Most steps that a receipt names.
pub const MAX_STEPS: usize = 64;
/// Most characters of the tool's version and of a step's name.
pub const MAX_TEXT: usize = 64;
/// How far the clocks of nodes may be apart, and how far one may be set back, in seconds.
pub const CLOCK_SLACK_SECONDS: u64 = 600;
/// Name of the stream in the census of a database.
pub const SQLCIPHER_STREAM: &str = "sqlcipher";

/// Where the records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// The sealed log: every node of the nodeset has a replica.
    Kv,
    /// A database of one node: of the one that signs.
    Sqlcipher,
}

impl Backend {
    /// Name in the receipt.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Sqlcipher => SQLCIPHER_STREAM,
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Kv, Self::Sqlcipher].into_iter().find(|backend| backend.name() == name)
    }
}

/// A step of the operation, and how long it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Name: printable ASCII, at most 64 characters.
    pub name: String,
    /// How long it took.
    pub milliseconds: u64,
}

/// What a receipt shall say, before a node signs it. Numbers are below 2^53.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptDraft {
    /// Where the records are.
    pub backend: Backend,
    /// Version of the tool that did it: printable ASCII, at most 64 characters.
    pub tool_version: String,
    /// Hash of the plan that was applied.
    pub plan: [u8; 32],
    /// History of the store.
    pub lineage: Lineage,
    /// The epochs that were destroyed, ascending.
    pub from: Vec<Epoch>,
    /// The epoch that took their place.
    pub to: Epoch,
    /// When it began.
    pub started: UnixTime,
    /// When it was done.
    pub finished: UnixTime,
    /// Its steps, in order; at most 64.
    pub steps: Vec<Step>,
    /// Live records at the barrier.
    pub records: u64,
    /// Names at the barrier, each under the new epoch.
    pub entries: u64,
    /// Whether recovery recipients can still open the destroyed epochs.
    pub retained: bool,
    /// Nodes that were taken out of the nodeset for it, ascending.
    pub fenced: Vec<NodeName>,
    /// Hash of the receipt before.
    pub previous: Option<DocumentHash>,
    /// The keyrings, ascending: the one with the new epoch staged that was acknowledged, the one with it
    /// activated, and every later one up to the one with the old epochs destroyed.
    pub keyrings: Vec<Vec<u8>>,
    /// Acknowledgements of the first of these keyrings.
    pub acknowledgements: Vec<Vec<u8>>,
    /// Censuses at the barrier.
    pub censuses: Vec<Vec<u8>>,
    /// Acknowledgements of the last of these keyrings.
    pub forgotten: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Contents {
    cluster: ClusterId,
    nodeset: Vec<u8>,
    draft: ReceiptDraft,
}

/// A receipt whose signature was verified; nothing else of it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    text: String,
    signer: [u8; 32],
    contents: Contents,
}

impl Receipt {
    /// Signs a receipt, when all that it says follows from its documents.
    ///
    /// # Errors
    /// [`ReceiptError::Document`] when no key of the file is in the nodeset, or it is of another cluster;
    /// otherwise as [`Receipt::decode`] and [`Receipt::verify`]: what nobody could verify is not signed.
    pub fn sign(own: &NodeKeyFile, nodeset: &Nodeset, draft: ReceiptDraft) -> Result<Self, ReceiptError> {
        let refused = |source| ReceiptError::Document { document: "nodeset", source };
        let cluster = *nodeset.cluster();
        if *own.cluster() != cluster {
            let (expected, found) = (*own.cluster(), cluster);
            return Err(refused(DocumentError::Cluster { document: "nodeset", expected, found }));
        }
        let listed = own.slots().iter().find(|slot| nodeset.node_of(slot.signing_public()).is_some());
        let found = own.slots().first().map_or_else(|| Fingerprint::of(&[]), |slot| slot.fingerprint());
        let signer = listed.ok_or(ReceiptError::Signer { found })?;
        let contents = Contents { cluster, nodeset: nodeset.as_bytes().to_vec(), draft };
        let key = signer.signing();
        let receipt = json_of(&contents);
        let signature = key.sign(RECEIPT_LABEL, receipt.canonical().as_bytes());
        let hex = |bytes: &[u8]| Json::Text(data_encoding::HEXLOWER.encode(bytes));
        let signature = Json::object([("key", hex(&key.public())), ("signature", hex(&signature))]);
        let text = Json::object([("receipt", receipt), ("signature", signature)]).canonical();
        let signed = Self::decode(text.as_bytes())?;
        signed.verify(Some(own.cluster()))?;
        Ok(signed)
    }

    /// Decodes a receipt and verifies its signature. Space and the order of fields do not count.
    ///
    /// # Errors
    /// [`ReceiptError::Decode`] when it is damaged, [`ReceiptError::Signature`] when its signature does not verify.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > MAX_RECEIPT_BYTES {
            let number = |length| u64::try_from(length).unwrap_or(u64::MAX);
            let (found, limit) = (number(bytes.len()), number(MAX_RECEIPT_BYTES));
            return Err(DecodeError::TooLarge { what: "receipt", found, limit }.into());
        }
        let json = Json::parse(bytes)?;
        let text = json.canonical();
        let Json::Object(mut fields) = json else { return Err(DecodeError::Field("JSON").into()) };
        let Some(receipt) = fields.remove("receipt") else {
            return Err(DecodeError::Field("receipt").into());
        };
        let signed = receipt.canonical();
        let mut fields = Fields::of(Json::Object(fields), "JSON")?;
        let mut signature = fields.object("signature")?;
        fields.end()?;
        let signer = hex::<32>(&signature.text("key")?, "key")?;
        let bytes = hex::<SIGNATURE_BYTES>(&signature.text("signature")?, "signature")?;
        signature.end()?;
        let contents = contents_of(receipt)?;
        if !suite::verify(&signer, RECEIPT_LABEL, signed.as_bytes(), &bytes) {
            return Err(ReceiptError::Signature);
        }
        Ok(Self { text, signer, contents })
    }

    /// Draws everything that the receipt says again from the documents inside it.
    ///
    /// With a pin the nodeset must be of that cluster. Without one the report says so: whoever made it may have
    /// made a cluster for it.
    ///
    /// # Errors
    /// [`ReceiptError`], naming the first thing that does not follow.
    pub fn verify(&self, pin: Option<&ClusterId>) -> Result<ReceiptReport, ReceiptError> {
        verify::verify(self, pin)
    }

    /// SHA-256 of the canonical form, signature and all: what the next receipt names as the one before.
    #[must_use]
    pub fn hash(&self) -> DocumentHash {
        DocumentHash::from_bytes(sha256(&[self.text.as_bytes()]))
    }

    /// Whether this one names that one as the one before, of the same cluster and history.
    #[must_use]
    pub fn follows(&self, previous: &Self) -> bool {
        self.contents.draft.previous == Some(previous.hash())
            && self.contents.cluster == previous.contents.cluster
            && self.contents.draft.lineage == previous.contents.draft.lineage
    }

    /// The canonical form: as it is written to a file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The cluster that it names.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterId {
        &self.contents.cluster
    }

    /// What it says. Nothing of it is proven before [`Receipt::verify`].
    #[must_use]
    pub const fn draft(&self) -> &ReceiptDraft {
        &self.contents.draft
    }
}

fn hex<const N: usize>(text: &str, field: &'static str) -> Result<[u8; N], DecodeError> {
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| DecodeError::Field(field))?;
    bytes.try_into().map_err(|_| DecodeError::Field(field))
}
