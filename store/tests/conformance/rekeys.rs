use unibus_store::{
    error::StoreError,
    record::{Endpoint, MemberRole, SealedKey},
};

use super::fixture::*;

fn keys(numbers: &[u8]) -> Vec<(Endpoint, SealedKey)> {
    numbers.iter().map(|number| (endpoint(*number), sealed(&format!("new for {number}")))).collect()
}

pub(crate) async fn a_rekey_makes_the_next_epoch_current(open: Open) {
    let store = populated(open).await;
    committed(&store, store.rekey(signer(2), room_id("r"), epoch(2), keys(&[2, 3]))).await;
    assert_eq!(store.room(room_id("r"), LOCAL).await.unwrap().unwrap().key_epoch, epoch(2));
    for number in [2, 3] {
        let key = store.room_key(room_id("r"), endpoint(number), None, LOCAL).await.unwrap().unwrap();
        assert_eq!((key.epoch, key.sealed), (epoch(2), sealed(&format!("new for {number}"))));
    }
    committed(&store, store.rekey(OPERATOR, room_id("r"), epoch(3), keys(&[3, 2]))).await;
}

pub(crate) async fn keys_of_earlier_epochs_stay(open: Open) {
    let store = populated(open).await;
    store.rekey(signer(2), room_id("r"), epoch(2), keys(&[2, 3])).await.unwrap();
    let key = store.room_key(room_id("r"), endpoint(3), Some(epoch(1)), LOCAL).await.unwrap().unwrap();
    assert_eq!(key.sealed, sealed("r1 for 3"));
    assert!(store.room_key(room_id("r"), endpoint(3), Some(epoch(3)), LOCAL).await.unwrap().is_none());
    assert_eq!(store.verify().unwrap().dangling, 0);
}

pub(crate) async fn a_rekey_to_any_other_epoch_is_a_conflict(open: Open) {
    let store = populated(open).await;
    store.rekey(signer(2), room_id("r"), epoch(2), keys(&[2, 3])).await.unwrap();
    for number in [1, 2, 4, u64::try_from(i64::MAX).unwrap()] {
        for actor in [OPERATOR, signer(2)] {
            refused(&store, "UB-S004", store.rekey(actor, room_id("r"), epoch(number), keys(&[2, 3]))).await;
        }
    }
    match store.rekey(signer(2), room_id("r"), epoch(9), keys(&[2, 3])).await {
        Err(StoreError::Conflict { current, given }) => assert_eq!((current, given), (epoch(2), epoch(9))),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_rekey_that_misses_a_member_is_refused(open: Open) {
    let store = populated(open).await;
    for given in [&[][..], &[2], &[3]] {
        refused(&store, "UB-S005", store.rekey(signer(2), room_id("r"), epoch(2), keys(given))).await;
    }
    assert!(store.room_key(room_id("r"), endpoint(2), Some(epoch(2)), LOCAL).await.unwrap().is_none());
}

pub(crate) async fn a_rekey_with_a_key_for_a_stranger_is_refused(open: Open) {
    let store = populated(open).await;
    for given in [&[2, 3, 4][..], &[2, 4]] {
        refused(&store, "UB-S005", store.rekey(signer(2), room_id("r"), epoch(2), keys(given))).await;
    }
}

pub(crate) async fn a_rekey_with_two_keys_for_one_member_is_refused(open: Open) {
    let store = populated(open).await;
    for given in [&[2, 3, 3][..], &[2, 2]] {
        refused(&store, "UB-S005", store.rekey(signer(2), room_id("r"), epoch(2), keys(given))).await;
    }
}

pub(crate) async fn only_an_owner_rekeys(open: Open) {
    let store = populated(open).await;
    for actor in [3, 1, 4, 9] {
        refused(&store, "UB-S003", store.rekey(signer(actor), room_id("r"), epoch(2), keys(&[2, 3]))).await;
    }
}

pub(crate) async fn a_room_without_encryption_is_not_rekeyed(open: Open) {
    let store = populated(open).await;
    let owner = member("c", 2, MemberRole::Owner);
    store.create_room(signer(2), room("c", 2, false), owner, None).await.unwrap();
    refused(&store, "UB-S009", store.rekey(signer(2), room_id("c"), epoch(2), keys(&[2]))).await;
}
