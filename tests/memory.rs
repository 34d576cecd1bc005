//! `copy`, `snapshot` and `restore` hold the same memory whatever the size: under 64 MiB.
//!
//! `UNIBUS_TEST_RECORDS` sets how many users and how many rooms (a tenth) there are.

use std::fs;
use unibus_tests::{Host, Run};

const LIMIT_KIB: u64 = 64 * 1024;

fn records() -> u64 {
    std::env::var("UNIBUS_TEST_RECORDS").map_or(20_000, |text| text.parse().expect("a number"))
}

fn assert_small(run: &Run) {
    println!("{:<60.60} {:>8} KiB {:>7.2} s", run.line, run.peak_kib, run.took.as_secs_f64());
    assert!(run.peak_kib > 0, "the memory of `{}` was not seen", run.line);
    assert!(run.peak_kib < LIMIT_KIB, "`{}` held {} KiB of {LIMIT_KIB}", run.line, run.peak_kib);
}

#[test]
fn copy_snapshot_and_restore_stay_under_64_mib() {
    let host = Host::new();
    host.sample(records(), records() / 10);
    assert_small(&host.copy().run().ok());
    fs::remove_file(host.path("plain.db")).unwrap();
    assert_small(&host.snapshot("a.snapshot").run().ok());
    host.lose_disk();
    assert_small(&host.restore("a.snapshot").run().ok());
    let snapshot = format!("snapshot:{}", host.path("a.snapshot").display());
    assert_small(&host.migrate_without_key(["verify", &snapshot]).run().ok());
}
