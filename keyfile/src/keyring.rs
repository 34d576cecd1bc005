//! The keyring: all epochs, and their secrets wrapped to every node and recovery recipient
//! (SPEC keyfile, section 5.2).

use crate::{
    aad, derive,
    error::{DocumentError, UnlockError},
    id::{ClusterId, DocumentHash, Epoch, Fingerprint, Lineage, UnixTime},
    node_key::{NodeKey, NodeKeyFile},
    nodeset::{Nodeset, container_error},
    operator_key::RecoveryKey,
    secret::{EpochKey, StateKey},
    signed::{self, Kind},
    suite::{SUITE_1, Signature25519, WrappingKey},
};

mod body;
mod chain;
mod retained;
mod rotate;
mod secrets;

pub use secrets::Secrets;

use body::{Body, body_of, contents_of};
use retained::RetainedWrap;
pub use retained::{RETAINED_LABEL, RETAINED_WRAP_BYTES};
use secrets::{decode_secrets, encode_secrets};

/// Most epochs of a keyring.
pub const MAX_EPOCHS: usize = 4096;
/// Most records that one primary epoch may seal (design rule 7).
pub const MAX_SEALS_PER_EPOCH: u64 = 1 << 40;

/// First part of the `info` of every wrap in a keyring.
pub const WRAP_LABEL: &[u8] = b"unibus/keyring/wrap/v1";
const DOCUMENT: &str = "keyring";

/// What an epoch may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by nature: SPEC keyfile, section 5.2")]
pub enum EpochState {
    /// Opens; will seal once every node has it.
    Staged,
    /// Seals and opens. Exactly one epoch is primary.
    Primary,
    /// Opens only.
    Retired,
    /// Only number and commitment remain.
    Destroyed,
}

impl EpochState {
    const fn number(self) -> u8 {
        match self {
            Self::Staged => 1,
            Self::Primary => 2,
            Self::Retired => 3,
            Self::Destroyed => 4,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Staged),
            2 => Some(Self::Primary),
            3 => Some(Self::Retired),
            4 => Some(Self::Destroyed),
            _ => None,
        }
    }

    /// Name for people and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Primary => "primary",
            Self::Retired => "retired",
            Self::Destroyed => "destroyed",
        }
    }
}

/// An epoch as the keyring shows it to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// Number.
    pub number: Epoch,
    /// State.
    pub state: EpochState,
    /// When it was made.
    pub created: UnixTime,
    /// Commitment to its key.
    pub commitment: [u8; 32],
    /// Whether its key, or what it sealed, was once readable by somebody who should not.
    pub exposed: bool,
    /// Whether its key is gone for nodes, and a recovery key can still open it: of a destroyed epoch only.
    pub retained: bool,
}

#[derive(Clone, Debug)]
struct Wrap {
    recipient: [u8; 32],
    wrapped: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Contents {
    cluster: ClusterId,
    lineage: Lineage,
    version: u64,
    nodeset_version: u64,
    nodeset_hash: DocumentHash,
    previous: Option<DocumentHash>,
    state_commitment: [u8; 32],
    epochs: Vec<EpochEntry>,
    wraps: Vec<Wrap>,
    retained: Vec<RetainedWrap>,
}

/// How a keyring is made for a new lineage.
#[derive(Debug)]
pub struct CarriedOver {
    /// State key of the source, so that equal contents keep an equal digest.
    pub state: StateKey,
    /// Highest epoch of the source; the new one is the next.
    pub last_epoch: Epoch,
}

/// What a keyring says, for people to look at. Its signatures were verified, but not whether the signers may sign
/// it: nothing may be built on it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Cluster.
    pub cluster: ClusterId,
    /// History.
    pub lineage: Lineage,
    /// Version.
    pub version: u64,
    /// SHA-256 of the document.
    pub hash: DocumentHash,
    /// Version of the nodeset that it was made for.
    pub nodeset_version: u64,
    /// All epochs, ascending.
    pub epochs: Vec<EpochEntry>,
    /// Fingerprints of the wrapping keys that can open it.
    pub recipients: Vec<Fingerprint>,
    /// Fingerprints of the keys that signed it.
    pub signers: Vec<Fingerprint>,
}

