//! One host as an operator sets it up: keys, data folder, state folder, in a scratch folder.

use crate::{Contents, Daemon, Program, Run, Scratch};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A host: `keys/`, `data/`, `state/` and `logs/` in a scratch folder.
#[derive(Debug)]
pub struct Host {
    scratch: Scratch,
    /// The name of its node.
    pub name: String,
}

impl Host {
    /// Keys for a host of that name, and nothing else.
    ///
    /// # Panics
    /// When the keys cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let host = Self { scratch: Scratch::new(), name: "host1".to_owned() };
        let init = Program::ours("unibus-key").args(["init", "--node", &host.name]);
        init.option("--out", host.path("keys")).run().ok();
        fs::create_dir(host.path("data")).unwrap();
        host
    }

    /// A host that serves a copy of a sample with that many users and rooms.
    ///
    /// # Panics
    /// When a step fails.
    #[must_use]
    pub fn with_sample(users: u64, rooms: u64) -> Self {
        let host = Self::new();
        host.sample(users, rooms);
        host.copy().run().ok();
        fs::remove_file(host.path("plain.db")).unwrap();
        host
    }

    /// A path in the host's scratch folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The node's key file.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.path("keys").join(format!("{}.key", self.name))
    }

    /// The URL of the encrypted store.
    #[must_use]
    pub fn store(&self) -> String {
        format!("sqlcipher:{}", self.path("data/control.db").display())
    }

    /// Writes a plaintext database to `plain.db`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn sample(&self, users: u64, rooms: u64) {
        let sample = Program::ours("unibus-migrate").args(["sample"]).option("--users", users.to_string());
        sample.option("--rooms", rooms.to_string()).option("--out", self.path("plain.db")).run().ok();
    }

    /// The tool, with the host's keys.
    #[must_use]
    pub fn migrate<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Program {
        self.keyed(Program::ours("unibus-migrate").args(arguments)).within(self.scratch.path())
    }

    /// The tool, without any key.
    #[must_use]
    pub fn migrate_without_key<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Program {
        Program::ours("unibus-migrate").args(arguments).within(self.scratch.path())
    }

    fn keyed(&self, program: Program) -> Program {
        program
            .env("UNIBUS_AT_REST_KEY_FILE", self.key_file())
            .env("UNIBUS_NODESET", self.path("keys/nodeset"))
            .env("UNIBUS_STATE_DIR", self.path("state"))
    }

    /// `copy` of `plain.db` into the store.
    #[must_use]
    pub fn copy(&self) -> Program {
        let from = format!("sqlite:{}", self.path("plain.db").display());
        self.migrate(["copy", "--from", &from, "--to", &self.store(), "--yes"])
    }

    /// `snapshot` of the store into that file.
    #[must_use]
    pub fn snapshot(&self, file: &str) -> Program {
        self.migrate(["snapshot", "--from", &self.store()]).option("--out", self.path(file))
    }

    /// `restore` of that file into the store, with the operator key.
    #[must_use]
    pub fn restore(&self, file: &str) -> Program {
        let restore =
            self.migrate(["restore", "--to", &self.store(), "--yes"]).option("--in", self.path(file));
        restore.option("--operator", self.path("keys/operator.key"))
    }

    /// `audit` of these folders for the values of the store.
    #[must_use]
    pub fn audit(&self, folders: &[&str]) -> Program {
        let audit = self.migrate(["audit", &self.store()]);
        folders.iter().fold(audit, |audit, folder| audit.option("--data-dir", self.path(folder)))
    }

    /// Loses the data and the state folder, as a broken disk would.
    ///
    /// # Panics
    /// When they cannot be removed.
    pub fn lose_disk(&self) {
        for name in ["data", "state"] {
            if self.path(name).exists() {
                fs::remove_dir_all(self.path(name)).unwrap();
            }
        }
        fs::create_dir(self.path("data")).unwrap();
    }

    /// `verify` of the store.
    #[must_use]
    pub fn verify(&self) -> Program {
        self.migrate(["verify", &self.store()])
    }

    /// `status --json` of the store.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        self.migrate(["status", "--json", &self.store()]).run().ok().json()
    }

    /// The daemon's command, with the host's keys and folders.
    #[must_use]
    pub fn daemon_command(&self) -> Program {
        self.keyed(Program::ours("membershipd"))
            .option("--db", self.path("data/control.db"))
            .option("--store-dir", self.path("data/blobs"))
            .within(self.scratch.path())
    }

    /// Starts the daemon and waits until its posture is proven.
    #[must_use]
    pub fn serve(&self) -> Daemon {
        Daemon::start(self.daemon_command(), &self.path("logs"))
    }

    /// Starts the daemon and waits until it answers; none if it refuses instead.
    #[must_use]
    pub fn serve_unless_refused(&self) -> Option<Daemon> {
        Daemon::start_unless_refused(self.daemon_command(), &self.path("logs")).ok()
    }

    /// Starts the daemon, which is expected to refuse, and gives its end.
    #[must_use]
    pub fn serve_in_vain(&self) -> Run {
        self.refused(self.daemon_command())
    }

    /// Runs a daemon's command that is expected to refuse; one that serves instead is killed.
    #[must_use]
    pub fn refused(&self, command: Program) -> Run {
        let port = crate::http::free_port().to_string();
        command.env("UNIBUS_HTTP_PORT", port).run_and_kill_after(Some(Duration::from_secs(30)))
    }

    /// What a thief or a crash could change: the data and the state folder.
    #[must_use]
    pub fn disk(&self) -> [Contents; 2] {
        let of = |name: &str| {
            fs::create_dir_all(self.path(name)).unwrap();
            Contents::of(&self.path(name))
        };
        [of("data"), of("state")]
    }

    /// Puts both folders back.
    pub fn put_back(&self, disk: &[Contents; 2]) {
        disk[0].put_back(&self.path("data"));
        disk[1].put_back(&self.path("state"));
    }

    /// Asserts that neither folder has changed since.
    ///
    /// # Panics
    /// Naming each difference.
    #[track_caller]
    pub fn assert_disk_unchanged(&self, before: &[Contents; 2], after: &str) {
        before[0].assert_unchanged(&self.path("data"), after);
        before[1].assert_unchanged(&self.path("state"), after);
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}
