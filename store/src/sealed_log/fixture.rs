//! What the tests of this module share: keys, and records of every kind.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::id::{DocumentHash, Epoch, Lineage, NodeName, UnixTime};
use unibus_keyfile::keyring::{Keyring, Secrets};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::OperatorKey;

use super::documents::Documents;
use super::entry::{Codec, DocumentName};
use super::error::LogError;
use super::options::{Access, LogOptions};
use super::shared::Shared;
use super::stream::Generation;
use super::view::Item;
use super::wire::Raw;
use super::wire::tests::server::Server;
use super::{SealedLog, entry};
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
        Codec::new(&self.keyring, &self.secrets, Generation::FIRST)
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
        Documents::open(&self.keys(), self.nodeset.clone(), (&nodeset, &keyring), Generation::FIRST, None)
            .unwrap()
    }

    /// A view in which nothing stands.
    pub(super) fn shared(&self, max_staleness: Option<Duration>) -> Shared {
        let clock = Arc::new(|| at(1_800_000_000_000_000));
        Shared::new(self.keys(), self.documents(), max_staleness, clock)
    }
}

/// The folders of a node, and a server of its own.
pub(super) struct Home {
    pub(super) site: Site,
    pub(super) folder: tempfile::TempDir,
    pub(super) server: Server,
}

impl Home {
    pub(super) async fn new() -> Self {
        let (site, folder) = (Site::new(), tempfile::tempdir().unwrap());
        let mut file = std::fs::File::create(folder.path().join("nodeset")).unwrap();
        file.write_all(site.nodeset.as_bytes()).unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        let server = Server::with("jetstream { store_dir: $FOLDER }").await;
        Self { site, folder, server }
    }

    pub(super) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// No heartbeat comes by itself while a test runs.
    pub(super) fn options(&self) -> LogOptions {
        let clock = Arc::new(|| at(1_800_000_000_000_000));
        let nodeset = self.folder.path().join("nodeset");
        LogOptions::new(vec![self.server.url()], self.site.keys(), &nodeset, &self.state_dir(), clock)
            .boot_budget(Duration::from_secs(20))
            .max_staleness(Duration::from_secs(3600))
    }

    pub(super) fn open(&self, access: Access) -> Result<SealedLog, LogError> {
        SealedLog::open(self.options().access(access))
    }
}

/// Another node's heartbeat over records of this digest.
pub(super) fn beat(digest: StateDigest) -> Item {
    let keyring_hash = DocumentHash::from_bytes([1; 32]);
    let heartbeat = entry::Heartbeat { at: at(1_800_000_000_000_000), keyring_version: 1, keyring_hash };
    item(entry::Content::Heartbeat { node: node("beta"), heartbeat }, digest)
}

pub(super) fn item(content: entry::Content, digest_after: StateDigest) -> Item {
    Item::Entry(entry::Opened { content, digest_after, epoch: Epoch::FIRST, hash: None })
}

/// A document as it stands in the stream.
pub(super) fn document(name: &DocumentName, sequence: u64, bytes: &[u8]) -> Raw {
    let payload = bytes.to_vec().into();
    Raw { sequence, subject: name.subject(Generation::FIRST), payload, foreign_header: None, pending: 0 }
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
