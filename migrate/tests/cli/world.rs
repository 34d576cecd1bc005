//! A folder with keys and stores, and the binary run in it.

use std::collections::BTreeMap;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use unibus_keyfile::id::UnixTime;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Plan;
use unibus_keyfile::operator_key::OperatorKey;
use unibus_store::sqlcipher::{Keys, OpenOptions, SqlcipherStore};

/// A folder with the keys of a cluster under `keys`.
pub(crate) struct World {
    dir: TempDir,
}

/// What a run of the binary gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// The answer of a `--json` run: one object and nothing else.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

pub(crate) fn now() -> UnixTime {
    unibus_migrate::clock::now()
}

fn write_secret(path: &Path, text: &str) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Writes `operator.key`, `NAME.key` for each node and `nodeset`.
fn write_keys(folder: &Path, names: &[&str]) {
    std::fs::create_dir(folder).unwrap();
    let operator = OperatorKey::generate();
    write_secret(&folder.join("operator.key"), &operator.to_text(None).unwrap());
    let mut plan = Plan::first(&operator);
    for name in names {
        let own = NodeKeyFile::generate(name.parse().unwrap(), operator.cluster_id());
        write_secret(&folder.join(format!("{name}.key")), &own.to_text());
        plan = plan.with_node(own.member(now()));
    }
    std::fs::write(folder.join("nodeset"), plan.sign(&operator).unwrap().as_bytes()).unwrap();
}

impl World {
    /// Two nodes, alpha and beta; and the keys of another cluster under `other`.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_keys(&dir.path().join("keys"), &["alpha", "beta"]);
        write_keys(&dir.path().join("other"), &["alpha"]);
        Self { dir }
    }

    /// The same with a plaintext source `old.db`.
    pub(crate) fn with_source(users: u32, rooms: u32) -> Self {
        let world = Self::new();
        world.sample("old.db", users, rooms);
        world
    }

    /// The same with an encrypted copy of it, `data/control.db`, and the nodeset beside it.
    pub(crate) fn with_store(users: u32, rooms: u32) -> Self {
        let world = Self::with_source(users, rooms);
        world
            .run("copy --from sqlite:old.db --to sqlcipher:data/control.db --nodeset keys/nodeset")
            .expect(0);
        world
    }

    /// The same with a snapshot of it, `s.snap`.
    pub(crate) fn with_snapshot(users: u32, rooms: u32) -> Self {
        let world = Self::with_store(users, rooms);
        world.run("snapshot --from sqlcipher:data/control.db --out s.snap").expect(0);
        world
    }

    pub(crate) fn sample(&self, name: &str, users: u32, rooms: u32) {
        self.run(&format!("sample --users {users} --rooms {rooms} --out {name}")).expect(0);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The binary with these words as arguments, and alpha's key.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = self.command_without_key(words);
        command.env("UNIBUS_AT_REST_KEY_FILE", "keys/alpha.key");
        command
    }

    pub(crate) fn command_without_key(&self, words: &str) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("unibus-migrate"));
        command.args(words.split(' ').filter(|word| !word.is_empty())).current_dir(self.dir.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("UNIBUS_") {
                command.env_remove(name);
            }
        }
        command
    }

    pub(crate) fn run(&self, words: &str) -> Run {
        run(self.command(words))
    }

    pub(crate) fn run_without_key(&self, words: &str) -> Run {
        run(self.command_without_key(words))
    }

    /// Starts it and does not wait.
    pub(crate) fn start(&self, words: &str) -> Child {
        self.command(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Every file below, with its mode and bytes.
    pub(crate) fn listing(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut files = BTreeMap::new();
        list(self.dir.path(), &mut files);
        files
    }

    /// Opens the store in this process, as the daemon does.
    pub(crate) fn serve(&self) -> SqlcipherStore {
        let own = NodeKeyFile::load(&self.path("keys/alpha.key")).unwrap();
        SqlcipherStore::open(&OpenOptions::new(
            &self.path("data/control.db"),
            Keys::Node(Arc::new(own)),
            now(),
        ))
        .unwrap()
    }

    /// The store in another folder, under the nodeset that all share.
    pub(crate) fn serve_at(&self, folder: &str) -> SqlcipherStore {
        let own = Keys::Node(Arc::new(NodeKeyFile::load(&self.path("keys/alpha.key")).unwrap()));
        let options = OpenOptions::new(&self.path(folder).join("control.db"), own, now());
        SqlcipherStore::open(&options.nodeset(&self.path("keys/nodeset"))).unwrap()
    }
}

fn list(folder: &Path, files: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            files.insert(path.clone(), (meta.permissions().mode(), Vec::new()));
            list(&path, files);
        } else if meta.is_symlink() {
            files.insert(path.clone(), (0, path.read_link().unwrap().into_os_string().into_encoded_bytes()));
        } else {
            files.insert(path.clone(), (meta.permissions().mode(), std::fs::read(&path).unwrap_or_default()));
        }
    }
}

pub(crate) fn run(mut command: Command) -> Run {
    finished(command.stdin(Stdio::null()).output().unwrap())
}

pub(crate) fn finished(output: std::process::Output) -> Run {
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits for a condition, with a deadline.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "no {what} in 30 s");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}
