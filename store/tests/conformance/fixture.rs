//! What the rules are tried on: an opened store, and people and rooms by number.

use std::{any::Any, fmt, future::Future, ops::Deref, sync::Arc};

use unibus_keyfile::secret::{BlobKey, StateKey};
use unibus_store::{
    error::StoreError,
    memory::MemoryStore,
    record::{
        Blob, BlobHash, Channel, Endpoint, Handle, KexPub, KeyEpoch, Member, MemberRole, Policy, Record,
        Room, RoomId, SealedKey, SignPub, StorageName, Subject, Timestamp, User, UserRole,
    },
    store::{Actor, ExportSink, Position, Store, Strength},
};

/// How a backend is opened: empty, of a new lineage, under this state key.
pub(crate) type Open = fn(StateKey) -> Opened;

/// An opened store, and what must live as long as it does (a folder, say).
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    counts: Counts,
    _keep: Box<dyn Any + Send + Sync>,
}

/// What a store's sequence counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Committed writes and granted nonces.
    Writes,
    /// Entries of a log: a write moves it on by one or more, a nonce lies elsewhere.
    Entries,
}

impl Opened {
    pub(crate) fn new(store: impl Store, keep: impl Any + Send + Sync) -> Self {
        Self { store: Arc::new(store), counts: Counts::Writes, _keep: Box::new(keep) }
    }

    pub(crate) fn counting(mut self, counts: Counts) -> Self {
        self.counts = counts;
        self
    }

    /// The sequence has moved from `before` by that many writes.
    pub(crate) fn has_moved(&self, before: Position, writes: u64) -> bool {
        let after = self.store.position().unwrap().sequence.0;
        match self.counts {
            Counts::Writes => after == before.sequence.0 + writes,
            Counts::Entries if writes == 0 => after == before.sequence.0,
            Counts::Entries => after >= before.sequence.0 + writes,
        }
    }

    /// Whether a granted nonce counts as a write.
    pub(crate) fn counts_nonces(&self) -> bool {
        self.counts == Counts::Writes
    }
}

impl Deref for Opened {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

pub(crate) fn open_memory(key: StateKey) -> Opened {
    Opened::new(MemoryStore::new(&key), ())
}

/// The same state key each time, so that digests of different stores compare.
pub(crate) fn state_key() -> StateKey {
    StateKey::init_with(|key| key.fill(0x5a))
}

pub(crate) const LOCAL: Strength = Strength::Local;
pub(crate) const OPERATOR: Actor = Actor::Operator;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000).unwrap()
}

pub(crate) fn sign(number: u8) -> SignPub {
    let mut bytes = [number; 32];
    bytes[31] = 0x55;
    SignPub::from_bytes(bytes).unwrap()
}

pub(crate) fn endpoint(number: u8) -> Endpoint {
    Endpoint::of(&sign(number))
}

pub(crate) fn signer(number: u8) -> Actor {
    Actor::Signer(sign(number))
}

pub(crate) fn user(number: u8, role: UserRole) -> User {
    User::new(sign(number), Handle::parse(&format!("user {number}")).unwrap(), role, at(i64::from(number)))
}

pub(crate) fn room_id(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

pub(crate) fn member(room: &str, number: u8, role: MemberRole) -> Member {
    let kex = KexPub::from_bytes([number.wrapping_add(2) | 0x40; 32]).unwrap();
    Member::new(room_id(room), sign(number), Some(kex), role, at(50))
}

pub(crate) fn room(name: &str, owner: u8, encrypt: bool) -> Room {
    let names = (Subject::parse(&format!("subject.{name}")).unwrap(), Channel::parse(name).unwrap());
    let policy = Policy { encrypt, persist: true, sign_msgs: false };
    Room::new(room_id(name), names, policy, endpoint(owner), at(40))
}

pub(crate) fn sealed(text: &str) -> SealedKey {
    SealedKey::from_bytes(text.as_bytes()).unwrap()
}

pub(crate) fn epoch(number: u64) -> KeyEpoch {
    KeyEpoch::new(number).unwrap()
}

pub(crate) fn blob(number: u8) -> Blob {
    let key = BlobKey::init_with(|key| key.fill(number)).into();
    Blob::new(BlobHash::of(&[number]), u64::from(number), key, StorageName::from_bytes([number; 16]), at(60))
        .unwrap()
}

/// A store with users 1 (admin), 2, 3, 4 (members) and room `r`, encrypted, of owner 2 with member 3.
pub(crate) async fn populated(open: Open) -> Opened {
    let store = open(state_key());
    store.add_user(OPERATOR, user(1, UserRole::Admin)).await.unwrap();
    for number in 2..=4 {
        store.add_user(OPERATOR, user(number, UserRole::Member)).await.unwrap();
    }
    let owner = member("r", 2, MemberRole::Owner);
    store.create_room(signer(2), room("r", 2, true), owner, Some(sealed("r1 for 2"))).await.unwrap();
    let key = Some((epoch(1), sealed("r1 for 3")));
    store.invite(signer(2), member("r", 3, MemberRole::Member), key).await.unwrap();
    store
}

/// The operation is refused with this error code, and neither sequence nor digest has moved.
pub(crate) async fn refused<T: fmt::Debug>(
    store: &Opened,
    code: &str,
    operation: impl Future<Output = Result<T, StoreError>>,
) {
    let before = store.position().unwrap();
    let error = operation.await.expect_err("the operation went through");
    assert_eq!(error.code(), code, "{error}");
    assert_eq!(store.position().unwrap(), before, "a refusal moved the store");
}

/// The operation goes through, counts as one write, and the digest still adds up.
pub(crate) async fn committed<T>(
    store: &Opened,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Position {
    let before = store.position().unwrap();
    if let Err(error) = operation.await {
        panic!("refused: {error}");
    }
    let after = store.position().unwrap();
    assert!(store.has_moved(before, 1), "{before:?} {after:?}");
    assert_eq!(after.lineage, before.lineage);
    assert_eq!(store.verify().unwrap().position, after);
    after
}

/// An export kept in memory.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) begun: Option<(Position, u64)>,
    pub(crate) records: Vec<Record>,
    pub(crate) bytes: Vec<Vec<u8>>,
}

impl ExportSink for Kept {
    fn begin(&mut self, position: &Position, census: &unibus_store::store::Census) -> Result<(), StoreError> {
        assert!(self.begun.is_none() && self.bytes.is_empty(), "begin comes once and first");
        self.begun = Some((*position, census.total()));
        Ok(())
    }

    fn record(&mut self, id: &unibus_store::record::RecordId, bytes: &[u8]) -> Result<(), StoreError> {
        let record = Record::decode(bytes).unwrap();
        assert_eq!(record.id(), *id);
        self.records.push(record);
        self.bytes.push(bytes.to_vec());
        Ok(())
    }
}

pub(crate) fn exported(store: &Opened) -> Kept {
    let mut kept = Kept::default();
    let position = store.export(&mut kept).unwrap();
    assert_eq!(kept.begun, Some((position, u64::try_from(kept.bytes.len()).unwrap())));
    kept
}
