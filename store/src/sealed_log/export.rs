//! All records as they were at one moment, while writes go on.
//!
//! The records are read in pieces under the lock that readers share, and given away outside of it. What is changed
//! before its piece was read is kept aside as it was: so an export costs the memory of one piece and of what changes
//! while it runs, and holds up no write for longer than one piece takes.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::view::State;
use super::view::tables::{Tables, merged};
use crate::error::StoreError;
use crate::record::{RecordBytes, RecordId};
use crate::store::{ExportSink, Position};

/// Most records of one piece.
const PIECE_RECORDS: usize = 256;
/// Bytes of records after which a piece ends.
const PIECE_BYTES: usize = 256 * 1024;

/// What an export needs to see the records as they were: those that were changed since.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// The last record that the export has read.
    last: Option<RecordId>,
    /// Records behind it as they were; none if they were not there.
    before: Tables<Option<RecordBytes>>,
}

impl Undo {
    /// Nothing that is done under this lock stops half-way.
    pub(super) fn lock(shared: &Mutex<Self>) -> MutexGuard<'_, Self> {
        shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a record as it was, unless it was kept or read before.
    pub(super) fn keep(&mut self, id: &RecordId, before: Option<&RecordBytes>) {
        if self.last.as_ref().is_none_or(|last| last < id) {
            self.before.insert_new(id, || before.cloned());
        }
    }

    /// The next records as they were, at most `limit`.
    fn next_piece(&mut self, state: &State, limit: usize) -> Vec<(RecordId, RecordBytes)> {
        let mut piece = Vec::with_capacity(limit);
        let mut bytes_left = PIECE_BYTES;
        let last = self.last.as_ref();
        for (id, bytes) in merged(state.behind(last), self.before.behind(last)).take(limit) {
            piece.push((id.clone(), bytes.clone()));
            bytes_left = bytes_left.saturating_sub(bytes.as_bytes().len());
            if bytes_left == 0 {
                break;
            }
        }
        if let Some((id, _)) = piece.last() {
            self.before.remove_through(id);
            self.last = Some(id.clone());
        }
        piece
    }
}

/// Exports all records as they are when `begin` is called, in canonical order; `begin` says where the store stands,
/// or refuses.
///
/// Records of a state that is not settled are exported as they stand, if `begin` lets it.
///
/// # Errors
/// What `begin` and `sink` give; [`StoreError::Poisoned`] if a change of the state was cut short.
pub(super) fn export(
    shared: &RwLock<State>,
    begin: impl FnOnce(&State) -> Result<Position, StoreError>,
    sink: &mut dyn ExportSink,
) -> Result<Position, StoreError> {
    export_in_pieces(shared, begin, sink, PIECE_RECORDS)
}

