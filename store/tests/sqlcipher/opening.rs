//! Opening, serving and closing a SQLCipher store; nothing is damaged here.

use unibus_store::store::{Actor, Store, Strength};

use super::fixture::{Site, names, records, sign_pub, tree, user};

#[tokio::test]
async fn what_was_written_is_read_after_opening_again() {
    let site = Site::with_store(100);
    let position = {
        let store = site.open().unwrap();
        store.add_user(Actor::Operator, user(5000)).await.unwrap();
        assert!(store.is_authorized(sign_pub(5000), Strength::Local).await);
        store.position().unwrap()
    };
    assert_eq!(names(&tree(&site.data)).len(), 4, "{:?}", names(&tree(&site.data)));
    let store = site.open().unwrap();
    assert_eq!(store.position().unwrap(), position);
    assert!(store.is_authorized(sign_pub(5000), Strength::Local).await);
    let report = store.verify().unwrap();
    assert_eq!((report.position, report.census.users, report.dangling), (position, 101, 0));
    assert_eq!(records(100).len(), 130);
}
