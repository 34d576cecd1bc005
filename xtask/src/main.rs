//! Set-up and test driver of unibus at-rest. It has no dependencies, so that it builds in seconds.

mod fuzz;
mod run;
mod sources;
mod suite;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  setup                  fetch the pinned nats-server into target/tools ($NATS_SERVER_BIN overrides)
  test [-- ARGS]         set up, build the binaries, run every test, the doc tests and the bench smoke;
                         ARGS go to nextest (or to cargo test) and leave out the last two
  fuzz [--seconds N] [TARGET]...
                         run the fuzz targets, N seconds each (default 10)
  corpus                 write the fuzz seeds anew from the real encoders
  deny                   check licences, dependencies and sources (offline)
  features               check each feature alone
  sources                check that sources are ASCII and no file is too long
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            eprintln!("error: {message}\n\n{USAGE}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(message)) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Why a command did not succeed.
#[derive(Debug)]
enum Failure {
    /// It was called wrongly.
    Usage(String),
    /// It was tried and failed.
    Failed(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

fn dispatch(arguments: &[String]) -> Result<(), Failure> {
    let Some((command, rest)) = arguments.split_first() else {
        print!("{USAGE}");
        return Ok(());
    };
    match (command.as_str(), rest) {
        ("help" | "--help" | "-h", _) => print!("{USAGE}"),
        ("setup", []) => println!("{}", tools::nats_server()?.display()),
        ("test", []) => suite::run(&[])?,
        ("test", [separator, arguments @ ..]) if separator == "--" => suite::run(arguments)?,
        ("fuzz", rest) => fuzz::run(&fuzz::Options::parse(rest).map_err(Failure::Usage)?)?,
        ("corpus", []) => fuzz::write_corpus()?,
        ("deny", []) => run::cargo_tool(&tools::ci_tool("cargo-deny")?)
            .args(["--offline", "--all-features", "check", "licenses", "bans", "sources"])
            .run()?,
        ("features", []) => suite::features()?,
        ("sources", []) => sources::check()?,
        _ => return Err(Failure::Usage(format!("unknown command: {}", arguments.join(" ")))),
    }
    Ok(())
}
