//! What the tests of this crate share.
#![allow(dead_code, reason = "each test uses some of it")]

use std::path::PathBuf;
use std::time::Duration;

use unibus_nats::config::{ServerConfig, Sync};
use unibus_nats::guard::GuardCommand;
use unibus_nats::process::Launch;
use unibus_nats::{InternalIdentity, version};

/// The real nats-server.
pub(crate) fn nats_server() -> PathBuf {
    let chosen = std::env::var_os("NATS_SERVER_BIN").expect("no nats-server: run `cargo xtask test`");
    version::find(Some(PathBuf::from(chosen).as_path())).unwrap()
}

/// The guard, as cargo built it.
pub(crate) fn guard() -> GuardCommand {
    GuardCommand::new(env!("CARGO_BIN_EXE_unibus-exec-guard"), [""; 0])
}

/// A folder, ports and identities for one server.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) client_port: u16,
    pub(crate) cluster_port: u16,
    pub(crate) control: InternalIdentity,
    pub(crate) system: InternalIdentity,
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
        }
    }

    pub(crate) fn store_dir(&self) -> PathBuf {
        self.folder.path().join("js")
    }

    pub(crate) fn config(&self) -> ServerConfig {
        ServerConfig {
            server_name: "n0".parse().unwrap(),
            bind: [127, 0, 0, 1].into(),
            client_port: self.client_port,
            client_tls: None,
            monitor_port: None,
            cluster: None,
            store_dir: self.store_dir(),
            sync: Sync::Every(Duration::from_secs(10)),
            jetstream_cipher: None,
            control_identity: self.control.public().clone(),
            system_identity: self.system.public().clone(),
            extra_users: Vec::new(),
        }
    }

    pub(crate) fn launch(&self) -> Launch {
        Launch {
            program: nats_server(),
            guard: guard(),
            config: self.config(),
            raw_log: Some(self.folder.path().join("log")),
        }
    }
}
