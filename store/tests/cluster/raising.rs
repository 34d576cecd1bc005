//! From one copy to three, in place: the log, the nonces and the blobs; then any server may be lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use unibus_store::record::{Blob, Timestamp};
use unibus_store::sealed_log::{STREAM, SealedLog};
use unibus_store::store::{Actor, Nonce, Store, Strength};
use unibus_tests::{Cluster, Setup, wait};

use super::fixture::*;

/// Bytes of the blob: several parts.
const CONTENT: usize = 300_000;

fn streams() -> [&'static str; 3] {
    [STREAM, "KV_UNIBUS_nonces", "OBJ_UNIBUS_blobs"]
}

/// How many copies of each stream there are to be, by each server's own word.
fn copies(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut held = BTreeMap::new();
    for index in (0..cluster.len()).filter(|index| cluster.node(*index).is_running()) {
        let page = cluster.node(index).monitor("/jsz?streams=true&accounts=true").unwrap_or_default();
        let accounts = page["account_details"].as_array().into_iter().flatten();
        for stream in accounts.flat_map(|one| one["stream_detail"].as_array().into_iter().flatten()) {
            *held.entry(stream["name"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    held
}

/// The server that holds the only copy of the log.
fn holder(cluster: &Cluster) -> usize {
    let page = |index| cluster.node(index).monitor("/jsz?streams=true&accounts=true").unwrap_or_default();
    let holds = |index: &usize| page(*index).to_string().contains(&format!("\"name\":\"{STREAM}\""));
    (0..cluster.len()).find(holds).unwrap()
}

/// One blob, with its record.
async fn store_blob(log: &Arc<SealedLog>) -> Blob {
    let (of_log, now) = (Arc::clone(log), clock());
    let put = move || of_log.blobs().unwrap().put(&mut vec![0x5A; CONTENT].as_slice(), 1 << 24, now).unwrap();
    let blob = tokio::task::spawn_blocking(put).await.unwrap();
    let stored: Blob = Blob::clone(&blob);
    log.put_blob(Actor::Operator, blob).await.unwrap();
    stored
}

async fn reads_blob(log: &Arc<SealedLog>, blob: &Blob) -> bool {
    let (log, blob) = (Arc::clone(log), Blob::clone(blob));
    let read = move || log.blobs().ok()?.get(&blob).ok().map(|content| content.to_vec());
    tokio::task::spawn_blocking(read).await.unwrap() == Some(vec![0x5A; CONTENT])
}

async fn claim(log: &SealedLog, number: u8, expires: Timestamp) -> Option<bool> {
    let nonce = Nonce::from_bytes(&[number; 16]).unwrap();
    log.claim_nonce(sign(1), nonce, expires, clock()).await.ok()
}

/// Takes the one that had it all away, or each in turn, and looks whether the others still have it all.
async fn outlives_each_server(trio: &mut Trio, logs: &[Arc<SealedLog>], blob: &Blob, first: usize) {
    let users = 20;
    let expires = Timestamp::from_micros(clock().micros() + 600_000_000).unwrap();
    for lost in if has_time() { 0..3 } else { first..first + 1 } {
        let number = u8::try_from(lost).unwrap() + 10;
        let granted_by = (lost + 1) % 3;
        until("a nonce", async || claim(&logs[granted_by], number, expires).await == Some(true)).await;
        trio.cluster.kill(lost);
        for node in (0..3).filter(|node| *node != lost) {
            until("the users", async || {
                let found = logs[node].users(Strength::Linearizable).await;
                found.is_ok_and(|found| found.len() == users)
            })
            .await;
            until("the blob", async || reads_blob(&logs[node], blob).await).await;
            until("the nonce, used", async || claim(&logs[node], number, expires).await == Some(false)).await;
        }
        trio.cluster.start(lost);
        trio.cluster.wait_ready();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_copy_of_log_nonces_and_blobs_becomes_three_in_place_and_any_server_may_go() {
    let mut trio = Trio::on(Setup::of(3).without_proxies().start());
    trio.replicas = 1;
    let log = Arc::new(trio.open(0).unwrap());
    for number in 1..=20 {
        log.add_user(Actor::Operator, user(number)).await.unwrap();
    }
    let blob = store_blob(&log).await;
    let expires = Timestamp::from_micros(clock().micros() + 600_000_000).unwrap();
    assert_eq!(claim(&log, 1, expires).await, Some(true));
    let position = log.position().unwrap();
    assert_eq!(copies(&trio.cluster), streams().map(|name| (name.to_owned(), 1)).into());
    drop(log);
    let holder = holder(&trio.cluster);

    trio.replicas = 3;
    let logs = trio.open_all();
    assert_eq!(logs[0].position().unwrap(), position, "the log is not the same");
    for log in &logs {
        let of_log = Arc::clone(log);
        tokio::task::spawn_blocking(move || drop(of_log.blobs().unwrap())).await.unwrap();
    }
    let wanted: BTreeMap<_, _> = streams().map(|name| (name.to_owned(), 3)).into();
    wait::until("three copies of each", || (copies(&trio.cluster) == wanted).then_some(()));
    trio.cluster.wait_in_sync();
    // What was used before is used on every node.
    for log in &logs {
        assert_eq!(claim(log, 1, expires).await, Some(false));
    }
    outlives_each_server(&mut trio, &logs, &blob, holder).await;
    trio.cluster.wait_in_sync();
    all_agree(&logs).await;
    // Lowered it is not: refused by name, and nothing changes.
    drop(logs);
    trio.replicas = 1;
    let refused = trio.open(0).unwrap_err();
    assert!(refused.to_string().contains("num_replicas"), "{refused}");
    assert_eq!(copies(&trio.cluster), wanted);
    let client = trio.cluster.client(0).await;
    let reply = client.request(format!("$JS.API.STREAM.INFO.{STREAM}"), "".into()).await.unwrap();
    let info: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(info["config"]["num_replicas"], json!(3));
}