impl Summary {
    /// Reads a keyring without deciding whether to trust it.
    ///
    /// # Errors
    /// [`DocumentError`]: damaged, or a signature does not verify.
    pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        let (opened, contents) = decode_signed(bytes)?;
        Ok(Self {
            cluster: contents.cluster,
            lineage: contents.lineage,
            version: contents.version,
            hash: opened.hash,
            nodeset_version: contents.nodeset_version,
            recipients: contents.wraps.iter().map(|wrap| Fingerprint::of(&wrap.recipient)).collect(),
            signers: opened.signers.iter().map(|signer| Fingerprint::of(signer)).collect(),
            epochs: contents.epochs,
        })
    }
}

fn decode_signed(bytes: &[u8]) -> Result<(signed::Document<'_>, Contents), DocumentError> {
    let opened = signed::decode(Kind::Keyring, bytes).map_err(|error| container_error(DOCUMENT, error))?;
    let decode = |source| DocumentError::Decode { document: DOCUMENT, source };
    let body: Body = signed::decode_body(opened.body).map_err(decode)?;
    let contents = contents_of(&body).map_err(decode)?;
    Ok((opened, contents))
}

/// A keyring whose signature by a node of the nodeset was verified.
#[derive(Clone, Debug)]
pub struct Keyring {
    bytes: Vec<u8>,
    hash: DocumentHash,
    contents: Contents,
}

impl Keyring {
    /// Makes the first keyring of a lineage, with one fresh primary epoch, signed by this node.
    ///
    /// # Errors
    /// [`DocumentError::Signer`] when no key of the file is in the nodeset; [`DocumentError::Cluster`] when the
    /// key file is of another cluster.
    pub fn create(
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        lineage: Lineage,
        carried: Option<CarriedOver>,
        now: UnixTime,
    ) -> Result<(Self, Secrets), DocumentError> {
        let (state, number) = match carried {
            None => (StateKey::generate(), Epoch::FIRST),
            Some(carried) => {
                let next = carried.last_epoch.next();
                (carried.state, next.ok_or_else(|| DocumentError::Invalid("no epoch number is left".into()))?)
            }
        };
        let primary_key = EpochKey::generate();
        let cluster = *nodeset.cluster();
        let contents = Contents {
            cluster,
            lineage,
            version: 1,
            nodeset_version: 0,
            nodeset_hash: nodeset.hash(),
            previous: None,
            state_commitment: derive::state_commitment(&state, &cluster),
            epochs: vec![EpochEntry {
                number,
                state: EpochState::Primary,
                created: now,
                commitment: derive::epoch_commitment(&primary_key, &cluster),
                exposed: false,
                retained: false,
            }],
            wraps: Vec::new(),
            retained: Vec::new(),
        };
        let secrets = Secrets::first(state, number, primary_key);
        let keyring = Self::sign(contents, nodeset, own, &secrets)?;
        Ok((keyring, secrets))
    }

    /// Makes the next version for a newer nodeset: the same secrets, wrapped to its recipients.
    ///
    /// Where a recipient is gone, every epoch that it could open is marked exposed: only a new epoch helps. An earlier
    /// key of the very node that signs is no such recipient: it is the same node, and shows it by signing with both.
    ///
    /// # Errors
    /// [`DocumentError::Signer`] when no key of the file is in the nodeset; [`DocumentError::OldNodeset`] when the
    /// nodeset is older than the keyring's; [`DocumentError::Invalid`] when these are not the keyring's secrets.
    pub fn rewrap(
        &self,
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        secrets: &Secrets,
    ) -> Result<Self, DocumentError> {
        Self::sign(self.next(nodeset, own)?, nodeset, own, secrets)
    }

    /// What the next version says before anything is changed.
    fn next(&self, nodeset: &Nodeset, own: &NodeKeyFile) -> Result<Contents, DocumentError> {
        if nodeset.version() < self.contents.nodeset_version {
            let (expected, found) = (self.contents.nodeset_version, nodeset.version());
            return Err(DocumentError::OldNodeset { expected, found });
        }
        let mut contents = self.contents.clone();
        contents.version = contents.version.saturating_add(1);
        contents.previous = Some(self.hash);
        let stays = |wrap: &Wrap| {
            nodeset.recipients().any(|r| *r.id() == wrap.recipient)
                || own.slots().iter().any(|slot| *slot.wrapping_public().id() == wrap.recipient)
        };
        if !self.contents.wraps.iter().all(stays) {
            for epoch in contents.epochs.iter_mut().filter(|e| e.state != EpochState::Destroyed) {
                epoch.exposed = true;
            }
        }
        Ok(contents)
    }

