use unibus_store::record::BlobHash;

use super::fixture::*;

pub(crate) async fn a_blob_is_recorded_once(open: Open) {
    let store = populated(open).await;
    committed(&store, store.put_blob(signer(2), blob(7))).await;
    let mut other = blob(7);
    other.storage_name = blob(8).storage_name;
    for actor in [OPERATOR, signer(3)] {
        refused(&store, "UB-S001", store.put_blob(actor, other.clone())).await;
    }
    assert!(
        store.blob(BlobHash::of(&[7]), LOCAL).await.unwrap() == Some(blob(7)),
        "the first key and place stay"
    );
}

pub(crate) async fn only_active_users_record_blobs(open: Open) {
    let store = populated(open).await;
    store.revoke_user(signer(1), sign(3), at(100)).await.unwrap();
    for actor in [3, 9] {
        refused(&store, "UB-S003", store.put_blob(signer(actor), blob(7))).await;
    }
    committed(&store, store.put_blob(OPERATOR, blob(7))).await;
}

pub(crate) async fn an_absent_blob_reads_as_none(open: Open) {
    let store = populated(open).await;
    assert!(store.blob(BlobHash::of(b"nothing"), LOCAL).await.unwrap().is_none());
}
