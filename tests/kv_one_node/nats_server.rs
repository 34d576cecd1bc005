//! Its nats-server is killed, hangs, or cannot be started again.

use super::*;

#[test]
fn a_killed_daemon_leaves_no_nats_server_and_loses_nothing() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    let key = key();
    add(&hosts, "alice", &key).ok();
    let before = detail(&daemon)["state_digest"].clone();
    let nats = kv::wait_for_nats(&daemon, None);
    daemon.kill();
    kv::wait_until_gone(nats);
    let daemon = hosts.serve(0);
    assert_eq!(detail(&daemon)["state_digest"], before);
    assert_eq!(users(&hosts)[0]["sign_pub"], key.as_str());
    let nats = kv::wait_for_nats(&daemon, None);
    assert_eq!(daemon.stop(), Some(0));
    assert!(!kv::is_nats(nats), "nats-server runs on after a stop");
}

#[test]
fn a_killed_nats_server_is_started_again_and_the_daemon_goes_on() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    let key = key();
    add(&hosts, "alice", &key).ok();
    let first = kv::wait_for_nats(&daemon, None);
    kv::kill(first);
    let second = kv::wait_for_nats(&daemon, Some(first));
    assert_ne!(first, second);
    wait_proven(&daemon);
    wait::until("an answer", || (daemon.get("/users").ok()?.status == 200).then_some(()));
    add(&hosts, "bob", &self::key()).ok();
    assert_eq!(users(&hosts).as_array().unwrap().len(), 2);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn while_nats_server_is_away_the_daemon_denies_and_says_why() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    add(&hosts, "alice", &key()).ok();
    // Somebody sits on the port as soon as it is free.
    let (squatter, killed) = wait::until("the port of nats-server", || {
        if let Some(nats) = kv::nats_of(daemon.pid()) {
            kv::kill(nats);
        }
        let port = hosts.nats_port(0);
        (0..200).find_map(|_| TcpListener::bind(("127.0.0.1", port)).ok()).map(|got| (got, Instant::now()))
    });
    let found = wait::until("the posture without a server", || {
        let detail = detail(&daemon);
        (detail["state"] == "no_quorum").then_some(detail)
    });
    // The limit is 5 s; the rest is for a busy machine.
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    let reason = found["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("nats-server") && reason.contains("port"), "{found}");
    daemon.get("/healthz").unwrap().has(503);
    daemon.get("/users").unwrap().has(503);
    let refused = hosts.command(0, &["user", "list"]).run();
    assert_ne!(refused.code, 0, "{}", refused.said());
    drop(squatter);
    wait_proven(&daemon);
    daemon.get("/users").unwrap().has(200);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_nats_server_that_hangs_is_named_killed_and_started_again() {
    let hosts = KvHosts::new(1);
    let daemon = hosts.serve(0);
    add(&hosts, "alice", &key()).ok();
    let first = kv::wait_for_nats(&daemon, None);
    kv::signal(first, Signal::STOP);
    let reason = wait::until("a word in the posture", || {
        let detail = detail(&daemon);
        assert_ne!(detail["state"], "tampered");
        detail["reason"]
            .as_str()
            .filter(|reason| reason.contains("nats-server has not answered"))
            .map(str::to_owned)
    });
    assert!(reason.contains("killed and started again"), "{reason}");
    daemon.get("/healthz").unwrap().has(503);
    daemon.get("/users").unwrap().has(503);
    kv::wait_until_gone(first);
    wait_proven(&daemon);
    let second = kv::wait_for_nats(&daemon, None);
    wait::until("an answer", || (daemon.get("/users").ok()?.status == 200).then_some(()));
    add(&hosts, "bob", &self::key()).ok();
    assert_eq!(users(&hosts).as_array().unwrap().len(), 2);
    assert!(daemon.said().contains("UB-N021"), "{}", daemon.said());
    // And it stays.
    assert_eq!(kv::wait_for_nats(&daemon, None), second);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_nats_server_that_cannot_be_started_again_ends_the_daemon() {
    let hosts = KvHosts::new(1);
    let program = hosts.shared("nats-server");
    fs::copy(unibus_tests::node::nats_server(), &program).unwrap();
    let command = hosts.daemon_command(0).env("UNIBUS_NATS_SERVER_BIN", &program);
    let mut daemon = Daemon::start(command, &hosts.path(0, "logs"));
    fs::remove_file(&program).unwrap();
    kv::kill(kv::wait_for_nats(&daemon, None));
    assert_eq!(daemon.wait(), Some(1));
    assert!(daemon.said().contains("nats-server ended for good"), "{}", daemon.said());
    assert!(daemon.said().contains("[UB-N002]"), "{}", daemon.said());
}
