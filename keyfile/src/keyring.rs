//! The keyring: all epochs, and their secrets wrapped to every node and recovery recipient
//! (SPEC keyfile, section 5.2).

use std::collections::BTreeMap;

use minicbor::{Decode, Encode, bytes::ByteVec};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    aad, derive,
    error::{DecodeError, DocumentError, UnlockError},
    id::{ClusterId, DocumentHash, Epoch, Fingerprint, Lineage, UnixTime},
    node_key::{NodeKey, NodeKeyFile},
    nodeset::{Nodeset, container_error, fixed},
    operator_key::RecoveryKey,
    secret::{EpochKey, KEY_BYTES, StateKey},
    signed::{self, Kind},
    suite::{SUITE_1, Signature25519, WrappingKey},
};

/// Most epochs of a keyring.
pub const MAX_EPOCHS: usize = 4096;
/// Most records that one primary epoch may seal (design rule 7).
pub const MAX_SEALS_PER_EPOCH: u64 = 1 << 40;

const WRAP_LABEL: &[u8] = b"unibus/keyring/wrap/v1";
const SECRETS_VERSION_1: u8 = 1;
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
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct EpochBody {
    #[n(0)]
    number: u32,
    #[n(1)]
    state: u8,
    #[n(2)]
    created: u64,
    #[n(3)]
    commitment: ByteVec,
    #[n(4)]
    exposed: bool,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WrapBody {
    #[n(0)]
    recipient: ByteVec,
    #[n(1)]
    wrapped: ByteVec,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    suite: u16,
    #[n(1)]
    cluster: ByteVec,
    #[n(2)]
    lineage: ByteVec,
    #[n(3)]
    version: u64,
    #[n(4)]
    nodeset_version: u64,
    #[n(5)]
    nodeset_hash: ByteVec,
    #[n(6)]
    previous: Option<ByteVec>,
    #[n(7)]
    state_commitment: ByteVec,
    #[n(8)]
    epochs: Vec<EpochBody>,
    #[n(9)]
    wraps: Vec<WrapBody>,
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
}

/// The unwrapped secrets of a keyring.
#[derive(Debug)]
pub struct Secrets {
    state: StateKey,
    epochs: BTreeMap<Epoch, EpochKey>,
    primary: Epoch,
    primary_key: EpochKey,
}

impl Secrets {
    /// The key of the state digest.
    #[must_use]
    pub const fn state_key(&self) -> &StateKey {
        &self.state
    }

    /// The epoch that seals.
    #[must_use]
    pub const fn primary(&self) -> (Epoch, &EpochKey) {
        (self.primary, &self.primary_key)
    }

    /// The key of an epoch that can still be opened.
    #[must_use]
    pub fn epoch(&self, number: Epoch) -> Option<&EpochKey> {
        if number == self.primary { Some(&self.primary_key) } else { self.epochs.get(&number) }
    }

    /// The state key alone, to carry it over into a new lineage.
    #[must_use]
    pub fn into_state_key(self) -> StateKey {
        self.state
    }
}

/// How a keyring is made for a new lineage.
#[derive(Debug)]
pub struct CarriedOver {
    /// State key of the source, so that equal contents keep an equal digest.
    pub state: StateKey,
    /// Highest epoch of the source; the new one is the next.
    pub last_epoch: Epoch,
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
            }],
            wraps: Vec::new(),
        };
        let secrets = Secrets { state, epochs: BTreeMap::new(), primary: number, primary_key };
        let keyring = Self::sign(contents, nodeset, own, &secrets)?;
        Ok((keyring, secrets))
    }

    /// Makes the next version for a newer nodeset: the same secrets, wrapped to its recipients.
    ///
    /// Where a recipient is gone, every epoch that it could open is marked exposed: only a new epoch helps.
    ///
    /// # Errors
    /// [`DocumentError::Signer`] when no key of the file is in the nodeset.
    pub fn rewrap(
        &self,
        nodeset: &Nodeset,
        own: &NodeKeyFile,
        secrets: &Secrets,
    ) -> Result<Self, DocumentError> {
        let mut contents = self.contents.clone();
        contents.version = contents.version.saturating_add(1);
        contents.previous = Some(self.hash);
        let stays = |wrap: &Wrap| nodeset.recipients().any(|r| *r.id() == wrap.recipient);
        if !self.contents.wraps.iter().all(stays) {
            for epoch in contents.epochs.iter_mut().filter(|e| e.state != EpochState::Destroyed) {
                epoch.exposed = true;
            }
        }
        Self::sign(contents, nodeset, own, secrets)
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
        let bytes = signed::encode(Kind::Keyring, &signed::encode_body(&body_of(&contents)), &keys);
        Self::decode(&bytes, nodeset, Some(own))
    }

    /// Decodes a keyring and verifies that a node of the nodeset, or this node itself under an earlier key,
    /// signed it.
    ///
    /// # Errors
    /// [`DocumentError`]: damaged, of another cluster, signed by a stranger, made for a newer or another nodeset,
    /// or wrapped to others than its recipients.
    pub fn decode(bytes: &[u8], nodeset: &Nodeset, own: Option<&NodeKeyFile>) -> Result<Self, DocumentError> {
        let opened =
            signed::decode(Kind::Keyring, bytes).map_err(|error| container_error(DOCUMENT, error))?;
        let decode = |source| DocumentError::Decode { document: DOCUMENT, source };
        let body: Body = signed::decode_body(opened.body).map_err(decode)?;
        let contents = contents_of(&body).map_err(decode)?;
        if contents.cluster != *nodeset.cluster() {
            let (expected, found) = (*nodeset.cluster(), contents.cluster);
            return Err(DocumentError::Cluster { document: DOCUMENT, expected, found });
        }
        let trusted = |signer: &[u8; 32]| {
            nodeset.node_of(signer).is_some() || own.is_some_and(|own| own.slot_of(signer).is_some())
        };
        if !opened.signers.iter().any(trusted) {
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

/// Version, state key, then (epoch, key) of every epoch that is not destroyed, ascending.
fn encode_secrets(contents: &Contents, secrets: &Secrets) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(1 + KEY_BYTES + contents.epochs.len() * (4 + KEY_BYTES)));
    out.push(SECRETS_VERSION_1);
    out.extend_from_slice(secrets.state.expose());
    for entry in contents.epochs.iter().filter(|e| e.state != EpochState::Destroyed) {
        if let Some(key) = secrets.epoch(entry.number) {
            out.extend_from_slice(&entry.number.get().to_be_bytes());
            out.extend_from_slice(key.expose());
        }
    }
    out
}

