//! Random histories of a log, and what each of them must lead to: the plain model that folds are held against.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use unibus_keyfile::digest::{StateDigest, StateHasher};
use unibus_keyfile::id::{DocumentHash, Epoch, NodeName};
use unibus_keyfile::secret::StateKey;

use super::entry::{Content, DocumentName, Heartbeat, Opened};
use super::fixture::{at, bytes, member, node, room, room_key, sign};
use super::view::Item;
use crate::domain::{Scan, View};
use crate::record::{BlobHash, Endpoint, Kind, RecordBytes, RecordId};
use crate::store::Census;

pub(super) type Records = BTreeMap<RecordId, RecordBytes>;

/// One thing that somebody writes.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Records by number, and what each holds afterwards.
    Write(Vec<(usize, Option<u8>)>),
    /// The same records under the primary epoch.
    Reseal(Vec<usize>),
    Heartbeat(bool),
    Import(bool),
    NonceFloor(i64),
    Document(u8),
    NewEpoch,
}

pub(super) fn steps(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let (slot, body) = (0..slots().len(), proptest::option::weighted(0.7, 0..3_u8));
    let one = prop_oneof![
        6 => proptest::collection::vec((slot.clone(), body), 1..6).prop_map(Step::Write),
        1 => proptest::collection::vec(slot, 1..4).prop_map(Step::Reseal),
        2 => any::<bool>().prop_map(Step::Heartbeat),
        1 => any::<bool>().prop_map(Step::Import),
        1 => (1..9_i64).prop_map(Step::NonceFloor),
        1 => (0..4_u8).prop_map(Step::Document),
        1 => Just(Step::NewEpoch),
    ];
    proptest::collection::vec(one, range)
}

/// The records that histories are about, of every kind, with neighbours that a scan could take for its own.
pub(super) fn slots() -> Vec<RecordId> {
    let mut slots = vec![RecordId::Blob(BlobHash::of(b"1")), RecordId::Blob(BlobHash::of(b"2"))];
    slots.extend((1..=4).map(|number| RecordId::User(sign(number))));
    for name in ["a", "a-", "b"] {
        slots.push(RecordId::Room(room(name)));
        for number in 1..=3 {
            slots.push(member(name, number).id());
            slots.extend([1, 2, 5].map(|epoch| room_key(name, epoch, number)));
        }
    }
    slots
}

/// What a message of the stream is called: epoch, kind, identity.
type Name = (u32, u8, Vec<u8>);

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) sequence: u64,
    pub(super) item: Item,
    name: Name,
}

impl Message {
    pub(super) const fn content(&self) -> Option<&Content> {
        match &self.item {
            Item::Entry(opened) => Some(&opened.content),
            Item::Document(_) => None,
        }
    }
}

/// What a step has left.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    pub(super) sequence: u64,
    pub(super) record_sequence: u64,
    pub(super) records: Records,
    pub(super) digest: StateDigest,
    pub(super) epochs: BTreeMap<Epoch, u64>,
    pub(super) heartbeats: BTreeMap<NodeName, (u64, Heartbeat)>,
    pub(super) import_open: bool,
    pub(super) nonce_floor: Option<i64>,
}

impl Moment {
    pub(super) fn census(&self) -> Census {
        let mut census = Census::default();
        self.records.keys().for_each(|id| census.add(id.kind(), 1));
        census
    }
}

/// A log as it was written, nothing of it superseded.
pub(super) struct History {
    pub(super) log: Vec<Message>,
    /// The empty log, and what each step has left.
    pub(super) moments: Vec<Moment>,
    key: StateKey,
    epoch: Epoch,
}

impl History {
    /// Ends with a heartbeat, as a log in use does.
    pub(super) fn of(steps: &[Step]) -> Self {
        let start = Moment {
            sequence: 0,
            record_sequence: 0,
            records: Records::new(),
            digest: StateDigest::EMPTY,
            epochs: BTreeMap::new(),
            heartbeats: BTreeMap::new(),
            import_open: false,
            nonce_floor: None,
        };
        let (log, key) = (Vec::new(), StateKey::generate());
        let mut history = Self { log, moments: vec![start], key, epoch: Epoch::FIRST };
        steps.iter().for_each(|step| history.step(step));
        history.step(&Step::Heartbeat(true));
        history
    }

    pub(super) fn hasher(&self) -> StateHasher {
        StateHasher::new(&self.key)
    }

    pub(super) fn last(&self) -> &Moment {
        self.moments.last().unwrap()
    }

    /// What the step has left that wrote this sequence.
    pub(super) fn moment_of(&self, sequence: u64) -> &Moment {
        self.moments.iter().find(|moment| moment.sequence >= sequence).unwrap()
    }

    /// What a stream holds that was written up to there: the last message of each name.
    pub(super) fn compacted(&self, written: usize) -> Vec<Message> {
        let log = &self.log[..written];
        let last: BTreeMap<&Name, u64> =
            log.iter().map(|message| (&message.name, message.sequence)).collect();
        log.iter().filter(|message| last[&message.name] == message.sequence).cloned().collect()
    }

    /// How many messages a stream holds that was written up to there.
    pub(super) fn names(&self, written: usize) -> u64 {
        let names: BTreeSet<_> = self.log[..written].iter().map(|message| &message.name).collect();
        names.len().try_into().unwrap()
    }

    pub(super) fn digest_of(&self, records: &Records) -> StateDigest {
        let (hasher, mut digest) = (self.hasher(), StateDigest::EMPTY);
        records.values().for_each(|bytes| digest.add(&hasher.hash(bytes.as_bytes())));
        digest
    }

