//! Folders of the server put back, cut, wiped and changed while it stands still.

use unibus_keyfile::error::ErrorClass;
use unibus_store::sealed_log::LogError;

use super::fixture::*;

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
