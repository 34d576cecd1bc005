//! A node changes its key while it serves its database; and what of that is refused.

use std::sync::Arc;

use unibus_keyfile::error::DocumentError;
use unibus_keyfile::keyring::{Keyring, Summary};
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::{Nodeset, Plan};
use unibus_keyfile::operator_key::OperatorKey;
use unibus_keyfile::witness::{self, Witness};
use unibus_store::sqlcipher::rotation::RotationError;
use unibus_store::sqlcipher::{Followed, Keys, OpenOptions, SqlcipherStore};
use unibus_store::store::{Actor, Store, Strength};

use super::fixture::{Site, now, sign_pub, user};
use super::rotation::unwatched;

fn again(file: &NodeKeyFile) -> NodeKeyFile {
    NodeKeyFile::parse(&file.to_text()).unwrap()
}

fn sealed_by(site: &Site) -> String {
    let bytes = std::fs::read(Witness::path(&site.state)).unwrap();
    witness::decode_header(&bytes).unwrap().0.to_string()
}

fn open_with(site: &Site, own: &NodeKeyFile) -> Result<SqlcipherStore, unibus_store::sqlcipher::OpenError> {
    let keys = Keys::Node(Arc::new(again(own)));
    SqlcipherStore::open(
        &OpenOptions::new(&site.db, keys, now()).nodeset(&site.nodeset).state_dir(&site.state),
    )
}

fn published(site: &Site) -> Nodeset {
    Nodeset::decode(&std::fs::read(&site.nodeset).unwrap(), site.own.cluster()).unwrap()
}

fn on_disk(site: &Site, nodeset: &Nodeset) -> Keyring {
    Keyring::decode(&std::fs::read(site.beside(".keyring")).unwrap(), nodeset, None).unwrap()
}

#[tokio::test]
async fn a_node_changes_its_key_while_it_serves_its_database() {
    let site = Site::with_store(10);
    let store = site.open().unwrap();
    let first = published(&site);
    let mut own = again(&site.own);
    own.rotate().unwrap();
    store.replace_keys(Arc::new(again(&own))).unwrap();
    assert_eq!(sealed_by(&site), own.fingerprints()[0].to_string());
    assert_eq!(store.posture().node_key, Some(own.fingerprints()[0]));
    store.add_user(Actor::Operator, user(101)).await.unwrap();
    assert_eq!(sealed_by(&site), own.fingerprints()[0].to_string(), "the writer seals with it too");

    let two = first.next().with_node(own.member(now())).sign(&site.operator).unwrap();
    assert_eq!(store.follow_nodeset(first.as_bytes(), &unwatched()).unwrap(), Followed::Known);
    let wrapped = store.follow_nodeset(two.as_bytes(), &unwatched()).unwrap();
    assert_eq!(wrapped, Followed::Wrapped { nodeset: 2, keyring: 2 });
    assert_eq!(store.follow_nodeset(two.as_bytes(), &unwatched()).unwrap(), Followed::Known);
    assert_eq!(store.follow_nodeset(first.as_bytes(), &unwatched()).unwrap(), Followed::Known);
    site.publish(&two);
    let keyring = on_disk(&site, &two);
    assert_eq!(Summary::decode(keyring.as_bytes()).unwrap().signers, own.fingerprints());
    assert!(keyring.unlock(&site.own).is_err(), "the old wrap is gone");
    assert!(!keyring.primary().exposed, "it is the same node");
    let seen = store.witness().unwrap();
    assert_eq!((seen.nodeset_version, seen.keyring_version), (2, 2));

    own.retire();
    store.replace_keys(Arc::new(again(&own))).unwrap();
    store.add_user(Actor::Operator, user(102)).await.unwrap();
    store.verify().unwrap();
    drop(store);
    let refused = open_with(&site, &site.own).unwrap_err();
    assert_eq!(refused.class().exit_code(), 6, "{refused:?}");
    let store = open_with(&site, &own).unwrap();
    assert!(store.user(sign_pub(102), Strength::Local).await.unwrap().is_some());
}

#[test]
fn what_is_no_newer_nodeset_of_this_cluster_wraps_nothing() {
    let site = Site::with_store(10);
    let store = site.open().unwrap();
    let before = std::fs::read(site.beside(".keyring")).unwrap();
    let refused = |nodeset: &Nodeset| match store.follow_nodeset(nodeset.as_bytes(), &unwatched()) {
        Err(RotationError::Document(error)) => error,
        other => panic!("{other:?}"),
    };
    let stranger = OperatorKey::generate();
    let of_another = Plan::first(&stranger).with_node(site.own.member(now())).sign(&stranger).unwrap();
    assert!(matches!(refused(&of_another), DocumentError::Cluster { .. }));
    let first = published(&site);
    let without = first.next().without_node(site.own.name()).sign(&site.operator).unwrap();
    assert!(matches!(refused(&without), DocumentError::Signer { .. }));
    // Another chain of the same operator.
    assert!(matches!(refused(&site.first_nodeset()), DocumentError::Invalid(_)));
    assert_eq!(std::fs::read(site.beside(".keyring")).unwrap(), before);
}

#[test]
fn a_store_that_is_only_read_takes_no_key() {
    let site = Site::with_store(10);
    let store = site.read_only().unwrap();
    assert_eq!(store.replace_keys(Arc::clone(&site.own)).unwrap_err().code(), "UB-S083");
}
