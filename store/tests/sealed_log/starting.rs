//! First starts, later starts, and starts that are refused.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Plan;
use unibus_keyfile::operator_key::OperatorKey;
use unibus_store::keys::Keys;
use unibus_store::sealed_log::{Access, LogError, LogOptions, STREAM, SealedLog};
use unibus_store::store::{PostureState, Store, Strength};

use super::fixture::*;

#[tokio::test]
async fn a_log_is_made_once_and_found_again() {
    let site = Site::new();
    let log = site.open().unwrap();
    assert!(log.was_made());
    add(&log, 1..4).await;
    let position = log.position().unwrap();
    assert_eq!(log.posture().state, PostureState::Proven);
    drop(log);
    let log = site.open().unwrap();
    assert!(!log.was_made());
    assert_eq!(log.position().unwrap(), position);
    assert_eq!(log.users(Strength::Linearizable).await.unwrap().len(), 3);
    log.verify().unwrap();
}

#[tokio::test]
async fn a_second_process_of_the_node_does_not_serve_beside_the_first() {
    let site = Site::new();
    let _log = site.open().unwrap();
    assert!(matches!(site.refused(), LogError::Locked { .. }));
    let visitor = SealedLog::open(site.options().access(Access::Visit)).unwrap();
    add(&visitor, 1..3).await;
}

#[tokio::test]
async fn a_visitor_and_the_daemon_see_each_others_writes() {
    let site = Site::new();
    let log = site.open().unwrap();
    let visitor = SealedLog::open(site.options().access(Access::Visit)).unwrap();
    add(&visitor, 1..3).await;
    assert!(log.is_authorized(sign(2), Strength::Linearizable).await);
    add(&log, 3..5).await;
    assert!(visitor.is_authorized(sign(4), Strength::Linearizable).await);
    let reader = SealedLog::open(site.options().access(Access::Read)).unwrap();
    assert_eq!(reader.position().unwrap(), log.position().unwrap());
    assert!(reader.add_user(unibus_store::store::Actor::Operator, user(7)).await.is_err());
}

#[tokio::test]
async fn a_strangers_stream_under_our_name_is_refused_and_left_alone() {
    let site = Site::new();
    let stranger = site.stranger().await;
    let config = json!({ "name": STREAM, "subjects": ["$KV.UNIBUS_control.>"], "max_msgs_per_subject": 1,
        "allow_direct": true, "storage": "file" });
    stranger.api(&format!("STREAM.CREATE.{STREAM}"), config).await;
    stranger.put("$KV.UNIBUS_control.a", async_nats::HeaderMap::new(), "x".into()).await;
    let before = stranger.info().await;
    let error = site.refused();
    assert!(matches!(error, LogError::OtherSettings { .. }), "{error:?}");
    let after = stranger.info().await;
    assert_eq!((&before["config"], &before["state"]), (&after["config"], &after["state"]));
}

#[tokio::test]
async fn a_stream_of_ours_with_something_else_in_it_is_no_log() {
    let site = Site::new();
    let other = Site::new();
    drop(other.open().unwrap());
    let config = other.stranger().await.info().await["config"].clone();
    let stranger = site.stranger().await;
    stranger.api(&format!("STREAM.CREATE.{STREAM}"), config).await;
    stranger.put("$KV.UNIBUS_control.a", async_nats::HeaderMap::new(), "x".into()).await;
    let error = site.refused();
    assert!(matches!(error, LogError::NotALog { .. }), "{error:?}");
}

#[tokio::test]
async fn another_clusters_key_and_an_unknown_node_are_told_apart() {
    let site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..3).await;
    drop(log);
    let open = |own: NodeKeyFile, nodeset: &std::path::Path| {
        let state = site.folder.path().join("other-state");
        std::fs::create_dir_all(&state).unwrap();
        let keys = Keys::Node(Arc::new(own));
        let options = LogOptions::new(vec![site.url()], keys, nodeset, &state, Arc::new(clock));
        SealedLog::open(options.boot_budget(Duration::from_secs(4))).unwrap_err()
    };
    // Not in the nodeset.
    let beta = NodeKeyFile::generate("beta".parse().unwrap(), site.operator.cluster_id());
    let error = open(beta, &site.folder.path().join("nodeset"));
    assert!(matches!(error, LogError::NotInNodeset { .. }), "{error:?}");
    // Another cluster altogether.
    let operator = OperatorKey::generate();
    let mallory = NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id());
    let nodeset = Plan::first(&operator).with_node(mallory.member(now())).sign(&operator).unwrap();
    let path = site.folder.path().join("other-nodeset");
    std::fs::write(&path, nodeset.as_bytes()).unwrap();
    let error = open(mallory, &path);
    assert_eq!(error.class(), unibus_keyfile::error::ErrorClass::WrongKey, "{error:?}");
}

#[tokio::test]
async fn a_reader_makes_no_log() {
    let site = Site::new();
    for access in [Access::Read, Access::Visit] {
        let error = SealedLog::open(site.options().access(access)).unwrap_err();
        assert!(matches!(error, LogError::NothingThere { .. }), "{error:?}");
    }
    assert_eq!(site.stranger().await.info().await["error"]["err_code"], json!(10059));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_waited_for_and_then_named() {
    let mut site = Site::new();
    let options = site.options().boot_budget(Duration::from_secs(1));
    site.stop();
    let error = SealedLog::open(options).unwrap_err();
    assert!(matches!(error, LogError::Unreachable { .. }), "{error:?}");
}
