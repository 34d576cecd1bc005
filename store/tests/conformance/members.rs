use unibus_store::record::{MemberRole, UserRole};

use super::fixture::*;

const OWNER: MemberRole = MemberRole::Owner;
const MEMBER: MemberRole = MemberRole::Member;

pub(crate) async fn an_owner_invites_a_member_with_its_key(open: Open) {
    let store = populated(open).await;
    let guest = member("r", 4, MEMBER);
    committed(&store, store.invite(signer(2), guest.clone(), Some((epoch(1), sealed("k4"))))).await;
    assert!(store.member(room_id("r"), endpoint(4), LOCAL).await.unwrap() == Some(guest));
    let key = store.room_key(room_id("r"), endpoint(4), Some(epoch(1)), LOCAL).await.unwrap().unwrap();
    assert_eq!(key.sealed, sealed("k4"));
    let mut wanted = [2, 3, 4].map(endpoint);
    wanted.sort();
    let listed = store.members(room_id("r"), LOCAL).await.unwrap();
    assert_eq!(listed.iter().map(|member| member.endpoint()).collect::<Vec<_>>(), wanted);
}

pub(crate) async fn inviting_a_member_again_changes_nothing_and_raises_no_role(open: Open) {
    let store = populated(open).await;
    for actor in [OPERATOR, signer(2)] {
        let key = Some((epoch(1), sealed("other")));
        refused(&store, "UB-S006", store.invite(actor, member("r", 3, OWNER), key)).await;
    }
    assert_eq!(store.member(room_id("r"), endpoint(3), LOCAL).await.unwrap().unwrap().role, MEMBER);
    let key = store.room_key(room_id("r"), endpoint(3), None, LOCAL).await.unwrap().unwrap();
    assert_eq!(key.sealed, sealed("r1 for 3"));
}

pub(crate) async fn only_an_owner_invites(open: Open) {
    let store = populated(open).await;
    // A member, an admin who is no member, a user of no room, a stranger.
    for actor in [3, 1, 4, 9] {
        let key = Some((epoch(1), sealed("k")));
        refused(&store, "UB-S003", store.invite(signer(actor), member("r", 4, MEMBER), key)).await;
        let key = Some((epoch(1), sealed("k")));
        refused(&store, "UB-S003", store.invite(signer(actor), member("r", actor, OWNER), key)).await;
    }
    let key = Some((epoch(1), sealed("k")));
    committed(&store, store.invite(OPERATOR, member("r", 4, MEMBER), key)).await;
}

pub(crate) async fn an_invited_owner_may_invite(open: Open) {
    let store = populated(open).await;
    store.invite(signer(2), member("r", 4, OWNER), Some((epoch(1), sealed("k")))).await.unwrap();
    committed(&store, store.invite(signer(4), member("r", 1, MEMBER), Some((epoch(1), sealed("k"))))).await;
    assert_eq!(store.room(room_id("r"), LOCAL).await.unwrap().unwrap().owner, endpoint(2));
}

pub(crate) async fn an_invitation_sealed_for_another_epoch_is_refused(open: Open) {
    let store = populated(open).await;
    let invite = |number| store.invite(signer(2), member("r", 4, MEMBER), Some((epoch(number), sealed("k"))));
    refused(&store, "UB-S004", invite(2)).await;
    let keys = vec![(endpoint(2), sealed("a")), (endpoint(3), sealed("b"))];
    store.rekey(signer(2), room_id("r"), epoch(2), keys).await.unwrap();
    refused(&store, "UB-S004", invite(1)).await;
    committed(&store, invite(2)).await;
}

pub(crate) async fn an_invitation_needs_a_key_exactly_if_the_room_is_encrypted(open: Open) {
    let store = populated(open).await;
    refused(&store, "UB-S009", store.invite(signer(2), member("r", 4, MEMBER), None)).await;
    store.create_room(signer(2), room("c", 2, false), member("c", 2, OWNER), None).await.unwrap();
    let key = Some((epoch(1), sealed("k")));
    refused(&store, "UB-S009", store.invite(signer(2), member("c", 4, MEMBER), key)).await;
    committed(&store, store.invite(signer(2), member("c", 4, MEMBER), None)).await;
}

