//! Records by identity: one ordered table for each kind.

use std::collections::BTreeMap;
use std::iter;

use crate::domain::Scan;
use crate::record::{Endpoint, KeyEpoch, Kind, RecordBytes, RecordId, RoomId};

/// Rows of a scan, in canonical order.
pub(in super::super) type Rows<'t, V> = Box<dyn Iterator<Item = (&'t RecordId, &'t V)> + 't>;

type Table<V> = BTreeMap<RecordId, V>;

/// Something for each record of a set.
#[derive(Debug)]
pub(in super::super) struct Tables<V> {
    users: Table<V>,
    rooms: Table<V>,
    members: Table<V>,
    room_keys: Table<V>,
    blobs: Table<V>,
}

impl<V> Default for Tables<V> {
    fn default() -> Self {
        Self {
            users: Table::new(),
            rooms: Table::new(),
            members: Table::new(),
            room_keys: Table::new(),
            blobs: Table::new(),
        }
    }
}

impl<V> Tables<V> {
    const fn of(&self, kind: Kind) -> &Table<V> {
        match kind {
            Kind::User => &self.users,
            Kind::Room => &self.rooms,
            Kind::Member => &self.members,
            Kind::RoomKey => &self.room_keys,
            Kind::Blob => &self.blobs,
        }
    }

    const fn of_mut(&mut self, kind: Kind) -> &mut Table<V> {
        match kind {
            Kind::User => &mut self.users,
            Kind::Room => &mut self.rooms,
            Kind::Member => &mut self.members,
            Kind::RoomKey => &mut self.room_keys,
            Kind::Blob => &mut self.blobs,
        }
    }

    /// What stands for a record.
    pub(in super::super) fn get(&self, id: &RecordId) -> Option<&V> {
        self.of(id.kind()).get(id)
    }

    /// As [`Tables::get`], with the identity that is kept here.
    pub(in super::super) fn get_key_value(&self, id: &RecordId) -> Option<(&RecordId, &V)> {
        self.of(id.kind()).get_key_value(id)
    }

    /// Sets what stands for a record; gives what stood.
    pub(in super::super) fn insert(&mut self, id: RecordId, value: V) -> Option<V> {
        self.of_mut(id.kind()).insert(id, value)
    }

    /// Sets what stands for a record if nothing does.
    pub(in super::super) fn insert_new(&mut self, id: &RecordId, value: impl FnOnce() -> V) {
        let table = self.of_mut(id.kind());
        if !table.contains_key(id) {
            table.insert(id.clone(), value());
        }
    }

    /// Takes out what stands for a record.
    pub(in super::super) fn remove(&mut self, id: &RecordId) -> Option<V> {
        self.of_mut(id.kind()).remove(id)
    }

    /// Takes out everything up to a record and with it.
    pub(in super::super) fn remove_through(&mut self, last: &RecordId) {
        for kind in Kind::ALL {
            let table = self.of_mut(kind);
            if kind < last.kind() {
                table.clear();
            } else if kind == last.kind() {
                *table = table.split_off(last);
                table.remove(last);
            }
        }
    }

    /// How many there are of one kind.
    pub(in super::super) fn count(&self, kind: Kind) -> u64 {
        u64::try_from(self.of(kind).len()).unwrap_or(u64::MAX)
    }

    /// Everything behind a record, or everything, in canonical order.
    pub(in super::super) fn behind(
        &self,
        last: Option<&RecordId>,
    ) -> impl Iterator<Item = (&RecordId, &V)> + use<'_, V> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = last.cloned();
        Kind::ALL.into_iter().flat_map(move |kind| match &start {
            Some(last) if kind < last.kind() => None.into_iter().flatten(),
            Some(last) if kind == last.kind() => {
                Some(self.of(kind).range((Excluded(last.clone()), Unbounded))).into_iter().flatten()
            }
            _ => Some(self.of(kind).range(..)).into_iter().flatten(),
        })
    }

    /// The rows of a scan. Walks no more than it gives, except for [`Scan::MembershipsOf`]: that one walks all
    /// members, so a large set keeps an index of its own for it.
    pub(in super::super) fn select<'t>(&'t self, scan: Scan<'t>) -> Rows<'t, V> {
        match scan {
            Scan::All => Box::new(Kind::ALL.into_iter().flat_map(|kind| self.of(kind))),
            Scan::Kind(kind) => Box::new(self.of(kind).iter()),
            Scan::MembersOf(room) => {
                let of = |number| RecordId::Member(room.clone(), Endpoint::from_bytes([number; 32]));
                Box::new(self.members.range(of(0)..=of(u8::MAX)))
            }
            Scan::MembershipsOf(endpoint) => Box::new(
                self.members
                    .iter()
                    .filter(move |(id, _)| matches!(id, RecordId::Member(_, of) if of == endpoint)),
            ),
            Scan::RoomKeysOf(room, endpoint) => Box::new(self.room_keys_of(room, endpoint)),
        }
    }

    /// Room keys are ordered by epoch before endpoint. So this looks for the endpoint in one epoch after the
    /// other, instead of walking the keys of all members or keeping an index over the largest of the tables.
    fn room_keys_of<'t>(
        &'t self,
        room: &'t RoomId,
        endpoint: &'t Endpoint,
    ) -> impl Iterator<Item = (&'t RecordId, &'t V)> + 't {
        let mut wanted = Some(KeyEpoch::FIRST);
        iter::from_fn(move || {
            loop {
                let epoch = wanted.take()?;
                let from = RecordId::RoomKey(room.clone(), epoch, *endpoint);
                let (id, value) = self.room_keys.range(from..).next()?;
                let RecordId::RoomKey(of, at, to) = id else { return None };
                if of != room {
                    return None;
                }
                // Behind the wanted one stands either a later member of this epoch or somebody of a later epoch.
                wanted = if *at == epoch { epoch.next() } else { Some(*at) };
                if *at == epoch && to == endpoint {
                    return Some((id, value));
                }
            }
        })
    }
}

/// Rows of two sets as one, in canonical order: what is laid over counts, and `None` there is a record that is gone.
pub(in super::super) fn merged<'t>(
    under: impl Iterator<Item = (&'t RecordId, &'t RecordBytes)>,
    over: impl Iterator<Item = (&'t RecordId, &'t Option<RecordBytes>)>,
) -> impl Iterator<Item = (&'t RecordId, &'t RecordBytes)> {
    let (mut under, mut over) = (under.peekable(), over.peekable());
    iter::from_fn(move || {
        loop {
            let is_under_first = match (under.peek(), over.peek()) {
                (Some((one, _)), Some((two, _))) => one < two,
                (one, _) => one.is_some(),
            };
            if is_under_first {
                return under.next();
            }
            let (id, bytes) = over.next()?;
            under.next_if(|(same, _)| *same == id);
            if let Some(bytes) = bytes {
                return Some((id, bytes));
            }
        }
    })
}
