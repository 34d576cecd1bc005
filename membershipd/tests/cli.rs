//! The program as an operator runs it: exit codes, what it says, what it leaves on disk.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests are tests: they fail by panicking, and they do to files what an accident would"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

const KEY: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_membershipd"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("UNIBUS_")) {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).args(words).stdin(Stdio::null());
    command
}

/// Exit code, stdout, stderr.
fn run(folder: &Path, words: &[&str]) -> (i32, String, String) {
    finish(command(folder, words))
}

fn finish(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Daemon {
    fn start(folder: &Path, words: &[&str]) -> Self {
        let mut command = command(folder, words);
        command.args(["--http-port", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut daemon = Self { child: command.spawn().unwrap(), address: ([127, 0, 0, 1], 0).into() };
        let mut lines = BufReader::new(daemon.child.stderr.take().unwrap());
        let mut said = String::new();
        while daemon.address.port() == 0 {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended: {said}");
            said.push_str(&line);
            if let Some(rest) = line.split("address=").nth(1) {
                daemon.address = rest.split(' ').next().unwrap().parse().unwrap();
            }
        }
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        daemon
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        (answer[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    fn until_proven(&self) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (status, health) = self.get("/healthz");
            if status == 200 {
                return health;
            }
            assert!(Instant::now() < deadline, "{health}");
            std::thread::yield_now();
        }
    }

    fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// All files below a folder with their bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap_or_default());
            }
        }
    }
    found
}

fn add<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [&["user", "add", "--handle", "marguerite", "--sign-pub", KEY], rest].concat()
}

#[test]
fn dev_starts_on_nothing_is_proven_and_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &["--dev"]);
    let first = daemon.until_proven();
    assert_eq!(first["posture"]["at_rest"], true);
    assert_eq!(run(folder.path(), &add(&["--role", "admin"])).0, 0);
    assert_eq!(daemon.stop(), 0);
    for path in contents(folder.path()).keys() {
        assert!(path.starts_with(folder.path().join("local_files")), "{}", path.display());
    }
    let daemon = Daemon::start(folder.path(), &["--dev"]);
    let again = daemon.until_proven();
    let lineage = |health: &Value| health["posture"]["at_rest_detail"]["lineage"].clone();
    assert_eq!(lineage(&first), lineage(&again));
    assert_eq!(daemon.get("/users").1[0]["sign_pub"], KEY);
    // Killed and not stopped: it starts again all the same.
    daemon.kill();
    let daemon = Daemon::start(folder.path(), &["--dev"]);
    daemon.until_proven();
    assert_eq!(daemon.get("/users").1[0]["sign_pub"], KEY);
}

#[test]
fn user_commands_do_the_same_with_and_without_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    for with_daemon in [true, false] {
        let daemon = with_daemon.then(|| {
            let daemon = Daemon::start(folder.path(), &["--dev"]);
            daemon.until_proven();
            daemon
        });
        // The second is the key of RFC 8032, section 7.1, test 1.
        let second = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let other = if with_daemon { KEY.to_owned() } else { second.to_owned() };
        let words = |rest: &[&str]| -> Vec<String> { rest.iter().map(|word| (*word).to_owned()).collect() };
        let call = |words: Vec<String>| {
            let words: Vec<&str> = std::iter::once("--dev").chain(words.iter().map(String::as_str)).collect();
            run(folder.path(), &words)
        };
        let add = words(&["user", "add", "--handle", "marguerite", "--role", "admin", "--sign-pub", &other]);
        let (code, said, _) = call(add.clone());
        assert_eq!((code, said.as_str()), (0, format!("added {other} marguerite (admin)\n").as_str()));
        let (code, said, error) = call(add);
        assert_eq!((code, said.as_str()), (1, ""));
        assert!(error.contains("already registered (unchanged); revoke it first to replace"), "{error}");
        assert!(error.contains("hint: ") && error.contains("[UB-D008]"), "{error}");
        let (code, said, _) = call(words(&["user", "revoke", &other]));
        assert_eq!((code, said.as_str()), (0, format!("revoked {other} marguerite\n").as_str()));
        let (code, _, error) = call(words(&["user", "revoke", &other]));
        assert_eq!(code, 1);
        assert!(error.contains("no active user has this key") && error.contains("[UB-D009]"), "{error}");
        let (code, said, _) = call(words(&["user", "list", "--json"]));
        assert_eq!(code, 0);
        let listed: Value = serde_json::from_str(&said).unwrap();
        let user = listed.as_array().unwrap().iter().find(|user| user["sign_pub"] == other.as_str()).unwrap();
        assert_eq!((&user["status"], &user["role"]), (&Value::from("revoked"), &Value::from("admin")));
        assert!(user["revoked_at"].is_string());
        let (code, said, _) = call(words(&["user", "list"]));
        assert!(code == 0 && said.starts_with("SIGN_PUB") && said.contains("marguerite"), "{said}");
        if let Some(daemon) = daemon {
            assert_eq!(daemon.stop(), 0);
        }
    }
}

