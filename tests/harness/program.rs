//! Running our binaries to their end, as an operator would, and seeing everything they said.

use crate::wait::DEADLINE;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The path of one of our binaries, as cargo built it for this run of the tests.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    // A test lies in target/<profile>/deps; the binaries lie one folder above.
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join(name);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo xtask test`, or `cargo build --workspace --all-targets --all-features`",
        path.display()
    );
    path
}

/// A command to be run. It sees no `UNIBUS_` variable but those it is given.
#[derive(Debug)]
pub struct Program {
    command: Command,
    stdin: Vec<u8>,
}

/// What a run left behind.
#[derive(Debug, Clone)]
pub struct Run {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The most memory it held, in KiB (`VmHWM`), as far as it was seen.
    pub peak_kib: u64,
    /// How long it ran.
    pub took: Duration,
}

impl Program {
    /// One of our binaries.
    #[must_use]
    pub fn ours(name: &str) -> Self {
        Self::any(binary(name))
    }

    /// Any program.
    #[must_use]
    pub fn any(path: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(path);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("UNIBUS_")) {
                command.env_remove(name);
            }
        }
        Self { command, stdin: Vec::new() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Adds an option and its value.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.arg(name).arg(value);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes an environment variable away again.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Runs in that folder.
    #[must_use]
    pub fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Gives it something to read; otherwise standard input is empty.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// The command line, for messages.
    #[must_use]
    pub fn line(&self) -> String {
        let name = Path::new(self.command.get_program()).file_name().unwrap_or_default();
        let words = std::iter::once(name).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// Starts it with both outputs in files.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&mut self, stdout: File, stderr: File) -> Child {
        let mut input = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut input, &self.stdin).unwrap();
        input.rewind().unwrap();
        self.command.stdin(input).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
        self.command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", self.line()))
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// When it cannot be started or does not end in time.
    #[must_use]
    pub fn run(self) -> Run {
        self.run_and_kill_after(None)
    }

    /// Runs to the end, or kills it (signal 9) when that time has passed.
    ///
    /// # Panics
    /// When it cannot be started or does not end in time.
    #[must_use]
    pub fn run_and_kill_after(mut self, kill_after: Option<Duration>) -> Run {
        let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let start = Instant::now();
        let mut child = self.spawn(out.try_clone().unwrap(), err.try_clone().unwrap());
        let mut peak_kib = 0;
        let deadline = DEADLINE.saturating_mul(5);
        let status = loop {
            peak_kib = peak_kib.max(peak_memory_kib(child.id()));
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if kill_after.is_some_and(|after| start.elapsed() >= after) || start.elapsed() > deadline {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        assert!(start.elapsed() < deadline, "{} did not end in {deadline:?}", self.line());
        let read = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Run {
            line: self.line(),
            code: status.code().unwrap_or(-1),
            stdout: read(&mut out),
            stderr: read(&mut err),
            peak_kib,
            took: start.elapsed(),
        }
    }
}

/// The most memory a process has held so far, in KiB.
#[must_use]
pub fn peak_memory_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

impl Run {
    /// Asserts success and gives the run back.
    ///
    /// # Panics
    /// Showing everything that was said.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Asserts the exit code and gives the run back.
    ///
    /// # Panics
    /// Showing everything that was said.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of `{}`\n{}{}", self.line, self.stdout, self.stderr);
        self
    }

    /// Both outputs.
    #[must_use]
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("`{}` gave no JSON: {error}\n{}", self.line, self.said()))
    }
}