pub(crate) async fn a_revoked_user_is_not_invited(open: Open) {
    let store = populated(open).await;
    store.revoke_user(signer(1), sign(4), at(100)).await.unwrap();
    for actor in [OPERATOR, signer(2)] {
        let key = Some((epoch(1), sealed("k")));
        refused(&store, "UB-S009", store.invite(actor, member("r", 4, MEMBER), key)).await;
    }
}

pub(crate) async fn a_stranger_is_not_told_whether_a_room_exists(open: Open) {
    let store = populated(open).await;
    for room in ["r", "nothing"] {
        for actor in [4, 1, 9] {
            let actor = signer(actor);
            let key = Some((epoch(1), sealed("k")));
            refused(&store, "UB-S003", store.invite(actor, member(room, 4, MEMBER), key)).await;
            refused(&store, "UB-S003", store.remove_member(actor, room_id(room), endpoint(3))).await;
            refused(&store, "UB-S003", store.remove_member(actor, room_id(room), endpoint(4))).await;
            refused(&store, "UB-S003", store.rekey(actor, room_id(room), epoch(2), vec![])).await;
        }
    }
}

pub(crate) async fn the_operator_is_told_that_a_room_is_not_there(open: Open) {
    let store = populated(open).await;
    refused(&store, "UB-S002", store.invite(OPERATOR, member("nothing", 4, MEMBER), None)).await;
    refused(&store, "UB-S002", store.remove_member(OPERATOR, room_id("nothing"), endpoint(3))).await;
    refused(&store, "UB-S002", store.rekey(OPERATOR, room_id("nothing"), epoch(2), vec![])).await;
    assert!(store.room(room_id("nothing"), LOCAL).await.unwrap().is_none());
    assert!(store.members(room_id("nothing"), LOCAL).await.unwrap().is_empty());
    assert!(store.room_key(room_id("nothing"), endpoint(2), None, LOCAL).await.unwrap().is_none());
}

pub(crate) async fn a_removed_member_loses_the_keys_of_all_epochs(open: Open) {
    let store = populated(open).await;
    let keys = vec![(endpoint(2), sealed("a")), (endpoint(3), sealed("b"))];
    store.rekey(signer(2), room_id("r"), epoch(2), keys).await.unwrap();
    committed(&store, store.remove_member(signer(2), room_id("r"), endpoint(3))).await;
    assert!(store.member(room_id("r"), endpoint(3), LOCAL).await.unwrap().is_none());
    for number in [1, 2] {
        let key = |who| store.room_key(room_id("r"), endpoint(who), Some(epoch(number)), LOCAL);
        assert!(key(3).await.unwrap().is_none(), "epoch {number}");
        assert!(key(2).await.unwrap().is_some(), "the owner's key of epoch {number} stays");
    }
    assert_eq!(store.verify().unwrap().dangling, 0);
}

pub(crate) async fn a_member_may_leave_and_remove_nobody_else(open: Open) {
    let store = populated(open).await;
    store.invite(signer(2), member("r", 4, MEMBER), Some((epoch(1), sealed("k")))).await.unwrap();
    refused(&store, "UB-S003", store.remove_member(signer(3), room_id("r"), endpoint(4))).await;
    refused(&store, "UB-S003", store.remove_member(signer(3), room_id("r"), endpoint(2))).await;
    committed(&store, store.remove_member(signer(3), room_id("r"), endpoint(3))).await;
    refused(&store, "UB-S003", store.remove_member(signer(3), room_id("r"), endpoint(3))).await;
}

pub(crate) async fn removing_somebody_who_is_no_member_is_not_found(open: Open) {
    let store = populated(open).await;
    for actor in [OPERATOR, signer(2)] {
        refused(&store, "UB-S002", store.remove_member(actor, room_id("r"), endpoint(4))).await;
    }
}

pub(crate) async fn the_last_owner_cannot_leave_others_behind(open: Open) {
    let store = populated(open).await;
    for actor in [OPERATOR, signer(2)] {
        refused(&store, "UB-S007", store.remove_member(actor, room_id("r"), endpoint(2))).await;
    }
}

pub(crate) async fn the_last_member_closes_the_room(open: Open) {
    let store = populated(open).await;
    let empty = store.verify().unwrap().census;
    store.create_room(signer(2), room("x", 2, true), member("x", 2, OWNER), Some(sealed("1"))).await.unwrap();
    store.rekey(signer(2), room_id("x"), epoch(2), vec![(endpoint(2), sealed("2"))]).await.unwrap();
    committed(&store, store.remove_member(signer(2), room_id("x"), endpoint(2))).await;
    assert!(store.room(room_id("x"), LOCAL).await.unwrap().is_none());
    assert_eq!(store.verify().unwrap().census, empty, "nothing of the room is left");
    committed(
        &store,
        store.create_room(signer(4), room("x", 4, true), member("x", 4, OWNER), Some(sealed("3"))),
    )
    .await;
}

