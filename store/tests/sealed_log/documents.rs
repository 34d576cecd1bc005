//! What becomes of documents whose signer left, and of a log that somebody emptied.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Nodeset;
use unibus_store::keys::Keys;
use unibus_store::sealed_log::{LogError, LogOptions, STREAM, SealedLog};

use super::fixture::{Site, add, clock, now};

fn bring(site: &Site, nodeset: &Nodeset) {
    std::fs::write(site.folder.path().join("nodeset"), nodeset.as_bytes()).unwrap();
}

fn open_as(site: &Site, own: &Arc<NodeKeyFile>) -> Result<SealedLog, LogError> {
    let state = site.folder.path().join(format!("state-{}", own.name()));
    std::fs::create_dir_all(&state).unwrap();
    let nodeset = site.folder.path().join("nodeset");
    let keys = Keys::Node(Arc::clone(own));
    let options = LogOptions::new(vec![site.url()], keys, &nodeset, &state, Arc::new(clock));
    SealedLog::open(options.boot_budget(Duration::from_secs(8)))
}

#[tokio::test]
async fn the_word_of_a_node_that_was_removed_stands_in_the_log_and_counts_no_more() {
    let site = Site::new();
    let beta = Arc::new(NodeKeyFile::generate("beta".parse().unwrap(), site.operator.cluster_id()));
    let two = site.nodeset.next().with_node(beta.member(now())).sign(&site.operator).unwrap();
    bring(&site, &two);
    drop(site.open().unwrap());
    let log = open_as(&site, &beta).unwrap();
    assert_eq!(log.acknowledged().len(), 2);
    drop(log);
    bring(&site, &two.next().without_node(beta.name()).sign(&site.operator).unwrap());
    for _ in 0..2 {
        let log = site.open().unwrap();
        let heard: Vec<_> = log.acknowledged().into_keys().collect();
        assert_eq!(heard, [site.own.name().clone()]);
        drop(log);
    }
    assert!(matches!(open_as(&site, &beta).unwrap_err(), LogError::NotInNodeset { .. }));
}

#[tokio::test]
async fn nothing_is_minted_into_a_stream_that_somebody_emptied() {
    let mut site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..5).await;
    drop(log);
    let mut configs = Vec::new();
    for stream in [STREAM, "KV_UNIBUS_nonces"] {
        let info = site.stranger().await.api(&format!("STREAM.INFO.{stream}"), json!({})).await;
        configs.push((stream, info["config"].clone()));
    }
    site.stop();
    std::fs::remove_dir_all(site.folder.path().join("js")).unwrap();
    site.start();
    let stranger = site.stranger().await;
    for (stream, config) in configs {
        let made = stranger.api(&format!("STREAM.CREATE.{stream}"), config).await;
        assert!(made["error"].is_null(), "{made}");
    }
    for _ in 0..2 {
        let error = site.refused();
        assert!(matches!(error, LogError::StreamMissing { .. }), "{error:?}");
        assert_eq!(stranger.info().await["state"]["last_seq"], json!(0), "nothing was written");
    }
}
