//! What somebody with every right on the server can do, live and between two starts.

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::json;
use unibus_keyfile::id::{Lineage, Sequence};
use unibus_keyfile::keyring::Keyring;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Plan;
use unibus_store::sealed_log::{LogError, STREAM, SealedLog};
use unibus_store::store::{Actor, PostureState, Store};

use super::fixture::*;

/// A log with users 1 to 9, of which 5 is revoked, and the entry of 5 from before.
async fn revoked() -> (Site, SealedLog, Stranger, Stored) {
    let site = Site::new();
    let log = site.open().unwrap();
    let stranger = site.stranger().await;
    add(&log, 1..5).await;
    let before: Vec<String> = stranger.all().await.into_iter().map(|stored| stored.subject).collect();
    add(&log, 5..6).await;
    let new: Vec<Stored> =
        stranger.all().await.into_iter().filter(|stored| !before.contains(&stored.subject)).collect();
    let [yesterday] = &new[..] else { panic!("{new:?}") };
    add(&log, 6..10).await;
    assert!(is_authorized(&log, 5).await);
    log.revoke_user(Actor::Operator, sign(5), clock()).await.unwrap();
    assert!(!is_authorized(&log, 5).await);
    (site, log, stranger, yesterday.clone())
}

/// The running node denies and names the sequence; a start is refused, and names it too.
async fn noticed(site: &Site, log: SealedLog, at: Option<u64>) {
    denies(&log, PostureState::Tampered).await;
    assert!(!is_authorized(&log, 5).await);
    let trouble = log.trouble().unwrap();
    if let Some(at) = at {
        assert!(trouble.contains(&format!("sequence {at}:")), "{trouble}");
    }
    drop(log);
    let error = site.refused();
    assert_eq!(error.class(), unibus_keyfile::error::ErrorClass::Tampered, "{error:?}");
    if let (Some(at), LogError::Tampered { sequence, .. }) = (at, &error) {
        assert_eq!(*sequence, Sequence(at), "{error}");
    }
}

fn sequence(ack: &serde_json::Value) -> Option<u64> {
    ack["seq"].as_u64()
}

#[tokio::test]
async fn yesterdays_bytes_of_a_revoked_user_do_not_bring_it_back() {
    let (site, log, stranger, yesterday) = revoked().await;
    let ack = stranger.put(&yesterday.subject, HeaderMap::new(), yesterday.payload).await;
    noticed(&site, log, sequence(&ack)).await;
}

#[tokio::test]
async fn marks_that_delete_or_purge_an_entry_are_no_entries() {
    for (name, value) in
        [("KV-Operation", "DEL"), ("KV-Operation", "PURGE"), ("Nats-Marker-Reason", "Remove")]
    {
        let (site, log, stranger, yesterday) = revoked().await;
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        let ack = stranger.put(&yesterday.subject, headers, Bytes::new()).await;
        noticed(&site, log, sequence(&ack)).await;
    }
}

#[tokio::test]
async fn the_server_itself_refuses_to_delete_purge_and_roll_up() {
    let (_site, log, stranger, yesterday) = revoked().await;
    let refused = |reply: serde_json::Value| assert!(!reply["error"].is_null(), "{reply}");
    let last = stranger.last_of(&yesterday.subject).await.sequence;
    refused(stranger.api(&format!("STREAM.MSG.DELETE.{STREAM}"), json!({ "seq": last })).await);
    refused(stranger.api(&format!("STREAM.PURGE.{STREAM}"), json!({})).await);
    refused(stranger.api(&format!("STREAM.PURGE.{STREAM}"), json!({ "filter": yesterday.subject })).await);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Rollup", "sub");
    let reply = stranger.0.request_with_headers(yesterday.subject, headers, Bytes::new()).await.unwrap();
    refused(serde_json::from_slice(&reply.payload).unwrap());
    assert!(is_authorized(&log, 1).await);
}

#[tokio::test]
async fn two_entries_that_change_places_do_not_open() {
    let (site, log, stranger, yesterday) = revoked().await;
    let all = sealed(&stranger.all().await);
    let other = all.iter().find(|stored| stored.subject != yesterday.subject).unwrap();
    let own = stranger.last_of(&yesterday.subject).await;
    let ack = stranger.put(&own.subject, HeaderMap::new(), other.payload.clone()).await;
    stranger.put(&other.subject, HeaderMap::new(), own.payload).await;
    noticed(&site, log, sequence(&ack)).await;
}

