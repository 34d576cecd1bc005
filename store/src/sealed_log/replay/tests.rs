//! When a log counts as read to its end.

use serde_json::json;
use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::id::Epoch;

use super::*;
use crate::sealed_log::entry::{Content, DocumentName, Opened};
use crate::sealed_log::fixture::{self, Site};
use crate::sealed_log::stream::{Bucket, Generation};

fn end(last: u64, messages: u64) -> End {
    let reply = json!({ "config": Bucket::Control(Generation::FIRST).config(1),
        "state": { "messages": messages, "last_seq": last } });
    End {
        said: Some(StreamInfo::parse(Bucket::Control(Generation::FIRST), reply).unwrap()),
        ..End::default()
    }
}

fn item(content: Content) -> Item {
    Item::Entry(Opened { content, digest_after: StateDigest::EMPTY, epoch: Epoch::FIRST, hash: None })
}

/// A view at sequence 2 with two names.
fn read() -> Shared {
    let shared = Site::new().shared(None);
    let items = vec![
        (Item::Document(DocumentName::Nodeset), [1; 20]),
        (item(Content::NonceFloor(fixture::at(1))), [2; 20]),
    ];
    shared.take_own(1, items).unwrap();
    shared
}

#[test]
fn a_log_is_read_when_all_is_there_that_the_server_counts() {
    let shared = read();
    assert!(end(2, 2).is_reached(&shared, Duration::ZERO).unwrap());
    for messages in [1, 3] {
        let error = end(2, messages).is_reached(&shared, Duration::ZERO).unwrap_err();
        assert!(matches!(error, LogError::Tampered { sequence: Sequence(2), .. }), "{error:?}");
    }
}

#[test]
fn a_name_that_was_written_anew_between_the_count_and_the_reading_is_not_missing() {
    let shared = read();
    let mut end = end(3, 4);
    // The server has counted up to 3; what stood at 2 or 3 under another name came again at 4 before it was read.
    let user = |number| {
        let id = crate::record::RecordId::User(fixture::sign(number));
        let bytes = Some(fixture::bytes(&id, 1));
        item(Content::Record { id, bytes })
    };
    shared.take_own(3, vec![(user(1), [3; 20])]).unwrap();
    assert!(!end.is_reached(&shared, Duration::from_secs(60)).unwrap());
    assert!(end.said.is_none(), "the server counts again");
    shared.take_own(4, vec![(user(2), [4; 20])]).unwrap();
    end.said = self::end(4, 4).said;
    assert!(end.is_reached(&shared, Duration::from_secs(60)).unwrap());
    // What goes on missing is missing.
    end.said = self::end(4, 5).said;
    let error = end.is_reached(&shared, Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("counts 5 entries, 4"), "{error}");
}

#[test]
fn a_log_whose_last_entries_do_not_come_is_not_taken_for_an_older_one() {
    let shared = read();
    let mut end = end(3, 3);
    assert!(!end.is_reached(&shared, Duration::from_secs(60)).unwrap(), "it may be on its way");
    let error = end.is_reached(&shared, Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("missing behind it"), "{error}");
}

#[test]
fn records_that_are_not_what_the_last_entry_says_are_tampered_after_a_while() {
    let shared = read();
    assert!(is_settled(&shared, &mut None, Duration::ZERO).unwrap());
    let id = crate::record::RecordId::User(fixture::sign(1));
    let bytes = Some(fixture::bytes(&id, 1));
    shared.take_own(4, vec![(item(Content::Record { id, bytes }), [4; 20])]).unwrap();
    let mut since = None;
    assert!(!is_settled(&shared, &mut since, Duration::from_secs(60)).unwrap());
    let error = is_settled(&shared, &mut since, Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("between 3 and 3"), "{error}");
}

#[test]
fn what_a_thread_has_no_key_for_is_left_to_whoever_applies_it() {
    let site = Site::new();
    let codec = site.shared(None).codec();
    // Under a key that comes with the document in front of it.
    let carried = unibus_keyfile::keyring::CarriedOver {
        state: unibus_keyfile::secret::StateKey::generate(),
        last_epoch: Epoch::FIRST,
    };
    let carried = site.keyring.carry_over(&site.nodeset, &site.own, &site.secrets, carried, fixture::NOW);
    let (keyring, secrets) = carried.unwrap();
    let later = Codec::new(&keyring, &secrets, Generation::FIRST);
    let raw = |codec: &Codec, sequence| {
        let sealed = codec.seal(&Content::NonceFloor(fixture::at(1)), StateDigest::EMPTY, sequence).unwrap();
        let (subject, payload) = (sealed.subject, sealed.payload);
        Raw { sequence, subject, payload, foreign_header: None, pending: 0 }
    };
    let document = fixture::document(&DocumentName::Keyring, 4, keyring.as_bytes());
    let moved = Raw { sequence: 9, ..raw(&codec, 3) };
    let opened = open(&codec, vec![raw(&codec, 3), document, raw(&later, 5), moved]);
    let [(_, Ok(Some(_))), (_, Ok(None)), (_, Ok(None)), (_, Err(_))] = &opened[..] else {
        panic!("{:?}", opened.iter().map(|(_, opening)| opening).collect::<Vec<_>>());
    };
}
