use unibus_store::record::{Channel, MemberRole, UserRole};

use super::fixture::*;

const OWNER: MemberRole = MemberRole::Owner;

pub(crate) async fn a_room_comes_with_its_owner_and_the_owners_key(open: Open) {
    let store = populated(open).await;
    let (new, owner) = (room("new", 4, true), member("new", 4, OWNER));
    committed(&store, store.create_room(signer(4), new.clone(), owner.clone(), Some(sealed("k")))).await;
    assert!(store.room(room_id("new"), LOCAL).await.unwrap() == Some(new));
    assert_eq!(store.members(room_id("new"), LOCAL).await.unwrap(), [owner]);
    let key = store.room_key(room_id("new"), endpoint(4), None, LOCAL).await.unwrap().unwrap();
    assert_eq!((key.epoch, key.sealed), (epoch(1), sealed("k")));
    assert_eq!(store.verify().unwrap().dangling, 0);
}

pub(crate) async fn a_room_without_encryption_has_no_sealed_keys(open: Open) {
    let store = populated(open).await;
    let create = |key| store.create_room(signer(4), room("c", 4, false), member("c", 4, OWNER), key);
    refused(&store, "UB-S009", create(Some(sealed("k")))).await;
    committed(&store, create(None)).await;
    assert!(store.room_key(room_id("c"), endpoint(4), None, LOCAL).await.unwrap().is_none());
}

pub(crate) async fn creating_a_room_again_changes_nothing(open: Open) {
    let store = populated(open).await;
    // By another user, of another policy: the room stays whose it is.
    refused(
        &store,
        "UB-S001",
        store.create_room(signer(4), room("r", 4, false), member("r", 4, OWNER), None),
    )
    .await;
    let key = Some(sealed("again"));
    refused(&store, "UB-S001", store.create_room(OPERATOR, room("r", 2, true), member("r", 2, OWNER), key))
        .await;
    assert_eq!(store.room(room_id("r"), LOCAL).await.unwrap().unwrap().owner, endpoint(2));
    assert!(store.member(room_id("r"), endpoint(4), LOCAL).await.unwrap().is_none());
}

pub(crate) async fn an_encrypted_room_without_a_sealed_key_is_refused(open: Open) {
    let store = populated(open).await;
    refused(&store, "UB-S009", store.create_room(signer(4), room("e", 4, true), member("e", 4, OWNER), None))
        .await;
    assert!(store.room(room_id("e"), LOCAL).await.unwrap().is_none());
}

pub(crate) async fn a_member_of_an_encrypted_room_needs_a_kex_pub(open: Open) {
    let store = populated(open).await;
    let mut owner = member("e", 4, OWNER);
    owner.kex_pub = None;
    let create = store.create_room(signer(4), room("e", 4, true), owner.clone(), Some(sealed("k")));
    refused(&store, "UB-S009", create).await;
    committed(&store, store.create_room(signer(4), room("e", 4, false), owner.clone(), None)).await;
    assert!(store.member(room_id("e"), endpoint(4), LOCAL).await.unwrap() == Some(owner));
    let mut guest = member("r", 4, MemberRole::Member);
    guest.kex_pub = None;
    refused(&store, "UB-S009", store.invite(signer(2), guest, Some((epoch(1), sealed("k"))))).await;
}

pub(crate) async fn a_room_and_an_owner_that_do_not_fit_are_refused(open: Open) {
    let store = populated(open).await;
    for (new, owner) in [
        (room("n", 4, false), member("other", 4, OWNER)),
        (room("n", 4, false), member("n", 4, MemberRole::Member)),
        (room("n", 3, false), member("n", 4, OWNER)),
    ] {
        for actor in [OPERATOR, signer(4)] {
            refused(&store, "UB-S009", store.create_room(actor, new.clone(), owner.clone(), None)).await;
        }
    }
}

pub(crate) async fn a_new_room_is_at_key_epoch_1(open: Open) {
    let store = populated(open).await;
    let mut late = room("n", 4, true);
    late.key_epoch = epoch(2);
    let create = store.create_room(signer(4), late, member("n", 4, OWNER), Some(sealed("k")));
    refused(&store, "UB-S009", create).await;
}

pub(crate) async fn an_active_user_creates_rooms_for_itself_only(open: Open) {
    let store = populated(open).await;
    store.revoke_user(signer(1), sign(3), at(100)).await.unwrap();
    for (actor, owner) in [(9, 9), (3, 3), (4, 2), (1, 2)] {
        let create =
            store.create_room(signer(actor), room("n", owner, false), member("n", owner, OWNER), None);
        refused(&store, "UB-S003", create).await;
    }
    committed(&store, store.create_room(OPERATOR, room("n", 2, false), member("n", 2, OWNER), None)).await;
}

pub(crate) async fn rooms_of_an_endpoint_come_with_its_role(open: Open) {
    let store = populated(open).await;
    for name in ["z", "a", "r-"] {
        let create = store.create_room(signer(3), room(name, 3, false), member(name, 3, OWNER), None);
        create.await.unwrap();
    }
    let rooms = store.rooms_of(endpoint(3), LOCAL).await.unwrap();
    let found: Vec<_> = rooms.iter().map(|one| (one.room.room_id.as_str(), one.member.role)).collect();
    assert_eq!(found, [("a", OWNER), ("r", MemberRole::Member), ("r-", OWNER), ("z", OWNER)]);
    assert!(store.rooms_of(endpoint(9), LOCAL).await.unwrap().is_empty());
}

pub(crate) async fn channels_are_those_of_an_active_users_rooms(open: Open) {
    let store = populated(open).await;
    let r = [Channel::parse("r").unwrap()];
    assert_eq!(store.channels_of(endpoint(2), LOCAL).await.unwrap(), r);
    assert_eq!(store.channels_of(endpoint(3), LOCAL).await.unwrap(), r);
    assert!(store.channels_of(endpoint(4), LOCAL).await.unwrap().is_empty());
    store.revoke_user(signer(1), sign(3), at(100)).await.unwrap();
    assert!(store.channels_of(endpoint(3), LOCAL).await.unwrap().is_empty(), "revoked");
    // A member that no user stands behind may not connect either, until the user is added.
    let key = Some((epoch(1), sealed("k")));
    store.invite(signer(2), member("r", 9, MemberRole::Member), key).await.unwrap();
    assert!(store.channels_of(endpoint(9), LOCAL).await.unwrap().is_empty(), "not registered");
    store.add_user(signer(1), user(9, UserRole::Member)).await.unwrap();
    assert_eq!(store.channels_of(endpoint(9), LOCAL).await.unwrap(), r);
}
