//! One real nats-server of a [`crate::Cluster`], on a folder of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use unibus_nats::config::{
    Account, Cipher, ClusterConfig, ExtraUser, Nkey, Password, Route, ServerConfig, ServerKey, Sync, TlsFiles,
};
use unibus_nats::folder::Folder;
use unibus_nats::guard::GuardCommand;
use unibus_nats::process::{Launch, Process, Signal};
use unibus_nats::{InternalIdentity, NatsError};

use crate::folder::Contents;
use crate::http::{self, Request};
use crate::ports::Port;
use crate::program::binary;
use crate::proxy::Proxy;
use crate::wait::DEADLINE;

/// The real nats-server that `cargo xtask test` brings.
///
/// # Panics
/// Without it.
#[must_use]
pub fn nats_server() -> PathBuf {
    let chosen = std::env::var_os("NATS_SERVER_BIN").expect("no nats-server: run `cargo xtask test`");
    unibus_nats::version::find(Some(Path::new(&chosen))).unwrap()
}

/// The guard that ties a nats-server to this process.
#[must_use]
pub fn guard() -> GuardCommand {
    GuardCommand::new(binary("unibus-exec-guard"), [""; 0])
}

/// What the servers of one cluster have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) sync: Sync,
    pub(crate) cipher: Option<Cipher>,
    pub(crate) raw_control: Nkey,
    pub(crate) raw_system: Nkey,
    pub(crate) password: String,
    pub(crate) is_cluster: bool,
}

/// A network namespace that a server is in.
#[derive(Debug)]
struct Place {
    guard: GuardCommand,
    _proxies: [Proxy; 2],
}

/// One server.
#[derive(Debug)]
pub struct Node {
    process: Option<(Process, Folder)>,
    name: String,
    folder: PathBuf,
    client: Port,
    monitor: Port,
    cluster: Port,
    /// Told to other servers, and nobody listens there: so the only routes are those that are given.
    nowhere: Option<Port>,
    routes: Vec<Route>,
    place: Option<Place>,
    server_key: [u8; 32],
    client_tls: Option<TlsFiles>,
    control: InternalIdentity,
    system: InternalIdentity,
}