fn decode_secrets(contents: &Contents, bundle: &[u8]) -> Result<Secrets, UnlockError> {
    let Some((&SECRETS_VERSION_1, rest)) = bundle.split_first() else { return Err(UnlockError::Contents) };
    let Some((state, mut rest)) = rest.split_first_chunk::<KEY_BYTES>() else {
        return Err(UnlockError::Contents);
    };
    let state = StateKey::init_with(|out| out.copy_from_slice(state));
    if !same(&derive::state_commitment(&state, &contents.cluster), &contents.state_commitment) {
        return Err(UnlockError::Contents);
    }
    let mut epochs = BTreeMap::new();
    let mut primary = None;
    for entry in contents.epochs.iter().filter(|e| e.state != EpochState::Destroyed) {
        let Some((number, after)) = rest.split_first_chunk::<4>() else { return Err(UnlockError::Contents) };
        let Some((key, after)) = after.split_first_chunk::<KEY_BYTES>() else {
            return Err(UnlockError::Contents);
        };
        if u32::from_be_bytes(*number) != entry.number.get() {
            return Err(UnlockError::Contents);
        }
        let key = EpochKey::init_with(|out| out.copy_from_slice(key));
        if !same(&derive::epoch_commitment(&key, &contents.cluster), &entry.commitment) {
            return Err(UnlockError::Commitment { epoch: entry.number });
        }
        if entry.state == EpochState::Primary {
            primary = Some((entry.number, key));
        } else {
            epochs.insert(entry.number, key);
        }
        rest = after;
    }
    let Some((primary, primary_key)) = primary else { return Err(UnlockError::Contents) };
    if !rest.is_empty() {
        return Err(UnlockError::Contents);
    }
    Ok(Secrets { state, epochs, primary, primary_key })
}

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

