//! Hosts of the sealed log as an operator sets them up: each with its keys, folders and ports, and a daemon that
//! starts its own nats-server.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::node::nats_server;
use crate::ports::Port;
use crate::{Daemon, Program, Run, Scratch, wait};

/// Hosts of one cluster, in a scratch folder: `keys/`, and a folder a host with `nats/`, `state/`, `blobs/`, `logs/`.
#[derive(Debug)]
pub struct KvHosts {
    scratch: Scratch,
    hosts: Vec<KvHost>,
}

/// One host.
#[derive(Debug)]
struct KvHost {
    name: String,
    nats: Port,
    cluster: Port,
}

impl KvHosts {
    /// Keys and ports for that many hosts, and nothing else.
    ///
    /// # Panics
    /// When the keys cannot be made.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let names: Vec<_> = (1..=count).map(|number| format!("host{number}")).collect();
        let scratch = Scratch::new();
        let mut init = Program::ours("unibus-key").args(["init"]).option("--out", scratch.join("keys"));
        for name in &names {
            init = init.option("--node", name);
        }
        init.run().ok();
        let host = |name| KvHost { name, nats: Port::take(), cluster: Port::take() };
        let hosts = Self { scratch, hosts: names.into_iter().map(host).collect() };
        for index in 0..count {
            fs::create_dir(hosts.path(index, "")).unwrap();
        }
        fs::write(hosts.scratch.join("route.secret"), "rrrrrrrrrrrrrrrr\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(hosts.scratch.join("route.secret"), mode).unwrap();
        hosts
    }

    /// A path in a host's folder.
    #[must_use]
    pub fn path(&self, index: usize, name: &str) -> PathBuf {
        self.scratch.join(&self.hosts[index].name).join(name)
    }

    /// A path in the folder that all share.
    #[must_use]
    pub fn shared(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The port of a host's nats-server.
    #[must_use]
    pub fn nats_port(&self, index: usize) -> u16 {
        self.hosts[index].nats.number()
    }

    /// The name of a host's node.
    #[must_use]
    pub fn name(&self, index: usize) -> &str {
        &self.hosts[index].name
    }

    /// The environment of a host, with the keys of another one where that is asked for.
    #[must_use]
    pub fn program_as(&self, index: usize, key_of: &str) -> Program {
        Program::ours("membershipd")
            .env("UNIBUS_STORE", "kv")
            .env("UNIBUS_AT_REST_KEY_FILE", self.scratch.join("keys").join(format!("{key_of}.key")))
            .env("UNIBUS_NODESET", self.scratch.join("keys/nodeset"))
            .env("UNIBUS_STATE_DIR", self.path(index, "state"))
            .env("UNIBUS_NATS_PORT", self.nats_port(index).to_string())
            .within(self.scratch.path())
    }

    /// A command of a host that is no daemon, e.g. `user list`.
    #[must_use]
    pub fn command(&self, index: usize, arguments: &[&str]) -> Program {
        self.program_as(index, self.name(index)).args(arguments)
    }

    /// The daemon's command. Of several hosts, each is a node of the cluster.
    #[must_use]
    pub fn daemon_command(&self, index: usize) -> Program {
        self.as_daemon(index, self.program_as(index, self.name(index)))
    }

    /// Makes a command a daemon's, with nats-server and cluster flags.
    #[must_use]
    pub fn as_daemon(&self, index: usize, program: Program) -> Program {
        let mut program = program
            .env("UNIBUS_STORE_DIR", self.path(index, "blobs"))
            .env("UNIBUS_NATS_STORE", self.path(index, "nats"))
            .env("UNIBUS_NATS_SYNC", "2s")
            .env("UNIBUS_NATS_SERVER_BIN", nats_server());
        if self.hosts.len() > 1 {
            let others = self.hosts.iter().filter(|host| host.name != self.name(index));
            let routes: Vec<_> =
                others.map(|host| format!("nats://127.0.0.1:{}", host.cluster.number())).collect();
            program = program
                .env("UNIBUS_BUS_AUTH", "enforce")
                .env("UNIBUS_CLUSTER_NAME", "test")
                .env("UNIBUS_CLUSTER_PORT", self.hosts[index].cluster.number().to_string())
                .env("UNIBUS_ROUTES", routes.join(","))
                .env("UNIBUS_KV_REPLICAS", "3")
                .env("UNIBUS_CLUSTER_USER", "route")
                .env("UNIBUS_CLUSTER_PASS_FILE", self.scratch.join("route.secret"));
        }
        program
    }

    /// Starts a daemon and waits until its posture is proven.
    #[must_use]
    pub fn serve(&self, index: usize) -> Daemon {
        Daemon::start(self.daemon_command(index), &self.path(index, "logs"))
    }

    /// Starts a daemon and does not wait.
    #[must_use]
    pub fn spawn(&self, index: usize) -> Daemon {
        Daemon::spawn(self.daemon_command(index), &self.path(index, "logs"))
    }

    /// Runs a daemon's command that is expected to refuse; one that serves instead is killed.
    #[must_use]
    pub fn refused(&self, command: Program) -> Run {
        let port = Port::take();
        let command = command.env("UNIBUS_HTTP_PORT", port.number().to_string());
        command.run_and_kill_after(Some(Duration::from_secs(40)))
    }
}

/// The process id of a daemon's nats-server, if there is one now.
#[must_use]
pub fn nats_of(daemon: u32) -> Option<u32> {
    let children = |folder: fs::DirEntry| fs::read_to_string(folder.path().join("children")).ok();
    let tasks = fs::read_dir(format!("/proc/{daemon}/task")).ok()?;
    let pids: Vec<u32> = tasks
        .flatten()
        .filter_map(children)
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.into_iter().find(|pid| is_nats(*pid))
}

/// Whether the process is a nats-server that runs.
#[must_use]
pub fn is_nats(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let state = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    name.trim() == "nats-server" && !state.contains("State:\tZ")
}

/// Waits until a daemon has a nats-server other than `before`.
///
/// # Panics
/// When there is none in time.
#[must_use]
pub fn wait_for_nats(daemon: &Daemon, before: Option<u32>) -> u32 {
    wait::until("a nats-server of the daemon", || nats_of(daemon.pid()).filter(|pid| Some(*pid) != before))
}

/// Waits until that nats-server is gone.
///
/// # Panics
/// When it is not in time.
pub fn wait_until_gone(nats: u32) {
    wait::until("the end of nats-server", || (!is_nats(nats)).then_some(()));
}

/// Kills a process at once (signal 9).
///
/// # Panics
/// When it cannot be killed.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends a signal to a process.
///
/// # Panics
/// When it cannot be sent.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Removes a folder with everything in it, if it is there.
///
/// # Panics
/// When it cannot be removed.
pub fn remove(folder: &Path) {
    if folder.exists() {
        fs::remove_dir_all(folder).unwrap();
    }
}