impl Node {
    pub(crate) fn new(index: usize, folder: PathBuf, through_proxies: bool) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        Self {
            process: None,
            name: format!("n{index}"),
            folder,
            client: Port::take(),
            monitor: Port::take(),
            cluster: Port::take(),
            nowhere: through_proxies.then(Port::take),
            routes: Vec::new(),
            place: None,
            server_key: rand::random(),
            client_tls: None,
            control: InternalIdentity::ephemeral().unwrap(),
            system: InternalIdentity::ephemeral().unwrap(),
        }
    }

    pub(crate) const fn cluster_port(&self) -> u16 {
        self.cluster.number()
    }

    /// Puts it into a network namespace; what is for its clients and for the harness goes in through proxies.
    pub(crate) fn put_into(&mut self, name: &str, guard: GuardCommand) {
        let proxies = [&self.client, &self.monitor]
            .map(|port| Proxy::start_into(Some(name.to_owned()), port.number(), port.number()));
        self.place = Some(Place { guard, _proxies: proxies });
    }

    pub(crate) fn set_routes(&mut self, routes: Vec<Route>) {
        self.routes = routes;
    }

    /// Its server name: `n0`, `n1`, `n2`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.client.number())
    }

    /// Its client port.
    #[must_use]
    pub const fn client_port(&self) -> u16 {
        self.client.number()
    }

    /// The seed of its daemon: the only user of the control account on this server, but for the tests' own.
    #[must_use]
    pub fn control_seed(&self) -> &str {
        self.control.expose_seed()
    }

    /// The seed of its daemon in the system account.
    #[must_use]
    pub fn system_seed(&self) -> &str {
        self.system.expose_seed()
    }

    /// Its folder of JetStream.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.folder.join("js")
    }

    /// Its key for nats-server's own encryption, used when the cluster has a cipher.
    #[must_use]
    pub const fn server_key(&self) -> &[u8; 32] {
        &self.server_key
    }

    /// Its whole log so far, as it wrote it.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|(process, _)| process.pid())
    }

    /// Whether it was started and not ended by a call here.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Sends its process a signal.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it does not run").0.signal(signal);
    }

    fn config(&self, common: &Common) -> ServerConfig {
        let cluster = common.is_cluster.then(|| ClusterConfig {
            name: "unibus-test".parse().unwrap(),
            port: self.cluster.number(),
            advertise: self.nowhere.as_ref().map(|port| local(port.number()).parse().unwrap()),
            routes: self.routes.clone(),
            user: "route".parse().unwrap(),
            password: Password::new(common.password.clone().into()).unwrap(),
            tls: None,
        });
        let extra = |account, nkey: &Nkey| ExtraUser { account, nkey: nkey.clone(), subjects: None };
        ServerConfig {
            server_name: self.name.parse().unwrap(),
            // In a namespace of its own all addresses are its own.
            bind: if self.place.is_some() { [0, 0, 0, 0] } else { [127, 0, 0, 1] }.into(),
            client_port: self.client.number(),
            client_tls: self.client_tls.clone(),
            monitor_port: Some(self.monitor.number()),
            cluster,
            store_dir: self.store_dir(),
            sync: common.sync,
            jetstream_cipher: common
                .cipher
                .map(|cipher| (cipher, ServerKey::from_bytes(&self.server_key).unwrap())),
            control_identity: self.control.public().clone(),
            system_identity: self.system.public().clone(),
            extra_users: vec![
                extra(Account::Control, &common.raw_control),
                extra(Account::System, &common.raw_system),
            ],
        }
    }

    pub(crate) fn start(&mut self, common: &Common) -> Result<(), NatsError> {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let config = self.config(common);
        let folder = Folder::take(&config.store_dir)?;
        folder.check_cipher(config.jetstream_cipher.as_ref())?;
        let raw_log = Some(self.folder.join("log"));
        let guard = self.place.as_ref().map_or_else(guard, |place| place.guard.clone());
        let launch = Launch { program: nats_server(), guard, config, raw_log };
        let process = Process::start(&launch, &folder)?;
        self.process = Some((process, folder));
        Ok(())
    }

    pub(crate) fn wait_listening(&mut self) -> Result<(), NatsError> {
        let (process, _) = self.process.as_mut().expect("it does not run");
        process.wait_ready(DEADLINE)
    }

    pub(crate) fn end(&mut self, signal: Signal) {
        let Some((mut process, folder)) = self.process.take() else { return };
        // One that was paused gets no other signal than a kill.
        process.signal(signal);
        process.signal(Signal::Continue);
        if process.wait_end(DEADLINE).is_none() {
            process.signal(Signal::Kill);
            assert!(process.wait_end(DEADLINE).is_some(), "{} does not die", self.name);
            assert!(std::thread::panicking(), "{} did not end in {DEADLINE:?}", self.name);
        }
        drop(folder);
    }

    pub(crate) fn set_server_key(&mut self, key: [u8; 32]) {
        assert!(self.process.is_none(), "{} runs", self.name);
        self.server_key = key;
    }

    pub(crate) fn set_client_tls(&mut self, files: Option<TlsFiles>) {
        assert!(self.process.is_none(), "{} runs", self.name);
        self.client_tls = files;
    }

    pub(crate) fn wipe(&self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        let _ = std::fs::remove_dir_all(self.store_dir());
    }

    pub(crate) fn put_back(&self, saved: &Contents) {
        assert!(self.process.is_none(), "{} runs", self.name);
        saved.put_back(&self.store_dir());
    }

    /// A monitoring page, as JSON; `None` when it does not answer with 200.
    #[must_use]
    pub fn monitor(&self, path: &str) -> Option<Value> {
        let request = Request { method: "GET", path, headers: Vec::new(), body: b"" };
        let answer = http::send(self.monitor.number(), &request).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Whether it says that it is healthy, with all its streams current.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.monitor("/healthz").is_some()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((process, _)) = &mut self.process {
            process.signal(Signal::Kill);
            let _ = process.wait_end(Duration::from_secs(10));
        }
    }
}

pub(crate) fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