#[test]
fn usage_errors_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        vec!["user", "add", "--handle", "a", "--sign-pub", "12"],
        vec!["user", "add", "--handle", "", "--sign-pub", KEY],
        vec!["user", "add", "--handle", "a", "--sign-pub", KEY, "--role", "root"],
        vec!["user", "revoke", "nonsense"],
        vec!["--store", "etcd"],
        vec!["--nats-port", "1"],
        vec!["--store", "kv", "--nats-url", "nats://10.0.0.1:4222"],
        vec!["--store", "kv", "--nats-url", "nats://10.0.0.1:4222", "user", "list"],
        vec!["--store", "kv", "--cluster-name", "c"],
        vec!["--store", "kv", "--dev", "--kv-replicas", "3"],
        vec!["--bus-auth", "maybe"],
        vec!["--bind", "nowhere"],
        vec!["--at-rest-key", "secret"],
        vec!["--dev", "--bind", "0.0.0.0"],
        vec!["--dev", "--bind", "0.0.0.0", "--bus-auth", "enforce"],
        vec!["--bind", "10.0.0.1", "--bus-auth", "soft"],
    ] {
        let (code, said, error) = run(folder.path(), &words);
        assert_eq!((code, said.as_str()), (2, ""), "{words:?}: {error}");
        assert!(!error.is_empty());
    }
    assert!(contents(folder.path()).is_empty());
}

#[test]
fn without_a_key_nothing_starts_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    for words in [vec![], vec!["user", "list"], add(&[])] {
        let (code, _, error) = run(folder.path(), &words);
        assert_eq!(code, 6, "{error}");
        assert!(error.contains("no node key was given") && error.contains("[UB-K010]"), "{error}");
    }
    let (code, _, error) = run(folder.path(), &["--at-rest-key-file", "absent.key"]);
    assert_eq!(code, 6, "{error}");
    let (code, _, error) = run(folder.path(), &["--at-rest-key-file", "a", "--at-rest-key-command", "cat a"]);
    assert_eq!(code, 2, "{error}");
    assert!(contents(folder.path()).is_empty());
    let (code, said, error) = run(folder.path(), &["user", "list", "--json"]);
    assert_eq!((code, error.as_str()), (6, ""));
    let object: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&object["error"]["code"], &object["error"]["exit"]),
        (&Value::from("UB-K010"), &Value::from(6))
    );
    assert!(object["error"]["message"].is_string() && object["error"]["hint"].is_string());
}

#[test]
fn half_of_what_dev_made_is_refused_and_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &[&["--dev"], add(&[]).as_slice()].concat()).0, 0);
    let whole = contents(folder.path());
    let files = folder.path().join("local_files");
    for (name, codes) in [
        ("keys/dev.key", [6, 6]),
        ("keys/nodeset", [6, 6]),
        ("keys/operator.key", [6, 6]),
        ("control.db", [6, 6]),
        ("control.db.keyring", [6, 6]),
        ("state/witness", [9, 9]),
    ] {
        fs::remove_file(files.join(name)).unwrap();
        let before = contents(folder.path());
        let (code, _, error) = run(folder.path(), &["--dev", "--http-port", "0"]);
        assert!(codes.contains(&code), "{name}: {code} {error}");
        assert!(error.contains("hint: ") && error.contains("[UB-"), "{error}");
        assert_eq!(contents(folder.path()), before, "{name}: something changed");
        fs::write(files.join(name), &whole[&files.join(name)]).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(files.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::remove_dir_all(files.join("keys")).unwrap();
    let (code, _, error) = run(folder.path(), &["--dev", "--http-port", "0"]);
    assert_eq!(code, 6, "{error}");
    assert!(!files.join("keys").exists());
}

#[test]
fn blobs_without_a_database_are_evidence_of_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("local_files/blobs")).unwrap();
    fs::write(folder.path().join("local_files/blobs/0123456789abcdef0123456789abcdef"), b"sealed").unwrap();
    let (code, _, error) = run(folder.path(), &["--dev", "user", "list"]);
    assert_eq!(code, 6, "{error}");
    assert!(error.contains("[UB-D011]"), "{error}");
    assert!(!folder.path().join("local_files/control.db").exists());
}

#[test]
fn second_daemon_and_taken_port_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &["--dev"]);
    daemon.until_proven();
    let (code, _, error) = run(folder.path(), &["--dev", "--http-port", "0"]);
    assert_eq!(code, 5, "{error}");
    let other = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, _, error) = run(other.path(), &["--dev", "--http-port", &port]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("[UB-D002]") && error.contains("another process has the port"), "{error}");
    daemon.until_proven();
}

