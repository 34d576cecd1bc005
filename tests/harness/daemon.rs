//! A running `membershipd` that is killed when it goes out of scope.

use crate::http::{self, Answer, Request};
use crate::program::Program;
use crate::wait;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// The port of its HTTP API.
    pub port: u16,
    logs: PathBuf,
}

impl Daemon {
    /// Starts it on a free port, with both outputs in files of that folder, and waits until its posture is proven.
    ///
    /// # Panics
    /// When it ends instead, or does not prove itself in time.
    #[must_use]
    pub fn start(program: Program, logs: &Path) -> Self {
        let daemon = Self::start_unless_refused(program, logs)
            .unwrap_or_else(|said| panic!("membershipd refused:\n{said}"));
        wait::until("the proof of membershipd", || {
            (daemon.get("/healthz").ok()?.status == 200).then_some(())
        });
        daemon
    }

    /// Starts it and waits until it answers or ends.
    ///
    /// # Errors
    /// What it said, when it ended.
    pub fn start_unless_refused(program: Program, logs: &Path) -> Result<Self, String> {
        let mut daemon = Self::spawn(program, logs);
        let ended = wait::until("an answer of membershipd", || match daemon.child.try_wait().unwrap() {
            Some(_) => Some(true),
            None => daemon.get("/healthz").ok().map(|_| false),
        });
        if ended { Err(daemon.said()) } else { Ok(daemon) }
    }

    /// Starts it and does not wait.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(program: Program, logs: &Path) -> Self {
        fs::create_dir_all(logs).unwrap();
        let open = |name| File::options().create(true).append(true).open(logs.join(name)).unwrap();
        let port = http::free_port();
        let mut program = program.env("UNIBUS_HTTP_PORT", port.to_string());
        let child = program.spawn(open("membershipd.stdout"), open("membershipd.stderr"));
        Self { child, port, logs: logs.to_path_buf() }
    }

    /// Everything it has said so far.
    ///
    /// # Panics
    /// When its log cannot be read.
    #[must_use]
    pub fn said(&self) -> String {
        let read = |name| fs::read_to_string(self.logs.join(name)).unwrap();
        format!("{}{}", read("membershipd.stdout"), read("membershipd.stderr"))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gets a path, unsigned.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> std::io::Result<Answer> {
        http::send(self.port, &Request { method: "GET", path, headers: Vec::new(), body: b"" })
    }

    /// Posts JSON, unsigned.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post(&self, path: &str, body: &serde_json::Value) -> std::io::Result<Answer> {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let body = body.to_string();
        http::send(self.port, &Request { method: "POST", path, headers, body: body.as_bytes() })
    }

    /// The posture, whether the status is 200 or 503.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn posture(&self) -> serde_json::Value {
        self.get("/healthz").unwrap().json()["posture"].clone()
    }

    /// Kills it at once (signal 9), as a power cut would end it.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end and gives its exit code.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&mut self) -> Option<i32> {
        wait::until("membershipd to end", || self.child.try_wait().unwrap()).code()
    }

    /// Asks it to end (signal 15) and gives its exit code.
    ///
    /// # Panics
    /// When it does not end in time.
    #[must_use]
    pub fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait::until("membershipd to end", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; there is nothing to do about a failure here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
