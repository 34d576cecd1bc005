//! Copies, snapshots and restores by the real binary: records and megabytes a second, and peak memory, beside a
//! plain backup of the same data by SQLite.
//!
//! `cargo bench -p unibus-migrate` measures 100,000 and 1,000,000 records; `-- --smoke`, or a run by `cargo test`, only
//! shows that it works. `-- --records N` measures another number.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a bench ends at the first surprise, and prints a table of rounded numbers"
)]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use unibus_keyfile::node_key::NodeKeyFile;
use unibus_keyfile::nodeset::Plan;
use unibus_keyfile::operator_key::OperatorKey;

/// Records of the smoke form.
const SMOKE: u64 = 2_000;
/// What the three may take at any number of records.
const MEMORY_LIMIT_KIB: u64 = 64 * 1024;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = words.iter().position(|word| word == "--records").and_then(|at| words.get(at + 1));
    let is_bench = words.iter().any(|word| word == "--bench") && !words.iter().any(|word| word == "--smoke");
    let sizes = match wanted {
        Some(number) => vec![number.parse().unwrap()],
        None if is_bench => vec![100_000, 1_000_000],
        None => vec![SMOKE],
    };
    println!("| records | work | s | records/s | MB/s | peak MiB | against backup |");
    println!("|---|---|---|---|---|---|---|");
    for records in sizes {
        measure(records);
    }
}

/// Seconds and peak memory of one run.
struct Cost {
    took: Duration,
    peak_kib: u64,
}

fn measure(records: u64) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_keys(dir);
    // A room brings about 16.8 records: itself, 7 members, and their keys of one to three epochs.
    let (users, rooms) = (records * 3 / 10, records * 7 / 168);
    run(dir, &format!("sample --users {users} --rooms {rooms} --out old.db"));
    let megabytes = File::open(dir.join("old.db")).unwrap().metadata().unwrap().len() as f64 / 1e6;
    let backup = backup(dir);
    let copy = run(dir, "copy --from sqlite:old.db --to sqlcipher:a/control.db --nodeset nodeset");
    let snapshot = run(dir, "snapshot --from sqlcipher:a/control.db --out s.snap");
    let restore =
        run(dir, "restore --in s.snap --to sqlcipher:b/control.db --nodeset nodeset --operator operator.key");
    let write = write_rate(dir, &dir.join("s.snap"));
    let row = |name: &str, cost: &Cost, ratio: Option<f64>| {
        let seconds = cost.took.as_secs_f64();
        let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "| {records} | {name} | {seconds:.2} | {:.0} | {:.1} | {:.1} | {ratio} |",
            records as f64 / seconds,
            megabytes / seconds,
            cost.peak_kib as f64 / 1024.0,
        );
    };
    let against =
        |cost: &Cost| backup.as_ref().map(|(_, backup)| backup.took.as_secs_f64() / cost.took.as_secs_f64());
    if let Some((name, cost)) = &backup {
        row(name, cost, None);
    }
    row("write and sync the snapshot's bytes", &write, None);
    for (name, cost) in [("copy", &copy), ("snapshot", &snapshot), ("restore", &restore)] {
        row(name, cost, against(cost));
        assert!(cost.peak_kib < MEMORY_LIMIT_KIB, "{name} took {} KiB", cost.peak_kib);
    }
}

fn write_keys(dir: &Path) {
    let operator = OperatorKey::generate();
    let own = NodeKeyFile::generate("alpha".parse().unwrap(), operator.cluster_id());
    let nodeset =
        Plan::first(&operator).with_node(own.member(unibus_migrate::clock::now())).sign(&operator).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(dir.join(name)).unwrap().write_all(bytes).unwrap();
    };
    write("operator.key", operator.to_text(None).unwrap().as_bytes());
    write("alpha.key", own.to_text().as_bytes());
    write("nodeset", nodeset.as_bytes());
}

fn run(dir: &Path, words: &str) -> Cost {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unibus-migrate"));
    command.args(words.split(' ')).env("UNIBUS_AT_REST_KEY_FILE", "alpha.key");
    cost(dir, command, words)
}

/// Runs to the end and watches the high-water mark of its memory, which only grows.
fn cost(dir: &Path, mut command: Command, what: &str) -> Cost {
    let began = Instant::now();
    let mut child = command
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let ended = loop {
        peak_kib = peak(&status).unwrap_or(peak_kib);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    };
    let took = began.elapsed();
    assert!(ended.success(), "{what}: {ended}");
    Cost { took, peak_kib }
}

fn peak(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The same data, unencrypted, by SQLite's own backup: its command, or else the module of Python.
fn backup(dir: &Path) -> Option<(&'static str, Cost)> {
    let is_there = |program: &str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let (name, command) = if is_there("sqlite3") {
        let mut command = Command::new("sqlite3");
        command.args(["old.db", ".backup backup.db"]);
        ("sqlite3 .backup", command)
    } else if is_there("python3") {
        let mut command = Command::new("python3");
        let script = "import sqlite3; sqlite3.connect('old.db').backup(sqlite3.connect('backup.db'))";
        command.args(["-c", script]);
        ("backup by python3", command)
    } else {
        return None;
    };
    Some((name, cost(dir, command, name)))
}

/// How long the disk takes for the same number of bytes.
fn write_rate(dir: &Path, like: &Path) -> Cost {
    let bytes = std::fs::read(like).unwrap();
    let began = Instant::now();
    let mut file = File::create(dir.join("rate")).unwrap();
    bytes.chunks(65_536).for_each(|chunk| file.write_all(chunk).unwrap());
    file.sync_all().unwrap();
    Cost { took: began.elapsed(), peak_kib: 0 }
}
