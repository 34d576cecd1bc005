use unibus_store::store::Nonce;

use super::fixture::*;

pub(crate) fn nonce(text: &str) -> Nonce {
    Nonce::from_bytes(text.as_bytes()).unwrap()
}

async fn claim(store: &Opened, who: u8, text: &str, expires: i64, now: i64) -> bool {
    let before = store.position().unwrap();
    let granted = store.claim_nonce(sign(who), nonce(text), at(expires), at(now)).await.unwrap();
    let after = store.position().unwrap();
    assert!(store.has_moved(before, u64::from(granted && store.counts_nonces())));
    assert_eq!((after.digest, after.lineage), (before.digest, before.lineage));
    granted
}

pub(crate) async fn a_nonce_is_granted_once(open: Open) {
    let store = populated(open).await;
    assert!(claim(&store, 2, "n", 60, 0).await);
    assert!(!claim(&store, 2, "n", 60, 0).await);
    assert!(!claim(&store, 2, "n", 60, 59).await);
    assert!(!claim(&store, 2, "n", 90, 59).await, "another expiry makes no other nonce");
    assert!(claim(&store, 2, "m", 60, 59).await);
    store.verify().unwrap();
}

pub(crate) async fn a_nonce_belongs_to_its_signer(open: Open) {
    let store = populated(open).await;
    assert!(claim(&store, 2, "n", 60, 0).await);
    assert!(claim(&store, 3, "n", 60, 0).await);
    // Signers are not looked up: a request of a stranger is refused elsewhere.
    assert!(claim(&store, 9, "n", 60, 0).await);
    assert!(!claim(&store, 9, "n", 60, 0).await);
}

pub(crate) async fn an_expired_nonce_may_be_claimed_again(open: Open) {
    let store = populated(open).await;
    assert!(claim(&store, 2, "n", 60, 0).await);
    assert!(!claim(&store, 2, "n", 120, 59).await);
    assert!(claim(&store, 2, "n", 120, 60).await, "from its expiry on");
    assert!(!claim(&store, 2, "n", 120, 60).await);
    store.verify().unwrap();
}

pub(crate) async fn a_claim_that_has_expired_is_refused(open: Open) {
    let store = populated(open).await;
    assert!(!claim(&store, 2, "n", 60, 60).await);
    assert!(!claim(&store, 2, "n", 60, 61).await);
    assert!(claim(&store, 2, "n", 60, 59).await, "the refusals have left no trace");
}

pub(crate) async fn a_clock_set_back_does_not_revive_a_nonce(open: Open) {
    let store = populated(open).await;
    assert!(claim(&store, 2, "n", 60, 0).await);
    assert!(claim(&store, 2, "m", 200, 100).await, "by now the first is forgotten");
    assert!(!claim(&store, 2, "n", 60, 1).await, "and is still not granted again");
    assert!(claim(&store, 2, "o", 61, 1).await, "while what expires later is");
}

pub(crate) async fn a_granted_nonce_counts_as_a_write_and_leaves_the_digest(open: Open) {
    let store = populated(open).await;
    let before = store.position().unwrap();
    assert!(claim(&store, 2, "n", 60, 0).await);
    let after = store.position().unwrap();
    assert!(store.has_moved(before, u64::from(store.counts_nonces())));
    assert_eq!(after.digest, before.digest);
    assert_eq!(store.verify().unwrap().position, after);
    assert_eq!(exported(&store).begun.unwrap().0, after);
}

pub(crate) async fn an_imported_floor_refuses_what_was_signed_before(open: Open) {
    let store = open(state_key());
    store.import(&mut std::iter::empty(), Some(at(60))).unwrap();
    assert!(!claim(&store, 2, "n", 59, 0).await);
    assert!(!claim(&store, 2, "n", 60, 0).await);
    assert!(claim(&store, 2, "n", 61, 0).await);
}
