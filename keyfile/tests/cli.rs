//! `unibus-key`, as a person or a script runs it.

#![cfg(test)]

#[path = "cli/inspect.rs"]
mod inspect;

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use unibus_keyfile::{
    id::{ClusterId, Lineage, UnixTime},
    keyring::Keyring,
    node_key::NodeKeyFile,
    nodeset::Nodeset,
    operator_key::OperatorKey,
    witness::{Witness, WitnessSealer},
};

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A cluster `a`, `b` in the folder `keys`.
    fn with_cluster() -> Self {
        let desk = Self::new();
        desk.ok(&["init", "--out", "keys", "--node", "a", "--node", "b"]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run_with(&self, arguments: &[&str], stdin: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_unibus-key"))
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses does not read it.
        drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
        let output = child.wait_with_output().unwrap();
        Said {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, "")
    }

    fn ok(&self, arguments: &[&str]) -> Said {
        let said = self.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.stdout, said.stderr);
        said
    }

    fn refused(&self, arguments: &[&str], exit: i32, code: &str) -> Said {
        let said = self.run(arguments);
        assert_eq!(said.code, exit, "{arguments:?}: {}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(&format!("[{code}]")), "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains("error: ") && said.stderr.contains("\nhint: "), "{}", said.stderr);
        assert!(said.stdout.is_empty(), "an error says nothing on stdout: {}", said.stdout);
        said
    }

    /// Runs at a pseudo-terminal of its own (by `script`) with this answer; gives all that it showed.
    fn at_a_terminal(&self, arguments: &[&str], answer: &str) -> String {
        use std::io::Write;
        let line = format!("{} {}", env!("CARGO_BIN_EXE_unibus-key"), arguments.join(" "));
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`script` of util-linux runs");
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
    }

    fn pin(&self) -> ClusterId {
        *NodeKeyFile::load(&self.path("keys/a.key")).unwrap().cluster()
    }

    fn nodeset(&self) -> Nodeset {
        Nodeset::decode(&std::fs::read(self.path("keys/nodeset")).unwrap(), &self.pin()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.nodeset().nodes().iter().map(|node| node.name.to_string()).collect()
    }

    /// Every file of the folder with its bytes.
    fn everything(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push((path.clone(), std::fs::read(path).unwrap()));
                }
            }
        }
        files.sort();
        files
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

const SIGN: [&str; 5] = ["--operator", "keys/operator.key", "--nodeset", "keys/nodeset", "--yes"];

fn signing<'a>(command: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [command, &SIGN, rest].concat()
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    #[expect(clippy::disallowed_methods, reason = "a test damages files")]
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn init_makes_all_files_with_their_modes_and_shows_no_secret() {
    let desk = Desk::new();
    let said = desk.ok(&["init", "--out", "keys", "--node", "a", "--node", "b"]);
    for (name, wanted) in [("operator.key", 0o600), ("a.key", 0o600), ("b.key", 0o600), ("nodeset", 0o644)] {
        assert_eq!(mode(&desk.path("keys").join(name)), wanted, "{name}");
    }
    assert_eq!(mode(&desk.path("keys")), 0o700);
    assert!(said.stdout.contains(&desk.pin().to_string()), "the pin");
    assert!(said.stdout.contains("offline"), "what to do next");
    for fingerprint in NodeKeyFile::load(&desk.path("keys/a.key")).unwrap().fingerprints() {
        assert!(said.stdout.contains(&fingerprint.to_string()));
    }
    assert!(!said.stdout.contains("-KEY-") && !said.stderr.contains("-KEY-"));
    assert_eq!(desk.names(), ["a", "b"]);
    assert_eq!(std::fs::read_dir(desk.path("keys")).unwrap().count(), 4, "and nothing else");
}

