//! Imports that are cut short, done again, or disturbed.

use super::*;
use crate::record::Record;
use crate::sealed_log::fixture::{self, Home, Site};
use crate::sealed_log::options::Access;
use crate::sealed_log::view::Item;
use unibus_keyfile::digest::StateDigest;

/// So many users, in canonical order.
fn users(count: u32) -> Vec<(RecordId, RecordBytes)> {
    let encoded = |number| {
        let record = Record::User(fixture::user(number));
        (record.id(), record.encode())
    };
    let mut all: Vec<_> = (0..count).map(encoded).collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

#[tokio::test]
async fn what_an_import_that_is_done_again_does_not_bring_is_removed() {
    let home = Home::new().await;
    let log = home.open(Access::Serve).unwrap();
    let all = users(1100);
    let given = |(_, bytes): &(RecordId, RecordBytes)| Ok(bytes.clone());
    let mut cut = all.iter().map(given).chain([Err(StoreError::Stopped)]);
    log.import_all(&mut cut, None).unwrap_err();
    assert_eq!(log.census().users, 1000);
    // Gaps before, within, at the end of and behind each batch.
    let is_kept = |at: usize| at != 0 && at % 10 != 3 && !(540..600).contains(&at) && at < 950;
    let kept = || all.iter().enumerate().filter(|(at, _)| is_kept(*at)).map(|(_, one)| one);
    log.import_all(&mut kept().map(given), None).unwrap();
    let (state, wanted) = (log.shared.state(), kept().count());
    assert!(wanted > BATCH);
    assert_eq!(state.census().users, u64::try_from(wanted).unwrap());
    assert!(kept().all(|(id, bytes)| state.record(id).unwrap().as_ref() == Some(bytes)));
}

#[test]
fn changes_that_were_made_from_other_records_are_not_written() {
    let shared = Site::new().shared(None);
    let id = RecordId::User(fixture::sign(1));
    let (one, other) = (fixture::bytes(&id, 1), fixture::bytes(&id, 2));
    let change = |before: Option<&RecordBytes>| {
        [Change { id: id.clone(), before: before.cloned(), after: Some(fixture::bytes(&id, 3)) }]
    };
    let refused = |before| is_current(&*shared.state(), &change(before)).is_err();
    assert!(!refused(None) && refused(Some(&one)));
    let mut digest = StateDigest::EMPTY;
    digest.add(&shared.codec().hasher().hash(one.as_bytes()));
    let content = Content::Record { id: id.clone(), bytes: Some(one.clone()) };
    let record: Item = fixture::item(content, digest);
    shared.take_own(1, vec![(record, [1; 20])]).unwrap();
    assert!(!refused(Some(&one)) && refused(Some(&other)) && refused(None));
}
