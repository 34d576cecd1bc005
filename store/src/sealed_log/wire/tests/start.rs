//! Connecting, and what may be wrong with a server.

use serde_json::json;

use super::super::connection::is_new_enough;
use super::server::{Server, server_of_version};
use super::{ACK, WireError, WireOptions, connect, entry, log, options, raw, raw_client, seed, until};
use crate::sealed_log::wire::{PublishError, Wire};

/// Two nkeys for tests; nothing else is signed with them.
fn nkey() -> (String, String) {
    let pair = nkeys::KeyPair::new_user();
    (pair.seed().unwrap(), pair.public_key())
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    // Port 1 is nobody's.
    let error = Wire::connect(&options("nats://127.0.0.1:1")).await.unwrap_err();
    assert!(matches!(error, WireError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn one_server_of_several_is_enough() {
    let server = Server::start().await;
    let servers = vec!["nats://127.0.0.1:1".to_owned(), server.url()];
    let wire = Wire::connect(&WireOptions { servers, identity: None, ca: None }).await.unwrap();
    assert!(wire.is_connected());
}

#[tokio::test]
async fn an_old_server_is_named() {
    let wire = connect(&server_of_version("2.11.9").await).await;
    assert_eq!(wire.server_version(), "2.11.9");
    assert_eq!(wire.check_version(), Err(WireError::TooOld { found: "2.11.9".into() }));
}

#[test]
fn versions_are_compared_by_number() {
    for good in ["2.12.0", "2.12.0-RC.1", "v2.12.3", "2.15.1", "3.0.0", "10.1"] {
        assert!(is_new_enough(good), "{good}");
    }
    for bad in ["2.11.9", "2.9.10", "1.99.0", "", "2", "two.twelve"] {
        assert!(!is_new_enough(bad), "{bad}");
    }
}

#[tokio::test]
async fn a_real_server_is_new_enough() {
    let (_server, wire) = log().await;
    wire.check_version().unwrap();
}

#[tokio::test]
async fn a_server_without_jetstream_is_named() {
    let server = Server::with("").await;
    let error = connect(&server.url()).await.info().await.unwrap_err();
    assert!(matches!(error, WireError::NoJetStream { .. }), "{error:?}");
}

#[tokio::test]
async fn an_account_without_jetstream_is_named() {
    let config = "jetstream { store_dir: $FOLDER }
        accounts { WITH: { jetstream: enabled }, WITHOUT: { users: [{ user: u, password: p }] } }
        no_auth_user: u";
    let server = Server::with(config).await;
    let error = connect(&server.url()).await.info().await.unwrap_err();
    assert!(matches!(error, WireError::NoJetStream { .. }), "{error:?}");
}

#[tokio::test]
async fn only_the_right_nkey_is_let_in() {
    let (right, public) = nkey();
    let (wrong, _) = nkey();
    let config =
        format!("jetstream {{ store_dir: $FOLDER }}\nauthorization {{ users: [{{ nkey: {public} }}] }}");
    let server = Server::with(&config).await;
    let sign_in = async |identity| Wire::connect(&WireOptions { identity, ..options(&server.url()) }).await;
    sign_in(seed(&right)).await.unwrap().create(1).await.unwrap();
    for identity in [seed(&wrong), None, seed("no seed")] {
        let error = sign_in(identity).await.unwrap_err();
        assert!(matches!(error, WireError::NotAdmitted { .. }), "{error:?}");
        assert!(!format!("{error:?} {error}").contains(&wrong));
    }
}

#[tokio::test]
async fn with_a_ca_nothing_is_said_to_a_server_without_tls() {
    let server = Server::start().await;
    let authority = unibus_tests::certificates::Authority::new();
    let ca = Some(authority.certificate());
    let error = Wire::connect(&WireOptions { ca, ..options(&server.url()) }).await.unwrap_err();
    assert!(matches!(error, WireError::NotTrusted { .. }), "{error:?}");
}

#[tokio::test]
async fn a_right_that_lacks_is_named() {
    let config = "jetstream { store_dir: $FOLDER }
        authorization { users: [{ user: u, password: p,
            permissions: { publish: { deny: [\"$JS.API.STREAM.INFO.>\"] } } }] }
        no_auth_user: u";
    let server = Server::with(config).await;
    let error = connect(&server.url()).await.info().await.unwrap_err();
    assert!(matches!(&error, WireError::NotAdmitted { why } if why.contains("STREAM.INFO")), "{error:?}");
}

#[tokio::test]
async fn no_name_is_told_to_the_server() {
    let config = "jetstream { store_dir: $FOLDER }
        accounts { SYS: { users: [{ user: s, password: p }] }, APP: { jetstream: enabled, users: [{ user: u, password: p }] } }
        system_account: SYS
        no_auth_user: u";
    let server = Server::with(config).await;
    let wire = connect(&server.url()).await;
    wire.info().await.unwrap_err();
    let watcher = async_nats::ConnectOptions::with_user_and_password("s".into(), "p".into());
    let watcher = watcher.connect(server.url()).await.unwrap();
    let ask = json!({ "subscriptions": true, "acc": "APP" });
    let reply = watcher.request("$SYS.REQ.SERVER.PING.CONNZ", ask.to_string().into()).await.unwrap();
    let reply: serde_json::Value = serde_json::from_slice(&reply.payload).unwrap();
    let connection = &reply["data"]["connections"][0];
    assert!(connection["lang"].is_string() && connection.get("name").is_none(), "{connection}");
    for subject in connection["subscriptions_list"].as_array().unwrap() {
        assert!(subject.as_str().unwrap().starts_with("_INBOX."), "{subject}");
    }
}

#[tokio::test]
async fn the_connection_comes_back_by_itself() {
    let (mut server, wire) = log().await;
    wire.publish(&[entry("a", "1")], 0, ACK).await.unwrap();
    server.kill();
    until("the loss to be noticed", async || !wire.is_connected()).await;
    let refused = wire.publish(&[entry("a", "2")], 1, ACK).await.unwrap_err();
    assert!(matches!(refused, PublishError::NotStored { code: 0, .. }), "{refused:?}");
    let error = wire.info().await.unwrap_err();
    assert!(matches!(error, WireError::Unreachable { .. }), "{error:?}");
    server.restart().await;
    until("the connection", async || wire.is_connected()).await;
    until("the stream", async || wire.info().await.is_ok()).await;
    assert_eq!(wire.publish(&[entry("a", "2")], 1, ACK).await, Ok(2));
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_named_and_not_made() {
    let server = Server::start().await;
    let wire = connect(&server.url()).await;
    assert_eq!(wire.info().await.unwrap_err(), WireError::NoStream);
    assert_eq!(wire.nonces_info().await.unwrap_err(), WireError::NoStream);
    assert_eq!(wire.get(1).await.unwrap_err(), WireError::NoStream);
    assert_eq!(wire.tail(1).await.unwrap_err(), WireError::NoStream);
    let missing = wire.publish(&[entry("a", "1")], 0, ACK).await.unwrap_err();
    assert!(matches!(missing, PublishError::NotStored { code: 503, .. }), "{missing:?}");
    let streams = raw(&raw_client(&server).await, "STREAM.NAMES", &json!({})).await;
    assert_eq!(streams["total"], 0);
}
