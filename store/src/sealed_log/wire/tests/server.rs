//! A nats-server of the test's own, and a way to it that can be cut.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::until;

/// A running server; it ends with the test.
pub(in crate::sealed_log) struct Server {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Server {
    /// With JetStream, and nobody has to sign in.
    pub(super) async fn start() -> Self {
        Self::with("jetstream { store_dir: $FOLDER }").await
    }

    /// With this configuration; `$FOLDER` is the server's own.
    pub(in crate::sealed_log) async fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("jetstream");
        let config = config.replace("$FOLDER", &format!("{:?}", store.to_str().unwrap()));
        let mut file = File::create(folder.path().join("server.conf")).unwrap();
        file.write_all(config.as_bytes()).unwrap();
        let child = spawn(folder.path(), "-1");
        let mut server = Self { child, folder, port: 0 };
        server.port = server.ready().await;
        server
    }

    pub(in crate::sealed_log) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends it as a crash would, and starts it again at the same port.
    pub(super) async fn crash_and_restart(&mut self) {
        self.kill();
        self.restart().await;
    }

    /// Starts one that was killed.
    pub(super) async fn restart(&mut self) {
        self.child = spawn(self.folder.path(), &self.port.to_string());
        self.ready().await;
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Holds it: it neither reads nor answers, and its connections stay.
    pub(super) async fn hold(&self) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/stat", self.child.id());
        until("the server to stand still", async || {
            fs::read_to_string(&status)
                .is_ok_and(|status| status.rsplit(") ").next().unwrap_or_default().starts_with('T'))
        })
        .await;
    }

    pub(super) fn release(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it listens, and gives its port.
    async fn ready(&self) -> u16 {
        let ports = self.folder.path().join(format!("nats-server_{}.ports", self.child.id()));
        until("the server's ports", async || port(&ports).is_some()).await;
        port(&ports).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("nats-server {} may be left", self.child.id());
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
    }
}

fn spawn(folder: &Path, port: &str) -> Child {
    let binary = std::env::var_os("NATS_SERVER_BIN").map(PathBuf::from);
    let binary = binary.expect("$NATS_SERVER_BIN is not set: run `cargo xtask test`");
    let mut command = Command::new(binary);
    command.args(["-a", "127.0.0.1", "-p", port]);
    command.arg("-c").arg(folder.join("server.conf")).arg("--ports_file_dir").arg(folder);
    command.arg("-l").arg(folder.join("log"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn port(ports: &Path) -> Option<u16> {
    let ports: Value = serde_json::from_slice(&fs::read(ports).ok()?).ok()?;
    ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// A way to a server on which what one side says can be made to vanish.
pub(super) struct Way {
    port: u16,
    answers_vanish: Arc<AtomicBool>,
}

impl Way {
    pub(super) async fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, target) = (listener.local_addr().unwrap().port(), server.port);
        let answers_vanish = Arc::new(AtomicBool::new(false));
        let vanish = Arc::clone(&answers_vanish);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(carry(from_client, to_server, Arc::default()));
                tokio::spawn(carry(from_server, to_client, Arc::clone(&vanish)));
            }
        });
        Self { port, answers_vanish }
    }

    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Whether the server's answers get lost from now on.
    pub(super) fn lose_answers(&self, lose: bool) {
        self.answers_vanish.store(lose, Ordering::SeqCst);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, vanish: Arc<AtomicBool>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !vanish.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// A server that only says who it is.
pub(super) async fn server_of_version(version: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let info = format!("INFO {{\"version\":\"{version}\",\"max_payload\":1048576,\"headers\":true}}\r\n");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(info.as_bytes()).await.unwrap();
        let mut buffer = vec![0; 4096];
        while let Ok(1..) = stream.read(&mut buffer).await {
            stream.write_all(b"PONG\r\n").await.unwrap();
        }
    });
    url
}