#[test]
fn init_overwrites_nothing_and_leaves_nothing_half_done() {
    let desk = Desk::with_cluster();
    let before = desk.everything();
    desk.refused(&["init", "--out", "keys", "--node", "a"], 2, "UB-K018");
    desk.refused(&["init", "--out", "keys", "--node", "c", "--node", "c"], 2, "UB-K061");
    desk.refused(&["init", "--out", "keys", "--node", "operator"], 2, "UB-K061");
    assert_eq!(desk.everything(), before);
    std::fs::create_dir(desk.path("other")).unwrap();
    std::os::unix::fs::symlink("nowhere", desk.path("other/nodeset")).unwrap();
    desk.refused(&["init", "--out", "other", "--node", "a"], 2, "UB-K018");
    assert_eq!(std::fs::read_dir(desk.path("other")).unwrap().count(), 1, "no key was made");
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    for umask in ["000", "077"] {
        let desk = Desk::new();
        let program = env!("CARGO_BIN_EXE_unibus-key");
        let script = format!("umask {umask} && '{program}' init --out keys --node a");
        let status =
            Command::new("sh").args(["-c", &script]).current_dir(desk.0.path()).output().unwrap().status;
        assert!(status.success());
        assert_eq!(mode(&desk.path("keys/a.key")), 0o600, "umask {umask}");
        assert_eq!(mode(&desk.path("keys/nodeset")), 0o644, "umask {umask}");
    }
}

#[test]
fn the_operator_key_can_be_locked_and_is_opened_from_stdin_and_descriptor() {
    let desk = Desk::new();
    let init = ["init", "--out", "keys", "--node", "a", "--passphrase-stdin"];
    assert_eq!(desk.run_with(&init, "short\n").code, 2);
    assert_eq!(desk.run_with(&init, "").code, 2);
    assert_eq!(desk.run_with(&init, "correct horse\n").code, 0);
    let text = std::fs::read_to_string(desk.path("keys/operator.key")).unwrap();
    assert!(text.contains("UNIBUS-OPERATOR-KEY-LOCKED-1"));
    desk.ok(&["generate", "--out", "c.key", "--name", "c", "--cluster", &desk.pin().to_string()]);
    desk.ok(&["request", "c.key", "--out", "c.request"]);
    let approve = signing(&["approve"], &["c.request"]);
    assert_eq!(desk.run(&approve).code, 6, "no passphrase");
    let approve = [approve, vec!["--passphrase-stdin"]].concat();
    let wrong = desk.run_with(&approve, "wrong horse\n");
    assert!(wrong.code == 6 && wrong.stderr.contains("UB-K019"), "{}", wrong.stderr);
    assert_eq!(desk.run_with(&approve, "correct horse\nmore").code, 0);
    assert_eq!(desk.names(), ["a", "c"]);
    let shown = desk.ok(&["inspect", "--json", "keys/operator.key"]).json();
    assert_eq!((&shown["locked"], &shown["cluster"]), (&Value::Bool(true), &Value::Null));
    let program = env!("CARGO_BIN_EXE_unibus-key");
    let script = format!("'{program}' inspect --json keys/operator.key --passphrase-fd 7 7<phrase");
    write(&desk.path("phrase"), "correct horse\n");
    let output = Command::new("sh").args(["-c", &script]).current_dir(desk.0.path()).output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["cluster"], desk.pin().to_string());
}

#[test]
fn a_node_is_enrolled_by_its_request_only_when_somebody_says_yes() {
    let desk = Desk::with_cluster();
    let pin = desk.pin().to_string();
    desk.ok(&["generate", "--out", "c.key", "--name", "c", "--cluster", &pin]);
    assert_eq!(mode(&desk.path("c.key")), 0o600);
    desk.refused(&["generate", "--out", "c.key", "--name", "c", "--cluster", &pin], 2, "UB-K018");
    let made = desk.ok(&["--json", "request", "c.key", "--out", "c.request"]).json();
    assert!(!std::fs::read_to_string(desk.path("c.request")).unwrap().contains("-KEY-"));
    let before = desk.everything();
    let said = desk.at_a_terminal(&["approve", SIGN[0], SIGN[1], SIGN[2], SIGN[3], "c.request"], "n\n");
    assert!(said.contains(made["fingerprint"].as_str().unwrap()), "shown before it is asked: {said}");
    assert!(said.contains("[y/N]") && said.contains("UB-K060"), "{said}");
    assert_eq!(desk.everything(), before);
    desk.ok(&signing(&["approve"], &["c.request"]));
    let nodeset = desk.nodeset();
    assert_eq!((nodeset.version(), desk.names().join(" ")), (2, "a b c".into()));
    let again = desk.ok(&signing(&["--json", "approve"], &["c.request"])).json();
    assert_eq!(again["requests"][0]["change"], "nothing", "run twice is run once");
    assert_eq!(desk.nodeset().hash(), nodeset.hash());
}

