//! The key file, the nodeset, the keyring or the witness cannot be written while a key is changed: nothing is lost, the
//! old key or the new one opens the database, and the same command ends it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use unibus_tests::{Host, Program, SmallDisk, kv, wait};

use crate::{fingerprints, keep, rotate};

/// The places that are reached where nobody serves the database.
const PLACES: [&str; 7] = [
    "node::begin",
    "node::begun",
    "node::approve",
    "node::approved",
    "node::confirmed",
    "node::retire",
    "node::retired",
];
const FAULTS: [&str; 3] = ["kill", "full", "broken"];

/// A host with the environment of its files, some of which lie elsewhere.
struct Files {
    host: Host,
    key: PathBuf,
    nodeset: PathBuf,
}

impl Files {
    fn of(host: Host) -> Self {
        let (key, nodeset) = (host.key_file(), host.path("keys/nodeset"));
        Self { host, key, nodeset }
    }

    fn with(&self, program: Program) -> Program {
        program.env("UNIBUS_AT_REST_KEY_FILE", &self.key).env("UNIBUS_NODESET", &self.nodeset)
    }

    fn rotate(&self) -> Program {
        self.with(rotate(&self.host, &["--yes"]))
    }

    /// What there is opens the database.
    fn works(&self, when: &str) {
        let run = self.with(self.host.verify()).run();
        assert_eq!(run.code, 0, "{when}: {}", run.said());
    }

    /// The same command ends it: one new key, and the old file opens nothing.
    fn ends(&self, before: &Path, when: &str) {
        let run = self.rotate().run();
        assert_eq!(run.code, 0, "{when}: {}", run.said());
        self.is_over(before, when);
    }

    fn is_over(&self, before: &Path, when: &str) {
        let (old, now) = (fingerprints(before), fingerprints(&self.key));
        assert!(now.len() == 1 && now != old, "{when}: {now:?}");
        self.works(when);
        let refused = self.with(self.host.verify()).env("UNIBUS_AT_REST_KEY_FILE", before).run();
        assert_eq!(refused.code, 6, "{when}: {}", refused.said());
        let folder = self.key.parent().unwrap();
        let left = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().ends_with(".tmp")).collect();
        assert!(left.is_empty(), "{when}: {left:?}: half a key file was left");
    }
}

#[test]
fn a_key_is_changed_whatever_step_fails_and_the_same_command_ends_it() {
    let files = Files::of(Host::with_sample(20, 2));
    let mut rows = Vec::new();
    for (place, fault) in PLACES.iter().flat_map(|place| FAULTS.iter().map(move |fault| (*place, *fault))) {
        let when = format!("{place} {fault}");
        let before = keep(&files.key, &files.host.path("before.key"));
        let run = files.rotate().env("FAILPOINTS", format!("{place}=return({fault})")).run();
        assert_eq!(run.code, if fault == "kill" { -1 } else { 1 }, "{when}: {}", run.said());
        assert!(run.stderr.contains(&format!("{{\"reached\":\"{place}\"}}")), "{when}: {}", run.said());
        let keys = fingerprints(&files.key).len();
        files.works(&when);
        files.ends(&before, &when);
        rows.push(format!("{when:<24} {keys} keys left"));
    }
    eprintln!("a step of `rotate node` fails\n{}", rows.join("\n"));
}

/// Stops the tool at a place, has something done, and lets it go on to its end.
fn meanwhile(program: Program, place: &str, folder: &Path, act: impl FnOnce()) -> (Option<i32>, String) {
    let said = folder.join("said");
    let out = File::create(&said).unwrap();
    let mut program = program.env("FAILPOINTS", format!("{place}=1*return(stop)"));
    let mut tool = program.spawn(out.try_clone().unwrap(), out);
    let pid = tool.id();
    wait::until(place, || {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        status.rsplit(')').next()?.trim_start().starts_with('T').then_some(())
    });
    act();
    kv::signal(pid, rustix::process::Signal::CONT);
    let status = tool.wait().unwrap();
    (status.code(), fs::read_to_string(&said).unwrap())
}

