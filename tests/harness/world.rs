//! Three daemons with their nats-servers, and users who ask them without a pause.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::http::{self, Answer, Request};
use crate::kv::KvHosts;
use crate::program;
use crate::{Daemon, Program, wait};
use serde_json::{Value, json};

/// Users where nothing else is said.
const ROWS: u64 = 3_000;

/// Users that there are.
pub fn rows() -> u64 {
    std::env::var("UNIBUS_TEST_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROWS)
}

/// Three hosts and their daemons.
#[derive(Debug)]
pub struct World {
    /// Folders, ports and names.
    pub hosts: KvHosts,
    /// One for each host.
    pub daemons: Vec<Daemon>,
    flags: Vec<(&'static str, String)>,
}

impl World {
    /// Three daemons, each proven.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// The same with further variables.
    pub fn with(flags: &[(&'static str, &str)]) -> Self {
        let flags = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let mut world = Self { hosts: KvHosts::new(3), daemons: Vec::new(), flags };
        world.daemons = (0..3).map(|index| world.spawn(index)).collect();
        (0..3).for_each(|index| drop(world.wait_proven(index)));
        world
    }

    pub fn spawn(&self, index: usize) -> Daemon {
        let identity = self.hosts.path(index, "internal.nk");
        let mut program = self.hosts.daemon_command(index).env("UNIBUS_INTERNAL_ID_FILE", identity);
        for (name, value) in &self.flags {
            program = program.env(name, value);
        }
        Daemon::spawn(program, &self.hosts.path(index, "logs"))
    }

    /// Starts a daemon again that was killed or stopped.
    pub fn restart(&mut self, index: usize) {
        self.daemons[index] = self.spawn(index);
    }

    /// Kills a daemon and starts it again.
    pub fn kill_and_restart(&mut self, index: usize) {
        self.daemons.remove(index).kill();
        self.daemons.insert(index, self.spawn(index));
    }

    /// The same with one more variable.
    pub fn kill_and_restart_with(&mut self, index: usize, name: &'static str, value: &str) {
        self.flags.push((name, value.to_owned()));
        self.kill_and_restart(index);
        self.flags.pop();
    }

    pub fn detail(&self, index: usize) -> Value {
        self.daemons[index].posture()["at_rest_detail"].clone()
    }

    pub fn wait_proven(&self, index: usize) -> Value {
        wait::until("the proof", || {
            (self.daemons[index].get("/healthz").ok()?.status == 200).then(|| self.detail(index))
        })
    }

    /// The digest that all nodes have come to.
    pub fn wait_same_digest(&self) -> Value {
        wait::until("the same digest on all nodes", || {
            let all: Vec<_> = (0..3).map(|index| self.wait_proven(index)["state_digest"].clone()).collect();
            all.iter().all(|digest| *digest == all[0]).then(|| all[0].clone())
        })
    }

    fn admin(&self, index: usize, method: &str, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let request = Request { method, path, headers, body };
        http::send_to_socket(&self.hosts.path(index, "state/admin.sock"), &request)
    }

    pub fn get(&self, index: usize, path: &str) -> Answer {
        self.admin(index, "GET", path, b"").unwrap()
    }

    /// Asks a daemon for an eviction.
    pub fn ask(&self, index: usize, operation: &str, key: &str) -> Answer {
        let node = self.hosts.name(index);
        let body = json!({ "node": node, "operation": operation, "key": key }).to_string();
        self.admin(index, "POST", "/jetstream/evict", body.as_bytes()).unwrap()
    }

    /// Waits for the end of an eviction.
    pub fn wait_evicted(&self, index: usize) -> Value {
        wait::until("the eviction", || {
            let progress = self.admin(index, "GET", "/jetstream/evict", b"").ok()?.json();
            let step = progress["step"].as_str()?;
            assert_ne!(step, "failed", "{progress}\n{}", self.daemons[index].said());
            (step == "done").then_some(progress)
        })
    }

    /// Adds a user through a daemon; whether it was taken.
    pub fn add(&self, index: usize, handle: &str) -> Result<String, String> {
        self.add_as(index, handle, &data_encoding::HEXLOWER.encode(&rand::random::<[u8; 32]>()))
    }

    /// The same under a given key.
    pub fn add_as(&self, index: usize, handle: &str, key: &str) -> Result<String, String> {
        let body = json!({ "handle": handle, "sign_pub": key, "role": "member" }).to_string();
        match self.admin(index, "POST", "/users", body.as_bytes()) {
            Ok(answer) if answer.status == 201 => Ok(key.to_owned()),
            Ok(answer) => Err(format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Keys of all users, as a daemon lists them.
    pub fn users(&self, index: usize) -> Vec<String> {
        let listed = self.get(index, "/users").has(200).json();
        let users = listed.as_array().unwrap_or_else(|| panic!("{listed}"));
        users.iter().map(|user| user["sign_pub"].as_str().unwrap().to_owned()).collect()
    }

    /// The tool on one host, in its folder's environment.
    pub fn migrate<'a>(&self, index: usize, words: impl IntoIterator<Item = &'a str>) -> Program {
        self.on_host(index, Program::ours("unibus-migrate").args(words))
    }

    /// A program with the environment of one host.
    pub fn on_host(&self, index: usize, program: Program) -> Program {
        let name = self.hosts.name(index);
        program
            .within(&self.hosts.shared(""))
            .env("UNIBUS_AT_REST_KEY_FILE", self.hosts.shared("keys").join(format!("{name}.key")))
            .env("UNIBUS_NODESET", self.hosts.shared("keys/nodeset"))
            .env("UNIBUS_INTERNAL_ID_FILE", self.hosts.path(index, "internal.nk"))
            .env("UNIBUS_STATE_DIR", self.hosts.path(index, "state"))
    }

    /// The servers as the tool names them on one host.
    pub fn servers(&self, index: usize) -> String {
        format!("nats://127.0.0.1:{}", self.hosts.nats_port(index))
    }

    /// Runs something while users are added and listed without a pause on the nodes of `busy`.
    pub fn under_load<T>(&self, busy: &[usize], act: impl FnOnce() -> T) -> (T, Load) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = busy.iter().map(|index| scope.spawn(|| self.work(*index, &over))).collect();
            // Also when it panics: the workers would go on for ever.
            let ending = End(&over);
            let done = act();
            drop(ending);
            let mut load = Load::default();
            for worker in workers {
                load.add(worker.join().unwrap());
            }
            (done, load)
        })
    }

    fn work(&self, index: usize, over: &AtomicBool) -> Load {
        let mut load = Load::default();
        let mut failing_since = None;
        while !over.load(Ordering::SeqCst) {
            let begun = Instant::now();
            match self.add(index, "somebody") {
                Ok(key) => load.added.push(key),
                Err(why) => load.failed.push(format!("node {index}: {why}")),
            }
            let read = self.admin(index, "GET", "/healthz", b"").map(|answer| answer.status);
            let is_well = matches!(read, Ok(200));
            load.slowest = load.slowest.max(begun.elapsed());
            match (is_well, failing_since) {
                (false, None) => failing_since = Some(begun),
                (true, Some(since)) => {
                    load.silent = load.silent.max(Instant::now() - since);
                    failing_since = None;
                }
                _ => {}
            }
            // As many as a busy day has, and not all that the disk takes.
            std::thread::park_timeout(Duration::from_millis(10));
        }
        load
    }
}

/// Ends the load.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What became of requests.
#[derive(Debug, Default)]
pub struct Load {
    /// Keys of the users that were taken.
    pub added: Vec<String>,
    /// Requests that were not.
    pub failed: Vec<String>,
    /// The longest time for a write and a read.
    pub slowest: Duration,
    /// The longest time without a good health.
    pub silent: Duration,
}

impl Load {
    fn add(&mut self, other: Self) {
        self.added.extend(other.added);
        self.failed.extend(other.failed);
        self.slowest = self.slowest.max(other.slowest);
        self.silent = self.silent.max(other.silent);
    }
}

impl World {
    /// `rotate jetstream` of all nodes, from one host.
    pub fn rotate_all(&self, index: usize, words: &[&str]) -> Program {
        let (store, template) = (format!("kv:{}", self.servers(index)), self.exec());
        self.migrate(index, ["rotate", "jetstream", &store, "--json", "--all", "--exec", &template])
            .args(words)
    }

    /// How a command is run on another host. The others are folders of this one: their commands get their environment
    /// and nothing else.
    pub fn exec(&self) -> String {
        let tools = program::binary("unibus-migrate");
        format!(
            "env 'UNIBUS_STATE_DIR={}/{{node}}/state' 'UNIBUS_AT_REST_KEY_FILE={}/{{node}}.key' \
             'PATH={}:/usr/bin:/bin' sh -c {{command}}",
            self.hosts.shared("").display(),
            self.hosts.shared("keys").display(),
            tools.parent().unwrap().display(),
        )
    }

    /// `rotate node` of all nodes, from one host. Each has a nodeset file of its own, which nobody brings up to date.
    pub fn rotate_nodes(&self, index: usize, words: &[&str]) -> Program {
        let store = format!("kv:{}", self.servers(index));
        let path = program::binary("unibus-migrate");
        let template = format!(
            "env 'UNIBUS_STATE_DIR={0}/{{node}}/state' 'UNIBUS_AT_REST_KEY_FILE={1}/{{node}}.key' \
             'UNIBUS_NODESET={0}/{{node}}/nodeset' 'PATH={2}:/usr/bin:/bin' sh -c {{command}}",
            self.hosts.shared("").display(),
            self.hosts.shared("keys").display(),
            path.parent().unwrap().display(),
        );
        let operator = self.hosts.shared("keys/operator.key");
        self.migrate(index, ["rotate", "node", &store, "--json", "--all", "--exec", &template])
            .option("--operator", operator)
            .args(words)
    }

    /// The key file of a host.
    pub fn key_file(&self, index: usize) -> PathBuf {
        self.hosts.shared("keys").join(format!("{}.key", self.hosts.name(index)))
    }

    /// Gives each host the nodeset as it is now, as a file of its own.
    pub fn spread_nodeset(&self) {
        for index in 0..3 {
            std::fs::copy(self.hosts.shared("keys/nodeset"), self.hosts.path(index, "nodeset")).unwrap();
        }
    }
}
