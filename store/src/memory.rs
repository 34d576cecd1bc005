//! The backend that forgets: the reference for the others, and for tests of whatever uses a store.

use std::{
    collections::BTreeMap,
    fmt,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use unibus_keyfile::{
    digest::{StateDigest, StateHasher},
    id::{Lineage, Sequence},
    secret::StateKey,
};

use crate::{
    backend::Backend,
    domain::{self, Change, Claim, ImportOrder, NonceFloor, Scan, View, Visit},
    error::StoreError,
    record::{Endpoint, KeyEpoch, RecordBytes, RecordId, SignPub, Timestamp},
    store::{Census, ExportSink, ImportRecords, Nonce, Position, Posture, Strength, VerifyReport},
};

/// Records in memory.
///
/// ```
/// use unibus_keyfile::secret::StateKey;
/// use unibus_store::{memory::MemoryStore, store::Store};
///
/// let store = MemoryStore::new(&StateKey::generate());
/// assert_eq!(store.verify()?.census.total(), 0);
/// # Ok::<(), unibus_store::error::StoreError>(())
/// ```
pub struct MemoryStore {
    hasher: StateHasher,
    state: Mutex<State>,
}

struct State {
    /// Shared with an export that is under way, which keeps the records of its moment.
    records: Arc<BTreeMap<RecordId, RecordBytes>>,
    nonces: BTreeMap<(SignPub, Nonce), Timestamp>,
    floor: NonceFloor,
    position: Position,
    last_drill: Option<Timestamp>,
}

impl MemoryStore {
    /// An empty store of a new lineage, whose digest is under `key`.
    #[must_use]
    pub fn new(key: &StateKey) -> Self {
        let (sequence, digest) = (Sequence::default(), StateDigest::EMPTY);
        let position = Position { lineage: Lineage::random(), sequence, digest };
        let (records, nonces, floor) = (Arc::default(), BTreeMap::new(), NonceFloor::NONE);
        let state = Mutex::new(State { records, nonces, floor, position, last_drill: None });
        Self { hasher: StateHasher::new(key), state }
    }

    /// A panic in a transaction cannot leave half of one: changes are made after it has returned.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, state: &mut State, changes: Vec<Change>) {
        state.position = domain::advance(&self.hasher, state.position, &changes);
        let records = Arc::make_mut(&mut state.records);
        for Change { id, after, .. } in changes {
            match after {
                Some(bytes) => records.insert(id, bytes),
                None => records.remove(&id),
            };
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryStore").field("position", &state.position).finish_non_exhaustive()
    }
}

impl State {
    fn census(&self) -> Census {
        let mut census = Census::default();
        self.records.keys().for_each(|id| census.add(id.kind(), 1));
        census
    }

    fn walk(
        &self,
        range: impl RangeBounds<RecordId>,
        wanted: impl Fn(&RecordId) -> Option<bool>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        for (id, bytes) in self.records.range(range) {
            match wanted(id) {
                None => break,
                Some(false) => {}
                Some(true) => {
                    if visit(id, bytes)?.is_break() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

impl View for State {
    fn record(&self, id: &RecordId) -> Result<Option<RecordBytes>, StoreError> {
        Ok(self.records.get(id).cloned())
    }

    fn scan(&self, scan: Scan<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let lowest = Endpoint::from_bytes([0; 32]);
        match scan {
            Scan::All => self.walk(.., |_| Some(true), visit),
            Scan::Kind(kind) => self.walk(.., |id| Some(id.kind() == kind), visit),
            Scan::MembersOf(room) => {
                let from = RecordId::Member(room.clone(), lowest);
                self.walk(
                    from..,
                    |id| matches!(id, RecordId::Member(of, _) if of == room).then_some(true),
                    visit,
                )
            }
            Scan::MembershipsOf(endpoint) => {
                let wanted = |id: &RecordId| Some(matches!(id, RecordId::Member(_, of) if of == endpoint));
                self.walk(.., wanted, visit)
            }
            Scan::RoomKeysOf(room, endpoint) => {
                let from = RecordId::RoomKey(room.clone(), KeyEpoch::FIRST, lowest);
                let wanted = |id: &RecordId| match id {
                    RecordId::RoomKey(of, _, to) if of == room => Some(to == endpoint),
                    _ => None,
                };
                self.walk(from.., wanted, visit)
            }
        }
    }
}

impl Backend for MemoryStore {
    async fn read<T, F>(&self, _strength: Strength, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn View) -> Result<T, StoreError> + Send + 'static,
    {
        read(&*self.lock())
    }

    async fn write<F>(&self, write: F) -> Result<(), StoreError>
    where
        F: Fn(&dyn View) -> Result<Vec<Change>, StoreError> + Send + 'static,
    {
        let mut state = self.lock();
        let changes = write(&*state)?;
        self.commit(&mut state, changes);
        Ok(())
    }

    async fn claim(
        &self,
        signer: SignPub,
        nonce: Nonce,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut state = self.lock();
        let name = (signer, nonce);
        let held = state.nonces.get(&name).copied();
        if state.floor.claim(held, expires_at, now) == Claim::Refused {
            return Ok(false);
        }
        let mut floor = state.floor;
        state.nonces.retain(|_, until| {
            if *until <= now {
                floor = floor.raised_by(*until);
            }
            *until > now
        });
        state.floor = floor;
        state.nonces.insert(name, expires_at);
        state.position = domain::advance(&self.hasher, state.position, &[]);
        Ok(true)
    }

    fn current_position(&self) -> Result<Position, StoreError> {
        Ok(self.lock().position)
    }

    fn export_all(&self, sink: &mut dyn ExportSink) -> Result<Position, StoreError> {
        let (position, census, records) = {
            let state = self.lock();
            (state.position, state.census(), Arc::clone(&state.records))
        };
        sink.begin(&position, &census)?;
        for (id, bytes) in &*records {
            sink.record(id, bytes.as_bytes())?;
        }
        Ok(position)
    }

    fn import_all(
        &self,
        records: &mut ImportRecords<'_>,
        nonce_floor: Option<Timestamp>,
    ) -> Result<Position, StoreError> {
        let mut state = self.lock();
        if !state.records.is_empty() {
            return Err(StoreError::NotEmpty { records: state.census().total() });
        }
        let (mut order, mut changes) = (ImportOrder::default(), Vec::new());
        for bytes in records {
            let bytes = bytes?;
            changes.push(Change { id: order.accept(&bytes)?, before: None, after: Some(bytes) });
        }
        self.commit(&mut state, changes);
        state.floor = nonce_floor.map_or(state.floor, |at| state.floor.raised_by(at));
        Ok(state.position)
    }

    fn verify_all(&self) -> Result<VerifyReport, StoreError> {
        let state = self.lock();
        domain::verify(&*state, &self.hasher, state.position)
    }

    fn note_drill(&self, at: Timestamp) -> Result<(), StoreError> {
        self.lock().last_drill = Some(at);
        Ok(())
    }

    fn current_posture(&self) -> Posture {
        let state = self.lock();
        let mut posture = Posture::unproven("memory", state.position);
        posture.last_drill = state.last_drill;
        posture
    }
}
