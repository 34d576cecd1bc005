//! Starting other programs, with the command in the error.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's top folder.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// The folder cargo builds into.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// A program to be run in the workspace's top folder.
#[derive(Debug)]
pub struct Step(Command);

/// The cargo that started us.
pub fn cargo() -> Step {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    program(cargo)
}

/// A subcommand of cargo that is a program of its own.
pub fn cargo_tool(path: &Path) -> Step {
    program(path)
}

/// Any other program.
pub fn program(name: impl AsRef<OsStr>) -> Step {
    let mut command = Command::new(name);
    command.current_dir(root());
    // What cargo told *this* program about itself is not meant for the next cargo.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    Step(command)
}

impl Step {
    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.0.args(arguments);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Runs in another folder.
    pub fn within(mut self, folder: &Path) -> Self {
        self.0.current_dir(folder);
        self
    }

    /// Runs, showing what is run; anything but success is an error.
    pub fn run(mut self) -> Result<(), String> {
        let line = self.line();
        eprintln!("+ {line}");
        match self.0.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("`{line}` failed: {status}")),
            Err(error) => Err(format!("cannot start `{line}`: {error}")),
        }
    }

    /// Runs quietly: standard output on success, what it said on failure.
    pub fn output(mut self) -> Result<String, String> {
        let line = self.line();
        let output = self.0.output().map_err(|error| format!("cannot start `{line}`: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("`{line}` failed: {}\n{}", output.status, said.trim_end()))
    }

    /// Runs quietly: what it said on both outputs; on failure that is the error.
    pub fn output_of_both(mut self) -> Result<String, String> {
        let line = self.line();
        let output = self.0.output().map_err(|error| format!("cannot start `{line}`: {error}"))?;
        let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
        if output.status.success() {
            Ok(said)
        } else {
            Err(format!("`{line}` failed: {}\n{said}", output.status))
        }
    }

    fn line(&self) -> String {
        let words = std::iter::once(self.0.get_program()).chain(self.0.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}
