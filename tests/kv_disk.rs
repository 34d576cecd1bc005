//! `membershipd --store kv` on a host whose disk gets full.

use serde_json::{Value, json};
use unibus_tests::kv::{self, KvHosts};
use unibus_tests::{Daemon, SmallDisk, wait};

fn key() -> String {
    data_encoding::HEXLOWER.encode(&rand::random::<[u8; 32]>())
}

fn detail(daemon: &Daemon) -> Value {
    daemon.posture()["at_rest_detail"].clone()
}

fn wait_proven(daemon: &Daemon) {
    wait::until("the proof", || (daemon.get("/healthz").ok()?.status == 200).then_some(()));
}

fn wait_reason(daemon: &Daemon) -> Value {
    wait::until("the reason", || {
        let found = detail(daemon);
        let reason = found["reason"].as_str().unwrap_or_default();
        (reason.contains("the disk of") && reason.contains("make room")).then_some(found)
    })
}

/// Adds users until one is refused or `enough` were taken; the keys of those that were.
fn add(hosts: &KvHosts, index: usize, enough: usize) -> Vec<String> {
    let mut added = Vec::new();
    while added.len() < enough {
        let key = key();
        let words = ["user", "add", "--handle", "somebody", "--sign-pub", &key];
        if hosts.command(index, &words).run().code != 0 {
            break;
        }
        added.push(key);
    }
    added
}

fn has_all(hosts: &KvHosts, index: usize, keys: &[String]) -> bool {
    let listed = hosts.command(index, &["user", "list", "--json"]).run().ok().json();
    let text = listed.to_string();
    keys.iter().all(|key| text.matches(key).count() == 1)
}

#[test]
fn one_node_with_a_full_disk_says_so_and_serves_again_by_itself_when_there_is_room() {
    let hosts = KvHosts::new(1);
    let Some(disk) = SmallDisk::over(&hosts.path(0, "nats"), 24) else { return };
    let daemon = hosts.serve(0);
    let mut keys = add(&hosts, 0, 2);
    let nats = kv::wait_for_nats(&daemon, None);
    disk.fill();
    let found = wait_reason(&daemon);
    assert_eq!(daemon.get("/healthz").unwrap().status, 503, "{found}");
    wait::until("a refusal", || {
        let added = add(&hosts, 0, 1);
        keys.extend_from_slice(&added);
        added.is_empty().then_some(())
    });
    wait::until("closed", || (detail(&daemon)["state"] == "no_quorum").then_some(()));
    assert!(daemon.said().contains("UB-N022"), "{}", daemon.said());
    disk.free();
    wait_proven(&daemon);
    let _again = kv::wait_for_nats(&daemon, Some(nats));
    assert_eq!(detail(&daemon)["reason"], Value::Null);
    keys.extend(add(&hosts, 0, 1));
    assert!(keys.len() >= 3 && has_all(&hosts, 0, &keys));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn of_three_nodes_the_one_with_a_full_disk_says_so_the_others_go_on_and_it_comes_back_by_itself() {
    let hosts = KvHosts::new(3);
    let Some(disk) = SmallDisk::over(&hosts.path(0, "nats"), 48) else { return };
    let daemons: Vec<_> = (0..3).map(|index| hosts.spawn(index)).collect();
    daemons.iter().for_each(wait_proven);
    let mut keys = add(&hosts, 0, 1);
    disk.fill();
    let found = wait_reason(&daemons[0]);
    assert_ne!(found["state"], "proven", "{found}");
    assert_eq!(daemons[0].get("/healthz").unwrap().status, 503);
    for index in 1..3 {
        let added = wait::until("a write", || Some(add(&hosts, index, 1)).filter(|added| added.len() == 1));
        keys.extend(added);
    }
    for (index, daemon) in daemons.iter().enumerate().skip(1) {
        wait::until("all users on the others", || has_all(&hosts, index, &keys).then_some(()));
        wait::until("two copies", || {
            (detail(daemon)["replicas"] == json!({ "wanted": 3, "current": 2 })).then_some(())
        });
    }
    for daemon in &daemons[1..] {
        wait_proven(daemon);
    }
    disk.free();
    daemons.iter().for_each(wait_proven);
    for daemon in &daemons {
        wait::until("three copies and one digest", || {
            let (one, other) = (detail(daemon), detail(&daemons[0]));
            let is_whole = one["replicas"] == json!({ "wanted": 3, "current": 3 });
            (is_whole && one["state_digest"] == other["state_digest"]).then_some(())
        });
    }
    wait::until("all users", || has_all(&hosts, 0, &keys).then_some(()));
}