fn body_of(contents: &Contents) -> Body {
    Body {
        suite: SUITE_1,
        cluster: contents.cluster.as_bytes().to_vec().into(),
        lineage: contents.lineage.as_bytes().to_vec().into(),
        version: contents.version,
        nodeset_version: contents.nodeset_version,
        nodeset_hash: contents.nodeset_hash.as_bytes().to_vec().into(),
        previous: contents.previous.map(|hash| hash.as_bytes().to_vec().into()),
        state_commitment: contents.state_commitment.to_vec().into(),
        epochs: contents
            .epochs
            .iter()
            .map(|e| EpochBody {
                number: e.number.get(),
                state: e.state.number(),
                created: e.created.seconds(),
                commitment: e.commitment.to_vec().into(),
                exposed: e.exposed,
            })
            .collect(),
        wraps: contents
            .wraps
            .iter()
            .map(|w| WrapBody { recipient: w.recipient.to_vec().into(), wrapped: w.wrapped.clone().into() })
            .collect(),
    }
}

fn contents_of(body: &Body) -> Result<Contents, DecodeError> {
    if body.suite != SUITE_1 {
        return Err(DecodeError::Version { found: body.suite });
    }
    if body.version == 0 || body.nodeset_version == 0 {
        return Err(DecodeError::Field("version"));
    }
    if body.previous.is_some() != (body.version > 1) {
        return Err(DecodeError::Field("previous"));
    }
    if body.epochs.len() > MAX_EPOCHS {
        return Err(DecodeError::Field("epochs"));
    }
    let mut epochs: Vec<EpochEntry> = Vec::with_capacity(body.epochs.len());
    for epoch in &body.epochs {
        let number = Epoch::from_stored(epoch.number).ok_or(DecodeError::Field("epoch"))?;
        if epochs.last().is_some_and(|last| last.number >= number) {
            return Err(DecodeError::Field("epoch order"));
        }
        epochs.push(EpochEntry {
            number,
            state: EpochState::from_number(epoch.state).ok_or(DecodeError::Field("epoch state"))?,
            created: UnixTime::from_seconds(epoch.created),
            commitment: fixed(&epoch.commitment, "commitment")?,
            exposed: epoch.exposed,
        });
    }
    if epochs.iter().filter(|e| e.state == EpochState::Primary).count() != 1 {
        return Err(DecodeError::Field("primary epoch"));
    }
    let mut wraps = Vec::with_capacity(body.wraps.len());
    for wrap in &body.wraps {
        wraps.push(Wrap { recipient: fixed(&wrap.recipient, "recipient")?, wrapped: wrap.wrapped.to_vec() });
    }
    Ok(Contents {
        cluster: ClusterId::from_bytes(fixed(&body.cluster, "cluster")?),
        lineage: Lineage::from_bytes(fixed(&body.lineage, "lineage")?),
        version: body.version,
        nodeset_version: body.nodeset_version,
        nodeset_hash: DocumentHash::from_bytes(fixed(&body.nodeset_hash, "nodeset hash")?),
        previous: body
            .previous
            .as_ref()
            .map(|p| fixed(p, "previous").map(DocumentHash::from_bytes))
            .transpose()?,
        state_commitment: fixed(&body.state_commitment, "state commitment")?,
        epochs,
        wraps,
    })
}
