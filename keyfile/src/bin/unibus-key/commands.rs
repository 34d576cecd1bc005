//! The commands: each takes its arguments and the time, and gives an answer.

mod approve;
mod init;
mod node;
mod nodeset;
mod recovery;

use clap::CommandFactory;
use serde_json::json;
use unibus_keyfile::id::UnixTime;

use crate::{
    cli::{Cli, Command, Recovery},
    error::Failure,
    inspect,
    output::Answer,
};

pub(crate) fn run(command: Command, now: UnixTime) -> Result<Answer, Failure> {
    match command {
        Command::Init(args) => init::run(&args, now),
        Command::Generate(args) => node::generate(args),
        Command::Request(args) => node::request(&args, now),
        Command::Approve(args) => approve::run(&args, now),
        Command::Remove(args) => nodeset::remove(&args),
        Command::Rotate(args) => node::rotate(&args),
        Command::Retire(args) => node::retire(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Recovery(Recovery::Generate { out }) => recovery::generate(&out),
        Command::Recovery(Recovery::Add(args)) => recovery::add(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "unibus-key", &mut script);
            let text = String::from_utf8(script).unwrap_or_default();
            Ok(Answer { json: json!({ "script": text }), text })
        }
    }
}
