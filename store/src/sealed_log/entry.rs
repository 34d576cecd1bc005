//! Entries of the log: what they are called, and how each is sealed for its one place (SPEC store, section 8.2).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use unibus_keyfile::aad::Place;
use unibus_keyfile::digest::{StateDigest, StateHasher};
use unibus_keyfile::envelope::{Envelope, Operation, Plaintext, PlaintextRef};
use unibus_keyfile::error::OpenError;
use unibus_keyfile::id::{ClusterId, DocumentHash, Epoch, Lineage, NodeName, Sequence};
use unibus_keyfile::keyring::{Keyring, Secrets};
use unibus_keyfile::name::Blinder;
use unibus_keyfile::seal::{Nonce, Sealer};
use zeroize::Zeroizing;

use super::stream::Generation;
use super::wire::Raw;
use crate::error::StoreError;
use crate::record::{Kind, Record, RecordBytes, RecordId, Timestamp};

/// Kind of a heartbeat, beside the kinds of records.
const HEARTBEAT: u8 = 64;
/// Kind of the mark of an import that is under way.
const IMPORT: u8 = 65;
/// Kind of the nonce floor.
const NONCE_FLOOR: u8 = 66;
/// Kind of the entry that closes a stream of the log.
const CLOSED: u8 = 68;
/// Kind of a barrier.
const BARRIER: u8 = 69;
/// Kind of the mark of whoever drives a rotation.
const DRIVER: u8 = 70;
/// Kind of what is kept for the receipt of a rotation.
const EVIDENCE: u8 = 71;
/// Most bytes of a label of evidence.
const LABEL_MAX: usize = 128;
/// Kind of a nonce: in names only, a nonce is no entry.
pub(super) const NONCE: u8 = 67;
/// First byte of the body of a heartbeat or nonce floor.
const BODY_VERSION_1: u8 = 1;

/// A signed document, which lies in the log unsealed under a name that says what it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DocumentName {
    /// The list of nodes.
    Nodeset,
    /// The keys.
    Keyring,
    /// A node's word that it has a version of the keyring.
    Acknowledgement(NodeName),
    /// A node's word about what it holds.
    Census(NodeName),
}

impl fmt::Display for DocumentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodeset => f.write_str("doc.nodeset"),
            Self::Keyring => f.write_str("doc.keyring"),
            Self::Acknowledgement(node) => write!(f, "doc.ack.{node}"),
            Self::Census(node) => write!(f, "doc.census.{node}"),
        }
    }
}

impl DocumentName {
    /// The subject under which it is published.
    pub(super) fn subject(&self, generation: Generation) -> String {
        format!("{}{self}", generation.prefix())
    }

    /// The document that a subject names behind the prefix of its stream; none if it names a sealed entry.
    pub(super) fn of_subject(subject: &str, prefix: &str) -> Option<Self> {
        match subject.strip_prefix(prefix)?.strip_prefix("doc.")? {
            "nodeset" => Some(Self::Nodeset),
            "keyring" => Some(Self::Keyring),
            other => {
                let (kind, node) = other.split_once('.')?;
                let node = NodeName::from_str(node).ok()?;
                match kind {
                    "ack" => Some(Self::Acknowledgement(node)),
                    "census" => Some(Self::Census(node)),
                    _ => None,
                }
            }
        }
    }
}

/// A node's sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heartbeat {
    /// The node's clock when it was written.
    pub(super) at: Timestamp,
    /// Version of the keyring that the node writes under.
    pub(super) keyring_version: u64,
    /// Hash of that keyring.
    pub(super) keyring_hash: DocumentHash,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A record stands from here on, or is gone.
    Record {
        /// Which.
        id: RecordId,
        /// Its bytes; none if it is gone.
        bytes: Option<RecordBytes>,
    },
    /// A node lives.
    Heartbeat {
        /// Which node.
        node: NodeName,
        /// What it says.
        heartbeat: Heartbeat,
    },
    /// An import is under way, or ended.
    Import {
        /// Whether it is under way.
        open: bool,
    },
    /// Signed requests that expire at this time or before are refused.
    NonceFloor(Timestamp),
    /// The last entry of its stream: the log goes on in another one.
    Closed {
        /// Which.
        next: Generation,
    },
    /// Every node notes what it has when it passes this.
    Barrier {
        /// Random.
        id: [u8; 16],
    },
    /// Somebody drives a rotation, or does so no longer.
    Driver {
        /// Random number of who does; none if nobody does any more.
        by: Option<[u8; 16]>,
        /// The clock of who does.
        at: Timestamp,
    },
    /// A signed document that the receipt of a rotation will show; none if it is not needed any more.
    Evidence {
        /// What it is called.
        label: String,
        /// The document.
        bytes: Option<Vec<u8>>,
    },
}

