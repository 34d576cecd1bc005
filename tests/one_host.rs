//! The walk of one host, from a plaintext database to a restored encrypted one that is served.
//!
//! `UNIBUS_TEST_RECORDS` sets how many users and how many rooms (a tenth) there are.

use serde_json::json;
use std::fs;
use unibus_tests::{Daemon, Host, Program, Scratch, wait};

mod one_host {
    mod rotated;
}

fn records() -> u64 {
    std::env::var("UNIBUS_TEST_RECORDS").map_or(2_000, |text| text.parse().expect("a number"))
}

fn assert_proven(daemon: &Daemon) -> serde_json::Value {
    let posture = wait::until("the proof", || {
        let answer = daemon.get("/healthz").ok()?;
        (answer.status == 200).then(|| answer.json()["posture"].clone())
    });
    assert_eq!(posture["at_rest"], true, "{posture}");
    assert_eq!(posture["at_rest_detail"]["state"], "proven", "{posture}");
    posture
}

#[test]
fn an_empty_folder_becomes_an_encrypted_control_plane_with_one_command() {
    let scratch = Scratch::new();
    let dev = || Program::ours("membershipd").args(["--dev"]).within(scratch.path());
    let daemon = Daemon::start(dev(), &scratch.join("logs"));
    assert_proven(&daemon);
    let key = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 32]>());
    let user = |arguments: &[&str]| {
        Program::ours("membershipd").args(["user"]).args(arguments).within(scratch.path()).run()
    };
    let add = ["add", "--handle", "alice", "--sign-pub", &key, "--role", "admin"];
    user(&add).ok();
    let again = user(&add).exits(1);
    assert!(again.said().contains("already registered (unchanged)"), "{}", again.said());
    assert_eq!(user(&["add", "--handle", "bob", "--sign-pub", "zz", "--role", "admin"]).code, 2);
    let listed = user(&["list", "--json"]).ok();
    assert!(listed.stdout.contains(&key) && listed.stdout.contains("alice"), "{}", listed.said());
    let detail = assert_proven(&daemon);
    let daemon_digest = detail["at_rest_detail"]["state_digest"].clone();
    assert_eq!(daemon.stop(), Some(0));

    // Started again it is the same store: a second `--dev` makes nothing anew.
    let daemon = Daemon::start(dev(), &scratch.join("logs"));
    let posture = assert_proven(&daemon);
    assert_eq!(posture["at_rest_detail"]["state_digest"], daemon_digest);
    user(&["revoke", &key]).ok();
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_plaintext_database_is_encrypted_audited_saved_restored_and_served() {
    let host = Host::new();
    let (users, rooms) = (records(), records() / 10);
    host.sample(users, rooms);
    let plain = fs::read(host.path("plain.db")).unwrap();

    let copied = host.copy().args(["--json"]).run().ok().json();
    assert_eq!(fs::read(host.path("plain.db")).unwrap(), plain, "copy changed its source");
    let status = host.status();
    assert_eq!(status["entries"]["users"], users, "{status}");
    assert_eq!(status["entries"]["rooms"], rooms, "{status}");
    assert_eq!(copied["state_digest"], status["state_digest"], "{copied}");

    // The plaintext is still there, and the audit finds it; the store's own folder is clean.
    fs::create_dir(host.path("backup")).unwrap();
    fs::rename(host.path("plain.db"), host.path("backup/old.db")).unwrap();
    host.audit(&["data", "state"]).run().ok();
    let stray = host.audit(&["data", "backup"]).run().exits(9);
    assert!(stray.said().contains("old.db"), "{}", stray.said());
    fs::remove_dir_all(host.path("backup")).unwrap();

    host.snapshot("a.snapshot").run().ok();
    host.lose_disk();
    host.restore("a.snapshot").run().ok();
    let restored = host.status();
    assert_eq!(restored["state_digest"], status["state_digest"], "the digest is that of the source");
    assert_ne!(restored["lineage"], status["lineage"], "a restore begins a new lineage");
    assert_eq!(restored["entries"], status["entries"]);
    host.verify().run().ok();

    let daemon = host.serve();
    let posture = assert_proven(&daemon);
    assert_eq!(posture["at_rest_detail"]["state_digest"], status["state_digest"]);
    let key = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 32]>());
    daemon.post("/users", &json!({ "sign_pub": key, "handle": "new" })).unwrap().has(201);
    assert_eq!(daemon.stop(), Some(0));
    host.verify().run().ok();
}

#[test]
fn what_must_not_be_overwritten_is_not() {
    let host = Host::with_sample(20, 4);
    host.snapshot("a.snapshot").run().ok();
    let before = host.disk();
    host.restore("a.snapshot").run().exits(2);
    host.sample(5, 1);
    host.copy().run().exits(2);
    let own = host.store();
    host.migrate(["copy", "--from", &own, "--to", &own, "--yes"]).run().exits(2);
    host.snapshot("a.snapshot").run().exits(2);
    host.assert_disk_unchanged(&before, "a refused overwrite");
    let dry =
        host.migrate(["snapshot", "--from", &own, "--dry-run"]).option("--out", host.path("b.snapshot"));
    dry.run().ok();
    assert!(!host.path("b.snapshot").exists());
    host.assert_disk_unchanged(&before, "a dry run");
}

#[test]
fn a_cut_or_flipped_snapshot_is_refused_before_the_target_is_touched() {
    let host = Host::with_sample(60, 6);
    host.snapshot("a.snapshot").run().ok();
    host.lose_disk();
    let before = host.disk();
    let good = fs::read(host.path("a.snapshot")).unwrap();
    let step = good.len() / 12;
    let cuts = (0..good.len()).step_by(step).map(|cut| ("cut", good[..cut].to_vec()));
    let flips = (0..good.len()).step_by(step).chain([good.len() - 1]).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        ("flipped", bytes)
    });
    for (what, bytes) in cuts.chain(flips) {
        fs::write(host.path("bad.snapshot"), &bytes).unwrap();
        let run = host.restore("bad.snapshot").run();
        assert!([2, 4, 6].contains(&run.code), "{what}, {} bytes: {}", bytes.len(), run.said());
        host.assert_disk_unchanged(&before, what);
        let url = format!("snapshot:{}", host.path("bad.snapshot").display());
        let run = host.migrate_without_key(["verify", &url]).run();
        assert!([2, 4].contains(&run.code), "{what}, {} bytes, verify: {}", bytes.len(), run.said());
    }
    host.restore("a.snapshot").run().ok();
}
