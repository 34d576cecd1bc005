//! A log that was rotated, against somebody who has kept what stood there before, or plants what should come after.

use std::path::{Path, PathBuf};

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::json;
use unibus_keyfile::error::ErrorClass;
use unibus_keyfile::keyring::EpochState;
use unibus_store::audit;
use unibus_store::keys::Keys;
use unibus_store::sealed_log::{Access, LogError, LogOptions, SealedLog};
use unibus_store::store::{PostureState, Store as _};

use super::fixture::*;

fn js(site: &Site) -> PathBuf {
    site.folder.path().join("js")
}

fn streams(folder: &Path) -> PathBuf {
    folder.join("jetstream/$G/streams")
}

fn options(site: &Site) -> LogOptions {
    site.options().data_dir(&js(site))
}

/// From one epoch to the next, beside the log that serves.
fn rotate(site: &Site) {
    let tool = SealedLog::open(options(site).access(Access::Visit)).unwrap();
    tool.begin_rotation(b"").unwrap();
    tool.rotate(rand::random(), false, None, &mut |_| {}).unwrap();
    tool.end_rotation(b"a receipt").unwrap();
}

/// A log that was rotated once, and its folder from before.
async fn rotated(site: &Site) -> PathBuf {
    let log = SealedLog::open(options(site)).unwrap();
    add(&log, 1..20).await;
    let yesterday = site.folder.path().join("yesterday");
    copy(&js(site), &yesterday);
    rotate(site);
    add(&log, 20..25).await;
    let states: Vec<_> = log.keyring().epochs().iter().map(|epoch| epoch.state).collect();
    assert_eq!(states, [EpochState::Destroyed, EpochState::Primary]);
    yesterday
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_alone_rotates_and_leaves_nothing_of_the_old_epoch_in_its_folder() {
    let mut site = Site::new();
    rotated(&site).await;
    let found = audit::scan(audit::Canaries::default(), &[js(&site)], audit::Options::default(), &|_| {});
    assert_eq!(found.envelopes.into_keys().collect::<Vec<_>>(), [2]);
    // A receipt of many nodes, which no entry has room for; then one of few.
    let tool = SealedLog::open(options(&site).access(Access::Visit)).unwrap();
    let large = vec![b'r'; 1_300_000];
    tool.end_rotation(&large).unwrap();
    assert_eq!(tool.last_receipt().unwrap(), large);
    tool.end_rotation(&large[1..]).unwrap();
    drop(tool);
    site.stop();
    site.start();
    let log = site.open().unwrap();
    assert_eq!(log.census().users, 24);
    assert_eq!(log.verify().unwrap().position, log.position().unwrap());
    assert_eq!(log.last_receipt().unwrap(), large[1..]);
    assert!(log.evidence().is_empty(), "{:?}", log.evidence().keys());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_stream_put_back_beside_the_new_one_is_nothing_to_the_node_and_refused_without_its_witness() {
    let mut site = Site::new();
    let yesterday = rotated(&site).await;
    site.stop();
    copy(&streams(&yesterday).join("KV_UNIBUS_control"), &streams(&js(&site)).join("KV_UNIBUS_control"));
    site.start();
    let info = site.stranger().await.info().await;
    assert!(info["error"].is_null(), "the old stream is not there: {info}");
    let log = site.open().unwrap();
    assert_eq!(log.census().users, 24);
    drop(log);
    // A reader without a witness begins with the oldest stream, and sees that a later one is open.
    let keys = Keys::Node(std::sync::Arc::clone(&site.own));
    let nodeset = site.folder.path().join("nodeset");
    let reader = LogOptions::new(vec![site.url()], keys, &nodeset, Path::new(""), std::sync::Arc::new(clock));
    let refused = SealedLog::open(reader.access(Access::Read)).unwrap_err();
    assert!(matches!(refused, LogError::RolledBack { .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_from_before_the_rotation_is_rolled_back_and_a_missing_new_stream_is_missing() {
    let mut site = Site::new();
    let yesterday = rotated(&site).await;
    site.stop();
    let today = site.folder.path().join("today");
    std::fs::rename(js(&site), &today).unwrap();
    copy(&yesterday, &js(&site));
    site.start();
    let refused = site.refused();
    assert_eq!(refused.class(), ErrorClass::RolledBack, "{refused:?}");
    site.stop();
    std::fs::remove_dir_all(js(&site)).unwrap();
    copy(&today, &js(&site));
    std::fs::remove_dir_all(streams(&js(&site)).join("KV_UNIBUS_control_2")).unwrap();
    site.start();
    assert!(matches!(site.refused(), LogError::StreamMissing { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_census_or_entry_in_the_new_stream_is_tampering() {
    for name in ["doc.census.alpha", "doc.ack.alpha", "doc.keyring", "abcdefghijklmnopqrstuvwxyz234567"] {
        let site = Site::new();
        let log = SealedLog::open(options(&site)).unwrap();
        add(&log, 1..5).await;
        rotate(&site);
        let stranger = site.stranger().await;
        let subject = format!("$KV.UNIBUS_control_2.{name}");
        stranger.put(&subject, HeaderMap::new(), Bytes::from_static(b"UBSD and something else")).await;
        denies(&log, PostureState::Tampered).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_stream_taken_away_while_it_is_served_is_tampering() {
    let site = Site::new();
    let log = SealedLog::open(options(&site)).unwrap();
    add(&log, 1..5).await;
    rotate(&site);
    site.stranger().await.api("STREAM.DELETE.KV_UNIBUS_control_2", json!({})).await;
    denies(&log, PostureState::Tampered).await;
}

/// A nonce is used once, also when the epoch changes in between, and on every node.
#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_that_was_used_before_the_rotation_is_used_after_it() {
    use unibus_store::record::Timestamp;
    use unibus_store::store::Nonce;

    let site = Site::new();
    let log = SealedLog::open(options(&site)).unwrap();
    add(&log, 1..3).await;
    let expires = Timestamp::from_micros(clock().micros() + 60_000_000).unwrap();
    let nonce = || Nonce::from_bytes(&[7; 16]).unwrap();
    assert!(log.claim_nonce(sign(1), nonce(), expires, clock()).await.unwrap());
    rotate(&site);
    assert!(!log.claim_nonce(sign(1), nonce(), expires, clock()).await.unwrap());
    // Nor at a node that has not granted it itself.
    drop(log);
    let log = SealedLog::open(options(&site)).unwrap();
    assert!(!log.claim_nonce(sign(1), nonce(), expires, clock()).await.unwrap());
}