impl Content {
    fn kind(&self) -> u8 {
        match self {
            Self::Record { id, .. } => id.kind().number(),
            Self::Heartbeat { .. } => HEARTBEAT,
            Self::Import { .. } => IMPORT,
            Self::NonceFloor(_) => NONCE_FLOOR,
            Self::Closed { .. } => CLOSED,
            Self::Barrier { .. } => BARRIER,
            Self::Driver { .. } => DRIVER,
            Self::Evidence { .. } => EVIDENCE,
        }
    }

    fn identity(&self) -> Vec<u8> {
        match self {
            Self::Record { id, .. } => id.identity(),
            Self::Heartbeat { node, .. } => node.as_str().as_bytes().to_vec(),
            Self::Evidence { label, .. } => label.as_bytes().to_vec(),
            Self::Import { .. }
            | Self::NonceFloor(_)
            | Self::Closed { .. }
            | Self::Barrier { .. }
            | Self::Driver { .. } => Vec::new(),
        }
    }

    /// The bytes beside kind and identity; none for a tombstone.
    fn body(&self) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::Record { bytes, .. } => bytes.as_ref().map(|bytes| Zeroizing::new(bytes.body().to_vec())),
            Self::Heartbeat { heartbeat, .. } => {
                let mut out = vec![BODY_VERSION_1];
                out.extend_from_slice(&heartbeat.at.micros().to_be_bytes());
                out.extend_from_slice(&heartbeat.keyring_version.to_be_bytes());
                out.extend_from_slice(heartbeat.keyring_hash.as_bytes());
                Some(Zeroizing::new(out))
            }
            Self::Import { open } => open.then(|| Zeroizing::new(vec![BODY_VERSION_1])),
            Self::NonceFloor(at) => {
                let mut out = vec![BODY_VERSION_1];
                out.extend_from_slice(&at.micros().to_be_bytes());
                Some(Zeroizing::new(out))
            }
            Self::Closed { next } => Some(body_of(&next.number().to_be_bytes())),
            Self::Barrier { id } => Some(body_of(id)),
            Self::Driver { by, at } => {
                by.map(|by| body_of(&[by.as_slice(), &at.micros().to_be_bytes()].concat()))
            }
            Self::Evidence { bytes, .. } => bytes.as_ref().map(|bytes| body_of(bytes)),
        }
    }
}

fn body_of(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&[BODY_VERSION_1], bytes].concat())
}

/// An entry that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    /// What it says.
    pub(super) content: Content,
    /// State digest after the write that it belongs to: equal in all entries of one write.
    pub(super) digest_after: StateDigest,
    /// The epoch that it is sealed under.
    pub(super) epoch: Epoch,
    /// Hash of the record for the state digest; none for what is no record or gone.
    pub(super) hash: Option<[u8; 32]>,
}

/// An entry to be published: subject and payload.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    /// Whole subject.
    pub(super) subject: String,
    /// Payload.
    pub(super) payload: Bytes,
}

/// Why a message of the stream is no entry of this log. Names no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EntryError {
    /// It carries a header that no entry has.
    #[error("a message with the header {0}")]
    ForeignHeader(&'static str),
    /// It is no envelope.
    #[error("a message that is not sealed")]
    NotSealed,
    /// It names an epoch that the keyring does not have.
    #[error("an entry under epoch {0}, which the keyring does not have")]
    UnknownEpoch(Epoch),
    /// It does not open at this place.
    #[error("an entry that does not open at this place")]
    Unauthentic,
    /// It opens, and yet is not what it should be.
    #[error("an authentic entry with a wrong {0}")]
    Malformed(&'static str),
}

struct EpochCodec {
    sealer: Sealer,
    blinder: Blinder,
}

/// Seals and opens the entries of one log under the keys of one keyring.
pub(super) struct Codec {
    cluster: ClusterId,
    lineage: Lineage,
    /// Name of the stream, and what its subjects begin with.
    stream: String,
    prefix: String,
    epochs: BTreeMap<Epoch, EpochCodec>,
    primary: Epoch,
    hasher: StateHasher,
    nonces: Blinder,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Codec(primary epoch {}, [REDACTED])", self.primary)
    }
}

