use std::sync::Arc;

use tokio::task::JoinSet;
use unibus_store::{
    error::StoreError,
    record::{MemberRole, UserRole},
};

use super::{fixture::*, nonces::nonce};

/// Runs `count` operations at once and gives their answers.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: u8,
    operation: impl Fn(u8) -> F,
) -> Vec<T> {
    let mut running = JoinSet::new();
    for number in 0..count {
        running.spawn(operation(number));
    }
    running.join_all().await
}

pub(crate) async fn of_two_rekeys_at_once_exactly_one_wins(open: Open) {
    let store = populated(open).await;
    for round in 2..12 {
        let answers = at_once(2, |number| {
            let store = Arc::clone(&store.store);
            let key = sealed(&format!("round {round} by {number}"));
            let keys = vec![(endpoint(2), key.clone()), (endpoint(3), key)];
            async move { store.rekey(signer(2), room_id("r"), epoch(round), keys).await }
        })
        .await;
        let won = answers.iter().filter(|answer| answer.is_ok()).count();
        let lost = answers.iter().filter(|answer| matches!(answer, Err(StoreError::Conflict { .. }))).count();
        assert_eq!((won, lost), (1, 1), "{answers:?}");
        let key = |who| store.room_key(room_id("r"), endpoint(who), None, LOCAL);
        assert_eq!(
            key(2).await.unwrap().unwrap().sealed,
            key(3).await.unwrap().unwrap().sealed,
            "keys of one rekey"
        );
    }
    store.verify().unwrap();
}

pub(crate) async fn of_many_claims_of_a_nonce_exactly_one_is_granted(open: Open) {
    let store = populated(open).await;
    for round in 0..10 {
        let answers = at_once(16, |_| {
            let (store, nonce) = (Arc::clone(&store.store), nonce(&format!("round {round}")));
            async move { store.claim_nonce(sign(2), nonce, at(60), at(0)).await.unwrap() }
        })
        .await;
        assert_eq!(answers.iter().filter(|granted| **granted).count(), 1, "{answers:?}");
    }
}

pub(crate) async fn of_many_adds_of_one_key_exactly_one_succeeds(open: Open) {
    let store = populated(open).await;
    let before = store.position().unwrap();
    let answers = at_once(16, |number| {
        let store = Arc::clone(&store.store);
        let role = if number % 2 == 0 { UserRole::Admin } else { UserRole::Member };
        async move { store.add_user(signer(1), user(9, role)).await.map(|()| role) }
    })
    .await;
    let won: Vec<UserRole> = answers.into_iter().filter_map(Result::ok).collect();
    let [role] = won[..] else { panic!("{won:?}") };
    assert_eq!(
        store.user(sign(9), LOCAL).await.unwrap().unwrap().role,
        role,
        "the winner's, not the last one's"
    );
    assert!(store.has_moved(before, 1));
}

pub(crate) async fn writes_at_once_are_all_counted(open: Open) {
    let store = populated(open).await;
    let before = store.position().unwrap();
    let answers = at_once(40, |number| {
        let store = Arc::clone(&store.store);
        // Every fourth is refused, amid the others.
        let number = if number % 4 == 0 { 2 } else { number + 100 };
        async move { store.add_user(signer(1), user(number, UserRole::Member)).await }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 30);
    assert!(store.has_moved(before, 30));
    assert_eq!(store.users(LOCAL).await.unwrap().len(), 34);
    store.verify().unwrap();
}

/// The check of a right and the write it allows are one: of an admin's last write and its revocation, the one
/// that comes second sees the other.
pub(crate) async fn a_revocation_and_a_write_of_the_revoked_do_not_overlap(open: Open) {
    let store = populated(open).await;
    store.add_user(OPERATOR, user(90, UserRole::Admin)).await.unwrap();
    let answers = at_once(20, |number| {
        let store = Arc::clone(&store.store);
        async move {
            if number == 10 {
                store.revoke_user(signer(1), sign(90), at(100)).await.unwrap();
                return None;
            }
            let added = store.add_user(signer(90), user(number + 100, UserRole::Member)).await;
            let revoked = !store.is_authorized(sign(90), LOCAL).await;
            Some((added.is_ok(), revoked))
        }
    })
    .await;
    for (added, revoked) in answers.into_iter().flatten() {
        assert!(added || revoked, "refused while the right was there");
    }
    refused(&store, "UB-S003", store.add_user(signer(90), user(200, UserRole::Member))).await;
}

pub(crate) async fn reads_see_all_of_a_write_or_nothing(open: Open) {
    let store = populated(open).await;
    let writer = {
        let store = Arc::clone(&store.store);
        tokio::spawn(async move {
            for round in 0..20_u8 {
                let name = format!("t{round}");
                let owner = member(&name, 4, MemberRole::Owner);
                store.create_room(signer(4), room(&name, 4, true), owner, Some(sealed("k"))).await.unwrap();
            }
        })
    };
    let mut seen = 0;
    while seen < 20 {
        // A membership whose room is not there yet would be an error.
        let rooms = store.rooms_of(endpoint(4), LOCAL).await.unwrap();
        for one in &rooms {
            let key = store.room_key(one.room.room_id.clone(), endpoint(4), None, LOCAL).await.unwrap();
            assert!(key.is_some(), "a room without its key");
        }
        assert!(rooms.len() >= seen, "a room is gone");
        seen = rooms.len();
        assert!(
            !writer.is_finished()
                || seen == 20
                || store.rooms_of(endpoint(4), LOCAL).await.unwrap().len() == 20
        );
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}
