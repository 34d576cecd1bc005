//! Keys are in no argument, environment, log, error or core file of a running daemon.

use std::fs;
use unibus_tests::{Daemon, Host, Program};

/// The key file's own lines: none may be seen anywhere.
fn secrets(host: &Host) -> Vec<String> {
    let text = fs::read_to_string(host.key_file()).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("UNIBUS-NODE-KEY-1"));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert!(!lines.is_empty(), "the key file has another form than was thought");
    lines
}

fn proc(daemon: &Daemon, name: &str) -> Option<Vec<u8>> {
    // Without root a process that is not dumpable does not even let its owner look: as good as clean.
    fs::read(format!("/proc/{}/{name}", daemon.pid())).ok()
}

fn assert_secret(host: &Host, daemon: &Daemon) {
    for secret in secrets(host) {
        let tail = &secret[secret.len() - 40..];
        for name in ["cmdline", "environ", "comm"] {
            let bytes = proc(daemon, name).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains(tail), "{name} holds the key");
        }
        assert!(!daemon.said().contains(tail), "the log holds the key");
    }
}

#[test]
fn no_secret_is_in_arguments_environment_or_logs() {
    let host = Host::with_sample(5, 1);
    let daemon = host.serve();
    assert_secret(&host, &daemon);
}

#[test]
fn a_key_given_by_environment_is_gone_from_it_when_the_daemon_serves() {
    let host = Host::with_sample(5, 1);
    let text = fs::read_to_string(host.key_file()).unwrap();
    let command = Program::ours("membershipd")
        .option("--db", host.path("data/control.db"))
        .option("--store-dir", host.path("data/blobs"))
        .option("--state-dir", host.path("state"))
        .option("--nodeset", host.path("keys/nodeset"))
        .env("UNIBUS_AT_REST_KEY", text);
    let daemon = Daemon::start(command, &host.path("logs"));
    assert_secret(&host, &daemon);
}

#[test]
fn a_daemon_leaves_no_core_and_cannot_be_dumped() {
    let host = Host::with_sample(5, 1);
    let daemon = host.serve();
    let limits = String::from_utf8(proc(&daemon, "limits").unwrap()).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    // What /proc shows of a process that is not dumpable belongs to root, so that its owner cannot look. (Root can; that
    // the flag is set is a test of `unibus-keyfile`.)
    if !rustix::process::getuid().is_root() {
        assert!(proc(&daemon, "environ").is_none(), "the owner can read the daemon's environment");
    }
}

#[test]
fn errors_show_fingerprints_and_never_a_key() {
    let host = Host::with_sample(5, 1);
    let other = Host::new();
    fs::copy(other.key_file(), host.key_file()).unwrap();
    let said = host.verify().run().exits(6).said();
    for secret in secrets(&other) {
        assert!(!said.contains(&secret[20..]), "the error shows the key:\n{said}");
    }
}

#[test]
fn files_with_secrets_are_made_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::with_sample(5, 1);
    for name in ["keys/operator.key", "keys/host1.key", "state/witness"] {
        let mode = fs::metadata(host.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}
