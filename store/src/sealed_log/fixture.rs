//! What the tests of this module share: keys, and records of every kind.

use std::sync::Arc;
use std::time::Duration;

use unibus_keyfile::id::{Lineage, NodeName, UnixTime};
use unibus_keyfile::keyring::{Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::OperatorKey;

use super::documents::Documents;
use super::entry::{Codec, DocumentName};
use super::shared::Shared;
use super::wire::Raw;
use crate::record::{
    Endpoint, Handle, KeyEpoch, Member, MemberRole, Record, RecordBytes, RecordId, RoomId, SignPub,
    Timestamp, User, UserRole,
};

/// A keyring of a lineage of its own, and a codec over it.
pub(super) struct Keys {
    pub(super) keyring: Keyring,
    pub(super) secrets: Secrets,
}

impl Keys {
    pub(super) fn new() -> Self {
        let operator = OperatorKey::generate();
        let alpha = NodeKeyFile::generate(node("alpha"), operator.cluster_id());
        let now = UnixTime::from_seconds(1_800_000_000);
        let nodeset = Plan::first(&operator).with_node(alpha.member(now)).sign(&operator).unwrap();
        let (keyring, secrets) = Keyring::create(&nodeset, &alpha, Lineage::random(), None, now).unwrap();
        Self { keyring, secrets }
    }

    pub(super) fn codec(&self) -> Codec {
        Codec::new(&self.keyring, &self.secrets)
    }
}

/// The time at which everything here is signed.
pub(super) const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

/// An operator and a node `alpha`, with the documents of their log: the nodeset at sequence 1, the keyring at 2.
pub(super) struct Site {
    pub(super) operator: OperatorKey,
    pub(super) own: Arc<NodeKeyFile>,
    pub(super) nodeset: Nodeset,
    pub(super) keyring: Keyring,
    pub(super) secrets: Secrets,
}

impl Site {
    pub(super) fn new() -> Self {
        let operator = OperatorKey::generate();
        let own = NodeKeyFile::generate(node("alpha"), operator.cluster_id());
        let nodeset = Plan::first(&operator).with_node(own.member(NOW)).sign(&operator).unwrap();
        let (keyring, secrets) = Keyring::create(&nodeset, &own, Lineage::random(), None, NOW).unwrap();
        Self { operator, own: Arc::new(own), nodeset, keyring, secrets }
    }

    pub(super) fn keys(&self) -> crate::keys::Keys {
        crate::keys::Keys::Node(Arc::clone(&self.own))
    }

    pub(super) fn documents(&self) -> Documents {
        let nodeset = document(&DocumentName::Nodeset, 1, self.nodeset.as_bytes());
        let keyring = document(&DocumentName::Keyring, 2, self.keyring.as_bytes());
        Documents::open(&self.keys(), self.nodeset.clone(), &nodeset, &keyring).unwrap()
    }

    /// A view in which nothing stands.
    pub(super) fn shared(&self, max_staleness: Option<Duration>) -> Shared {
        let clock = Arc::new(|| at(1_800_000_000_000_000));
        Shared::new(self.keys(), self.documents(), max_staleness, clock)
    }
}

/// A document as it stands in the stream.
pub(super) fn document(name: &DocumentName, sequence: u64, bytes: &[u8]) -> Raw {
    let payload = bytes.to_vec().into();
    Raw { sequence, subject: name.subject(), payload, foreign_header: None, pending: 0 }
}

pub(super) fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub(super) fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

/// A signing key that differs with each number.
pub(super) fn sign(number: u32) -> SignPub {
    let mut bytes = [7; 32];
    // In front, where the hash of a real key differs too.
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
    SignPub::from_bytes(bytes).unwrap()
}

pub(super) fn user(number: u32) -> User {
    let handle = Handle::parse(&format!("user {number}")).unwrap();
    User::new(sign(number), handle, UserRole::Member, at(1_800_000_000_000_000))
}

pub(super) fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

pub(super) fn member(name: &str, number: u32) -> Record {
    Member::new(room(name), sign(number), None, MemberRole::Member, at(1_800_000_000_000_000)).into()
}

pub(super) fn room_key(name: &str, epoch: u64, number: u32) -> RecordId {
    RecordId::RoomKey(room(name), KeyEpoch::new(epoch).unwrap(), Endpoint::of(&sign(number)))
}

/// Bytes for an identity that no record decodes from: enough for what looks at the identity only.
pub(super) fn bytes(id: &RecordId, body: u8) -> RecordBytes {
    RecordBytes::assemble(id, &[body; 20]).unwrap()
}
