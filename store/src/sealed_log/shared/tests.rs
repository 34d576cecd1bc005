//! When a view may be answered from, and what it remembers of what stood where.

use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::id::{DocumentHash, Epoch};

use super::*;
use crate::sealed_log::entry::{Heartbeat, Opened};
use crate::sealed_log::fixture::{self, Site};

const LONG: Duration = Duration::from_secs(3600);

fn item(content: Content, digest_after: StateDigest) -> Item {
    Item::Entry(Opened { content, digest_after, epoch: Epoch::FIRST, hash: None })
}

fn beat(node: &str) -> Content {
    let keyring_hash = DocumentHash::from_bytes([1; 32]);
    let heartbeat = Heartbeat { at: fixture::at(1_800_000_000_000_000), keyring_version: 1, keyring_hash };
    Content::Heartbeat { node: fixture::node(node), heartbeat }
}

fn mark(number: u64) -> Mark {
    let mut mark = [0; HEADER_BYTES];
    mark[..8].copy_from_slice(&number.to_be_bytes());
    mark
}

fn stands(shared: &Shared, sequence: u64) {
    shared.take_own(sequence, vec![(item(beat("beta"), StateDigest::EMPTY), mark(sequence))]).unwrap();
}

fn answers(shared: &Shared) -> Result<(), StoreError> {
    shared.may_answer(&shared.state())
}

/// A view that answers.
fn fresh() -> Shared {
    let shared = Site::new().shared(Some(LONG));
    stands(&shared, 1);
    shared.prove(Instant::now());
    answers(&shared).unwrap();
    shared
}

#[test]
fn without_a_recent_proof_nothing_is_answered() {
    let shared = Site::new().shared(Some(Duration::from_millis(50)));
    assert!(matches!(answers(&shared), Err(StoreError::Unavailable { .. })), "never proven");
    let sent = Instant::now();
    shared.prove(sent);
    std::thread::scope(|scope| {
        // An acknowledgement proves what was so when it was asked for.
        scope.spawn(|| {
            while sent.elapsed() < Duration::from_millis(51) {
                std::thread::yield_now();
            }
        });
    });
    shared.prove(sent);
    assert!(matches!(answers(&shared), Err(StoreError::Unavailable { .. })));
    let later = Instant::now();
    shared.prove(later);
    // Acknowledgements may come out of order.
    shared.prove(sent);
    assert!(shared.age().unwrap() <= later.elapsed());
    assert_eq!(*shared.proofs.borrow(), Some(later));
}

#[test]
fn a_doubt_stops_all_answers_until_it_is_gone_and_a_verdict_for_ever() {
    let shared = fresh();
    assert!(!shared.doubt(Some("something".into())));
    assert!(matches!(answers(&shared), Err(StoreError::Unavailable { .. })));
    assert!(shared.doubt(Some("something".into())), "the same as before");
    shared.doubt(None);
    answers(&shared).unwrap();
    let verdict = |what: &str| Verdict::Tampered { sequence: Sequence(7), what: what.into() };
    shared.condemn(verdict("the first"));
    shared.condemn(Verdict::RolledBack { found: Sequence(1), witnessed: Sequence(2) });
    shared.doubt(None);
    shared.prove(Instant::now());
    let error = answers(&shared).unwrap_err();
    assert!(error.to_string().contains("the first"), "{error}");
}

#[test]
fn a_view_on_its_way_between_two_states_answers_nothing() {
    let shared = fresh();
    let id = crate::record::RecordId::User(fixture::sign(1));
    let bytes = Some(fixture::bytes(&id, 1));
    let content = Content::Record { id, bytes };
    // Behind a gap, and of a write that is not here whole.
    shared.take_own(3, vec![(item(content, StateDigest::EMPTY), mark(3))]).unwrap();
    assert!(matches!(answers(&shared), Err(StoreError::Unavailable { .. })));
}

#[test]
fn while_an_import_is_under_way_only_its_own_handle_answers() {
    let shared = fresh();
    let import = |open| item(Content::Import { open }, StateDigest::EMPTY);
    shared.take_own(2, vec![(import(true), mark(2))]).unwrap();
    assert!(matches!(answers(&shared), Err(StoreError::Unavailable { .. })));
    shared.set_importing(true);
    answers(&shared).unwrap();
    shared.set_importing(false);
    shared.take_own(3, vec![(import(false), mark(3))]).unwrap();
    answers(&shared).unwrap();
}

