//! Older states brought back, documents and witnesses of others: what the witness is for.

use std::sync::Arc;

use unibus_keyfile::error::{DocumentError, ErrorClass, UnlockError, WitnessError};
use unibus_keyfile::id::Lineage;
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Plan;
use unibus_store::sqlcipher::{Keys, Mode, OpenError, SqlcipherStore};
use unibus_store::store::{Actor, Store};

use super::fixture::{Site, now, overwrite, put_back, records, tree, user};

async fn add(site: &Site, numbers: std::ops::Range<u32>) {
    let store = site.open().unwrap();
    for number in numbers {
        store.add_user(Actor::Operator, user(number)).await.unwrap();
    }
}

#[tokio::test]
async fn yesterdays_data_folder_is_refused_while_the_witness_stands_elsewhere() {
    let site = Site::with_store(50);
    let yesterday = tree(&site.data);
    add(&site, 1000..1003).await;
    put_back(&site.data, &yesterday);
    let error = site.refused();
    assert!(
        matches!(error, OpenError::RolledBack { found, witnessed, .. } if found.0 == 1 && witnessed.0 == 4)
    );
    assert_eq!(error.class(), ErrorClass::RolledBack);
}

#[tokio::test]
async fn yesterdays_database_alone_is_refused() {
    let site = Site::with_store(50);
    let yesterday = std::fs::read(&site.db).unwrap();
    add(&site, 1000..1001).await;
    overwrite(&site.db, &yesterday);
    assert!(matches!(site.refused(), OpenError::RolledBack { .. }));
}

#[tokio::test]
async fn another_history_of_the_same_length_is_refused() {
    let site = Site::with_store(50);
    // Two copies of one state, each of which goes its own way.
    let fork = site.as_if_killed();
    add(&site, 1000..1001).await;
    add(&fork, 2000..2001).await;
    put_back(&site.data, &tree(&fork.data));
    let error = site.refused();
    assert!(matches!(error, OpenError::Forked { at, .. } if at.0 == 2), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Tampered);
}

#[tokio::test]
async fn a_store_ahead_of_its_witness_opens_and_moves_it() {
    let site = Site::with_store(50);
    let behind = std::fs::read(site.state.join("witness")).unwrap();
    add(&site, 1000..1003).await;
    overwrite(&site.state.join("witness"), &behind);
    let store = site.open().unwrap();
    assert_eq!(store.witness().unwrap().sequence.0, 4);
}

#[test]
fn every_flip_and_cut_of_the_witness_is_refused() {
    let site = Site::with_store(5);
    let path = site.state.join("witness");
    let good = std::fs::read(&path).unwrap();
    for offset in 0..good.len() {
        let mut bad = good.clone();
        bad[offset] ^= 1;
        overwrite(&path, &bad);
        assert!(matches!(site.refused(), OpenError::Witness { .. }), "flipped at {offset}");
    }
    for keep in [0, 1, good.len() / 2, good.len() - 1] {
        overwrite(&path, &good[..keep]);
        assert!(matches!(site.refused(), OpenError::Witness { .. }), "cut at {keep}");
    }
}

#[test]
fn a_store_without_its_witness_is_not_proven() {
    let site = Site::with_store(5);
    std::fs::remove_file(site.state.join("witness")).unwrap();
    let error = site.refused();
    assert!(matches!(error, OpenError::NoWitness { .. }));
    assert_eq!(error.class(), ErrorClass::NotProven);
    assert!(error.hint().is_some());
}