#[tokio::test]
async fn what_is_not_sealed_is_no_entry() {
    let long = [b"UBE1".as_slice(), &[0; 400]].concat();
    for payload in [b"{\"handle\":\"mallory\"}".to_vec(), Vec::new(), vec![0; 300], b"UBE1".to_vec(), long] {
        let (site, log, stranger, yesterday) = revoked().await;
        let ack = stranger.put(&yesterday.subject, HeaderMap::new(), payload.into()).await;
        noticed(&site, log, sequence(&ack)).await;
    }
}

#[tokio::test]
async fn an_entry_under_a_name_of_its_own_is_noticed_as_well() {
    let (site, log, stranger, yesterday) = revoked().await;
    for subject in ["$KV.UNIBUS_control.mallory", "$KV.UNIBUS_control.doc.mallory"] {
        let ack = stranger.put(subject, HeaderMap::new(), yesterday.payload.clone()).await;
        assert!(sequence(&ack).is_some());
    }
    noticed(&site, log, None).await;
}

#[tokio::test]
async fn an_entry_of_another_cluster_does_not_open() {
    let (site, log, stranger, _) = revoked().await;
    let (_other_site, _other_log, other, foreign) = revoked().await;
    let foreign = other.last_of(&foreign.subject).await;
    let ack = stranger.put(&foreign.subject, HeaderMap::new(), foreign.payload).await;
    noticed(&site, log, sequence(&ack)).await;
}

#[tokio::test]
async fn a_keyring_signed_by_a_stranger_is_not_taken() {
    let (site, log, stranger, _) = revoked().await;
    // Wrapped to all nodes and the operator: whoever knows the public keys can do that.
    let mallory = NodeKeyFile::generate("mallory".parse().unwrap(), site.operator.cluster_id());
    let plan = Plan::first(&site.operator).with_node(mallory.member(now())).with_node(site.own.member(now()));
    let nodeset = plan.sign(&site.operator).unwrap();
    let (keyring, _) = Keyring::create(&nodeset, &mallory, Lineage::random(), None, now()).unwrap();
    let bytes = Bytes::copy_from_slice(keyring.as_bytes());
    stranger.put(&doc("keyring"), HeaderMap::new(), bytes).await;
    denies(&log, PostureState::Tampered).await;
    drop(log);
    assert!(site.open().is_err());
}

#[tokio::test]
async fn the_same_keyring_and_nodeset_put_again_are_noticed() {
    for name in ["keyring", "nodeset"] {
        let (_site, log, stranger, _) = revoked().await;
        let present = stranger.last_of(&doc(name)).await;
        stranger.put(&doc(name), HeaderMap::new(), present.payload).await;
        denies(&log, PostureState::Tampered).await;
    }
}

#[tokio::test]
async fn a_setting_that_is_changed_is_noticed_and_named() {
    for (setting, value) in [("allow_direct", json!(true)), ("max_age", json!(3_600_000_000_000_i64))] {
        let (site, log, stranger, _) = revoked().await;
        let mut config = stranger.info().await["config"].clone();
        config[setting] = value;
        let reply = stranger.api(&format!("STREAM.UPDATE.{STREAM}"), config).await;
        assert!(reply["error"].is_null(), "{reply}");
        denies(&log, PostureState::Tampered).await;
        assert!(log.trouble().unwrap().contains(setting), "{:?}", log.trouble());
        drop(log);
        let error = site.refused();
        assert!(
            matches!(&error, LogError::OtherSettings { setting: named, .. } if *named == setting),
            "{error:?}"
        );
    }
}

