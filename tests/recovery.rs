//! Losing a key loses nothing as long as the operator key and one of disk and snapshot are left; losing everything is
//! said plainly.

use std::fs;
use unibus_tests::{Daemon, Host, Program};

/// A new key for the same node name, approved by the operator into the nodeset.
fn enrol_anew(host: &Host) {
    fs::remove_file(host.key_file()).unwrap();
    let operator = host.path("keys/operator.key");
    let nodeset = host.path("keys/nodeset");
    let pin = Program::ours("unibus-key").args(["inspect", "--json"]).args([&operator]).run().ok().json();
    let pin = pin["cluster"].as_str().unwrap().to_owned();
    let generate = Program::ours("unibus-key").args(["generate", "--name", "host2", "--cluster", &pin]);
    generate.option("--out", host.path("keys/host2.key")).run().ok();
    let request = host.path("host2.request");
    let write = Program::ours("unibus-key").args(["request"]).args([host.path("keys/host2.key")]);
    write.option("--out", &request).run().ok();
    let key = |arguments: &[&str]| {
        Program::ours("unibus-key")
            .args(arguments)
            .option("--operator", &operator)
            .option("--nodeset", &nodeset)
    };
    key(&["approve", "--yes"]).args([request]).run().ok();
    key(&["remove", "--yes", "host1"]).run().ok();
}

#[test]
fn a_lost_node_key_is_recovered_with_the_operator_key_and_the_disk() {
    let mut host = Host::with_sample(50, 5);
    let before = host.status();
    enrol_anew(&host);
    host.name = "host2".to_owned();
    let refused = host.verify().run();
    assert!([4, 6].contains(&refused.code), "{}", refused.said());

    fs::rename(host.path("data"), host.path("old")).unwrap();
    fs::rename(host.path("state"), host.path("old/state")).unwrap();
    fs::create_dir(host.path("data")).unwrap();
    let old = format!("sqlcipher:{}", host.path("old/control.db").display());
    let copy = host.migrate(["copy", "--from", &old, "--to", &host.store(), "--yes"]);
    copy.option("--operator", host.path("keys/operator.key")).run().ok();

    let after = host.status();
    assert_eq!(after["state_digest"], before["state_digest"]);
    assert_eq!(after["entries"], before["entries"]);
    assert_ne!(after["lineage"], before["lineage"]);
    let daemon = host.serve();
    daemon.get("/healthz").unwrap().has(200);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_lost_node_key_and_disk_are_recovered_with_the_operator_key_and_a_snapshot() {
    let mut host = Host::with_sample(50, 5);
    let before = host.status();
    host.snapshot("a.snapshot").run().ok();
    host.lose_disk();
    enrol_anew(&host);
    host.name = "host2".to_owned();
    host.restore("a.snapshot").run().ok();
    let after = host.status();
    assert_eq!(after["state_digest"], before["state_digest"]);
    host.verify().run().ok();
}

#[test]
fn a_snapshot_for_the_nodes_is_restored_without_the_operator_key() {
    let host = Host::with_sample(20, 2);
    let before = host.status();
    host.snapshot("a.snapshot").args(["--nodes"]).run().ok();
    host.lose_disk();
    let file = host.path("a.snapshot");
    host.migrate(["restore", "--to", &host.store(), "--yes"]).option("--in", file).run().ok();
    assert_eq!(host.status()["state_digest"], before["state_digest"]);
}

#[test]
fn a_snapshot_for_the_recovery_recipients_opens_for_no_node_key() {
    let host = Host::with_sample(20, 2);
    host.snapshot("a.snapshot").run().ok();
    host.lose_disk();
    let before = host.disk();
    let file = host.path("a.snapshot");
    host.migrate(["restore", "--to", &host.store(), "--yes"]).option("--in", file).run().exits(6);
    host.assert_disk_unchanged(&before, "a restore without a key");
}

#[test]
fn losing_every_key_is_said_plainly() {
    let host = Host::with_sample(20, 2);
    host.snapshot("a.snapshot").run().ok();
    fs::remove_file(host.key_file()).unwrap();
    fs::remove_file(host.path("keys/operator.key")).unwrap();
    let before = host.disk();
    let new = format!("sqlcipher:{}", host.path("new/control.db").display());
    for run in [
        host.verify().run(),
        host.migrate(["status", &host.store()]).run(),
        host.migrate(["copy", "--from", &host.store(), "--to", &new, "--yes"]).run(),
        host.restore("a.snapshot").run(),
    ] {
        assert!(run.code > 0, "{}", run.line);
        if run.line.contains("verify") || run.line.contains("status") {
            assert!(run.said().contains("lost for everybody"), "{}", run.said());
        }
        host.assert_disk_unchanged(&before, "a hopeless recovery");
        assert!(!host.path("new").exists(), "a store was begun");
    }
}

#[test]
fn a_drill_proves_the_operator_key_and_the_posture_says_when() {
    let host = Host::with_sample(20, 2);
    host.snapshot("a.snapshot").run().ok();
    let drill = |host: &Host, operator| {
        let drill = host.migrate(["drill"]).option("--in", host.path("a.snapshot"));
        drill.option("--operator", operator).option("--state-dir", host.path("state")).run()
    };
    let stranger = Host::new();
    assert!(drill(&host, stranger.path("keys/operator.key")).code > 0);
    drill(&host, host.path("keys/operator.key")).ok();
    let daemon = host.serve();
    let last_drill = |daemon: &Daemon| daemon.posture()["at_rest_detail"]["recovery"]["last_drill"].clone();
    assert!(last_drill(&daemon).is_string());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_drill_while_the_daemon_serves_is_in_its_posture_and_outlives_it() {
    let host = Host::with_sample(20, 2);
    host.snapshot("a.snapshot").run().ok();
    let other = Host::with_sample(5, 1);
    other.snapshot("b.snapshot").run().ok();
    let drill = |snapshot, operator| {
        let drill = host.migrate_without_key(["drill"]).option("--in", snapshot);
        drill.option("--operator", operator).option("--state-dir", host.path("state")).run()
    };
    let daemon = host.serve();
    let last_drill = |daemon: &Daemon| daemon.posture()["at_rest_detail"]["recovery"]["last_drill"].clone();
    drill(other.path("b.snapshot"), other.path("keys/operator.key")).exits(3);
    assert!(last_drill(&daemon).is_null(), "a drill of another cluster proves nothing here");
    drill(host.path("a.snapshot"), host.path("keys/operator.key")).ok();
    let at = last_drill(&daemon);
    assert!(at.is_string());
    assert_eq!(daemon.stop(), Some(0));
    let daemon = host.serve();
    assert_eq!(last_drill(&daemon), at);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_restore_behind_the_witness_needs_the_operators_consent() {
    let host = Host::with_sample(20, 2);
    host.snapshot("a.snapshot").run().ok();
    let daemon = host.serve();
    let key = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 32]>());
    daemon.post("/users", &serde_json::json!({ "sign_pub": key, "handle": "later" })).unwrap().has(201);
    assert_eq!(daemon.stop(), Some(0));
    fs::remove_dir_all(host.path("data")).unwrap();
    fs::create_dir(host.path("data")).unwrap();
    let before = host.disk();
    host.restore("a.snapshot").run().exits(7);
    host.assert_disk_unchanged(&before, "a restore behind the witness");
    host.restore("a.snapshot").args(["--accept-rollback"]).run().ok();
    host.verify().run().ok();
}
