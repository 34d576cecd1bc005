//! Fails closed: every way a key can be wrong, on the daemon and on the tool. Each refusal has its exit code, says
//! what was wrong, and leaves every byte below the data and the state folder as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use unibus_tests::{Host, Program, Run};

/// A way for the key file to be wrong.
struct Case {
    name: &'static str,
    make: fn(&Host, &Path),
    exits: i32,
    says: &'static str,
}

fn text(host: &Host) -> String {
    fs::read_to_string(host.key_file()).unwrap()
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn other_host_of_the_same_cluster(host: &Host, key: &Path) {
    // The same operator, and a node that the nodeset at hand does not name.
    let out = host.path("stranger");
    let pin = pin_of(host);
    fs::create_dir(&out).unwrap();
    let file = out.join("stranger.key");
    let generate = Program::ours("unibus-key").args(["generate", "--name", "stranger", "--cluster", &pin]);
    generate.option("--out", &file).run().ok();
    fs::rename(file, key).unwrap();
}

fn pin_of(host: &Host) -> String {
    let inspect = Program::ours("unibus-key").args(["inspect", "--json"]).args([host.key_file()]).run().ok();
    let said = inspect.json();
    said["cluster"].as_str().unwrap_or_else(|| panic!("no pin in {said}")).to_owned()
}

const CASES: [Case; 10] = [
    Case { name: "missing", make: |_, _| {}, exits: 6, says: "key" },
    Case { name: "empty", make: |_, key| write(key, "", 0o600), exits: 4, says: "no key line" },
    Case {
        name: "truncated",
        make: |host, key| write(key, &text(host).trim_end()[..text(host).trim_end().len() - 7], 0o600),
        exits: 4,
        says: "checksum",
    },
    Case {
        name: "mistyped",
        make: |host, key| {
            let line = text(host);
            let line = line.trim_end();
            let last = if line.ends_with('q') { 'p' } else { 'q' };
            write(key, &format!("{}{last}\n", &line[..line.len() - 1]), 0o600);
        },
        exits: 4,
        says: "checksum",
    },
    Case { name: "group-readable", make: |host, key| write(key, &text(host), 0o640), exits: 2, says: "0640" },
    Case { name: "world-readable", make: |host, key| write(key, &text(host), 0o604), exits: 2, says: "0604" },
    Case {
        name: "symlinked",
        make: |host, key| symlink(host.key_file(), key).unwrap(),
        exits: 2,
        says: "symbolic link",
    },
    Case { name: "a folder", make: |_, key| fs::create_dir(key).unwrap(), exits: 2, says: "" },
    Case { name: "another node's", make: other_host_of_the_same_cluster, exits: 6, says: "fp:" },
    Case {
        name: "another cluster's",
        make: |_, key| {
            let other = Host::new();
            fs::copy(other.key_file(), key).unwrap();
        },
        exits: 6,
        says: "ubc1",
    },
];

fn daemon(host: &Host, key: &Path) -> Program {
    Program::ours("membershipd")
        .option("--db", host.path("data/control.db"))
        .option("--store-dir", host.path("data/blobs"))
        .option("--state-dir", host.path("state"))
        .option("--nodeset", host.path("keys/nodeset"))
        .option("--at-rest-key-file", key)
        .within(&host.path("."))
}

fn verify(host: &Host, key: &Path) -> Run {
    let verify = host.migrate_without_key(["verify", &host.store()]).option("--at-rest-key-file", key);
    verify.option("--nodeset", host.path("keys/nodeset")).option("--state-dir", host.path("state")).run()
}

#[test]
fn every_wrong_key_is_refused_by_name_and_changes_nothing() {
    let host = Host::with_sample(20, 5);
    let before = host.disk();
    let mut table = String::new();
    for case in &CASES {
        let key: PathBuf = host.path(&format!("{}.key", case.name.replace(['\'', ' '], "-")));
        (case.make)(&host, &key);
        for run in [host.refused(daemon(&host, &key)), verify(&host, &key)] {
            let first = run.stderr.lines().next().unwrap_or_default().to_owned();
            table.push_str(&format!("{:<18} {:>3}  {first}\n", case.name, run.code));
            assert_eq!(run.code, case.exits, "{}: {}\n{}", case.name, run.line, run.said());
            let said = run.said();
            assert!(
                said.to_lowercase().contains(case.says),
                "{}: `{}` is not in\n{said}",
                case.name,
                case.says
            );
            assert!(said.contains("error: ") && said.contains("[UB-"), "{}: no code in\n{said}", case.name);
            host.assert_disk_unchanged(&before, case.name);
        }
    }
    println!("{table}");
    host.verify().run().ok();
}

#[test]
fn a_secret_is_never_taken_from_two_places_or_none() {
    let host = Host::with_sample(5, 1);
    let before = host.disk();
    let none =
        host.migrate_without_key(["verify", &host.store()]).option("--nodeset", host.path("keys/nodeset"));
    none.option("--state-dir", host.path("state")).run().exits(6);
    let both = host.verify().env("UNIBUS_AT_REST_KEY", text(&host)).run().exits(2);
    assert!(!both.said().contains(text(&host).trim()));
    host.assert_disk_unchanged(&before, "an ambiguous key");
}

#[test]
fn a_missing_database_is_never_minted_anew() {
    let host = Host::with_sample(5, 1);
    for name in ["control.db", "control.db.keyring"] {
        let whole = host.disk();
        fs::remove_file(host.path("data").join(name)).unwrap();
        let before = host.disk();
        for run in [host.serve_in_vain(), host.verify().run()] {
            assert!(run.code > 0, "{name} was minted:\n{}", run.said());
            host.assert_disk_unchanged(&before, &format!("{} without {name}", run.line));
        }
        host.put_back(&whole);
    }
    host.verify().run().ok();
}
