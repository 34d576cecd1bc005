//! `membershipd --store kv` on one node: the real program, its real nats-server, and what can go wrong with both.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use unibus_tests::kv::{self, KvHosts};
use unibus_tests::ports::Port;
use unibus_tests::{Canaries, Contents, Daemon, Program, Run, Scratch, http, wait};

#[path = "kv_one_node/nats_server.rs"]
mod nats_server;

fn key() -> String {
    data_encoding::HEXLOWER.encode(&rand::random::<[u8; 32]>())
}

fn add(hosts: &KvHosts, handle: &str, key: &str) -> Run {
    hosts.command(0, &["user", "add", "--handle", handle, "--role", "admin", "--sign-pub", key]).run()
}

fn users(hosts: &KvHosts) -> Value {
    hosts.command(0, &["user", "list", "--json"]).run().ok().json()
}

fn detail(daemon: &Daemon) -> Value {
    daemon.posture()["at_rest_detail"].clone()
}

fn wait_proven(daemon: &Daemon) -> Value {
    wait::until("the proof", || (daemon.get("/healthz").ok()?.status == 200).then_some(()));
    detail(daemon)
}

#[test]
fn an_empty_folder_becomes_a_sealed_log_with_one_command() {
    let scratch = Scratch::new();
    let port = Port::take();
    let dev = |arguments: &[&str]| {
        Program::ours("membershipd")
            .args(["--store", "kv", "--dev"])
            .env("UNIBUS_NATS_PORT", port.number().to_string())
            .args(arguments)
            .within(scratch.path())
    };
    let daemon_command = || dev(&[]).env("UNIBUS_NATS_SERVER_BIN", unibus_tests::node::nats_server());
    let daemon = Daemon::start(daemon_command(), &scratch.join("logs"));
    let first = detail(&daemon);
    assert_eq!((&first["backend"], &first["state"]), (&json!("kv"), &json!("proven")), "{first}");
    assert_eq!(first["replicas"], json!({ "wanted": 1, "current": 1 }));
    assert_eq!((&first["jetstream_cipher"], &first["reason"]), (&Value::Null, &Value::Null));
    assert_eq!(first["cipher"], "aes-256-gcm-siv");
    let key = key();
    dev(&["user", "add", "--handle", "alice", "--role", "admin", "--sign-pub", &key]).run().ok();
    let with_user = wait_proven(&daemon);
    assert_ne!(first["state_digest"], with_user["state_digest"]);
    assert_eq!(daemon.stop(), Some(0));

    // Started again it is the same log: a second `--dev` makes nothing anew.
    let daemon = Daemon::start(daemon_command(), &scratch.join("logs"));
    let again = detail(&daemon);
    assert_eq!(again["state_digest"], with_user["state_digest"]);
    assert_eq!(again["lineage"], first["lineage"]);
    assert_eq!(again["entries"], 1);
    assert_eq!(daemon.stop(), Some(0));
    for entry in fs::read_dir(scratch.path()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(name == "logs" || name == "local_files", "{name:?} was left in the folder");
    }
}

#[test]
fn users_are_added_once_listed_revoked_and_kept() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    let key = key();
    let added = add(&hosts, "alice", &key).ok();
    assert_eq!(added.stdout, format!("added {key} alice (admin)\nleader=host1 followers_current=0/0\n"));
    let again = add(&hosts, "mallory", &key).exits(1);
    assert!(again.said().contains("already registered (unchanged)"), "{}", again.said());
    assert_eq!(add(&hosts, "bob", "zz").code, 2);
    let listed = users(&hosts);
    assert_eq!((&listed[0]["sign_pub"], &listed[0]["handle"]), (&json!(key), &json!("alice")));
    assert_eq!(daemon.get("/users").unwrap().has(200).json(), listed);
    assert_eq!(daemon.stop(), Some(0));

    let daemon = hosts.serve(0);
    assert_eq!(users(&hosts), listed);
    let revoked = hosts.command(0, &["user", "revoke", &key]).run().ok();
    assert!(revoked.stdout.ends_with("\nleader=host1 followers_current=0/0\n"), "{}", revoked.said());
    assert_eq!(hosts.command(0, &["user", "revoke", &key]).run().code, 1);
    assert_eq!(users(&hosts)[0]["status"], "revoked");
    daemon.kill();
    let daemon = hosts.serve(0);
    assert_eq!(users(&hosts)[0]["status"], "revoked");
    assert_eq!(daemon.stop(), Some(0));
    // Nobody listens any more, and there is no other door.
    let run = hosts.command(0, &["user", "list"]).run().exits(3);
    assert!(run.stderr.contains("UB-D006"), "{}", run.said());
}