#[test]
fn what_stood_at_a_sequence_is_known_as_long_as_it_was_seen_and_is_remembered() {
    let shared = fresh();
    stands(&shared, 3);
    assert_eq!(shared.standing(1, &[mark(9), mark(1)]), Standing::Ours);
    assert_eq!(shared.standing(1, &[mark(3)]), Standing::Another);
    assert_eq!(shared.standing(2, &[mark(3), mark(1)]), Standing::Unknown, "superseded before it was seen");
    let remembered = u64::try_from(REMEMBERED).unwrap();
    (4..=4 + remembered).for_each(|sequence| stands(&shared, sequence));
    assert_eq!(shared.standing(1, &[mark(1)]), Standing::Unknown, "long past");
    assert_eq!(shared.standing(4 + remembered, &[mark(4 + remembered)]), Standing::Ours);
    assert_eq!(shared.names_at(1), None);
}

#[test]
fn what_was_seen_already_is_taken_once() {
    let site = Site::new();
    let shared = site.shared(None);
    let codec = shared.codec();
    let raw = |sequence, pending| {
        let sealed = codec.seal(&beat("beta"), StateDigest::EMPTY, sequence).unwrap();
        Raw { sequence, subject: sealed.subject, payload: sealed.payload, foreign_header: None, pending }
    };
    let (one, two) = (raw(1, 1), raw(2, 1));
    shared.take(&[one.clone(), two.clone()]).unwrap();
    shared.take(&[one.clone(), two]).unwrap();
    let opened = codec.open(&one, &mut Zeroizing::new(Vec::new())).unwrap();
    shared.take_opened(vec![(one, Ok(Some(Item::Entry(opened.clone()))))]).unwrap();
    shared.take_own(1, vec![(Item::Entry(opened), mark(1))]).unwrap();
    assert_eq!(shared.sequence(), 2);
}

#[test]
fn only_another_nodes_heartbeat_at_the_end_of_the_log_is_heard() {
    let site = Site::new();
    let shared = site.shared(None);
    let begun = Instant::now();
    let codec = shared.codec();
    let hear = |sequence, node: &str, pending| {
        let sealed = codec.seal(&beat(node), StateDigest::EMPTY, sequence).unwrap();
        let (subject, payload) = (sealed.subject, sealed.payload);
        shared.take(&[Raw { sequence, subject, payload, foreign_header: None, pending }]).unwrap();
        shared.clocks.has_heard_since(begun)
    };
    assert!(!hear(1, "beta", 5), "nobody knows when it spoke");
    assert!(!hear(2, "alpha", 0), "it is this very node");
    assert!(hear(3, "beta", 0));
}

#[test]
fn a_clock_that_is_far_from_another_nodes_is_off() {
    let site = Site::new();
    for (micros, is_off) in [(29_000_000, false), (31_000_000, true), (-31_000_000, true)] {
        let shared = site.shared(None);
        let at = fixture::at(1_800_000_000_000_000 + micros);
        shared.hear(&fixture::node("beta"), at);
        assert_eq!(shared.clocks.trouble().is_some(), is_off, "{micros}");
    }
}

#[test]
fn the_state_key_changes_with_the_keyring_and_only_before_the_first_record() {
    let site = Site::new();
    let carried = unibus_keyfile::keyring::CarriedOver {
        state: unibus_keyfile::secret::StateKey::generate(),
        last_epoch: Epoch::FIRST,
    };
    let carried = site.keyring.carry_over(&site.nodeset, &site.own, &site.secrets, carried, fixture::NOW);
    let (next, _) = carried.unwrap();
    let document = |sequence| fixture::document(&DocumentName::Keyring, sequence, next.as_bytes());
    let add = |shared: &Shared, sequence| {
        let record = crate::record::Record::User(fixture::user(1));
        let (bytes, id) = (record.encode(), record.id());
        let codec = shared.codec();
        let mut digest = StateDigest::EMPTY;
        digest.add(&codec.hasher().hash(bytes.as_bytes()));
        let sealed = codec.seal(&Content::Record { id, bytes: Some(bytes) }, digest, sequence).unwrap();
        let (subject, payload) = (sealed.subject, sealed.payload);
        shared.take(&[Raw { sequence, subject, payload, foreign_header: None, pending: 0 }]).unwrap();
        shared.state().is_settled()
    };
    let shared = site.shared(None);
    stands(&shared, 2);
    shared.take(&[document(3)]).unwrap();
    assert!(add(&shared, 4), "its digest is under the new key");
    let shared = site.shared(None);
    stands(&shared, 2);
    assert!(add(&shared, 3));
    assert!(matches!(shared.take(&[document(4)]), Err(LogError::Tampered { .. })));
}