#[test]
fn folder_that_cannot_be_written_to_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("local_files"), b"a file in the way").unwrap();
    let (code, _, error) = run(folder.path(), &["--dev", "--http-port", "0"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("local_files") && error.contains("[UB-D003]"), "{error}");
}

#[test]
fn selfcheck_needs_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, error) = run(folder.path(), &["selfcheck"]);
    assert_eq!(code, 3, "{error}");
    let daemon = Daemon::start(folder.path(), &["--dev"]);
    daemon.until_proven();
    let (code, said, _) = run(folder.path(), &["selfcheck"]);
    let health: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &health["posture"]["at_rest_detail"]["state"]), (0, &Value::from("proven")));
    assert_eq!(run(folder.path(), &[&["--dev"], add(&[]).as_slice()].concat()).0, 0);
    fs::write(folder.path().join("local_files/state/stray"), "marguerite").unwrap();
    let (code, said, error) = run(folder.path(), &["selfcheck"]);
    assert_eq!(code, 9, "{said} {error}");
    assert!(error.contains("`plaintext`"), "{error}");
}

#[test]
fn socket_of_a_killed_daemon_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(folder.path(), &["--dev"]);
    daemon.until_proven();
    daemon.kill();
    assert!(folder.path().join("local_files/state/admin.sock").exists());
    assert_eq!(run(folder.path(), &["--dev", "user", "list"]).0, 0);
    let daemon = Daemon::start(folder.path(), &["--dev"]);
    daemon.until_proven();
    assert_eq!(run(folder.path(), &["user", "list"]).0, 0);
}

#[test]
fn damaged_database_is_refused_with_its_exit_code_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &[&["--dev"], add(&[]).as_slice()].concat()).0, 0);
    let path = folder.path().join("local_files/control.db");
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[5000] ^= 1;
    fs::write(&path, &bad).unwrap();
    let before = contents(folder.path());
    let (code, _, error) = run(folder.path(), &["--dev", "--http-port", "0"]);
    assert_eq!(code, 4, "{error}");
    assert_eq!(contents(folder.path()), before);
    fs::write(&path, &good).unwrap();
    assert_eq!(run(folder.path(), &["--dev", "user", "list"]).0, 0);
}

#[test]
fn key_may_come_from_environment_and_command() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &[&["--dev"], add(&[]).as_slice()].concat()).0, 0);
    let keys = folder.path().join("local_files/keys");
    let text = fs::read_to_string(keys.join("dev.key")).unwrap();
    let list = |change: &dyn Fn(&mut Command)| {
        let mut command = command(folder.path(), &["user", "list", "--nodeset", "local_files/keys/nodeset"]);
        change(&mut command);
        finish(command)
    };
    let (code, said, error) = list(&|command| {
        command.env("UNIBUS_AT_REST_KEY", &text);
    });
    assert!(code == 0 && said.contains(KEY), "{error}");
    let (code, said, error) = list(&|command| {
        command.args(["--at-rest-key-command", "cat local_files/keys/dev.key"]);
    });
    assert!(code == 0 && said.contains(KEY), "{error}");
    fs::copy(keys.join("dev.key"), keys.join("at-rest.key")).unwrap();
    let (code, said, error) = list(&|command| {
        command.env("CREDENTIALS_DIRECTORY", &keys);
    });
    assert!(code == 0 && said.contains(KEY), "{error}");
    let (code, _, error) = list(&|command| {
        command.env("UNIBUS_AT_REST_KEY", &text).args(["--at-rest-key-command", "cat x"]);
    });
    assert_eq!(code, 2, "{error}");
    let (code, _, error) = list(&|command| {
        command.env("UNIBUS_AT_REST_KEY", "nonsense");
    });
    assert_eq!(code, 4, "{error}");
    assert!(!error.contains("nonsense"), "an error repeats the key: {error}");
}

#[test]
fn completions_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let (code, said, _) = run(folder.path(), &["completions", shell]);
        assert!(code == 0 && said.contains("at-rest-key-file"));
    }
}

#[test]
fn json_log_is_json_and_says_no_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), &["--dev", "--log-format", "json", "--http-port", "0"]);
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let mut child = command.env("RUST_LOG", "trace").stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while run(folder.path(), &add(&[])).0 != 0 {
        assert!(Instant::now() < deadline);
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.lines().count() >= 3, "{log}");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        assert!(line["level"].is_string() && line["message"].is_string());
    }
    assert!(!log.contains("marguerite") && !log.contains(KEY) && log.contains("user added"), "{log}");
}
