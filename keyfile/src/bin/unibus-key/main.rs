//! `unibus-key`: makes, enrols and inspects the keys of unibus at-rest.

mod cli;
mod commands;
mod error;
mod inspect;
mod output;
mod passphrase;

use std::process::ExitCode;

use clap::Parser;
use unibus_keyfile::id::UnixTime;

fn main() -> ExitCode {
    let hardened = unibus_keyfile::hygiene::harden_process();
    let cli = cli::Cli::parse();
    let format = output::Format::of(cli.json);
    let result = hardened
        .map_err(error::Failure::Harden)
        .and_then(|()| commands::run(cli.command, now()))
        .and_then(|answer| output::answer(&answer, format));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output::failure(&failure, format),
    }
}

#[expect(clippy::disallowed_methods, reason = "the one clock of this program")]
fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixTime::from_seconds(since.map_or(0, |elapsed| elapsed.as_secs()))
}