impl Codec {
    /// The keys of a keyring, ready for use in one stream of the log.
    pub(super) fn new(keyring: &Keyring, secrets: &Secrets, generation: Generation) -> Self {
        let cluster = *keyring.cluster();
        let epochs = keyring.epochs().iter().filter_map(|entry| {
            let key = secrets.epoch(entry.number)?;
            let sealer = Sealer::new(entry.number, key, &cluster);
            Some((entry.number, EpochCodec { sealer, blinder: Blinder::new(key, &cluster) }))
        });
        Self {
            cluster,
            lineage: *keyring.lineage(),
            stream: generation.stream(),
            prefix: generation.prefix(),
            epochs: epochs.collect(),
            primary: secrets.primary().0,
            hasher: StateHasher::new(secrets.state_key()),
            nonces: Blinder::of_state(secrets.state_key(), &cluster),
        }
    }

    /// Hashes records for the state digest.
    pub(super) const fn hasher(&self) -> &StateHasher {
        &self.hasher
    }

    /// The epoch that seals.
    pub(super) const fn primary(&self) -> Epoch {
        self.primary
    }

    /// The document that a subject of this stream names; none if it names a sealed entry.
    pub(super) fn document(&self, subject: &str) -> Option<DocumentName> {
        DocumentName::of_subject(subject, &self.prefix)
    }

    /// The blinded name of a nonce: the same under every epoch, so that none is used twice while epochs change.
    pub(super) fn blind_nonce(&self, identity: &[u8]) -> String {
        self.nonces.name(NONCE, identity).as_str().to_owned()
    }

    /// The blinded name of anything under the primary epoch.
    #[cfg(test)]
    pub(super) fn blind(&self, kind: u8, identity: &[u8]) -> Option<String> {
        Some(self.epochs.get(&self.primary)?.blinder.name(kind, identity).as_str().to_owned())
    }

    /// The subject of an entry under the primary epoch.
    pub(super) fn subject(&self, content: &Content) -> Option<String> {
        let name = self.epochs.get(&self.primary)?.blinder.name(content.kind(), &content.identity());
        Some(format!("{}{name}", self.prefix))
    }

    /// Seals an entry for `sequence`.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a record that is over its limit.
    pub(super) fn seal(
        &self,
        content: &Content,
        digest_after: StateDigest,
        sequence: u64,
    ) -> Result<Sealed, StoreError> {
        let lost = StoreError::Poisoned { step: "the primary epoch" };
        let epoch = self.epochs.get(&self.primary).ok_or(lost)?;
        let (kind, identity, body) = (content.kind(), content.identity(), content.body());
        let name = epoch.blinder.name(kind, &identity);
        let operation = if body.is_some() { Operation::Put } else { Operation::Tombstone };
        let record = body.unwrap_or_default();
        let plaintext = Plaintext { kind, operation, identity, digest_after, record };
        let place = self.place(name.as_str(), sequence);
        let payload = epoch.sealer.seal(&plaintext, &place, Nonce::random());
        let payload =
            payload.map_err(|_| StoreError::Invalid { what: "a record is too large to be sealed" })?;
        Ok(Sealed { subject: format!("{}{name}", self.prefix), payload: payload.into() })
    }

    /// Opens what stands at a place of the stream.
    ///
    /// # Errors
    /// [`EntryError`].
    pub(super) fn open(&self, raw: &Raw, buffer: &mut Zeroizing<Vec<u8>>) -> Result<Opened, EntryError> {
        if let Some(header) = raw.foreign_header {
            return Err(EntryError::ForeignHeader(header));
        }
        let name = raw.subject.strip_prefix(self.prefix.as_str()).ok_or(EntryError::Malformed("subject"))?;
        let number = Envelope::decode(&raw.payload).map_err(|_| EntryError::NotSealed)?.epoch;
        let epoch = self.epochs.get(&number).ok_or(EntryError::UnknownEpoch(number))?;
        let opened = epoch.sealer.open_into(&raw.payload, &self.place(name, raw.sequence), buffer);
        let plaintext = opened.map_err(|error| match error {
            OpenError::Contents(_) => EntryError::Malformed("plaintext"),
            _ => EntryError::Unauthentic,
        })?;
        if epoch.blinder.name(plaintext.kind, plaintext.identity).as_str() != name {
            return Err(EntryError::Malformed("name"));
        }
        let content = content_of(&plaintext)?;
        let hash = match &content {
            Content::Record { bytes: Some(bytes), .. } => Some(self.hasher.hash(bytes.as_bytes())),
            _ => None,
        };
        Ok(Opened { content, digest_after: plaintext.digest_after, epoch: number, hash })
    }

    fn place<'a>(&'a self, name: &'a str, sequence: u64) -> Place<'a> {
        Place {
            cluster: &self.cluster,
            lineage: &self.lineage,
            stream: &self.stream,
            name,
            sequence: Sequence(sequence),
        }
    }
}

