//! What the tests of this crate share.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use unibus_nats::config::{Cipher, ClusterConfig, Password, ServerConfig, ServerKey, Sync};
use unibus_nats::guard::GuardCommand;
use unibus_nats::process::Launch;
use unibus_nats::supervisor::{Options, Supervisor};
use unibus_nats::{InternalIdentity, NatsError, version};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const KEY: [u8; 32] = *b"a server-side key of thirty-two!";
pub(crate) const PASSWORD: &str = "route-password-%&4711";

/// The real nats-server.
pub(crate) fn nats_server() -> PathBuf {
    let chosen = std::env::var_os("NATS_SERVER_BIN").expect("no nats-server: run `cargo xtask test`");
    version::find(Some(Path::new(&chosen))).unwrap()
}

/// The guard, as cargo built it.
pub(crate) fn guard() -> GuardCommand {
    GuardCommand::new(env!("CARGO_BIN_EXE_unibus-exec-guard"), [""; 0])
}

/// Asks until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Whether a process lives; one that ended and was not reaped does not.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// A folder, ports and identities for one server.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) client_port: u16,
    pub(crate) cluster_port: u16,
    pub(crate) control: InternalIdentity,
    pub(crate) system: InternalIdentity,
    pub(crate) program: PathBuf,
    pub(crate) cipher: Option<(Cipher, [u8; 32])>,
    pub(crate) in_cluster: bool,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            client_port: free_port(),
            cluster_port: free_port(),
            control: InternalIdentity::ephemeral().unwrap(),
            system: InternalIdentity::ephemeral().unwrap(),
            program: nats_server(),
            cipher: None,
            in_cluster: false,
        }
    }

    pub(crate) fn with_key(mut self, cipher: Cipher, key: [u8; 32]) -> Self {
        self.cipher = Some((cipher, key));
        self
    }

    pub(crate) fn store_dir(&self) -> PathBuf {
        self.folder.path().join("js")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn config(&self) -> ServerConfig {
        let cluster = || ClusterConfig {
            name: "c".parse().unwrap(),
            port: self.cluster_port,
            advertise: None,
            routes: vec!["127.0.0.1:1".parse().unwrap()],
            user: "route".parse().unwrap(),
            password: Password::new(PASSWORD.to_owned().into()).unwrap(),
            tls: None,
        };
        ServerConfig {
            server_name: "n0".parse().unwrap(),
            bind: [127, 0, 0, 1].into(),
            client_port: self.client_port,
            client_tls: None,
            monitor_port: None,
            cluster: self.in_cluster.then(cluster),
            store_dir: self.store_dir(),
            sync: Sync::Every(Duration::from_secs(10)),
            jetstream_cipher: self
                .cipher
                .as_ref()
                .map(|(cipher, key)| (*cipher, ServerKey::from_bytes(key).unwrap())),
            control_identity: self.control.public().clone(),
            system_identity: self.system.public().clone(),
            extra_users: Vec::new(),
        }
    }

    pub(crate) fn launch(&self) -> Launch {
        Launch {
            program: self.program.clone(),
            guard: guard(),
            config: self.config(),
            raw_log: Some(self.folder.path().join("log")),
        }
    }

    pub(crate) fn supervise(&self) -> Result<Supervisor, NatsError> {
        Supervisor::start(Options::new(self.launch()))
    }

    /// Replaces nats-server by a script that runs the real one as `$REAL`.
    pub(crate) fn script(&mut self, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.path().join("script");
        let real = nats_server();
        let head = format!("#!/bin/sh\nREAL='{}'\nHERE='{}'\n", real.display(), self.folder.path().display());
        std::fs::write(&path, format!("{head}{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.program = path;
    }

    pub(crate) async fn client(&self) -> async_nats::Client {
        let options = async_nats::ConnectOptions::with_nkey(self.control.expose_seed().to_owned());
        options.connect(format!("127.0.0.1:{}", self.client_port)).await.unwrap()
    }

    /// Makes a stream with one message on a running server.
    pub(crate) fn fill(&self) {
        block_on(async {
            let context = async_nats::jetstream::new(self.client().await);
            let config = async_nats::jetstream::stream::Config {
                name: "S".into(),
                subjects: vec!["S".into()],
                ..Default::default()
            };
            context.create_stream(config).await.unwrap();
            context.publish("S", "marked plaintext".into()).await.unwrap().await.unwrap();
        });
    }

    /// How many messages the stream has on a running server.
    pub(crate) fn messages(&self) -> Option<u64> {
        block_on(async {
            let context = async_nats::jetstream::new(self.client().await);
            context.get_stream("S").await.ok().map(|stream| stream.cached_info().state.messages)
        })
    }

    /// Every file of the store folder and its bytes.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files(&self.store_dir())
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Every file below a folder and its bytes, in order.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.push((path.clone(), Vec::new()));
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap_or_default()));
        }
    }
    found.sort();
    found
}