pub(crate) async fn another_owner_takes_over_the_room(open: Open) {
    let store = populated(open).await;
    for number in [4, 5] {
        store.invite(signer(2), member("r", number, OWNER), Some((epoch(1), sealed("k")))).await.unwrap();
    }
    committed(&store, store.remove_member(signer(2), room_id("r"), endpoint(2))).await;
    let first = endpoint(4).min(endpoint(5));
    assert_eq!(store.room(room_id("r"), LOCAL).await.unwrap().unwrap().owner, first);
    // An owner that the room's record does not name leaves without changing it.
    let second = if first == endpoint(4) { 5 } else { 4 };
    committed(&store, store.remove_member(OPERATOR, room_id("r"), endpoint(second))).await;
    assert_eq!(store.room(room_id("r"), LOCAL).await.unwrap().unwrap().owner, first);
    assert_eq!(store.verify().unwrap().dangling, 0);
}

pub(crate) async fn a_revoked_user_stays_a_member_and_can_do_nothing(open: Open) {
    let store = populated(open).await;
    let before = store.members(room_id("r"), LOCAL).await.unwrap();
    store.revoke_user(signer(1), sign(2), at(100)).await.unwrap();
    assert_eq!(store.members(room_id("r"), LOCAL).await.unwrap(), before);
    assert_eq!(store.rooms_of(endpoint(2), LOCAL).await.unwrap().len(), 1);
    let key = Some((epoch(1), sealed("k")));
    refused(&store, "UB-S003", store.invite(signer(2), member("r", 4, MEMBER), key)).await;
    refused(&store, "UB-S003", store.remove_member(signer(2), room_id("r"), endpoint(3))).await;
    refused(&store, "UB-S003", store.remove_member(signer(2), room_id("r"), endpoint(2))).await;
    let keys = vec![(endpoint(2), sealed("a")), (endpoint(3), sealed("b"))];
    refused(&store, "UB-S003", store.rekey(signer(2), room_id("r"), epoch(2), keys)).await;
}

pub(crate) async fn a_member_that_comes_back_gets_no_earlier_key(open: Open) {
    let store = populated(open).await;
    store.remove_member(signer(2), room_id("r"), endpoint(3)).await.unwrap();
    store.rekey(signer(2), room_id("r"), epoch(2), vec![(endpoint(2), sealed("a"))]).await.unwrap();
    store.invite(signer(2), member("r", 3, MEMBER), Some((epoch(2), sealed("b")))).await.unwrap();
    let key = |number| store.room_key(room_id("r"), endpoint(3), Some(epoch(number)), LOCAL);
    assert!(key(1).await.unwrap().is_none());
    assert_eq!(key(2).await.unwrap().unwrap().sealed, sealed("b"));
}

pub(crate) async fn rooms_whose_ids_share_a_beginning_do_not_mix(open: Open) {
    let store = open(state_key());
    for (number, name) in [(1, "a"), (2, "a-"), (3, "a0"), (4, "aa"), (5, "A")] {
        store.add_user(OPERATOR, user(number, UserRole::Member)).await.unwrap();
        let create =
            store.create_room(signer(number), room(name, number, true), member(name, number, OWNER), None);
        refused(&store, "UB-S009", create).await;
        let key = Some(sealed(name));
        store
            .create_room(signer(number), room(name, number, true), member(name, number, OWNER), key)
            .await
            .unwrap();
    }
    for (number, name) in [(1, "a"), (2, "a-"), (3, "a0"), (4, "aa"), (5, "A")] {
        let members = store.members(room_id(name), LOCAL).await.unwrap();
        assert_eq!(members.iter().map(|member| member.endpoint()).collect::<Vec<_>>(), [endpoint(number)]);
    }
    committed(&store, store.remove_member(signer(1), room_id("a"), endpoint(1))).await;
    for (number, name) in [(2, "a-"), (3, "a0"), (4, "aa"), (5, "A")] {
        assert!(
            store.room_key(room_id(name), endpoint(number), None, LOCAL).await.unwrap().is_some(),
            "{name}"
        );
    }
}
