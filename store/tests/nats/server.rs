//! A nats-server without accounts, for tests that play the stranger.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Time that a server has to be ready.
const STARTS: Duration = Duration::from_secs(60);

/// A running server; killed on drop.
pub(crate) struct Server {
    pub(crate) child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    pub(crate) fn start(store_dir: &Path) -> Self {
        Self::with(&format!("jetstream {{ store_dir: \"{}\" }}\n", store_dir.display()))
    }

    /// With this in its configuration, beside where it listens.
    pub(crate) fn with(config: &str) -> Self {
        Self::within(STARTS, config).expect("the server does not start")
    }

    /// As [`Server::with`]; none if it is not ready in this time.
    pub(crate) fn within(limit: Duration, config: &str) -> Option<Self> {
        let program = std::env::var_os("NATS_SERVER_BIN").expect("run `cargo xtask test`");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!("listen: 127.0.0.1:{port}\n{config}");
        let mut child = Command::new(program)
            .args(["-c", "/dev/stdin"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let server = Self { child, port };
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if lines.any(|line| line.contains("Server is ready")) {
                tell.send(()).ok();
            }
            lines.for_each(drop);
        });
        told.recv_timeout(limit).ok().map(|()| server)
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // It may be gone already.
        kill_process(pid, signal).ok();
    }
}
