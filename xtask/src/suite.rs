//! Running every test with one profile and one set of features.

use crate::run::{cargo, root};
use crate::tools;
use std::fs;

const WORKSPACE: [&str; 2] = ["--workspace", "--all-features"];

/// Sets up, builds the binaries that the system tests start, and runs every test.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let nats_server = tools::nats_server()?;
    cargo().args(["build"]).args(WORKSPACE).args(["--all-targets"]).run()?;
    let has_nextest = cargo().args(["nextest", "--version"]).output().is_ok();
    let tests = if has_nextest {
        cargo().args(["nextest", "run", "--no-fail-fast"]).args(WORKSPACE)
    } else {
        cargo().args(["test"]).args(WORKSPACE).args(["--lib", "--bins", "--tests", "--no-fail-fast"])
    };
    tests.args(arguments).env("NATS_SERVER_BIN", &nats_server).run()?;
    if !arguments.is_empty() {
        return Ok(());
    }
    cargo().args(["test"]).args(WORKSPACE).args(["--doc"]).run()?;
    if has_benches()? {
        // A bench run as a test is the smoke form: every measurement once, on little data.
        let smoke = cargo().args(["test"]).args(WORKSPACE).args(["--bench", "*"]);
        smoke.env("NATS_SERVER_BIN", &nats_server).run()?;
    }
    Ok(())
}

/// Checks the store's features one by one: each must stand alone.
pub fn features() -> Result<(), String> {
    let store = ["check", "--lib", "--package", "unibus-store", "--no-default-features"];
    for alone in [
        &[][..],
        &["--features", "unibus-store/testing"],
        // With `unibus-nats` beside it the C code is what the tests have built, and is not built a second time.
        &["--features", "unibus-store/sqlcipher", "--package", "unibus-nats"],
    ] {
        cargo().args(store).args(alone).run()?;
    }
    Ok(())
}

fn has_benches() -> Result<bool, String> {
    let folders = fs::read_dir(root()).map_err(|error| format!("cannot read the workspace: {error}"))?;
    Ok(folders.flatten().any(|folder| folder.path().join("benches").is_dir()))
}
