//! A node with its keys, a store of its own, and eyes for every byte around it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::OperatorKey;
use unibus_store::record::{
    Channel, Endpoint, Handle, KexPub, KeyEpoch, Member, MemberRole, Record, RecordBytes, Room, RoomId,
    RoomKey, SealedKey, SignPub, Subject, Timestamp, User, UserRole,
};
use unibus_store::sqlcipher::{CreateOptions, Keys, Mode, NewStore, OpenError, OpenOptions, SqlcipherStore};
use unibus_store::store::Position;

/// Every file under a folder: relative path and bytes.
pub(crate) type Tree = BTreeMap<PathBuf, Vec<u8>>;

pub(crate) fn tree(folder: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Names and lengths, for the text of a failed assertion.
pub(crate) fn names(tree: &Tree) -> Vec<(String, usize)> {
    tree.iter().map(|(path, bytes)| (path.display().to_string(), bytes.len())).collect()
}

#[expect(clippy::disallowed_methods, reason = "a test puts bytes where an attacker would")]
pub(crate) fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

/// Puts a folder back to what it was.
pub(crate) fn put_back(folder: &Path, earlier: &Tree) {
    for path in tree(folder).keys() {
        if !earlier.contains_key(path) {
            std::fs::remove_file(folder.join(path)).unwrap();
        }
    }
    for (path, bytes) in earlier {
        overwrite(&folder.join(path), bytes);
    }
}

pub(crate) struct Site {
    /// Data and state lie in different folders, as they should.
    pub(crate) data: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) db: PathBuf,
    pub(crate) nodeset: PathBuf,
    pub(crate) operator: Arc<OperatorKey>,
    pub(crate) own: Arc<NodeKeyFile>,
    pub(crate) folder: TempDir,
}

pub(crate) fn now() -> UnixTime {
    UnixTime::from_seconds(1_800_000_000)
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000).unwrap()
}

impl Site {
    /// A node that has nothing but its keys and a nodeset.
    pub(crate) fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    pub(crate) fn within(folder: TempDir) -> Self {
        let (data, state) = (folder.path().join("data"), folder.path().join("state"));
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(&state).unwrap();
        let operator = Arc::new(OperatorKey::generate());
        let own = Arc::new(NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id()));
        let site = Self {
            db: data.join("control.db"),
            nodeset: data.join("nodeset"),
            data,
            state,
            operator,
            own,
            folder,
        };
        site.publish(&site.first_nodeset());
        site
    }

    pub(crate) fn first_nodeset(&self) -> Nodeset {
        Plan::first(&self.operator).with_node(self.own.member(now())).sign(&self.operator).unwrap()
    }

    pub(crate) fn publish(&self, nodeset: &Nodeset) {
        overwrite(&self.nodeset, nodeset.as_bytes());
    }

    /// A node with a store that holds `users` users and some rooms.
    pub(crate) fn with_store(users: u32) -> Self {
        let site = Self::new();
        site.create(&records(users));
        site
    }

    pub(crate) fn create_options(&self) -> CreateOptions {
        CreateOptions::new(&self.db, Arc::clone(&self.own), now()).state_dir(&self.state)
    }

    pub(crate) fn create(&self, records: &[RecordBytes]) -> Position {
        let mut new = NewStore::begin(self.create_options()).unwrap();
        for bytes in records {
            new.push(bytes).unwrap();
        }
        new.finish().unwrap().0
    }

    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions::new(&self.db, Keys::Node(Arc::clone(&self.own)), now()).state_dir(&self.state)
    }

    pub(crate) fn open(&self) -> Result<SqlcipherStore, OpenError> {
        SqlcipherStore::open(&self.options())
    }

    pub(crate) fn read_only(&self) -> Result<SqlcipherStore, OpenError> {
        SqlcipherStore::open(&self.options().mode(Mode::ReadOnly))
    }

    pub(crate) fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.db.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// Opens in both modes, expects a refusal of each, and that not a byte of data and state has changed.
    pub(crate) fn refused(&self) -> OpenError {
        let before = tree(self.folder.path());
        let mut error = None;
        for mode in [Mode::ReadWrite, Mode::ReadOnly] {
            let refusal = SqlcipherStore::open(&self.options().mode(mode)).expect_err("is refused");
            let after = tree(self.folder.path());
            assert!(before == after, "{refusal:?} changed {:?} to {:?}", names(&before), names(&after));
            error = Some(refusal);
        }
        error.unwrap()
    }

    /// Copies the whole site as a killed process leaves it, into a new folder.
    pub(crate) fn as_if_killed(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in tree(self.folder.path()) {
            std::fs::create_dir_all(folder.path().join(&path).parent().unwrap()).unwrap();
            overwrite(&folder.path().join(path), &bytes);
        }
        let (data, state) = (folder.path().join("data"), folder.path().join("state"));
        Self {
            db: data.join("control.db"),
            nodeset: data.join("nodeset"),
            data,
            state,
            operator: Arc::clone(&self.operator),
            own: Arc::clone(&self.own),
            folder,
        }
    }
}

/// A valid signing key of a number.
pub(crate) fn sign_pub(number: u32) -> SignPub {
    let mut bytes = [0x5a; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    SignPub::from_bytes(bytes).unwrap()
}

pub(crate) fn user(number: u32) -> User {
    let handle = Handle::parse(&format!("user number {number} of the canaries")).unwrap();
    User::new(sign_pub(number), handle, UserRole::Admin, at(i64::from(number)))
}

/// A room, its owner and the owner's key.
pub(crate) fn room(number: u32) -> (Room, Member, RoomKey) {
    let id = RoomId::parse(&format!("room-{number:06}")).unwrap();
    let owner = sign_pub(number);
    let subject = Subject::parse(&format!("plans.of.number.{number}")).unwrap();
    let channel = Channel::parse(&format!("channel-{number:06}")).unwrap();
    let policy = unibus_store::record::Policy { encrypt: true, persist: true, sign_msgs: false };
    let room = Room::new(id.clone(), (subject, channel), policy, Endpoint::of(&owner), at(0));
    let kex = KexPub::from_bytes([9; 32]).unwrap();
    let member = Member::new(id.clone(), owner, Some(kex), MemberRole::Owner, at(1));
    let sealed = SealedKey::from_bytes(&[7; 96]).unwrap();
    let key = RoomKey::new(id, KeyEpoch::FIRST, Endpoint::of(&owner), sealed);
    (room, member, key)
}

/// Some users and a tenth as many rooms, in canonical order.
pub(crate) fn records(users: u32) -> Vec<RecordBytes> {
    let mut records: Vec<Record> = (0..users).map(|number| Record::User(user(number))).collect();
    for (room, member, key) in (0..users / 10).map(room) {
        records.extend([Record::Room(room), Record::Member(member), Record::RoomKey(key)]);
    }
    records.sort_by_key(Record::id);
    records.iter().map(Record::encode).collect()
}