#[test]
fn a_full_disk_for_the_key_file_or_the_nodeset_loses_no_key() {
    let mut files = Files::of(Host::with_sample(20, 2));
    let folder = files.host.path("small");
    let Some(disk) = SmallDisk::over(&folder, 1) else { return };
    let keys = files.key.clone();

    // The key file: when the new key is made, and when the old one goes.
    files.key = keep(&keys, &folder.join("host1.key"));
    let before = keep(&keys, &files.host.path("before.key"));
    disk.fill();
    let run = files.rotate().run().exits(1);
    assert!(run.said().contains("host1.key") && run.said().contains("No space left"), "{}", run.said());
    assert_eq!(fs::read(&files.key).unwrap(), fs::read(&before).unwrap());
    files.works("the key file, at the beginning");
    disk.free();
    let (code, said) = meanwhile(files.rotate(), "node::retire", &files.host.path(""), || disk.fill());
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(fingerprints(&files.key).len(), 2, "{said}");
    files.works("the key file, at the end");
    disk.free();
    files.ends(&before, "the key file");

    // The nodeset with the new key.
    fs::copy(&files.nodeset, folder.join("nodeset")).unwrap();
    keep(&files.key, &keys);
    let before = keep(&keys, &files.host.path("before.key"));
    (files.key, files.nodeset) = (keys, folder.join("nodeset"));
    disk.fill();
    files.rotate().run().exits(1);
    files.works("the nodeset");
    disk.free();
    files.ends(&before, "the nodeset");
}

#[test]
fn a_full_disk_for_the_keyring_or_the_witness_loses_no_key() {
    for name in ["data", "state"] {
        let host = Host::new();
        let Some(disk) = SmallDisk::over(&host.path(name), 8) else { return };
        host.sample(20, 2);
        host.copy().run().ok();
        let files = Files::of(host);
        let before = keep(&files.key, &files.host.path("before.key"));
        let (code, said) = meanwhile(files.rotate(), "node::approved", &files.host.path(""), || disk.fill());
        assert_eq!(code, Some(1), "{name}: {said}");
        assert_eq!(fingerprints(&files.key).len(), 2, "{name}: {said}");
        files.works(name);
        disk.free();
        files.ends(&before, name);
    }
}

#[test]
fn a_daemon_without_room_for_the_keyring_serves_on_and_wraps_it_when_there_is_room() {
    let host = Host::new();
    let Some(disk) = SmallDisk::over(&host.path("data"), 8) else { return };
    host.sample(20, 2);
    host.copy().run().ok();
    let daemon = host.serve();
    let files = Files::of(host);
    let before = keep(&files.key, &files.host.path("before.key"));
    let is_said = || daemon.said().contains("No space left");
    let (code, said) = std::thread::scope(|scope| {
        let freed = scope.spawn(|| {
            wait::until("the word of the daemon", || is_said().then_some(()));
            assert_eq!(daemon.get("/healthz").unwrap().status, 200);
            disk.free();
        });
        let folder = files.host.path("");
        let done = meanwhile(files.rotate(), "node::approve", &folder, || disk.fill());
        freed.join().unwrap();
        done
    });
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(daemon.stop(), Some(0));
    files.is_over(&before, "the keyring of a daemon");
}

#[test]
fn a_key_file_in_whose_place_nothing_can_be_put_stays_and_the_command_says_so() {
    let files = Files::of(Host::with_sample(20, 2));
    let before = keep(&files.key, &files.host.path("before.key"));
    // As a container has it that was given the file alone.
    let mount = |words: &[&OsStr]| Command::new(words[0]).args(&words[1..]).output();
    let key = files.key.as_os_str();
    match mount(&[OsStr::new("mount"), OsStr::new("--bind"), key, key]) {
        Ok(run) if run.status.success() => {}
        other => {
            eprintln!("SKIPPED: nothing can be mounted here ({other:?})");
            return;
        }
    }
    let run = files.rotate().run();
    mount(&[OsStr::new("umount"), OsStr::new("--lazy"), key]).unwrap();
    assert_eq!(run.code, 1, "{}", run.said());
    assert_eq!(fs::read(&files.key).unwrap(), fs::read(&before).unwrap());
    files.works("nothing was changed");
    files.ends(&before, "a file that is a mount");
}
