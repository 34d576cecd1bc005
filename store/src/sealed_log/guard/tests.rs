//! What a look at the stream finds, and for how long.

use serde_json::json;
use unibus_keyfile::digest::StateDigest;
use unibus_keyfile::id::{DocumentHash, Epoch};

use super::*;
use crate::sealed_log::entry::{Content, DocumentName, Heartbeat, Opened};
use crate::sealed_log::fixture::{self, Site};
use crate::sealed_log::stream::{Bucket, Generation};
use crate::sealed_log::view::Item;

/// A view that has seen a document and a heartbeat, up to sequence 2.
fn seen() -> Shared {
    let shared = Site::new().shared(None);
    stand(&shared, 1, vec![Item::Document(DocumentName::Nodeset), beat()]);
    shared
}

fn stand(shared: &Shared, first: u64, items: Vec<Item>) {
    shared.take_own(first, items.into_iter().map(|item| (item, [1; 20])).collect()).unwrap();
}

fn item(content: Content) -> Item {
    Item::Entry(Opened { content, digest_after: StateDigest::EMPTY, epoch: Epoch::FIRST, hash: None })
}

fn beat() -> Item {
    let keyring_hash = DocumentHash::from_bytes([1; 32]);
    let heartbeat = Heartbeat { at: fixture::at(1), keyring_version: 1, keyring_hash };
    item(Content::Heartbeat { node: fixture::node("beta"), heartbeat })
}

fn info(last: u64, messages: u64, replicas: usize, followers: usize) -> StreamInfo {
    let follower = |number| json!({ "name": format!("f{number}"), "current": true });
    let followers: Vec<_> = (0..followers).map(follower).collect();
    let reply = json!({ "config": Bucket::Control(Generation::FIRST).config(replicas),
        "state": { "messages": messages, "last_seq": last },
        "cluster": { "leader": "l", "replicas": followers } });
    StreamInfo::parse(Bucket::Control(Generation::FIRST), reply).unwrap()
}

#[test]
fn a_stream_that_is_as_it_was_seen_gives_no_reason_to_doubt() {
    let shared = seen();
    assert_eq!(examine(&shared, &info(2, 2, 1, 0), 1, 2), None);
    assert_eq!(examine(&shared, &info(9, 5, 1, 0), 1, 2), None, "the rest is on its way");
}

#[test]
fn entries_that_are_missing_or_too_many_are_found_though_no_message_tells() {
    let shared = seen();
    for messages in [1, 3] {
        let found = examine(&shared, &info(2, messages, 1, 0), 1, 2).unwrap();
        assert_eq!(found, Finding::Count { at: 2, messages, names: 2 });
        assert!(matches!(found.verdict(), Verdict::Tampered { sequence: Sequence(2), .. }));
    }
}

#[test]
fn an_end_before_what_was_seen_is_a_rollback_if_a_majority_says_so() {
    let shared = seen();
    let found = examine(&shared, &info(1, 1, 3, 1), 3, 2).unwrap();
    assert_eq!(found, Finding::Behind { last: 1, seen: 2 });
    assert!(matches!(found.verdict(), Verdict::RolledBack { .. }));
    assert_eq!(examine(&shared, &info(1, 1, 3, 0), 3, 2), None, "a leader cut off from the others");
}

#[test]
fn another_setting_is_found_before_all_else() {
    let shared = seen();
    let found = examine(&shared, &info(1, 1, 1, 0), 3, 2).unwrap();
    assert!(matches!(found, Finding::Settings { setting: "num_replicas", .. }), "{found:?}");
}

#[test]
fn a_view_that_does_not_agree_with_the_log_is_found_at_its_end_only() {
    let shared = seen();
    let id = crate::record::RecordId::User(fixture::sign(1));
    let bytes = Some(fixture::bytes(&id, 1));
    stand(&shared, 3, vec![item(Content::Record { id, bytes })]);
    let found = examine(&shared, &info(3, 3, 1, 0), 1, 3).unwrap();
    assert_eq!(found, Finding::Unsettled { since: 3, gap: None });
    assert_eq!(examine(&shared, &info(4, 4, 1, 0), 1, 3), None, "the end of the write is on its way");
}

#[test]
fn a_doubt_grows_only_while_the_same_is_found() {
    let count = |at| Finding::Count { at, messages: 1, names: 2 };
    let unsettled = |since| Finding::Unsettled { since, gap: None };
    assert!(is_alike(Some(&count(1)), &count(5)), "whatever was written in between");
    assert!(is_alike(Some(&unsettled(1)), &unsettled(1)));
    assert!(!is_alike(Some(&unsettled(1)), &unsettled(2)), "another write that is on its way");
    assert!(!is_alike(Some(&Finding::Gone), &count(1)));
    assert!(!is_alike(None, &count(1)));
}
