//! Moves control records between stores, and proves what it did.
//!
//! Every command is a function from its arguments to an [`output::Answer`] or an [`error::MigrateError`]; the
//! binary parses, calls [`run`], prints and exits. Nothing here can write a control record unsealed: the only
//! targets are the encrypted store and the sealed snapshot file.

pub mod audit;
pub mod cli;
pub mod clock;
pub mod copy;
pub mod daemon;
pub mod drill;
pub mod error;
pub mod gates;
pub mod keys;
pub mod kv;
pub mod open;
pub mod output;
pub mod plain;
pub mod plan;
pub mod quarantine;
pub mod restore;
pub mod rotate;
pub mod sample;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod verify;

use clap::CommandFactory;
use cli::{Cli, Command};
use error::MigrateError;
use output::{Answer, Output};
use serde_json::Value;

/// Runs one command.
///
/// # Errors
/// [`MigrateError`], with its exit code.
pub fn run(cli: &Cli, output: Output) -> Result<Answer, MigrateError> {
    match &cli.command {
        Command::Snapshot(args) => snapshot::run(args, output),
        Command::Restore(args) => restore::run(args, output),
        Command::Copy(args) => copy::run(args, output),
        Command::Rotate(command) => rotate::run(command, output),
        Command::Resume(args) => rotate::resume(args, output),
        Command::Abort(args) => rotate::abort(args, output),
        Command::Verify(args) => verify::run(args, output),
        Command::Audit(args) => audit::run(args, output),
        Command::Status(args) => status::run(args, output),
        Command::Drill(args) => drill::run(args, output),
        Command::Sample(args) => sample::run(args, output),
        Command::Completions { shell } => Ok(completions(*shell)),
    }
}

fn completions(shell: clap_complete::Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "unibus-migrate", &mut script);
    Answer::done(Value::Null, vec![String::from_utf8_lossy(&script).into_owned()])
}
