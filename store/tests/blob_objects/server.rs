//! A nats-server with JetStream for one test, in a folder of its own, on a free port of this host.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

pub(crate) struct Server {
    folder: TempDir,
    child: Child,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&["-js"])
    }

    /// Somebody else may answer in its place.
    pub(crate) fn without_jetstream() -> Self {
        Self::with(&[])
    }

    fn with(more: &[&str]) -> Self {
        let binary = std::env::var_os("NATS_SERVER_BIN").expect("no nats-server: run `cargo xtask test`");
        let folder = TempDir::new().unwrap();
        let mut child = Command::new(PathBuf::from(binary))
            .args(["-a", "127.0.0.1", "-p", "-1", "-sd"])
            .arg(folder.path())
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut url = String::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("Listening for client connections on ") {
                url = format!("nats://{address}");
            }
            if line.ends_with("Server is ready") {
                break;
            }
        }
        // The rest is read and forgotten: a full pipe would stop the server.
        std::thread::spawn(move || lines.for_each(drop));
        assert!(!url.is_empty(), "nats-server did not get ready");
        Self { folder, child, url }
    }

    /// What the server keeps.
    pub(crate) fn store(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn stop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
