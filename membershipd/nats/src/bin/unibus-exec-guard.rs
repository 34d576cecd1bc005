//! The guard as a program of its own, for tests. `membershipd` has it as a hidden subcommand.

use std::process::ExitCode;

use unibus_nats::guard;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let error = guard::exec(&arguments);
    #[expect(clippy::print_stderr, reason = "the supervisor reads it there")]
    {
        eprintln!("{} {error}", guard::MESSAGE);
    }
    ExitCode::from(guard::EXIT_CODE)
}