#[test]
fn with_the_identity_of_the_daemon_users_are_managed_beside_it() {
    let hosts = KvHosts::new(1);
    let identity = hosts.path(0, "internal.id");
    let command = hosts.daemon_command(0).env("UNIBUS_INTERNAL_ID_FILE", &identity);
    let daemon = Daemon::start(command, &hosts.path(0, "logs"));
    // Without the admin socket: so it goes through NATS.
    fs::remove_file(hosts.path(0, "state/admin.sock")).unwrap();
    let beside =
        |arguments: &[&str]| hosts.command(0, arguments).env("UNIBUS_INTERNAL_ID_FILE", &identity).run();
    let key = key();
    let added = beside(&["user", "add", "--handle", "alice", "--sign-pub", &key]).ok();
    assert!(added.stdout.contains("leader=host1 followers_current=0/0"), "{}", added.said());
    assert_eq!(beside(&["user", "add", "--handle", "bob", "--sign-pub", &key]).code, 1);
    // The daemon has it without being asked again.
    wait::until("the user in the daemon", || {
        let listed = daemon.get("/users").ok()?.json();
        (listed[0]["sign_pub"] == key.as_str()).then_some(())
    });
    assert_eq!(beside(&["user", "list", "--json"]).ok().json()[0]["sign_pub"], key.as_str());
    beside(&["user", "revoke", &key]).ok();

    // Another identity is not let in; a damaged one and one that is not there are errors, and none is made.
    let other = hosts.path(0, "other.id");
    let with = |path: &std::path::Path| {
        hosts.command(0, &["user", "list"]).env("UNIBUS_INTERNAL_ID_FILE", path).run()
    };
    let absent = with(&other);
    assert_ne!(absent.code, 0);
    assert!(!other.exists());
    fs::copy(&identity, &other).unwrap();
    fs::write(&other, "SUAAAA\n").unwrap();
    assert!(with(&other).exits(4).stderr.contains("UB-N020"));
    let second = KvHosts::new(1);
    let command = second.daemon_command(0).env("UNIBUS_INTERNAL_ID_FILE", second.path(0, "internal.id"));
    drop(Daemon::start(command, &second.path(0, "logs")));
    let stranger = with(&second.path(0, "internal.id"));
    assert_ne!(stranger.code, 0);
    assert!(stranger.stderr.contains("UB-L004"), "{}", stranger.said());
    wait_proven(&daemon);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn records_that_are_imported_while_the_daemon_serves_are_counted_and_the_keyring_acknowledged() {
    let hosts = KvHosts::new(1);
    let identity = hosts.path(0, "internal.id");
    let command = hosts.daemon_command(0).env("UNIBUS_INTERNAL_ID_FILE", &identity);
    let daemon = Daemon::start(command, &hosts.path(0, "logs"));
    let before = detail(&daemon);
    assert_eq!((&before["entries"], &before["keyring_version"]), (&json!(0), &json!(1)));
    let tool = |arguments: &[&str]| {
        Program::ours("unibus-migrate")
            .args(arguments)
            .within(&hosts.path(0, ""))
            .env("UNIBUS_AT_REST_KEY_FILE", hosts.shared("keys/host1.key"))
            .env("UNIBUS_NODESET", hosts.shared("keys/nodeset"))
    };
    // A database of this node with a state key of its own, which the log has to take over.
    let plain = hosts.path(0, "plain.db");
    tool(&["sample", "--users", "300", "--rooms", "20"]).option("--out", &plain).run().ok();
    let plain = format!("sqlite:{}", plain.display());
    let database = format!("sqlcipher:{}", hosts.path(0, "data/control.db").display());
    let database_state = hosts.path(0, "data-state");
    fs::create_dir(hosts.path(0, "data")).unwrap();
    let copy = tool(&["copy", "--yes", "--from", &plain, "--to", &database]);
    copy.env("UNIBUS_STATE_DIR", &database_state).run().ok();
    let kv = format!("kv:nats://127.0.0.1:{}", hosts.nats_port(0));
    let on_kv = |program: Program| {
        program.env("UNIBUS_STATE_DIR", hosts.path(0, "state")).env("UNIBUS_INTERNAL_ID_FILE", &identity)
    };
    let copy = tool(&["copy", "--json", "--yes", "--from", &database, "--to", &kv])
        .option("--from-nodeset", hosts.shared("keys/nodeset"))
        .option("--from-state-dir", &database_state);
    let copied = on_kv(copy).run().ok().json();
    let total = copied["records"].clone();
    assert!(total.as_u64().unwrap() > 320, "{copied}");
    let after = wait::until("the records in the posture", || {
        let detail = detail(&daemon);
        (detail["entries"] == total).then_some(detail)
    });
    assert_eq!((&after["keyring_version"], &after["state_digest"]), (&json!(2), &copied["state_digest"]));
    // Not measured anew: it is told as it is now.
    assert_eq!(after["proven_at"], before["proven_at"]);
    let status = wait::until("the acknowledgement", || {
        let status = on_kv(tool(&["status", "--json", &kv])).run().ok().json();
        (status["log"]["keyring_acknowledged"]["host1"] == 2).then_some(status)
    });
    assert_eq!(status["state_digest"], copied["state_digest"], "{status}");
    let shown = on_kv(tool(&["status", &kv])).run().ok().stdout;
    let line = shown.lines().find(|line| line.contains("keyring of")).unwrap_or_default().to_owned();
    assert!(line.trim_end().ends_with("host1 2"), "{shown}");
    let listed = add(&hosts, "alice", &key()).ok();
    assert!(listed.stdout.contains("alice"));
    wait::until("one more", || {
        (detail(&daemon)["entries"].as_u64() == total.as_u64().map(|count| count + 1)).then_some(())
    });
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_second_daemon_is_refused_whatever_it_shares() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    let same = hosts.refused(hosts.daemon_command(0)).exits(5);
    assert!(same.stderr.contains("UB-D013"), "{}", same.said());
    let other_port = Port::take();
    let other = |program: Program| program.env("UNIBUS_NATS_PORT", other_port.number().to_string());
    let same_folder = other(hosts.daemon_command(0)).env("UNIBUS_STATE_DIR", hosts.path(0, "state2"));
    let same_folder = hosts.refused(same_folder).exits(5);
    assert!(same_folder.stderr.contains("UB-N008"), "{}", same_folder.said());
    // The admin socket taken away: the lock beside the witness holds it.
    fs::remove_file(hosts.path(0, "state/admin.sock")).unwrap();
    let same_state = other(hosts.daemon_command(0)).env("UNIBUS_NATS_STORE", hosts.path(0, "nats2"));
    let same_state = hosts.refused(same_state).exits(5);
    assert!(same_state.stderr.contains("UB-L013"), "{}", same_state.said());
    daemon.get("/healthz").unwrap().has(200);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_taken_port_and_a_missing_or_wrong_nats_server_are_named_and_nothing_is_made() {
    let hosts = KvHosts::new(1);
    let squatter = TcpListener::bind(("127.0.0.1", hosts.nats_port(0))).unwrap();
    let taken = hosts.refused(hosts.daemon_command(0)).exits(1);
    assert!(taken.stderr.contains("UB-N005") && taken.stderr.contains("client port"), "{}", taken.said());
    drop(squatter);
    let with = |program: &str| hosts.refused(hosts.daemon_command(0).env("UNIBUS_NATS_SERVER_BIN", program));
    let missing = with("/nonexistent/nats-server").exits(2);
    assert!(missing.stderr.contains("UB-N001"), "{}", missing.said());
    let other = with("/bin/true").exits(4);
    assert!(other.stderr.contains("UB-N003"), "{}", other.said());
    assert!(!hosts.path(0, "state/witness").exists());
    // All of that was no first start.
    assert_eq!(hosts.serve(0).stop(), Some(0));
}

#[test]
fn the_key_of_another_cluster_opens_nothing_and_changes_nothing() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    add(&hosts, "alice", &key()).ok();
    let digest = detail(&daemon)["state_digest"].clone();
    assert_eq!(daemon.stop(), Some(0));
    let state = Contents::of(&hosts.path(0, "state"));
    let other = KvHosts::new(1);
    for (key, nodeset) in [(true, false), (false, true), (true, true)] {
        let choose = |of_other: bool| if of_other { &other } else { &hosts };
        let command = hosts
            .daemon_command(0)
            .env("UNIBUS_AT_REST_KEY_FILE", choose(key).shared("keys/host1.key"))
            .env("UNIBUS_NODESET", choose(nodeset).shared("keys/nodeset"));
        let run = hosts.refused(command);
        assert!([4, 6].contains(&run.code), "key {key}, nodeset {nodeset}: {}\n{}", run.code, run.said());
        state.assert_unchanged(&hosts.path(0, "state"), "a wrong key");
    }
    let daemon = hosts.serve(0);
    assert_eq!(detail(&daemon)["state_digest"], digest);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_wiped_folder_under_a_witness_is_refused_and_never_an_empty_store() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    let key = key();
    add(&hosts, "alice", &key).ok();
    assert_eq!(daemon.stop(), Some(0));
    let saved = Contents::of(&hosts.path(0, "nats"));
    kv::remove(&hosts.path(0, "nats"));
    for _ in 0..2 {
        let run = hosts.refused(hosts.daemon_command(0)).exits(6);
        assert!(run.stderr.contains("UB-L007"), "{}", run.said());
    }
    assert!(!hosts.path(0, "nats/jetstream/CONTROL/streams").exists(), "something was made");
    kv::remove(&hosts.path(0, "nats"));
    saved.put_back(&hosts.path(0, "nats"));
    let daemon = hosts.serve(0);
    assert_eq!(users(&hosts)[0]["sign_pub"], key.as_str());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_folder_of_yesterday_is_rolled_back() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    let key = key();
    add(&hosts, "alice", &key).ok();
    assert_eq!(daemon.stop(), Some(0));
    let yesterday = Contents::of(&hosts.path(0, "nats"));
    let daemon = hosts.serve(0);
    hosts.command(0, &["user", "revoke", &key]).run().ok();
    assert_eq!(daemon.stop(), Some(0));
    let today = Contents::of(&hosts.path(0, "nats"));
    yesterday.put_back(&hosts.path(0, "nats"));
    let run = hosts.refused(hosts.daemon_command(0)).exits(7);
    assert!(run.stderr.contains("UB-L014"), "{}", run.said());
    today.put_back(&hosts.path(0, "nats"));
    let daemon = hosts.serve(0);
    assert_eq!(users(&hosts)[0]["status"], "revoked");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn without_its_witness_a_node_alone_does_not_serve() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    add(&hosts, "alice", &key()).ok();
    assert_eq!(daemon.stop(), Some(0));
    fs::remove_file(hosts.path(0, "state/witness")).unwrap();
    let run = hosts.refused(hosts.daemon_command(0)).exits(9);
    assert!(run.stderr.contains("UB-L002"), "{}", run.said());
    assert!(!hosts.path(0, "state/witness").exists());
}

#[test]
fn streams_or_blobs_without_a_log_are_no_first_start() {
    let hosts = KvHosts::new(1);
    // As nats-server leaves a stream that it cannot read any more.
    let stream = hosts.path(0, "nats/jetstream/CONTROL/streams/KV_UNIBUS_control");
    fs::create_dir_all(stream.join("msgs")).unwrap();
    fs::write(stream.join("meta.inf"), "damaged").unwrap();
    let run = hosts.refused(hosts.daemon_command(0));
    assert_ne!(run.code, 0, "{}", run.said());
    assert!(["UB-D012", "UB-N013"].iter().any(|code| run.stderr.contains(code)), "{}", run.said());
    assert!(stream.join("meta.inf").exists(), "the stream was deleted");
    // Somebody else's.
    kv::remove(&hosts.path(0, "nats"));
    fs::create_dir_all(hosts.path(0, "nats/jetstream/BUS/streams/OTHER")).unwrap();
    let run = hosts.refused(hosts.daemon_command(0)).exits(6);
    assert!(run.stderr.contains("UB-D012"), "{}", run.said());
    kv::remove(&hosts.path(0, "nats"));
    fs::create_dir_all(hosts.path(0, "blobs/0a")).unwrap();
    let run = hosts.refused(hosts.daemon_command(0)).exits(6);
    assert!(run.stderr.contains("UB-D011"), "{}", run.said());
    // An operator's word.
    let daemon = Daemon::start(hosts.daemon_command(0).args(["--init"]), &hosts.path(0, "logs"));
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(hosts.serve(0).stop(), Some(0));
}

#[test]
fn a_daemon_that_waits_says_so_denies_and_ends_when_told() {
    let hosts = KvHosts::new(1);
    let nowhere = Port::take();
    let url = format!("nats://127.0.0.1:{}", nowhere.number());
    let command = || {
        hosts
            .command(0, &["--nats-url", &url])
            .without("UNIBUS_NATS_PORT")
            .env("UNIBUS_STORE_DIR", hosts.path(0, "blobs"))
    };
    let daemon = Daemon::spawn(command(), &hosts.path(0, "logs"));
    let health = wait::until("no_quorum", || {
        let health = daemon.get("/healthz").ok()?;
        assert_eq!(health.status, 503);
        let health = health.json();
        (health["posture"]["at_rest_detail"]["state"] == "no_quorum").then_some(health)
    });
    assert_eq!((&health["status"], &health["node"]), (&json!("unavailable"), &json!("host1")), "{health}");
    assert_eq!(health["posture"]["at_rest"], false);
    assert!(!health["posture"]["at_rest_detail"]["reason"].as_str().unwrap().is_empty(), "{health}");
    for path in ["/users", "/rooms", "/", "/healthz/more"] {
        daemon.get(path).unwrap().has(503);
    }
    daemon.post("/users", &json!({ "sign_pub": key(), "handle": "x" })).unwrap().has(503);
    let run = hosts.command(0, &["user", "list"]).run();
    assert_eq!(run.code, 1, "{}", run.said());
    wait::until("a word in the log", || daemon.said().contains("waiting: ").then_some(()));
    let asked = Instant::now();
    assert_eq!(daemon.stop(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(!hosts.path(0, "state/admin.sock").exists());
    // Nobody waits for ever.
    let run = hosts.refused(command().args(["--boot-budget", "2s"])).exits(3);
    assert!(run.stderr.contains("UB-L003") && run.stderr.contains("hint: "), "{}", run.said());
}

#[test]
fn nothing_of_a_user_is_readable_with_and_without_the_servers_own_cipher() {
    for cipher in ["off", "aes", "chacha"] {
        let hosts = KvHosts::new(1);
        let command = || hosts.daemon_command(0).args(["--jetstream-cipher", cipher]);
        let daemon = Daemon::start(command(), &hosts.path(0, "logs"));
        let mut canaries = Canaries::new();
        let handle = canaries.word("handle");
        let key = data_encoding::HEXLOWER.encode(&canaries.bytes::<32>("key"));
        add(&hosts, &handle, &key).ok();
        let said = detail(&daemon)["jetstream_cipher"].clone();
        assert_eq!(said, if cipher == "off" { Value::Null } else { json!(cipher) });
        let folder = hosts.path(0, "");
        canaries.assert_absent(&[folder.as_path()]);
        assert_eq!(daemon.stop(), Some(0));
        canaries.assert_absent(&[folder.as_path()]);
        // Another cipher, or none, is not even started on the folder.
        let other = if cipher == "off" { "aes" } else { "off" };
        let streams = Contents::of(&hosts.path(0, "nats/jetstream"));
        let run = hosts.refused(hosts.daemon_command(0).args(["--jetstream-cipher", other]));
        assert!(["UB-N009", "UB-N010"].iter().any(|code| run.stderr.contains(code)), "{}", run.said());
        streams.assert_unchanged(&hosts.path(0, "nats/jetstream"), "another cipher");
        let daemon = Daemon::start(command(), &hosts.path(0, "logs"));
        assert_eq!(users(&hosts)[0]["handle"], handle.as_str());
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[test]
fn blobs_lie_sealed_beside_the_log_and_outlive_a_restart() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    let owner = key();
    add(&hosts, "alice", &owner).ok();
    let mut canaries = Canaries::new();
    let content = canaries.word("blob").repeat(9_000);
    let send = |daemon: &Daemon, method, path: &str, body: &[u8]| {
        let headers = vec![
            ("unibus-key-id".to_owned(), owner.clone()),
            ("content-type".to_owned(), "application/octet-stream".to_owned()),
        ];
        http::send(daemon.port, &http::Request { method, path, headers, body }).unwrap()
    };
    let stored = send(&daemon, "POST", "/blobs", content.as_bytes()).has(201).json();
    let path = format!("/blobs/{}", stored["hash"].as_str().unwrap());
    assert_eq!(send(&daemon, "GET", &path, b"").has(200).body, content.as_bytes());
    assert_eq!(daemon.stop(), Some(0));
    let daemon = hosts.serve(0);
    assert_eq!(send(&daemon, "GET", &path, b"").has(200).body, content.as_bytes());
    wait_proven(&daemon);
    canaries.assert_absent(&[&hosts.path(0, "nats"), &hosts.path(0, "state")]);
    assert!(!hosts.path(0, "blobs").exists(), "a blob went into the folder");
    assert_eq!(daemon.stop(), Some(0));
}
