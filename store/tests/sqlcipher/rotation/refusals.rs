//! What a rotation refuses, and what nobody can use one for.

use std::sync::Arc;

use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::id::Epoch;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_store::sqlcipher::OpenError;
use unibus_store::sqlcipher::rotation::{RotateOptions, RotationError, Stage};
use unibus_store::store::{Actor, Store};

use super::super::fixture::{Site, overwrite, put_back, tree, user};
use super::{is_clean, rotate, stops_at, unwatched};

/// A store whose rotation was stopped at a stage, closed again.
fn stopped_at(stage: Stage) -> Site {
    let site = Site::with_store(20);
    let store = site.open().unwrap();
    let step = match stage {
        Stage::Staged => 0,
        Stage::Activated => 1,
        Stage::Copied => 2,
        Stage::Destroyed => 3,
    };
    store.rotate_epoch(&RotateOptions::new(Arc::clone(&site.own)), &stops_at(step)).unwrap_err();
    assert_eq!(store.rotation().unwrap().stage, stage);
    drop(store);
    site
}

#[tokio::test]
async fn at_each_stage_a_store_opens_serves_and_is_gone_on_with() {
    for stage in [Stage::Staged, Stage::Activated, Stage::Copied, Stage::Destroyed] {
        let site = stopped_at(stage);
        let reading = site.read_only().unwrap();
        assert_eq!(reading.rotation().unwrap().stage, stage);
        assert!(matches!(rotate(&site, &reading), Err(RotationError::ReadOnly)));
        drop(reading);
        let store = site.open().unwrap();
        let oldest = store.posture().oldest_epoch_in_use.unwrap().get();
        assert_eq!(
            oldest,
            if matches!(stage, Stage::Staged | Stage::Activated) { 1 } else { 2 },
            "{stage:?}"
        );
        store.add_user(Actor::Operator, user(700)).await.unwrap();
        drop(store);
        let store = site.open().unwrap();
        store.add_user(Actor::Operator, user(701)).await.unwrap();
        rotate(&site, &store).unwrap();
        assert_eq!(store.verify().unwrap().census.users, 22);
        drop(store);
        is_clean(&site, 2);
    }
}

/// A store whose rotation was stopped behind the swap, and the file that it had before.
fn swapped() -> (Site, Vec<u8>) {
    let site = Site::with_store(20);
    let old = std::fs::read(&site.db).unwrap();
    let store = site.open().unwrap();
    store.rotate_epoch(&RotateOptions::new(Arc::clone(&site.own)), &stops_at(2)).unwrap_err();
    assert_eq!(store.rotation().unwrap().stage, Stage::Copied);
    drop(store);
    (site, old)
}

#[tokio::test]
async fn the_file_of_the_old_epoch_put_back_is_a_rollback() {
    let (site, old) = swapped();
    let store = site.open().unwrap();
    store.add_user(Actor::Operator, user(800)).await.unwrap();
    drop(store);
    overwrite(&site.db, &old);
    let error = site.refused();
    assert!(matches!(error, OpenError::RolledBack { .. }), "{error:?}");
}

#[tokio::test]
async fn the_file_of_the_old_epoch_with_the_same_contents_is_only_copied_again() {
    let (site, old) = swapped();
    overwrite(&site.db, &old);
    let store = site.open().unwrap();
    assert_eq!(store.rotation().unwrap().stage, Stage::Activated);
    rotate(&site, &store).unwrap();
    drop(store);
    is_clean(&site, 2);
}

#[tokio::test]
async fn the_whole_folder_of_before_the_rotation_is_a_rollback() {
    let site = Site::with_store(20);
    let earlier = tree(&site.data);
    let store = site.open().unwrap();
    rotate(&site, &store).unwrap();
    drop(store);
    put_back(&site.data, &earlier);
    let error = site.refused();
    assert!(matches!(error, OpenError::DocumentRolledBack { document: "keyring", .. }), "{error:?}");
}

#[tokio::test]
async fn the_old_database_beside_the_new_keyring_is_refused_for_good() {
    let site = Site::with_store(20);
    let old = std::fs::read(&site.db).unwrap();
    let store = site.open().unwrap();
    rotate(&site, &store).unwrap();
    drop(store);
    overwrite(&site.db, &old);
    assert_eq!(site.refused().code(), "UB-S108");
}

#[test]
fn a_second_rotation_at_the_same_time_is_refused() {
    let site = Site::with_store(300);
    let store = Arc::new(site.open().unwrap());
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go, may_go) = std::sync::mpsc::channel();
    struct Waits(std::sync::Mutex<Option<(std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>)>>);
    impl unibus_store::sqlcipher::rotation::Watcher for Waits {
        fn progress(&self, _: &'static str, _: u64, _: u64) {
            if let Some((begun, may_go)) = self.0.lock().unwrap().take() {
                begun.send(()).unwrap();
                may_go.recv().unwrap();
            }
        }
    }
    let watcher: Arc<dyn unibus_store::sqlcipher::rotation::Watcher> =
        Arc::new(Waits(std::sync::Mutex::new(Some((begun, may_go)))));
    let first = {
        let (store, options) = (Arc::clone(&store), RotateOptions::new(Arc::clone(&site.own)));
        std::thread::spawn(move || store.rotate_epoch(&options, &watcher).map(|done| done.to.get()))
    };
    has_begun.recv().unwrap();
    let error = rotate(&site, &store).unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Locked, "UB-S130"));
    let error = store.abort_rotation(&site.own, &unwatched()).unwrap_err();
    assert!(matches!(error, RotationError::Busy));
    go.send(()).unwrap();
    assert_eq!(first.join().unwrap().unwrap(), 2);
    drop(store);
    is_clean(&site, 2);
}

#[test]
fn a_key_that_is_not_of_this_node_signs_nothing() {
    let site = Site::with_store(20);
    let store = site.open().unwrap();
    let before = tree(&site.data);
    let stranger = NodeKeyFile::generate("alpha".parse().unwrap(), *site.own.cluster());
    let error = store.rotate_epoch(&RotateOptions::new(Arc::new(stranger)), &unwatched()).unwrap_err();
    assert!(matches!(error, RotationError::Document(_)), "{error:?}");
    assert!(tree(&site.data) == before);
    assert_eq!(store.rotation(), None);
}

#[test]
fn a_copy_of_the_old_file_under_another_name_keeps_the_old_key_from_being_destroyed() {
    let site = Site::with_store(20);
    let old = std::fs::read(&site.db).unwrap();
    let backup = site.data.join("control.db.bak");
    overwrite(&backup, &old);
    let store = site.open().unwrap();
    let error = rotate(&site, &store).unwrap_err();
    assert!(
        matches!(&error, RotationError::Remains { epoch: Epoch::FIRST, what } if what.contains("control.db.bak"))
    );
    assert_eq!(error.class(), ErrorClass::NotProven);
    assert_eq!(store.rotation().unwrap().stage, Stage::Copied);
    store.verify().unwrap();
    std::fs::remove_file(backup).unwrap();
    rotate(&site, &store).unwrap();
    drop(store);
    is_clean(&site, 2);
}