#[test]
fn a_request_of_another_cluster_or_a_damaged_one_is_refused() {
    let (desk, other) = (Desk::with_cluster(), Desk::with_cluster());
    desk.ok(&["generate", "--out", "c.key", "--name", "c", "--cluster", &other.pin().to_string()]);
    desk.ok(&["request", "c.key", "--out", "c.request"]);
    let before = desk.everything();
    desk.refused(&signing(&["approve"], &["c.request"]), 6, "UB-K023");
    assert_eq!(desk.everything(), before);
    let text = std::fs::read_to_string(desk.path("c.request")).unwrap();
    for bad in [text.replacen('A', "B", 1), text[..text.len() / 2].to_owned(), String::new(), "hello".into()]
    {
        write(&desk.path("bad.request"), bad);
        desk.refused(&signing(&["approve"], &["bad.request"]), 4, "UB-K020");
    }
    desk.refused(&signing(&["approve"], &["none.request"]), 2, "UB-K010");
}

#[test]
fn replacing_a_nodes_keys_is_said_and_more_loudly_when_the_old_key_did_not_sign() {
    let desk = Desk::with_cluster();
    desk.ok(&["rotate", "keys/b.key"]);
    desk.ok(&["request", "keys/b.key", "--out", "b.request"]);
    let said = desk.ok(&signing(&["approve"], &["b.request"]));
    assert!(said.stderr.contains("signed by the old key too"), "{}", said.stderr);
    desk.ok(&["generate", "--out", "b.key", "--name", "b", "--cluster", &desk.pin().to_string()]);
    desk.ok(&["request", "b.key", "--out", "b2.request"]);
    let said = desk.ok(&signing(&["approve"], &["b2.request"]));
    assert!(said.stderr.contains("did NOT sign"), "{}", said.stderr);
    assert_eq!(desk.names(), ["a", "b"]);
    desk.refused(&signing(&["approve"], &["b.request", "b2.request"]), 2, "UB-K061");
}

#[test]
fn removing_a_node_says_that_a_new_epoch_is_needed_and_why() {
    let desk = Desk::with_cluster();
    let said = desk.ok(&signing(&["remove"], &["b"]));
    assert!(said.stdout.contains("A new epoch is needed") && said.stdout.contains("rotate epoch"));
    assert_eq!(desk.names(), ["a"]);
    desk.refused(&signing(&["remove"], &["b"]), 2, "UB-K061");
    assert_eq!(mode(&desk.path("keys/nodeset")), 0o644);
}

#[test]
fn an_old_nodeset_that_somebody_put_back_is_not_signed_on_top_of() {
    let desk = Desk::with_cluster();
    let one = std::fs::read(desk.path("keys/nodeset")).unwrap();
    desk.ok(&signing(&["remove"], &["b"]));
    let two = std::fs::read(desk.path("keys/nodeset")).unwrap();
    write(&desk.path("keys/nodeset"), &one);
    let safe = desk.ok(&["recovery", "generate", "--out", "safe.key"]);
    assert!(safe.stdout.contains("offline"));
    desk.refused(&signing(&["recovery", "add"], &["safe.key.pub"]), 7, "UB-K064");
    assert_eq!(std::fs::read(desk.path("keys/nodeset")).unwrap(), one, "left as it was");
    // A second nodeset of the same version, signed on another machine with a copy of the operator key.
    move_file(&desk.path("keys/operator.key.nodeset"), &desk.path("aside"));
    desk.ok(&signing(&["remove"], &["a"]));
    move_file(&desk.path("aside"), &desk.path("keys/operator.key.nodeset"));
    desk.refused(&signing(&["recovery", "add"], &["safe.key.pub"]), 7, "UB-K064");
    write(&desk.path("keys/nodeset"), &two);
    desk.ok(&signing(&["recovery", "add"], &["safe.key.pub"]));
}

/// Moves a file aside.
fn move_file(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    std::fs::remove_file(from).unwrap();
}

