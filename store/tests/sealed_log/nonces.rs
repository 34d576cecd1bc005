//! What somebody with every right on the server can do about nonces.

use async_nats::HeaderMap;
use serde_json::json;
use unibus_store::record::Timestamp;
use unibus_store::sealed_log::{Access, SealedLog};
use unibus_store::store::{Nonce, PostureState, Store};

use super::fixture::*;

const NONCES: &str = "KV_UNIBUS_nonces";

fn in_a_minute() -> Timestamp {
    Timestamp::from_micros(clock().micros() + 60_000_000).unwrap()
}

async fn claim(log: &SealedLog, nonce: &str) -> Result<bool, unibus_store::error::StoreError> {
    log.claim_nonce(sign(1), Nonce::from_bytes(nonce.as_bytes()).unwrap(), in_a_minute(), clock()).await
}

#[tokio::test]
async fn a_nonce_that_is_deleted_on_the_servers_stays_used_where_it_was_granted() {
    let site = Site::new();
    let log = site.open().unwrap();
    assert!(claim(&log, "first").await.unwrap());
    let stranger = site.stranger().await;
    let config = stranger.api(&format!("STREAM.INFO.{NONCES}"), json!({})).await["config"].clone();
    stranger.api(&format!("STREAM.DELETE.{NONCES}"), json!({})).await;
    let made = stranger.api(&format!("STREAM.CREATE.{NONCES}"), config).await;
    assert!(made["error"].is_null(), "{made}");
    assert!(!claim(&log, "first").await.unwrap());
    assert!(claim(&log, "second").await.unwrap());
}

#[tokio::test]
async fn a_nonce_that_cannot_be_read_counts_as_used_by_every_node() {
    for planted in ["", "x", "a payload of more than eight bytes"] {
        let site = Site::new();
        let log = site.open().unwrap();
        // One that remembers nothing.
        let visitor = SealedLog::open(site.options().access(Access::Visit)).unwrap();
        assert!(claim(&log, "first").await.unwrap());
        let stranger = site.stranger().await;
        let first = stranger.api(&format!("STREAM.MSG.GET.{NONCES}"), json!({ "seq": 1 })).await;
        let subject = first["message"]["subject"].as_str().unwrap().to_owned();
        stranger.put(&subject, HeaderMap::new(), planted.into()).await;
        assert!(!claim(&visitor, "first").await.unwrap(), "{planted:?}");
    }
}

#[tokio::test]
async fn no_nonce_is_granted_over_a_log_that_is_not_trusted() {
    let site = Site::new();
    let log = site.open().unwrap();
    assert!(claim(&log, "first").await.unwrap());
    let stranger = site.stranger().await;
    stranger.put("$KV.UNIBUS_control.mallory", HeaderMap::new(), "x".into()).await;
    denies(&log, PostureState::Tampered).await;
    assert!(claim(&log, "second").await.is_err());
    let info = stranger.api(&format!("STREAM.INFO.{NONCES}"), json!({})).await;
    assert_eq!(info["state"]["messages"], json!(1));
}

#[tokio::test]
async fn a_nonce_lives_on_the_servers_for_longer_than_its_request() {
    let site = Site::new();
    let log = site.open().unwrap();
    assert!(claim(&log, "first").await.unwrap());
    let stranger = site.stranger().await;
    let first = stranger.api(&format!("STREAM.MSG.GET.{NONCES}"), json!({ "seq": 1 })).await;
    let headers =
        data_encoding::BASE64.decode(first["message"]["hdrs"].as_str().unwrap().as_bytes()).unwrap();
    let headers = String::from_utf8(headers).unwrap();
    let lives = headers.lines().find_map(|line| line.strip_prefix("Nats-TTL: ")).unwrap();
    let seconds: u64 = lives.trim_end_matches('s').parse().unwrap();
    // Clocks of nodes differ: a minute beyond it.
    assert!((115..=121).contains(&seconds), "{lives}");
}

#[tokio::test]
async fn the_stream_of_nonces_is_not_made_again_nor_used_with_other_settings() {
    let site = Site::new();
    let log = site.open().unwrap();
    add(&log, 1..25).await;
    drop(log);
    let stranger = site.stranger().await;
    let config = stranger.api(&format!("STREAM.INFO.{NONCES}"), json!({})).await["config"].clone();
    let mut changed = config.clone();
    changed["max_age"] = json!(3_600_000_000_000_i64);
    let reply = stranger.api(&format!("STREAM.UPDATE.{NONCES}"), changed).await;
    assert!(reply["error"].is_null(), "{reply}");
    assert_eq!(site.refused().code(), "UB-L009");
    stranger.api(&format!("STREAM.DELETE.{NONCES}"), json!({})).await;
    for _ in 0..2 {
        assert_eq!(site.refused().code(), "UB-L010");
    }
    let info = stranger.api(&format!("STREAM.INFO.{NONCES}"), json!({})).await;
    assert_eq!(info["error"]["err_code"], json!(10059), "{info}");
    // Neither by a node that has lost its witness.
    std::fs::remove_file(site.state_dir().join("witness")).unwrap();
    assert_eq!(site.refused().code(), "UB-L010");
}