fn content_of(plaintext: &PlaintextRef<'_>) -> Result<Content, EntryError> {
    let is_put = plaintext.operation == Operation::Put;
    if let Some(kind) = Kind::from_number(plaintext.kind) {
        let id = RecordId::parse(kind, plaintext.identity).map_err(|_| EntryError::Malformed("identity"))?;
        let bytes = is_put.then(|| RecordBytes::assemble(&id, plaintext.record)).transpose();
        let bytes = bytes.map_err(|_| EntryError::Malformed("record"))?;
        if let Some(bytes) = &bytes {
            Record::decode(bytes.as_bytes()).map_err(|_| EntryError::Malformed("record"))?;
        }
        return Ok(Content::Record { id, bytes });
    }
    let body = plaintext.record;
    match plaintext.kind {
        HEARTBEAT if is_put => {
            let name = std::str::from_utf8(plaintext.identity).ok().and_then(|name| name.parse().ok());
            let node = name.ok_or(EntryError::Malformed("identity"))?;
            let heartbeat = heartbeat_of(body).ok_or(EntryError::Malformed("heartbeat"))?;
            Ok(Content::Heartbeat { node, heartbeat })
        }
        IMPORT if plaintext.identity.is_empty() && (!is_put || body == [BODY_VERSION_1]) => {
            Ok(Content::Import { open: is_put })
        }
        NONCE_FLOOR if is_put && plaintext.identity.is_empty() => match body.split_first_chunk::<9>() {
            Some(([BODY_VERSION_1, micros @ ..], [])) => Timestamp::from_micros(i64::from_be_bytes(*micros))
                .map(Content::NonceFloor)
                .map_err(|_| EntryError::Malformed("nonce floor")),
            _ => Err(EntryError::Malformed("nonce floor")),
        },
        CLOSED | BARRIER | DRIVER | EVIDENCE => control_of(plaintext, is_put),
        _ => Err(EntryError::Malformed("kind")),
    }
}

/// What belongs to a rotation (SPEC store, section 8.11).
fn control_of(plaintext: &PlaintextRef<'_>, is_put: bool) -> Result<Content, EntryError> {
    let wrong = EntryError::Malformed("rotation entry");
    let body = if is_put { plaintext.record.strip_prefix(&[BODY_VERSION_1]) } else { Some(&[][..]) };
    let body = body.ok_or(wrong.clone())?;
    if plaintext.kind == EVIDENCE {
        let label = std::str::from_utf8(plaintext.identity).map_err(|_| wrong.clone())?;
        let is_label =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"./-".contains(&byte);
        if label.is_empty() || label.len() > LABEL_MAX || !label.bytes().all(is_label) {
            return Err(wrong);
        }
        return Ok(Content::Evidence { label: label.to_owned(), bytes: is_put.then(|| body.to_vec()) });
    }
    if !plaintext.identity.is_empty() {
        return Err(wrong);
    }
    match (plaintext.kind, is_put) {
        (CLOSED, true) => {
            let number = <[u8; 4]>::try_from(body).ok().map(u32::from_be_bytes);
            let next = number.and_then(Generation::from_number).ok_or(wrong)?;
            Ok(Content::Closed { next })
        }
        (BARRIER, true) => Ok(Content::Barrier { id: body.try_into().map_err(|_| wrong)? }),
        (DRIVER, false) => {
            Ok(Content::Driver { by: None, at: Timestamp::from_micros(0).map_err(|_| wrong)? })
        }
        (DRIVER, true) => {
            let (by, at) = body.split_first_chunk::<16>().ok_or(wrong.clone())?;
            let at = <[u8; 8]>::try_from(at).map_err(|_| wrong.clone())?;
            let at = Timestamp::from_micros(i64::from_be_bytes(at)).map_err(|_| wrong)?;
            Ok(Content::Driver { by: Some(*by), at })
        }
        _ => Err(wrong),
    }
}

fn heartbeat_of(body: &[u8]) -> Option<Heartbeat> {
    let (&[version], rest) = body.split_first_chunk::<1>()?;
    let (micros, rest) = rest.split_first_chunk::<8>()?;
    let (keyring_version, rest) = rest.split_first_chunk::<8>()?;
    let hash = <[u8; 32]>::try_from(rest).ok()?;
    let at = Timestamp::from_micros(i64::from_be_bytes(*micros)).ok()?;
    (version == BODY_VERSION_1).then_some(Heartbeat {
        at,
        keyring_version: u64::from_be_bytes(*keyring_version),
        keyring_hash: DocumentHash::from_bytes(hash),
    })
}

#[cfg(test)]
mod tests;