fn export_in_pieces(
    shared: &RwLock<State>,
    begin: impl FnOnce(&State) -> Result<Position, StoreError>,
    sink: &mut dyn ExportSink,
    piece_records: usize,
) -> Result<Position, StoreError> {
    let poisoned = || StoreError::Poisoned { step: "a change of the view" };
    let (position, census, undo) = {
        let mut state = shared.write().map_err(|_| poisoned())?;
        (begin(&state)?, state.census(), state.begin_export())
    };
    sink.begin(&position, &census)?;
    loop {
        let piece = {
            let state = shared.read().map_err(|_| poisoned())?;
            Undo::lock(&undo).next_piece(&state, piece_records)
        };
        if piece.is_empty() {
            return Ok(position);
        }
        for (id, bytes) in &piece {
            sink.record(id, bytes.as_bytes())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;
    use unibus_keyfile::digest::StateDigest;
    use unibus_keyfile::id::{Epoch, Lineage, Sequence};

    use super::*;
    use crate::domain::{Scan, View};
    use crate::sealed_log::entry::{Content, Opened};
    use crate::sealed_log::fixture;
    use crate::sealed_log::history::{History, Message, Records, steps};
    use crate::sealed_log::view::Item;
    use crate::store::Census;

    fn begin(state: &State) -> Result<Position, StoreError> {
        let sequence = Sequence(state.record_sequence());
        Ok(Position { lineage: Lineage::from_bytes([1; 16]), sequence, digest: state.digest() })
    }

    /// Collects what is exported, and lets something happen before each record.
    struct Sink<F> {
        position: Option<Position>,
        census: Census,
        rows: Vec<(RecordId, Vec<u8>)>,
        meanwhile: F,
    }

    impl<F: FnMut() -> Result<(), StoreError>> Sink<F> {
        fn new(meanwhile: F) -> Self {
            Self { position: None, census: Census::default(), rows: Vec::new(), meanwhile }
        }

        fn assert_is(&self, records: &Records, position: Position) {
            let wanted = records.iter().map(|(id, bytes)| (id.clone(), bytes.as_bytes().to_vec()));
            assert_eq!(self.rows, wanted.collect::<Vec<_>>());
            assert_eq!(self.position, Some(position));
            let mut census = Census::default();
            self.rows.iter().for_each(|(id, _)| census.add(id.kind(), 1));
            assert_eq!(self.census, census);
        }
    }

    impl<F: FnMut() -> Result<(), StoreError>> ExportSink for Sink<F> {
        fn begin(&mut self, position: &Position, census: &Census) -> Result<(), StoreError> {
            self.position = Some(*position);
            self.census = *census;
            (self.meanwhile)()
        }

        fn record(&mut self, id: &RecordId, bytes: &[u8]) -> Result<(), StoreError> {
            self.rows.push((id.clone(), bytes.to_vec()));
            (self.meanwhile)()
        }
    }

    fn take<'m>(shared: &RwLock<State>, messages: &mut impl Iterator<Item = &'m Message>, count: usize) {
        let mut state = shared.write().unwrap();
        for message in messages.take(count) {
            state.apply(message.sequence, message.item.clone()).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn an_export_is_of_one_moment_whatever_is_written_meanwhile(
            steps in steps(10..60),
            (ahead, speed, piece, nested) in (5..60_usize, 0..4_usize, 1..6_usize, 0..20_usize),
        ) {
            let history = History::of(&steps);
            let mut log = history.log.iter();
            let shared = RwLock::new(State::new(history.hasher()));
            take(&shared, &mut log, ahead);
            let wanted = records(&shared);
            let position = begin(&shared.read().unwrap()).unwrap();
            let mut until_nested = nested;
            let mut sink = Sink::new(|| {
                take(&shared, &mut log, speed);
                until_nested = until_nested.wrapping_sub(1);
                if until_nested == 0 {
                    // Another one begins at another moment, and both go on.
                    let (wanted, position) = (records(&shared), begin(&shared.read().unwrap()).unwrap());
                    let mut inner = Sink::new(|| {
                        take(&shared, &mut log, 1);
                        Ok(())
                    });
                    export_in_pieces(&shared, begin, &mut inner, piece).unwrap();
                    inner.assert_is(&wanted, position);
                }
                Ok(())
            });
            prop_assert_eq!(export_in_pieces(&shared, begin, &mut sink, piece).unwrap(), position);
            sink.assert_is(&wanted, position);
        }
    }

    /// All that a history has come to, as it is read from another stream.
    fn read(history: &History) -> State {
        let mut state = State::new(history.hasher());
        for message in &history.log {
            state.apply(message.sequence, message.item.clone()).unwrap();
        }
        state
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// The log goes over into another stream in the midst of it, where others have written already.
        #[test]
        fn an_export_goes_on_when_another_state_takes_the_place_of_its_own(
            steps in steps(10..60),
            (ahead, after, piece) in (5..60_usize, 0..20_usize, 1..6_usize),
        ) {
            let history = History::of(&steps);
            let shared = RwLock::new(State::new(history.hasher()));
            take(&shared, &mut history.log.iter(), ahead);
            let wanted = records(&shared);
            let position = begin(&shared.read().unwrap()).unwrap();
            let mut left = after;
            let mut sink = Sink::new(|| {
                if left == 0 {
                    let mut next = read(&history);
                    let mut state = shared.write().unwrap();
                    state.hand_over_exports(&mut next);
                    *state = next;
                }
                left = left.wrapping_sub(1);
                Ok(())
            });
            prop_assert_eq!(export_in_pieces(&shared, begin, &mut sink, piece).unwrap(), position);
            sink.assert_is(&wanted, position);
        }

        #[test]
        fn what_two_states_do_not_have_alike_is_found_in_pieces_too(
            steps in steps(10..60),
            (ahead, most) in (0..60_usize, 1..5_usize),
        ) {
            let history = History::of(&steps);
            let (one, two) = (RwLock::new(State::new(history.hasher())), RwLock::new(read(&history)));
            take(&one, &mut history.log.iter(), ahead);
            let of = |shared: &RwLock<State>| -> Records {
                let state = shared.read().unwrap();
                state.behind(None).map(|(id, bytes)| (id.clone(), bytes.clone())).collect()
            };
            let (here, there) = (of(&one), of(&two));
            let ids: std::collections::BTreeSet<_> = here.keys().chain(there.keys()).collect();
            let wanted: Vec<_> = ids.into_iter().filter(|id| here.get(*id) != there.get(*id)).cloned().collect();
            let (one, two) = (one.read().unwrap(), two.read().unwrap());
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let (differ, reached) = one.differing(&two, after.as_ref(), most);
                found.extend(differ);
                after = reached;
                if after.is_none() {
                    break;
                }
            }
            prop_assert_eq!(found, wanted);
        }
    }

    /// What the state shows: half a write is not in it.
    fn records(shared: &RwLock<State>) -> Records {
        let mut records = Records::new();
        let mut visit = |id: &RecordId, bytes: &RecordBytes| {
            records.insert(id.clone(), bytes.clone());
            Ok(ControlFlow::Continue(()))
        };
        shared.read().unwrap().scan(Scan::All, &mut visit).unwrap();
        records
    }

    /// One user after the other, each in a write of its own; then each is changed, then each is gone.
    fn users(history: &History, count: u32) -> Vec<Item> {
        let (hasher, mut digest) = (history.hasher(), StateDigest::EMPTY);
        let mut items = Vec::new();
        for body in [Some(1), Some(2), None] {
            for number in 1..=count {
                let id = RecordId::User(fixture::sign(number));
                if let Some(before) = body.map_or(Some(2), |body| (body == 2).then_some(1)) {
                    digest.subtract(&hasher.hash(fixture::bytes(&id, before).as_bytes()));
                }
                let bytes = body.map(|body| fixture::bytes(&id, body));
                bytes.iter().for_each(|bytes| digest.add(&hasher.hash(bytes.as_bytes())));
                let content = Content::Record { id, bytes };
                items.push(Item::Entry(Opened {
                    content,
                    digest_after: digest,
                    epoch: Epoch::FIRST,
                    hash: None,
                }));
            }
        }
        items
    }

    #[test]
    fn exports_beside_a_busy_writer_have_the_digest_of_their_position() {
        let history = History::of(&[]);
        let shared = RwLock::new(State::new(history.hasher()));
        let items = users(&history, 2000);
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (sequence, item) in (1..).zip(items) {
                    shared.write().unwrap().apply(sequence, item).unwrap();
                }
                is_done.store(true, Ordering::Release);
            });
            let mut exports = 0;
            while !is_done.load(Ordering::Acquire) || exports == 0 {
                let mut sink = Sink::new(|| Ok(()));
                let position = export(&shared, begin, &mut sink).unwrap();
                let mut digest = StateDigest::EMPTY;
                sink.rows.iter().for_each(|(_, bytes)| digest.add(&history.hasher().hash(bytes)));
                assert_eq!(digest, position.digest, "at sequence {}", position.sequence);
                assert!(sink.rows.is_sorted_by(|one, two| one.0 < two.0));
                exports += 1;
            }
        });
    }

    #[test]
    fn an_export_that_ends_or_is_stopped_leaves_nothing_behind() {
        let history = History::of(&[]);
        let shared = RwLock::new(State::new(history.hasher()));
        let items = users(&history, 10);
        let mut items = (1..).zip(items);
        for (sequence, item) in items.by_ref().take(10) {
            shared.write().unwrap().apply(sequence, item).unwrap();
        }
        let refused = export(&shared, |_| Err(StoreError::Stopped), &mut Sink::new(|| Ok(())));
        assert!(matches!(refused, Err(StoreError::Stopped)));
        assert_eq!(shared.read().unwrap().exports(), 0);
        let mut sink = Sink::new(|| Err(StoreError::Stopped));
        assert!(matches!(export(&shared, begin, &mut sink), Err(StoreError::Stopped)));
        export(&shared, begin, &mut Sink::new(|| Ok(()))).unwrap();
        let (sequence, item) = items.next().unwrap();
        shared.write().unwrap().apply(sequence, item).unwrap();
        assert_eq!(shared.read().unwrap().exports(), 0);
    }

    #[test]
    fn only_what_is_changed_ahead_of_an_export_is_kept() {
        let history = History::of(&[]);
        let mut state = State::new(history.hasher());
        let items = users(&history, 100);
        let mut items = (1..).zip(items);
        items.by_ref().take(100).for_each(|(sequence, item)| state.apply(sequence, item).unwrap());
        let undo = state.begin_export();
        let kept = |undo: &Mutex<Undo>| Undo::lock(undo).before.behind(None).count();
        let half = Undo::lock(&undo).next_piece(&state, 50).len();
        assert_eq!((half, kept(&undo)), (50, 0));
        items.by_ref().take(100).for_each(|(sequence, item)| state.apply(sequence, item).unwrap());
        assert_eq!(kept(&undo), 50, "the first half was read already");
        items.for_each(|(sequence, item)| state.apply(sequence, item).unwrap());
        assert_eq!(kept(&undo), 50, "each once, as it was at first");
        assert_eq!(Undo::lock(&undo).next_piece(&state, 30).len(), 30);
        assert_eq!(kept(&undo), 20, "what was read is let go");
        let rest = Undo::lock(&undo).next_piece(&state, 30);
        assert!(rest.iter().all(|(id, bytes)| *bytes == fixture::bytes(id, 1)) && rest.len() == 20);
    }
}