/// Nothing is answered while it is looked at, and everything when it turns out to be as it was.
#[tokio::test]
async fn a_doubt_denies_before_it_is_a_verdict_and_passes_with_its_cause() {
    let (_site, log, stranger, _) = revoked().await;
    let config = stranger.info().await["config"].clone();
    let mut changed = config.clone();
    changed["max_age"] = json!(3_600_000_000_000_i64);
    let update = format!("STREAM.UPDATE.{STREAM}");
    assert!(stranger.api(&update, changed).await["error"].is_null());
    let mut state = None;
    until("denied", async || {
        let is_denied = !is_authorized(&log, 1).await;
        state = is_denied.then(|| log.posture().state);
        is_denied
    })
    .await;
    assert!(stranger.api(&update, config).await["error"].is_null());
    assert_eq!(state, Some(PostureState::Degraded), "a single look is no verdict");
    until("answered again", async || is_authorized(&log, 1).await).await;
    assert_eq!(log.posture().state, PostureState::Proven);
}

#[tokio::test]
async fn a_stream_that_is_deleted_is_noticed_and_never_made_again() {
    let (site, log, stranger, _) = revoked().await;
    stranger.api(&format!("STREAM.DELETE.{STREAM}"), json!({})).await;
    denies(&log, PostureState::Tampered).await;
    drop(log);
    let error = site.refused();
    assert!(matches!(error, LogError::StreamMissing { .. }), "{error:?}");
    let info = stranger.info().await;
    assert_eq!(info["error"]["err_code"], json!(10059), "a stream was made: {info}");
}

#[tokio::test]
async fn a_stream_that_was_cut_and_made_again_is_noticed() {
    let (site, log, stranger, _) = revoked().await;
    let (all, config) = (stranger.all().await, stranger.info().await["config"].clone());
    stranger.api(&format!("STREAM.DELETE.{STREAM}"), json!({})).await;
    stranger.api(&format!("STREAM.CREATE.{STREAM}"), config).await;
    // Each at its own sequence again, but for the last few: it would all open.
    for stored in &all[..3] {
        stranger.put(&stored.subject, HeaderMap::new(), stored.payload.clone()).await;
    }
    let begun = std::time::Instant::now();
    while log.posture().state != PostureState::RolledBack && log.posture().state != PostureState::Tampered {
        assert!(begun.elapsed().as_secs() < 20, "{:?}", log.posture());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!is_authorized(&log, 1).await);
    drop(log);
    let error = site.refused();
    let class = error.class();
    use unibus_keyfile::error::ErrorClass::{RolledBack, Tampered};
    assert!(class == RolledBack || class == Tampered, "{error:?}");
}

/// The last entry, deleted by somebody with the server's rights while the node is down. Its witness is gone, or has not
/// seen that entry: the server alone says that something stood there.
#[tokio::test]
async fn a_last_entry_that_was_deleted_is_named_whatever_the_witness_knows() {
    for knows in [Witnessed::All, Witnessed::Less, Witnessed::Nothing] {
        let site = Site::new();
        let log = site.open().unwrap();
        add(&log, 1..10).await;
        until("a witness", async || log.witness().is_some_and(|seen| seen.sequence.0 >= 9)).await;
        let witness = std::fs::read(site.state_dir().join("witness")).unwrap();
        let before = log.last_sequence();
        add(&log, 10..12).await;
        drop(log);
        let stranger = site.stranger().await;
        let last = stranger.info().await["state"]["last_seq"].as_u64().unwrap();
        assert!(last > before);
        stranger.take_away(last).await;
        assert_eq!(stranger.info().await["state"]["last_seq"], json!(last));
        let path = site.state_dir().join("witness");
        match knows {
            Witnessed::All => {}
            Witnessed::Less => std::fs::write(&path, &witness).unwrap(),
            Witnessed::Nothing => std::fs::remove_file(&path).unwrap(),
        }
        let begun = std::time::Instant::now();
        let error =
            SealedLog::open(site.options().boot_budget(std::time::Duration::from_secs(20))).unwrap_err();
        let LogError::Tampered { sequence, what } = &error else { panic!("{knows:?}: {error:?}") };
        assert_eq!(*sequence, Sequence(last - 1), "{knows:?}: {what}");
        assert!(what.contains("entries are missing behind it"), "{knows:?}: {what}");
        assert_eq!(error.class().exit_code(), 4);
        assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{knows:?}: {:?}", begun.elapsed());
    }
}

#[derive(Debug, Clone, Copy)]
enum Witnessed {
    All,
    Less,
    Nothing,
}