    fn sign(
        mut contents: Contents,
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        secrets: &Secrets,
    ) -> Result<Self, DocumentError> {
        if own.cluster() != nodeset.cluster() {
            let (expected, found) = (*own.cluster(), *nodeset.cluster());
            return Err(DocumentError::Cluster { document: "nodeset", expected, found });
        }
        let signer = own_key(nodeset, own)?;
        // A keyring that promises other keys than it carries would lock everybody out for good.
        if !secrets.fit(&contents) {
            return Err(DocumentError::Invalid("these are not the secrets of this keyring".into()));
        }
        contents.nodeset_version = nodeset.version();
        contents.nodeset_hash = nodeset.hash();
        let bundle = encode_secrets(&contents, secrets);
        contents.wraps.clear();
        for recipient in nodeset.recipients() {
            let info = wrap_info(&contents, recipient.id());
            let wrapped = recipient
                .wrap(&info, &bundle)
                .map_err(|source| DocumentError::Decode { document: "nodeset", source })?;
            contents.wraps.push(Wrap { recipient: *recipient.id(), wrapped });
        }
        let mut keys: Vec<Signature25519> = vec![signer.signing()];
        // A node that changes its key signs with the old one too, so that whoever knows only that one can follow.
        keys.extend(
            own.slots().iter().filter(|s| s.fingerprint() != signer.fingerprint()).map(NodeKey::signing),
        );
        let keys: Vec<&Signature25519> = keys.iter().collect();
        let body = signed::encode_body(&body_of(&contents));
        if body.len() > signed::MAX_BODY_BYTES {
            let (found, limit) = (body.len(), signed::MAX_BODY_BYTES);
            let why = format!("the keyring would have {found} bytes, over the limit of {limit}");
            return Err(DocumentError::Invalid(why));
        }
        let bytes = signed::encode(Kind::Keyring, &body, &keys);
        Self::decode(&bytes, nodeset, Some(own))
    }

    /// Decodes a keyring and verifies that a node of the nodeset, or this node itself under an earlier key,
    /// signed it.
    ///
    /// # Errors
    /// [`DocumentError`]: damaged, of another cluster, signed by a stranger, made for a newer or another nodeset,
    /// or wrapped to others than its recipients.
    pub fn decode(bytes: &[u8], nodeset: &Nodeset, own: Option<&NodeKeyFile>) -> Result<Self, DocumentError> {
        Self::decode_known(bytes, nodeset, own, None)
    }

    /// As [`Keyring::decode`], for whoever has accepted a keyring before and kept its hash where nobody else writes:
    /// that one is taken whoever signed it. Else a nodeset without its signer would lock everybody out who had not
    /// wrapped it anew before.
    ///
    /// # Errors
    /// [`DocumentError`], as [`Keyring::decode`].
    pub fn decode_known(
        bytes: &[u8],
        nodeset: &Nodeset,
        own: Option<&NodeKeyFile>,
        known: Option<DocumentHash>,
    ) -> Result<Self, DocumentError> {
        let (opened, contents) = decode_signed(bytes)?;
        if contents.cluster != *nodeset.cluster() {
            let (expected, found) = (*nodeset.cluster(), contents.cluster);
            return Err(DocumentError::Cluster { document: DOCUMENT, expected, found });
        }
        let trusted = |signer: &[u8; 32]| {
            nodeset.node_of(signer).is_some() || own.is_some_and(|own| own.slot_of(signer).is_some())
        };
        if known != Some(opened.hash) && !opened.signers.iter().any(trusted) {
            let Some(signer) = opened.signers.first() else {
                return Err(DocumentError::Signature { document: DOCUMENT });
            };
            return Err(DocumentError::Signer { document: DOCUMENT, found: Fingerprint::of(signer) });
        }
        if contents.nodeset_version > nodeset.version() {
            let (expected, found) = (contents.nodeset_version, nodeset.version());
            return Err(DocumentError::OldNodeset { expected, found });
        }
        if contents.nodeset_version == nodeset.version() {
            if contents.nodeset_hash != nodeset.hash() {
                return Err(DocumentError::OtherNodeset { version: nodeset.version() });
            }
            let wrapped = contents.wraps.iter().map(|w| &w.recipient);
            if !wrapped.eq(nodeset.recipients().map(crate::suite::RecipientPublic::id)) {
                return Err(DocumentError::Recipients);
            }
        }
        Ok(Self { bytes: bytes.to_vec(), hash: opened.hash, contents })
    }

