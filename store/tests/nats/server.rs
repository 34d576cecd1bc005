//! A nats-server without accounts, for tests that play the stranger.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

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
        let program = std::env::var_os("NATS_SERVER_BIN").expect("run `cargo xtask test`");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config =
            format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{}\" }}\n", store_dir.display());
        let mut child = Command::new(program)
            .args(["-c", "/dev/stdin"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        while !lines.next().expect("the server has ended").unwrap().contains("Server is ready") {}
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
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
