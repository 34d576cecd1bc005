use unibus_store::record::{UserRole, UserStatus};

use super::fixture::*;

const NOT_AUTHORIZED: &str = "UB-S003";

pub(crate) async fn a_new_store_is_empty_and_verifies(open: Open) {
    let store = open(state_key());
    let position = store.position().unwrap();
    assert_eq!(position.digest, unibus_keyfile::digest::StateDigest::EMPTY);
    let report = store.verify().unwrap();
    assert_eq!((report.position, report.census.total(), report.dangling), (position, 0, 0));
    assert!(store.users(LOCAL).await.unwrap().is_empty());
    assert!(exported(&store).bytes.is_empty());
    assert_ne!(open(state_key()).position().unwrap().lineage, position.lineage);
}

pub(crate) async fn an_absent_user_reads_as_none(open: Open) {
    let store = populated(open).await;
    assert!(store.user(sign(9), LOCAL).await.unwrap().is_none());
}

pub(crate) async fn an_added_user_reads_back_as_given(open: Open) {
    let store = open(state_key());
    let added = user(7, UserRole::Admin);
    committed(&store, store.add_user(OPERATOR, added.clone())).await;
    assert!(store.user(sign(7), LOCAL).await.unwrap() == Some(added));
}

pub(crate) async fn adding_a_known_key_changes_nothing_and_raises_no_role(open: Open) {
    let store = populated(open).await;
    for actor in [OPERATOR, signer(1)] {
        refused(&store, "UB-S001", store.add_user(actor, user(2, UserRole::Admin))).await;
    }
    assert_eq!(store.user(sign(2), LOCAL).await.unwrap().unwrap().role, UserRole::Member);
}

pub(crate) async fn adding_a_revoked_key_does_not_revive_it(open: Open) {
    let store = populated(open).await;
    store.revoke_user(signer(1), sign(3), at(100)).await.unwrap();
    refused(&store, "UB-S001", store.add_user(OPERATOR, user(3, UserRole::Member))).await;
    assert!(!store.is_authorized(sign(3), LOCAL).await);
}

pub(crate) async fn a_user_that_comes_revoked_is_refused(open: Open) {
    let store = populated(open).await;
    let mut revoked = user(9, UserRole::Member);
    revoked.status = UserStatus::Revoked { at: None };
    refused(&store, "UB-S009", store.add_user(OPERATOR, revoked)).await;
}

pub(crate) async fn users_are_listed_in_canonical_order_with_the_revoked(open: Open) {
    let store = open(state_key());
    for number in [200, 3, 90, 1, 128] {
        store.add_user(OPERATOR, user(number, UserRole::Member)).await.unwrap();
    }
    store.revoke_user(OPERATOR, sign(90), at(0)).await.unwrap();
    let listed = store.users(LOCAL).await.unwrap();
    let keys: Vec<_> = listed.iter().map(|user| user.sign_pub).collect();
    assert_eq!(keys, [1, 3, 90, 128, 200].map(sign));
    assert!(listed.iter().all(|user| user.is_active() != (user.sign_pub == sign(90))));
}

pub(crate) async fn revoking_is_a_status_and_keeps_the_record(open: Open) {
    let store = populated(open).await;
    committed(&store, store.revoke_user(signer(1), sign(3), at(100))).await;
    let mut wanted = user(3, UserRole::Member);
    wanted.status = UserStatus::Revoked { at: Some(at(100)) };
    assert!(store.user(sign(3), LOCAL).await.unwrap() == Some(wanted));
}

pub(crate) async fn revoking_an_unknown_or_revoked_user_is_not_found(open: Open) {
    let store = populated(open).await;
    store.revoke_user(signer(1), sign(3), at(100)).await.unwrap();
    for actor in [OPERATOR, signer(1)] {
        refused(&store, "UB-S002", store.revoke_user(actor, sign(9), at(101))).await;
        refused(&store, "UB-S002", store.revoke_user(actor, sign(3), at(101))).await;
    }
    let status = store.user(sign(3), LOCAL).await.unwrap().unwrap().status;
    assert_eq!(status, UserStatus::Revoked { at: Some(at(100)) }, "the first time stays");
}

pub(crate) async fn only_an_active_admin_adds_and_revokes_users(open: Open) {
    let store = populated(open).await;
    for nobody in [signer(2), signer(9)] {
        refused(&store, NOT_AUTHORIZED, store.add_user(nobody, user(8, UserRole::Member))).await;
        refused(&store, NOT_AUTHORIZED, store.add_user(nobody, user(2, UserRole::Admin))).await;
        refused(&store, NOT_AUTHORIZED, store.revoke_user(nobody, sign(3), at(100))).await;
        refused(&store, NOT_AUTHORIZED, store.revoke_user(nobody, sign(77), at(100))).await;
    }
    committed(&store, store.add_user(signer(1), user(8, UserRole::Admin))).await;
    committed(&store, store.revoke_user(signer(8), sign(3), at(100))).await;
}

pub(crate) async fn a_revoked_admin_loses_its_rights_at_once(open: Open) {
    let store = populated(open).await;
    store.add_user(signer(1), user(8, UserRole::Admin)).await.unwrap();
    store.revoke_user(signer(1), sign(8), at(100)).await.unwrap();
    refused(&store, NOT_AUTHORIZED, store.add_user(signer(8), user(9, UserRole::Member))).await;
    refused(&store, NOT_AUTHORIZED, store.revoke_user(signer(8), sign(1), at(101))).await;
}

pub(crate) async fn the_last_active_admin_cannot_be_revoked_over_the_bus(open: Open) {
    let store = populated(open).await;
    refused(&store, "UB-S008", store.revoke_user(signer(1), sign(1), at(100))).await;
    // A revoked admin is no other admin.
    store.add_user(signer(1), user(8, UserRole::Admin)).await.unwrap();
    store.revoke_user(signer(1), sign(8), at(101)).await.unwrap();
    refused(&store, "UB-S008", store.revoke_user(signer(1), sign(1), at(102))).await;
}

pub(crate) async fn the_operator_may_revoke_the_last_admin(open: Open) {
    let store = populated(open).await;
    committed(&store, store.revoke_user(OPERATOR, sign(1), at(100))).await;
    refused(&store, NOT_AUTHORIZED, store.add_user(signer(1), user(9, UserRole::Member))).await;
    committed(&store, store.add_user(OPERATOR, user(9, UserRole::Admin))).await;
    committed(&store, store.add_user(signer(9), user(10, UserRole::Member))).await;
}

pub(crate) async fn an_admin_may_revoke_itself_while_another_is_active(open: Open) {
    let store = populated(open).await;
    store.add_user(signer(1), user(8, UserRole::Admin)).await.unwrap();
    committed(&store, store.revoke_user(signer(1), sign(1), at(100))).await;
}

pub(crate) async fn only_active_users_are_authorized(open: Open) {
    let store = populated(open).await;
    store.revoke_user(signer(1), sign(3), at(100)).await.unwrap();
    for (number, wanted) in [(1, true), (2, true), (3, false), (9, false)] {
        assert_eq!(store.is_authorized(sign(number), LOCAL).await, wanted, "user {number}");
    }
}
