//! The binary: parse, run, print, exit.

use std::process::ExitCode;

use clap::Parser;
use unibus_migrate::cli::Cli;
use unibus_migrate::output::{Format, Output};

fn main() -> ExitCode {
    if let Err(error) = unibus_keyfile::hygiene::harden_process() {
        let output = Output::new(Format::Text);
        output.note(&format!("warning: {error}"));
    }
    unibus_store::failpoint::from_environment();
    let cli = Cli::parse();
    let format = if cli.command.wants_json() { Format::Json } else { Format::Text };
    let output = Output::new(format);
    match unibus_migrate::run(&cli, output) {
        Ok(answer) => {
            output.answer(&answer);
            ExitCode::from(answer.exit)
        }
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit())
        }
    }
}
