//! What a start refuses before it writes anything.

use async_nats::Client;
use serde_json::{Value, json};
use unibus_keyfile::id::DocumentHash;

use super::*;
use crate::sealed_log::SealedLog;
use crate::sealed_log::fixture::{self, Home, Site};
use crate::sealed_log::stream::{Bucket, Generation, NONCES};
use crate::sealed_log::wire::tests::connect;

const OTHER: StateDigest = StateDigest::from_bytes([5; 32]);

fn witness_of(site: &Site, sequence: u64, digest: StateDigest) -> Witness {
    Witness {
        cluster: *site.keyring.cluster(),
        lineage: *site.keyring.lineage(),
        sequence: Sequence(sequence),
        digest,
        nodeset_version: 1,
        nodeset_hash: DocumentHash::from_bytes([1; 32]),
        keyring_version: 1,
        keyring_hash: DocumentHash::from_bytes([2; 32]),
        last_drill: None,
        last_proof: None,
    }
}

fn options(site: &Site) -> LogOptions {
    let clock = Arc::new(|| fixture::at(1));
    let (nowhere, state) = (std::path::Path::new("nodeset"), std::path::Path::new("state"));
    LogOptions::new(Vec::new(), site.keys(), nowhere, state, clock)
}

async fn ask(client: &Client, subject: String, body: &Value) {
    let reply = client.request(format!("$JS.API.{subject}"), body.to_string().into()).await.unwrap();
    let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert!(reply["error"].is_null(), "{reply}");
}

#[test]
fn a_log_that_ends_where_the_witness_does_has_its_records_or_is_refused() {
    let site = Site::new();
    let shared = site.shared(None);
    shared.take_own(3, vec![(fixture::beat(StateDigest::EMPTY), [1; 20])]).unwrap();
    let held = |sequence, digest| {
        let seen = witness_of(&site, sequence, digest);
        against_witness(&shared, &options(&site), Some(&seen), false)
    };
    held(3, StateDigest::EMPTY).unwrap();
    let error = held(3, OTHER).unwrap_err();
    assert!(matches!(error, LogError::Tampered { sequence: Sequence(3), .. }), "{error:?}");
    // Further on others may have written.
    held(2, OTHER).unwrap();
    let error = held(4, StateDigest::EMPTY).unwrap_err();
    assert!(matches!(error, LogError::RolledBack { .. }), "{error:?}");
}

#[test]
fn without_a_witness_half_an_import_is_read_and_a_whole_one_is_not() {
    let site = Site::new();
    let shared = site.shared(None);
    let visit = options(&site).access(Access::Visit);
    let held = || against_witness(&shared, &visit, None, false);
    held().unwrap();
    let mark = |open| fixture::item(Content::Import { open }, StateDigest::EMPTY);
    let id = crate::record::RecordId::User(fixture::sign(1));
    let bytes = fixture::bytes(&id, 1);
    let mut digest = StateDigest::EMPTY;
    digest.add(&shared.codec().hasher().hash(bytes.as_bytes()));
    let record = fixture::item(Content::Record { id, bytes: Some(bytes) }, digest);
    let closed = fixture::item(Content::Import { open: false }, digest);
    shared.take_own(1, vec![(mark(true), [1; 20]), (record, [2; 20])]).unwrap();
    held().unwrap();
    shared.take_own(3, vec![(closed, [3; 20])]).unwrap();
    let error = held().unwrap_err();
    assert!(matches!(error, LogError::NoWitness { sequence: Sequence(3), .. }), "{error:?}");
}

#[tokio::test]
async fn a_log_that_must_not_be_made_is_made_for_no_access() {
    let home = Home::new().await;
    for access in [Access::Serve, Access::Init] {
        let error = SealedLog::open(home.options().access(access).never_make()).unwrap_err();
        assert!(matches!(error, LogError::NothingThere { .. }), "{error:?}");
    }
    let wire = connect(&home.server.url()).await;
    assert_eq!(wire.info().await.unwrap_err(), WireError::NoStream);
}

#[tokio::test]
async fn a_short_log_is_no_new_one_to_a_node_that_has_seen_it() {
    let home = Home::new().await;
    drop(home.open(Access::Serve).unwrap());
    let wire = connect(&home.server.url()).await;
    assert!(wire.info().await.unwrap().last_sequence <= FIRST_ENTRIES);
    ask(&wire.client(), format!("STREAM.DELETE.{NONCES}"), &json!({})).await;
    let error = home.open(Access::Serve).unwrap_err();
    assert!(matches!(error, LogError::NotALog { .. }), "{error:?}");
    assert_eq!(wire.nonces_info().await.unwrap_err(), WireError::NoStream);
    // To one that has not, it may be that whoever made it died before it was whole.
    std::fs::remove_file(home.state_dir().join("witness")).unwrap();
    home.open(Access::Serve).unwrap();
}

#[tokio::test]
async fn a_log_that_was_emptied_is_not_begun_anew_by_a_node_that_has_seen_it() {
    let home = Home::new().await;
    drop(home.open(Access::Serve).unwrap());
    let wire = connect(&home.server.url()).await;
    ask(&wire.client(), format!("STREAM.DELETE.{STREAM}"), &json!({})).await;
    ask(&wire.client(), format!("STREAM.CREATE.{STREAM}"), &Bucket::Control(Generation::FIRST).config(1))
        .await;
    let error = home.open(Access::Serve).unwrap_err();
    assert!(matches!(error, LogError::StreamMissing { .. }), "{error:?}");
    assert_eq!(wire.info().await.unwrap().last_sequence, 0);
}