#[test]
fn the_witness_of_another_node_is_named() {
    let site = Site::with_store(5);
    let other = Site::with_store(5);
    overwrite(&site.state.join("witness"), &std::fs::read(other.state.join("witness")).unwrap());
    let error = site.refused();
    assert!(matches!(&error, OpenError::Witness { source: WitnessError::OtherKey { .. }, .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::WrongKey);
}

#[test]
fn data_of_another_lineage_is_refused() {
    let site = Site::with_store(5);
    let old = tree(&site.data);
    let witness = std::fs::read(site.state.join("witness")).unwrap();
    for path in [&site.db, &site.beside(".keyring"), &site.state.join("witness")] {
        std::fs::remove_file(path).unwrap();
    }
    site.create(&records(5));
    overwrite(&site.state.join("witness"), &witness);
    assert!(matches!(site.refused(), OpenError::OtherLineage { .. }));
    // The database of the one with the keyring of the other.
    put_back(&site.data, &old);
    let other = Site { own: Arc::clone(&site.own), operator: Arc::clone(&site.operator), ..Site::new() };
    other.publish(
        &unibus_keyfile::nodeset::Nodeset::decode(&old[std::path::Path::new("nodeset")], site.own.cluster())
            .unwrap(),
    );
    other.create(&records(5));
    overwrite(&site.db, &std::fs::read(&other.db).unwrap());
    assert!(matches!(site.refused(), OpenError::FirstPage { .. }));
}

#[test]
fn a_keyring_that_a_stranger_signed_is_refused() {
    let site = Site::with_store(5);
    let stranger = NodeKeyFile::generate("eve".parse().unwrap(), *site.own.cluster());
    let theirs = Plan::first(&site.operator).with_node(stranger.member(now())).sign(&site.operator).unwrap();
    let (planted, _) = Keyring::create(&theirs, &stranger, Lineage::random(), None, now()).unwrap();
    overwrite(&site.beside(".keyring"), planted.as_bytes());
    let error = site.refused();
    assert!(matches!(&error, OpenError::Untrusted { source: DocumentError::Signer { .. }, .. }), "{error:?}");
}

#[test]
fn every_flip_of_keyring_and_nodeset_is_refused() {
    let site = Site::with_store(5);
    for path in [site.beside(".keyring"), site.nodeset.clone()] {
        let good = std::fs::read(&path).unwrap();
        for offset in (0..good.len()).step_by(29) {
            let mut bad = good.clone();
            bad[offset] ^= 0x20;
            overwrite(&path, &bad);
            let error = site.refused();
            assert!(
                matches!(error, OpenError::Untrusted { .. }),
                "{} at {offset}: {error:?}",
                path.display()
            );
        }
        overwrite(&path, &good);
    }
}

#[test]
fn another_nodes_key_opens_nothing() {
    let site = Site::with_store(5);
    let beta = Arc::new(NodeKeyFile::generate("beta".parse().unwrap(), *site.own.cluster()));
    let options = site.options();
    let stolen = unibus_store::sqlcipher::OpenOptions::new(&site.db, Keys::Node(beta), now())
        .state_dir(&site.folder.path().join("none"));
    for options in [stolen.clone(), stolen.mode(Mode::ReadOnly)] {
        let before = tree(site.folder.path());
        let error = SqlcipherStore::open(&options).unwrap_err();
        assert!(
            matches!(&error, OpenError::Unlock { source: UnlockError::NotARecipient { .. }, .. }),
            "{error:?}"
        );
        assert_eq!(error.class(), ErrorClass::WrongKey);
        assert!(before == tree(site.folder.path()));
    }
    drop(SqlcipherStore::open(&options).unwrap());
}

#[test]
fn another_clusters_key_is_refused_at_the_nodeset() {
    let site = Site::with_store(5);
    let other = Site::new();
    let options =
        unibus_store::sqlcipher::OpenOptions::new(&site.db, Keys::Node(Arc::clone(&other.own)), now());
    let error = SqlcipherStore::open(&options).unwrap_err();
    assert!(
        matches!(&error, OpenError::Untrusted { source: DocumentError::Cluster { .. }, .. }),
        "{error:?}"
    );
    assert_eq!(error.class(), ErrorClass::WrongKey);
}

#[test]
fn a_missing_part_is_named_and_nothing_is_made_in_its_place() {
    let site = Site::with_store(5);
    let whole = tree(site.folder.path());
    let gone = |name: &str| {
        put_back(site.folder.path(), &whole);
        std::fs::remove_file(site.data.join(name)).unwrap();
        site.refused()
    };
    assert!(matches!(gone("control.db"), OpenError::DatabaseMissing { .. }));
    assert!(matches!(gone("control.db.keyring"), OpenError::KeyringMissing { evidence: "the database", .. }));
    assert!(matches!(gone("nodeset"), OpenError::Document { document: "nodeset", .. }));
    put_back(site.folder.path(), &whole);
    std::fs::remove_file(&site.db).unwrap();
    std::fs::remove_file(site.beside(".keyring")).unwrap();
    assert!(matches!(site.refused(), OpenError::KeyringMissing { evidence: "the witness", .. }));
    std::fs::remove_file(site.state.join("witness")).unwrap();
    assert!(matches!(site.refused(), OpenError::NothingThere { .. }));
}

#[test]
fn a_newer_nodeset_rewraps_the_keyring_and_the_older_one_is_then_refused() {
    let site = Site::with_store(5);
    let first = site.first_nodeset();
    site.publish(&first);
    // The site's own first nodeset has another lineage each time; make this one the accepted one.
    let beta = NodeKeyFile::generate("beta".parse().unwrap(), *site.own.cluster());
    let accepted = unibus_keyfile::nodeset::Nodeset::decode(first.as_bytes(), site.own.cluster()).unwrap();
    let site = fresh_store_with(&accepted, site);
    let keyring = std::fs::read(site.beside(".keyring")).unwrap();
    let second = accepted.next().with_node(beta.member(now())).sign(&site.operator).unwrap();
    site.publish(&second);
    // For reading, nothing is rewritten.
    drop(site.read_only().unwrap());
    assert_eq!(std::fs::read(site.beside(".keyring")).unwrap(), keyring);
    let store = site.open().unwrap();
    assert_eq!((store.keyring().version(), store.keyring().nodeset_version()), (2, 2));
    assert!(!store.keyring().primary().exposed);
    drop(store);
    // The new node can read now.
    let beta = unibus_store::sqlcipher::OpenOptions::new(&site.db, Keys::Node(Arc::new(beta)), now())
        .mode(Mode::ReadOnly)
        .state_dir(&site.folder.path().join("beta"));
    assert!(matches!(SqlcipherStore::open(&beta).unwrap_err(), OpenError::NoWitness { .. }));
    // A node that is taken out again has known the key.
    let third = second.next().without_node(&"beta".parse().unwrap()).sign(&site.operator).unwrap();
    site.publish(&third);
    let store = site.open().unwrap();
    assert_eq!(store.keyring().version(), 3);
    assert!(store.keyring().primary().exposed);
    drop(store);
    site.publish(&second);
    assert!(matches!(
        site.refused(),
        OpenError::Untrusted { source: DocumentError::OldNodeset { .. }, .. }
            | OpenError::DocumentRolledBack { .. }
    ));
    // With the older keyring too.
    overwrite(&site.beside(".keyring"), &keyring);
    assert!(matches!(
        site.refused(),
        OpenError::DocumentRolledBack { document: "nodeset", found: 2, witnessed: 3 }
    ));
    site.publish(&third);
    assert!(matches!(
        site.refused(),
        OpenError::DocumentRolledBack { document: "keyring", found: 1, witnessed: 3 }
    ));
}

fn fresh_store_with(nodeset: &unibus_keyfile::nodeset::Nodeset, site: Site) -> Site {
    for path in [&site.db, &site.beside(".keyring"), &site.state.join("witness")] {
        std::fs::remove_file(path).unwrap();
    }
    site.publish(nodeset);
    site.create(&records(5));
    site
}

#[test]
fn a_node_that_was_taken_out_of_the_nodeset_does_not_serve() {
    let site = Site::with_store(5);
    let nodeset = std::fs::read(&site.nodeset).unwrap();
    let nodeset = unibus_keyfile::nodeset::Nodeset::decode(&nodeset, site.own.cluster()).unwrap();
    let beta = NodeKeyFile::generate("beta".parse().unwrap(), *site.own.cluster());
    let without = nodeset.next().with_node(beta.member(now())).without_node(site.own.name());
    site.publish(&without.sign(&site.operator).unwrap());
    let before = tree(site.folder.path());
    assert!(site.open().is_err());
    assert!(before == tree(site.folder.path()));
}
