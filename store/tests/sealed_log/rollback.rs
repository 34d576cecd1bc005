//! Folders of the server put back, cut, wiped and changed while it stands still.

use std::path::Path;

use unibus_keyfile::error::ErrorClass;
use unibus_store::sealed_log::LogError;
use unibus_store::store::{Store, Strength};

use super::fixture::*;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn yesterdays_folder_is_refused_as_rolled_back() {
    let mut site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..20).await;
    drop(log);
    site.stop();
    let (js, yesterday) = (site.folder.path().join("js"), site.folder.path().join("yesterday"));
    copy(&js, &yesterday);
    site.start();
    let log = site.open().unwrap();
    add(&log, 20..25).await;
    drop(log);
    site.stop();
    std::fs::remove_dir_all(&js).unwrap();
    copy(&yesterday, &js);
    site.start();
    let error = site.refused();
    assert!(matches!(error, LogError::RolledBack { .. }), "{error:?}");
    // And again: a refusal does not teach the witness.
    assert!(matches!(site.refused(), LogError::RolledBack { .. }));
}

#[tokio::test]
async fn a_wiped_folder_is_refused_and_nothing_is_made_in_its_place() {
    let mut site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..5).await;
    drop(log);
    site.stop();
    std::fs::remove_dir_all(site.folder.path().join("js")).unwrap();
    site.start();
    let error = site.refused();
    assert!(matches!(error, LogError::StreamMissing { .. }), "{error:?}");
    let info = site.stranger().await.info().await;
    assert_eq!(info["error"]["err_code"], serde_json::json!(10059), "{info}");
}

#[tokio::test]
async fn without_its_witness_a_lone_node_does_not_serve_what_it_finds() {
    let site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..5).await;
    drop(log);
    std::fs::remove_file(site.state_dir().join("witness")).unwrap();
    let error = site.refused();
    assert!(matches!(error, LogError::NoWitness { .. }), "{error:?}");
}

/// Whatever byte of the stream's files changes: the log is what it was, or it is refused. Never something else.
#[tokio::test]
async fn no_changed_byte_on_the_disk_changes_what_is_served() {
    let mut site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..12).await;
    let users = log.users(Strength::Local).await.unwrap();
    drop(log);
    site.stop();
    let (js, before) = (site.folder.path().join("js"), site.folder.path().join("before"));
    copy(&js, &before);
    let witness = std::fs::read(site.state_dir().join("witness")).unwrap();
    let block = js.join("jetstream/$G/streams/KV_UNIBUS_control/msgs/1.blk");
    let length = std::fs::read(&block).unwrap().len();
    let (mut refused, mut served) = (0, 0);
    for step in 0..12 {
        std::fs::remove_dir_all(&js).unwrap();
        copy(&before, &js);
        std::fs::write(site.state_dir().join("witness"), &witness).unwrap();
        // With its index, the server trusts the block; without it, it reads the block again.
        if step % 2 == 0 {
            drop(std::fs::remove_file(block.parent().unwrap().join("index.db")));
        }
        let mut bytes = std::fs::read(&block).unwrap();
        let at = length * step / 12 + step % 7;
        bytes[at] ^= 0x10;
        std::fs::write(&block, &bytes).unwrap();
        site.start();
        match site.open() {
            Ok(log) => {
                assert_eq!(log.users(Strength::Local).await.unwrap(), users, "byte {at}");
                served += 1;
            }
            Err(error) => {
                let class = error.class();
                let is_named = matches!(
                    class,
                    ErrorClass::Tampered
                        | ErrorClass::RolledBack
                        | ErrorClass::MissingKey
                        | ErrorClass::Corrupt
                );
                assert!(is_named, "byte {at}: {error:?}");
                refused += 1;
            }
        }
        site.stop();
    }
    assert!(refused > 5, "refused {refused}, served {served}");
}

#[tokio::test]
async fn a_block_that_was_cut_is_refused() {
    let mut site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..30).await;
    drop(log);
    site.stop();
    let block = site.folder.path().join("js/jetstream/$G/streams/KV_UNIBUS_control/msgs/1.blk");
    let bytes = std::fs::read(&block).unwrap();
    std::fs::write(&block, &bytes[..bytes.len() / 2]).unwrap();
    drop(std::fs::remove_file(block.parent().unwrap().join("index.db")));
    site.start();
    let error = site.refused();
    assert!(matches!(error.class(), ErrorClass::Tampered | ErrorClass::RolledBack), "{error:?}");
}
