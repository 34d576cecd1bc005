use proptest::prelude::*;

use super::*;
use crate::domain::{self, Scan, View};
use crate::error::StoreError;
use crate::record::UserStatus;
use crate::sealed_log::fixture::{self, bytes, sign};
use crate::sealed_log::history::{History, Message, Step, assert_shows, steps};

mod cost;

fn take(state: &mut State, message: &Message) {
    state.apply(message.sequence, message.item.clone()).unwrap();
}

fn assert_shows_nothing(state: &State) {
    let is_refused = |error| matches!(error, StoreError::Unavailable { .. });
    assert!(state.record(&RecordId::User(sign(1))).is_err_and(is_refused));
    let mut visit = |_: &RecordId, _: &RecordBytes| panic!("something is shown");
    assert!(state.scan(Scan::All, &mut visit).is_err_and(is_refused));
    assert!(!domain::is_authorized(state, &sign(1)));
}

/// Everything that a state says, against the model.
fn assert_is_at(state: &State, history: &History, written: usize) {
    let moment = history.last();
    assert!(state.is_settled(), "{state:?}");
    assert_shows(state, &moment.records);
    assert_eq!((state.sequence(), state.record_sequence()), (moment.sequence, moment.record_sequence));
    assert_eq!((state.digest(), state.census()), (moment.digest, moment.census()));
    assert_eq!(state.names(), history.names(written));
    assert_eq!((state.heartbeats(), state.epochs()), (&moment.heartbeats, &moment.epochs));
    assert_eq!(state.import_open(), moment.import_open);
    assert_eq!(state.nonce_floor(), moment.nonce_floor.map(fixture::at));
    assert_eq!(state.ever_held_a_record(), moment.record_sequence > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn read_entry_by_entry_it_shows_whole_writes_only(steps in steps(0..25)) {
        let history = History::of(&steps);
        let mut state = State::new(history.hasher());
        let mut shown = history.moments[0].clone();
        for (index, message) in history.log.iter().enumerate() {
            take(&mut state, message);
            let moment = history.moment_of(message.sequence);
            if state.is_settled() {
                shown = moment.clone();
            }
            prop_assert!(state.is_readable());
            prop_assert!(state.is_settled() || message.sequence < moment.sequence, "a whole write is shown");
            assert_shows(&state, &shown.records);
            prop_assert_eq!(state.digest(), shown.digest);
            prop_assert_eq!(state.census(), shown.census());
            prop_assert_eq!(state.names(), history.names(index + 1));
            prop_assert_eq!(state.unsettled().is_none(), state.is_settled());
        }
        assert_is_at(&state, &history, history.log.len());
    }

    #[test]
    fn the_last_entry_of_each_name_leads_to_the_same(steps in steps(0..40)) {
        let history = History::of(&steps);
        let mut state = State::new(history.hasher());
        for message in history.compacted(history.log.len()) {
            take(&mut state, &message);
            if state.is_settled() {
                assert_shows(&state, &history.moment_of(message.sequence).records);
            }
        }
        assert_is_at(&state, &history, history.log.len());
    }

    /// A follower that is sometimes slow: what it reads next may have been superseded meanwhile.
    #[test]
    fn whatever_was_superseded_before_it_was_read_it_shows_whole_writes_only(
        steps in steps(0..40),
        rounds in proptest::collection::vec((0..12_usize, 0..8_usize), 1..30),
    ) {
        let history = History::of(&steps);
        let mut state = State::new(history.hasher());
        let mut shown = history.moments[0].clone();
        let mut written = 0_usize;
        for (more, read) in rounds.into_iter().chain([(usize::MAX, usize::MAX)]) {
            written = history.log.len().min(written.saturating_add(more));
            let stream = history.compacted(written);
            let position = state.sequence();
            for message in stream.iter().filter(|message| message.sequence > position).take(read) {
                take(&mut state, message);
                if state.is_settled() {
                    shown = history.moment_of(message.sequence).clone();
                    prop_assert_eq!(state.digest(), shown.digest);
                }
                if state.is_readable() {
                    assert_shows(&state, &shown.records);
                } else {
                    prop_assert!(state.unsettled().is_some());
                    assert_shows_nothing(&state);
                }
            }
            if stream.last().is_some_and(|last| last.sequence == state.sequence()) {
                prop_assert_eq!(usize::try_from(state.names()).unwrap(), stream.len(), "each message is a name");
            }
        }
        assert_is_at(&state, &history, history.log.len());
    }

    /// Whoever can delete a message from the disks of the servers gets a view that shows nothing.
    #[test]
    fn without_one_entry_that_counts_it_never_settles(steps in steps(1..30), which in any::<prop::sample::Index>()) {
        let history = History::of(&steps);
        let mut stream = history.compacted(history.log.len());
        // The last heartbeat stays: a log that was cut short is found by its last sequence.
        prop_assume!(stream.len() > 1);
        let missing = stream.remove(which.index(stream.len() - 1));
        let mut state = State::new(history.hasher());
        let mut left = BTreeMap::new();
        for message in &stream {
            take(&mut state, message);
            if let Some(Content::Record { id, bytes }) = message.content() {
                match bytes {
                    Some(bytes) => left.insert(id.clone(), bytes.clone()),
                    None => left.remove(id),
                };
            }
        }
        let counts = left != history.last().records;
        prop_assert_eq!(state.is_settled(), !counts, "{:?} is missing", missing.content());
        prop_assert_eq!(state.names() + 1, history.names(history.log.len()), "the count tells too");
        if counts {
            let unsettled = state.unsettled().unwrap();
            prop_assert!(unsettled.since <= missing.sequence + 1 || unsettled.gap.is_some());
            assert_shows_nothing(&state);
        }
    }

    #[test]
    fn a_view_knows_of_every_user_what_its_record_says(
        changes in proptest::collection::vec((1..5_u32, 0..4_u8), 1..20),
    ) {
        let history = History::of(&[]);
        let (hasher, mut digest) = (history.hasher(), StateDigest::EMPTY);
        let mut state = State::new(history.hasher());
        for (sequence, (number, what)) in (1..).zip(changes) {
            let mut user = fixture::user(number);
            if what == 1 {
                user.status = UserStatus::Revoked { at: None };
            }
            let id = RecordId::User(sign(number));
            let record = match what {
                0 => None,
                // Authentic and yet nonsense: another's record, which the fold does not look at.
                3 => Some(bytes(&id, 1)),
                _ => Some(RecordBytes::assemble(&id, user.encode().body()).unwrap()),
            };
            if let Some(before) = state.record(&id).unwrap() {
                digest.subtract(&hasher.hash(before.as_bytes()));
            }
            record.iter().for_each(|bytes| digest.add(&hasher.hash(bytes.as_bytes())));
            let content = Content::Record { id, bytes: record };
            let opened = Opened { content, digest_after: digest, epoch: Epoch::FIRST, hash: None };
            state.apply(sequence, Item::Entry(opened)).unwrap();
            for number in 1..6 {
                let decoded = domain::user(&state, &sign(number));
                let is_active = decoded.is_ok_and(|user| user.is_some_and(|user| user.is_active()));
                prop_assert_eq!(domain::is_authorized(&state, &sign(number)), is_active);
            }
        }
    }
}

/// Entries of one write, with the hashes left to the state.
fn write_of(history: &History, records: u32) -> Vec<Item> {
    let ids = (1..=records).map(|number| RecordId::User(sign(number)));
    let all: BTreeMap<_, _> = ids.map(|id| (id.clone(), bytes(&id, 1))).collect();
    let digest_after = history.digest_of(&all);
    let entry = |(id, bytes)| {
        let content = Content::Record { id, bytes: Some(bytes) };
        Item::Entry(Opened { content, digest_after, epoch: Epoch::FIRST, hash: None })
    };
    all.into_iter().map(entry).collect()
}

#[test]
fn the_largest_write_is_held_back_to_its_end() {
    let history = History::of(&[]);
    let mut state = State::new(history.hasher());
    for (sequence, item) in (1..).zip(write_of(&history, 1000)) {
        assert!(state.is_readable() && state.census().total() == 0);
        state.apply(sequence, item).unwrap();
    }
    assert!(state.is_settled() && state.census().users == 1000);
}

#[test]
fn what_is_larger_than_a_write_can_be_is_not_held_back_for_ever() {
    let history = History::of(&[]);
    let mut state = State::new(history.hasher());
    for (sequence, item) in (1..).zip(write_of(&history, 1200)) {
        state.apply(sequence, item).unwrap();
        assert_eq!(state.is_readable(), sequence <= 1000 || sequence == 1200, "{sequence}");
        if sequence == 1001 {
            assert_eq!(state.unsettled(), Some(Unsettled { since: 1, gap: None }));
            assert_shows_nothing(&state);
        }
    }
    assert!(state.is_settled() && state.record_sequence() == 1200);
}

#[test]
fn a_gap_is_named_and_the_first_one_stays() {
    let history = History::of(&[Step::Write(vec![(0, Some(1))]), Step::Write(vec![(1, Some(1))])]);
    let mut state = State::new(history.hasher());
    take(&mut state, &history.log[1]);
    assert_eq!(state.unsettled(), Some(Unsettled { since: 2, gap: Some((1, 1)) }));
    state.apply(7, Item::Document(DocumentName::Keyring)).unwrap();
    assert_eq!(state.unsettled(), Some(Unsettled { since: 2, gap: Some((1, 1)) }));
    assert_eq!((state.sequence(), state.record_sequence()), (7, 0), "nothing was settled yet");
}

#[test]
fn a_document_behind_a_gap_settles_nothing() {
    let history = History::of(&[]);
    let mut state = State::new(history.hasher());
    state.apply(3, Item::Document(DocumentName::Nodeset)).unwrap();
    assert!(!state.is_settled(), "an entry may be missing before it");
    let heartbeat = history.log[0].item.clone();
    state.apply(4, heartbeat).unwrap();
    assert!(state.is_settled());
}

#[test]
fn half_a_write_with_a_gap_behind_it_is_shown_to_nobody() {
    let write = Step::Write(vec![(0, Some(1)), (1, Some(1)), (2, Some(1))]);
    let history = History::of(&[write, Step::Heartbeat(false)]);
    let mut state = State::new(history.hasher());
    take(&mut state, &history.log[0]);
    assert!(state.is_readable() && !state.is_settled());
    take(&mut state, &history.log[2]);
    assert_eq!(state.unsettled(), Some(Unsettled { since: 1, gap: Some((2, 2)) }));
    take(&mut state, &history.log[3]);
    assert_shows_nothing(&state);
}

#[test]
fn sequences_rise_and_what_is_refused_changes_nothing() {
    let history = History::of(&[Step::Write(vec![(0, Some(1))])]);
    let mut state = State::new(history.hasher());
    take(&mut state, &history.log[0]);
    for found in [0, 1] {
        let again = state.apply(found, history.log[1].item.clone());
        assert_eq!(again, Err(FoldError::OutOfOrder { found, last: 1 }));
    }
    take(&mut state, &history.log[1]);
    assert_is_at(&state, &history, 2);
}

#[test]
fn an_entry_under_an_older_epoch_is_an_incident() {
    let history = History::of(&[Step::Heartbeat(true), Step::NewEpoch, Step::Heartbeat(true)]);
    let mut state = State::new(history.hasher());
    history.log[..2].iter().for_each(|message| take(&mut state, message));
    let newest = Epoch::FIRST.next().unwrap();
    let refused = state.apply(3, history.log[0].item.clone());
    assert_eq!(refused, Err(FoldError::OlderEpoch { found: Epoch::FIRST, newest }));
    assert_eq!((state.sequence(), state.names()), (2, 2));
}

#[test]
fn the_state_key_changes_only_before_the_first_record() {
    let history = History::of(&[Step::Write(vec![(0, Some(1)), (1, Some(1))])]);
    let other = History::of(&[]);
    let mut state = State::new(other.hasher());
    take(&mut state, &other.log[0]);
    state.set_hasher(history.hasher()).unwrap();
    state.apply(2, history.log[0].item.clone()).unwrap();
    assert_eq!(state.set_hasher(other.hasher()), Err(FoldError::HeldRecords), "held back counts too");
    state.apply(3, history.log[1].item.clone()).unwrap();
    assert!(state.is_settled());
}

#[test]
fn nothing_that_is_printed_shows_a_record() {
    let history = History::of(&[Step::Write(vec![(0, Some(1))])]);
    let mut state = State::new(history.hasher());
    take(&mut state, &history.log[0]);
    assert_eq!(format!("{state:?}"), "State { sequence: 1, unsettled: None, .. }");
}

#[test]
fn nobody_is_authorized_by_records_that_are_not_of_one_moment() {
    let history = History::of(&[]);
    let (mut state, mut digest) = (State::new(history.hasher()), StateDigest::EMPTY);
    let id = RecordId::User(sign(1));
    let user = RecordBytes::assemble(&id, fixture::user(1).encode().body()).unwrap();
    digest.add(&history.hasher().hash(user.as_bytes()));
    let content = Content::Record { id, bytes: Some(user) };
    let opened = Opened { content, digest_after: digest, epoch: Epoch::FIRST, hash: None };
    state.apply(1, Item::Entry(opened)).unwrap();
    assert!(domain::is_authorized(&state, &sign(1)));
    // What is missing at 2 may be the revocation.
    state.apply(3, Item::Document(DocumentName::Keyring)).unwrap();
    assert!(!domain::is_authorized(&state, &sign(1)));
}