    /// Unwraps the secrets with this node's keys, and holds each against its commitment.
    ///
    /// # Errors
    /// [`UnlockError`]: not a recipient, changed, or not the keys that the keyring commits to.
    pub fn unlock(&self, own: &NodeKeyFile) -> Result<Secrets, UnlockError> {
        let keys: Vec<WrappingKey> = own.slots().iter().map(NodeKey::wrapping).collect();
        self.unlock_with(&keys.iter().collect::<Vec<_>>())
    }

    /// Unwraps the secrets with the operator key or a further recovery key.
    ///
    /// # Errors
    /// [`UnlockError`], as [`Keyring::unlock`].
    pub fn unlock_with_recovery(&self, key: &dyn RecoveryKey) -> Result<Secrets, UnlockError> {
        self.unlock_with(&[key.wrapping()])
    }

    fn unlock_with(&self, keys: &[&WrappingKey]) -> Result<Secrets, UnlockError> {
        let hit = self.contents.wraps.iter().find_map(|wrap| {
            keys.iter().find(|key| *key.public().id() == wrap.recipient).map(|key| (wrap, *key))
        });
        let Some((wrap, key)) = hit else {
            return Err(UnlockError::NotARecipient {
                expected: self.contents.wraps.iter().map(|w| Fingerprint::of(&w.recipient)).collect(),
                found: keys.iter().map(|key| Fingerprint::of(key.public().id())).collect(),
            });
        };
        let info = wrap_info(&self.contents, &wrap.recipient);
        let bundle = key
            .unwrap(&info, &wrap.wrapped)
            .ok_or_else(|| UnlockError::Unauthentic { recipient: Fingerprint::of(&wrap.recipient) })?;
        decode_secrets(&self.contents, &bundle)
    }

    /// Whether these are the secrets that this keyring commits to, all of them.
    pub(crate) fn fits(&self, secrets: &Secrets) -> bool {
        secrets.fit(&self.contents)
    }

    /// Whether the state key is another than in an earlier version: then digests of before and after do not compare.
    #[must_use]
    pub fn changes_state_key(&self, previous: &Self) -> bool {
        self.contents.state_commitment != previous.contents.state_commitment
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
        &self.contents.cluster
    }

    /// The history that this keyring belongs to.
    #[must_use]
    pub const fn lineage(&self) -> &Lineage {
        &self.contents.lineage
    }

    /// Version, from 1.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.contents.version
    }

    /// Hash of the version before.
    #[must_use]
    pub const fn previous(&self) -> Option<DocumentHash> {
        self.contents.previous
    }

    /// Version of the nodeset that it is wrapped for.
    #[must_use]
    pub const fn nodeset_version(&self) -> u64 {
        self.contents.nodeset_version
    }

    /// All epochs, by number.
    #[must_use]
    pub fn epochs(&self) -> &[EpochEntry] {
        &self.contents.epochs
    }

    /// The epoch that seals.
    ///
    /// # Panics
    /// Never: a keyring without exactly one primary epoch does not decode.
    #[must_use]
    #[expect(clippy::expect_used, reason = "contents_of refuses a keyring without a primary epoch")]
    pub fn primary(&self) -> &EpochEntry {
        self.contents.epochs.iter().find(|e| e.state == EpochState::Primary).expect("one epoch is primary")
    }

    /// The epoch that will seal once it is activated.
    #[must_use]
    pub fn staged(&self) -> Option<&EpochEntry> {
        self.contents.epochs.iter().find(|e| e.state == EpochState::Staged)
    }

    /// The epochs that open and no longer seal, by number.
    pub fn retired(&self) -> impl Iterator<Item = &EpochEntry> {
        self.contents.epochs.iter().filter(|e| e.state == EpochState::Retired)
    }
}

/// The key of this file that the nodeset lists.
fn own_key<'a>(nodeset: &Nodeset, own: &'a NodeKeyFile) -> Result<&'a NodeKey, DocumentError> {
    own.slots().iter().find(|slot| nodeset.node_of(slot.signing_public()).is_some()).ok_or_else(|| {
        let found = own.slots().first().map_or_else(|| Fingerprint::of(&[]), NodeKey::fingerprint);
        DocumentError::Signer { document: DOCUMENT, found }
    })
}

fn wrap_info(contents: &Contents, recipient: &[u8; 32]) -> Vec<u8> {
    aad::parts(&[
        WRAP_LABEL,
        &SUITE_1.to_be_bytes(),
        contents.cluster.as_bytes(),
        contents.lineage.as_bytes(),
        &contents.version.to_be_bytes(),
        recipient,
    ])
}