    fn step(&mut self, step: &Step) {
        let mut next = self.last().clone();
        let first = next.sequence + 1;
        let mut contents = Vec::new();
        match step {
            Step::Write(changes) => {
                let changes: BTreeMap<usize, Option<u8>> = changes.iter().copied().collect();
                for (slot, body) in changes {
                    let id = slots().swap_remove(slot);
                    contents.push(Content::Record { bytes: body.map(|body| bytes(&id, body)), id });
                }
            }
            Step::Reseal(slots_of) => {
                for slot in slots_of.iter().copied().collect::<BTreeSet<_>>() {
                    let id = slots().swap_remove(slot);
                    let bytes = next.records.get(&id).cloned();
                    contents.extend(bytes.map(|bytes| Content::Record { id, bytes: Some(bytes) }));
                }
            }
            Step::Heartbeat(is_first) => {
                let node = node(if *is_first { "alpha" } else { "beta" });
                let keyring_hash = DocumentHash::from_bytes([1; 32]);
                let heartbeat =
                    Heartbeat { at: at(first.try_into().unwrap()), keyring_version: 1, keyring_hash };
                next.heartbeats.insert(node.clone(), (first, heartbeat));
                contents.push(Content::Heartbeat { node, heartbeat });
            }
            Step::Import(open) => {
                next.import_open = *open;
                contents.push(Content::Import { open: *open });
            }
            Step::NonceFloor(micros) => {
                next.nonce_floor = Some(*micros);
                contents.push(Content::NonceFloor(at(*micros)));
            }
            Step::NewEpoch => self.epoch = self.epoch.next().unwrap(),
            Step::Document(number) => {
                let document = match number {
                    0 => DocumentName::Nodeset,
                    1 => DocumentName::Keyring,
                    other => DocumentName::Acknowledgement(node(&format!("n{other}"))),
                };
                let name = (0, 0, document.to_string().into_bytes());
                self.log.push(Message { sequence: first, item: Item::Document(document), name });
                next.sequence = first;
            }
        }
        for content in &contents {
            if let Content::Record { id, bytes } = content {
                match bytes {
                    Some(bytes) => next.records.insert(id.clone(), bytes.clone()),
                    None => next.records.remove(id),
                };
            }
        }
        next.digest = self.digest_of(&next.records);
        for content in contents {
            next.sequence += 1;
            self.push(&mut next, content);
        }
        self.moments.push(next);
    }

    fn push(&mut self, next: &mut Moment, content: Content) {
        let (sequence, epoch) = (next.sequence, self.epoch);
        let (kind, identity, hash) = match &content {
            Content::Record { id, bytes } => {
                next.record_sequence = sequence;
                let hash = bytes.as_ref().map(|bytes| self.hasher().hash(bytes.as_bytes()));
                (id.kind().number(), id.identity(), hash)
            }
            Content::Heartbeat { node, .. } => (100, node.as_str().as_bytes().to_vec(), None),
            Content::Import { .. } => (101, Vec::new(), None),
            Content::NonceFloor(_) => (102, Vec::new(), None),
            _ => unreachable!("a history has none of a rotation"),
        };
        let name = (epoch.get(), kind, identity);
        let item = Item::Entry(Opened { content, digest_after: next.digest, epoch, hash });
        self.log.push(Message { sequence, item, name });
        // The newest epoch of each identity, counted anew.
        let mut newest = BTreeMap::new();
        for Message { name: (epoch, kind, identity), .. } in &self.log {
            newest.insert((*kind, identity.clone()), *epoch);
        }
        next.epochs.clear();
        for epoch in newest.into_values().filter_map(Epoch::from_stored) {
            *next.epochs.entry(epoch).or_default() += 1;
        }
    }
}

/// The records among `records` that each scan wants, found the slow way.
pub(super) fn wanted(records: &Records, scan: Scan<'_>) -> Vec<(RecordId, RecordBytes)> {
    let is_wanted = |id: &RecordId| match (scan, id) {
        (Scan::All, _) => true,
        (Scan::Kind(kind), id) => id.kind() == kind,
        (Scan::MembersOf(room), RecordId::Member(of, _)) => of == room,
        (Scan::MembershipsOf(endpoint), RecordId::Member(_, of)) => of == endpoint,
        (Scan::RoomKeysOf(room, endpoint), RecordId::RoomKey(of, _, to)) => of == room && to == endpoint,
        _ => false,
    };
    let rows = records.iter().filter(|(id, _)| is_wanted(id));
    rows.map(|(id, bytes)| (id.clone(), bytes.clone())).collect()
}

/// Holds every answer of a view against the records that it should show.
pub(super) fn assert_shows(view: &dyn View, records: &Records) {
    for id in slots() {
        assert_eq!(view.record(&id).unwrap(), records.get(&id).cloned());
    }
    let (rooms, endpoints) = (["a", "a-", "b", "c"].map(room), [1, 2, 3, 4].map(|n| Endpoint::of(&sign(n))));
    let mut scans = vec![Scan::All];
    scans.extend(Kind::ALL.map(Scan::Kind));
    scans.extend(rooms.iter().map(Scan::MembersOf));
    scans.extend(endpoints.iter().map(Scan::MembershipsOf));
    for room in &rooms {
        scans.extend(endpoints.iter().map(|endpoint| Scan::RoomKeysOf(room, endpoint)));
    }
    for scan in scans {
        let mut rows = Vec::new();
        let mut visit = |id: &RecordId, bytes: &RecordBytes| {
            rows.push((id.clone(), bytes.clone()));
            Ok(std::ops::ControlFlow::Continue(()))
        };
        view.scan(scan, &mut visit).unwrap();
        assert_eq!(rows, wanted(records, scan), "{scan:?}");
    }
}