#[test]
fn a_recovery_recipient_is_added_once_and_can_be_given_a_name() {
    let desk = Desk::with_cluster();
    desk.ok(&["recovery", "generate", "--out", "safe.key"]);
    assert_eq!((mode(&desk.path("safe.key")), mode(&desk.path("safe.key.pub"))), (0o600, 0o644));
    desk.refused(&["recovery", "generate", "--out", "safe.key"], 2, "UB-K018");
    let add = signing(&["recovery", "add", "--name", "safe"], &["safe.key.pub"]);
    desk.ok(&add);
    desk.ok(&add);
    let nodeset = desk.nodeset();
    assert_eq!(nodeset.version(), 2, "run twice is run once");
    assert_eq!(nodeset.recovery().iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["operator", "safe"]);
    desk.refused(&signing(&["recovery", "add", "--name", "operator"], &["safe.key.pub"]), 2, "UB-K061");
    desk.refused(&signing(&["recovery", "add"], &["safe.key"]), 4, "UB-K020");
}

#[test]
fn rotating_keeps_the_old_key_until_it_is_retired() {
    let desk = Desk::with_cluster();
    let path = desk.path("keys/a.key");
    let old = NodeKeyFile::load(&path).unwrap().fingerprints();
    desk.ok(&["rotate", "keys/a.key"]);
    assert_eq!(mode(&path), 0o600);
    let both = NodeKeyFile::load(&path).unwrap().fingerprints();
    assert_eq!((both.len(), both[1]), (2, old[0]));
    assert!(desk.at_a_terminal(&["retire", "keys/a.key"], "n\n").contains("UB-K060"));
    desk.refused(&["retire", "keys/a.key", "--nodeset", "keys/nodeset"], 2, "UB-K065");
    assert_eq!(NodeKeyFile::load(&path).unwrap().fingerprints(), both);
    desk.ok(&["request", "keys/a.key", "--out", "a.request"]);
    desk.ok(&signing(&["approve"], &["a.request"]));
    desk.ok(&["retire", "keys/a.key", "--nodeset", "keys/nodeset"]);
    assert_eq!(NodeKeyFile::load(&path).unwrap().fingerprints(), [both[0]]);
    assert!(desk.ok(&["retire", "keys/a.key"]).stdout.contains("nothing to retire"));
    for _ in 0..3 {
        desk.ok(&["rotate", "keys/a.key"]);
    }
    desk.refused(&["rotate", "keys/a.key"], 2, "UB-K014");
}

#[test]
fn errors_are_one_json_object_when_asked_for() {
    let desk = Desk::new();
    let said = desk.run(&["--json", "inspect", "none"]);
    let error = &said.json()["error"];
    assert_eq!((&error["code"], &error["exit"]), (&Value::from("UB-K010"), &Value::from(2)));
    assert!(error["message"].as_str().unwrap().contains("none") && error["hint"].is_string());
    assert!(said.stderr.is_empty());
}

#[test]
fn usage_errors_end_with_2_and_help_has_examples() {
    let desk = Desk::new();
    for arguments in [
        &["init"][..],
        &["init", "--out", "x", "--node", "Bad Name"],
        &["generate", "--out", "x", "--name", "a", "--cluster", "ubc1typo"],
        &["approve"],
        &["nothing"],
        &["init", "--out", "x", "--node", "a", "--passphrase", "--passphrase-stdin"],
        &["init", "--out", "x", "--node", "a", "--passphrase=secret"],
    ] {
        assert_eq!(desk.run(arguments).code, 2, "{arguments:?}");
    }
    for command in ["init", "generate", "request", "approve", "remove", "rotate", "retire", "inspect"] {
        assert!(desk.ok(&[command, "--help"]).stdout.contains("Example"), "{command}");
    }
    for command in [["recovery", "generate"], ["recovery", "add"]] {
        assert!(desk.ok(&[command[0], command[1], "--help"]).stdout.contains("Example"), "{command:?}");
    }
    assert!(desk.ok(&["completions", "bash"]).stdout.contains("unibus-key"));
    assert!(OperatorKey::load(&desk.path("x/operator.key"), || None).is_err(), "nothing was made");
}
