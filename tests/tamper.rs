//! Tamper-evident as a whole: everything on a stopped host's disk is flipped, cut, swapped, removed and put back old,
//! and both binaries refuse, each with the exit code of what was found, and change nothing.
//!
//! SQLCipher alone accepts three of these without a word: an old page put back, a WAL cut short or removed, and the
//! whole folder replaced by yesterday's.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use unibus_tests::folder::Entry;
use unibus_tests::{Contents, Host};

const TAMPERED: i32 = 4;
const WRONG_KEY: i32 = 6;
const ROLLED_BACK: i32 = 7;
const NOT_PROVEN: i32 = 9;

const PAGE: usize = 4096;

const DATABASE: &str = "control.db";
const WAL: &str = "control.db-wal";
const KEYRING: &str = "control.db.keyring";

/// Both binaries must refuse what lies there now, with one of these exit codes, and leave it.
#[track_caller]
fn refused(host: &Host, what: &str, codes: &[i32]) {
    let before = host.disk();
    let mut runs = vec![host.serve_in_vain()];
    runs.push(host.verify().run());
    for run in runs {
        assert!(
            codes.contains(&run.code),
            "{what}: exit {} instead of {codes:?}\n{}\n{}",
            run.code,
            run.line,
            run.said()
        );
        let said = run.said();
        assert!(said.contains("error: ") && said.contains("[UB-"), "{what}: no code\n{said}");
        host.assert_disk_unchanged(&before, what);
    }
}

/// Changes one file of the data folder.
fn alter(host: &Host, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = host.path("data").join(name);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A host with a WAL: it was killed after its last write.
fn killed_host() -> Host {
    let host = Host::with_sample(40, 8);
    let daemon = host.serve();
    write_users(&daemon, "first", 12);
    daemon.kill();
    assert!(fs::metadata(host.path("data").join(WAL)).unwrap().len() > 0, "no WAL to damage");
    host
}

fn write_users(daemon: &unibus_tests::Daemon, handle: &str, count: u8) {
    for number in 0..count {
        let key = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 32]>());
        let user = serde_json::json!({ "sign_pub": key, "handle": format!("{handle}-{number}") });
        daemon.post("/users", &user).unwrap().has(201);
    }
}

#[test]
fn every_flipped_region_of_the_database_is_refused() {
    let host = Host::with_sample(40, 8);
    let good = host.disk();
    let length = fs::metadata(host.path("data").join(DATABASE)).unwrap().len() as usize;
    let pages = length / PAGE;
    // Salt, header, middle and authentication tag of the first pages, of one in the middle, and of the last.
    let places: BTreeSet<usize> = [0, 1, pages / 2, pages - 1]
        .iter()
        .flat_map(|page| [0, 15, 16, 90, PAGE / 2, PAGE - 70, PAGE - 20, PAGE - 1].map(|at| page * PAGE + at))
        .collect();
    for place in places {
        alter(&host, DATABASE, |bytes| bytes[place] ^= 0x10);
        refused(&host, &format!("byte {place} of {length} flipped"), &[TAMPERED]);
        host.put_back(&good);
    }
    host.verify().run().ok();
}

#[test]
fn a_cut_swapped_or_emptied_database_is_refused() {
    let host = Host::with_sample(40, 8);
    let good = host.disk();
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 7] = [
        ("emptied", Vec::clear),
        ("cut inside the first page", |bytes| bytes.truncate(100)),
        ("cut by a page", |bytes| bytes.truncate(bytes.len() - PAGE)),
        ("cut inside a page", |bytes| bytes.truncate(bytes.len() - 1000)),
        ("grown by a page", |bytes| bytes.extend_from_within(bytes.len() - PAGE..)),
        ("two pages swapped", |bytes| {
            let (first, second) = bytes.split_at_mut(3 * PAGE);
            first[2 * PAGE..].swap_with_slice(&mut second[..PAGE]);
        }),
        ("plaintext", |bytes| bytes[..16].copy_from_slice(b"SQLite format 3\0")),
    ];
    for (name, change) in changes {
        alter(&host, DATABASE, change);
        refused(&host, name, &[TAMPERED]);
        host.put_back(&good);
    }
}

#[test]
fn an_old_page_put_back_is_refused() {
    let host = Host::with_sample(40, 8);
    let daemon = host.serve();
    write_users(&daemon, "before", 4);
    assert_eq!(daemon.stop(), Some(0));
    let old = fs::read(host.path("data").join(DATABASE)).unwrap();
    let daemon = host.serve();
    write_users(&daemon, "after", 4);
    assert_eq!(daemon.stop(), Some(0));
    let good = host.disk();
    let new = fs::read(host.path("data").join(DATABASE)).unwrap();
    let changed: Vec<usize> = (0..old.len().min(new.len()) / PAGE)
        .filter(|page| old[page * PAGE..(page + 1) * PAGE] != new[page * PAGE..(page + 1) * PAGE])
        .collect();
    assert!(changed.len() >= 2, "the writes changed {changed:?}; more are needed");
    for page in changed {
        alter(&host, DATABASE, |bytes| {
            bytes[page * PAGE..(page + 1) * PAGE].copy_from_slice(&old[page * PAGE..(page + 1) * PAGE])
        });
        // The page with the sequence, put back, looks like a rollback; any other like a record that was changed.
        refused(&host, &format!("old page {page} put back"), &[TAMPERED, ROLLED_BACK]);
        host.put_back(&good);
    }
    host.verify().run().ok();
}

#[test]
fn a_damaged_cut_or_removed_wal_is_refused() {
    let host = killed_host();
    let good = host.disk();
    let length = fs::metadata(host.path("data").join(WAL)).unwrap().len() as usize;
    // A damaged frame ends the WAL for SQLite, which then stands at an earlier sequence than the witness.
    for cut in [0, 20, 32, length / 2, length - PAGE - 24, length - 1] {
        alter(&host, WAL, |bytes| bytes.truncate(cut));
        refused(&host, &format!("WAL cut to {cut} of {length} bytes"), &[TAMPERED, ROLLED_BACK]);
        host.put_back(&good);
    }
    for flip in [5, 40, 60, length / 2, length - 2000] {
        alter(&host, WAL, |bytes| bytes[flip] ^= 1);
        refused(&host, &format!("WAL flipped at {flip}"), &[TAMPERED, ROLLED_BACK]);
        host.put_back(&good);
    }
    fs::remove_file(host.path("data").join(WAL)).unwrap();
    refused(&host, "WAL removed", &[TAMPERED, ROLLED_BACK]);
    host.put_back(&good);
    host.verify().run().ok();
}

#[test]
fn yesterdays_folder_is_refused_while_the_witness_stands_elsewhere() {
    let host = Host::with_sample(40, 8);
    let yesterday = Contents::of(&host.path("data"));
    let daemon = host.serve();
    write_users(&daemon, "today", 3);
    assert_eq!(daemon.stop(), Some(0));
    let today = host.disk();
    yesterday.put_back(&host.path("data"));
    refused(&host, "yesterday's folder", &[ROLLED_BACK]);
    host.put_back(&today);
    host.verify().run().ok();
}

#[test]
fn a_missing_old_or_foreign_witness_is_refused() {
    let host = Host::with_sample(20, 4);
    let old = fs::read(host.path("state/witness")).unwrap();
    let daemon = host.serve();
    write_users(&daemon, "later", 2);
    assert_eq!(daemon.stop(), Some(0));
    let good = host.disk();
    let witness = host.path("state/witness");

    fs::remove_file(&witness).unwrap();
    refused(&host, "no witness", &[NOT_PROVEN]);
    host.put_back(&good);

    for place in [0, 5, 20, old.len() / 2, old.len() - 1] {
        let mut bytes = fs::read(&witness).unwrap();
        bytes[place] ^= 2;
        fs::write(&witness, bytes).unwrap();
        // The fingerprint of the sealing key stands at the start.
        refused(&host, &format!("witness flipped at {place}"), &[TAMPERED, WRONG_KEY]);
        host.put_back(&good);
    }
    for cut in [0, 10, old.len() - 1] {
        fs::write(&witness, &fs::read(&witness).unwrap()[..cut]).unwrap();
        refused(&host, &format!("witness cut to {cut}"), &[TAMPERED]);
        host.put_back(&good);
    }
    let other = Host::with_sample(5, 1);
    fs::copy(other.path("state/witness"), &witness).unwrap();
    refused(&host, "another cluster's witness", &[TAMPERED, WRONG_KEY]);
    host.put_back(&good);
    host.verify().run().ok();
}

/// Every document beside the database: flipped all over, cut, emptied, removed, and another cluster's.
fn document_is_guarded(name: &str, path: fn(&Host) -> PathBuf) {
    let host = Host::with_sample(20, 4);
    let path = path(&host);
    let good = host.disk();
    let bytes = fs::read(&path).unwrap();
    let refuse = |what: String, codes: &[i32]| {
        refused(&host, &what, codes);
        host.put_back(&good);
        fs::write(&path, &bytes).unwrap();
    };
    for place in (0..bytes.len()).step_by(bytes.len() / 16).chain([bytes.len() - 1]) {
        let mut flipped = bytes.clone();
        flipped[place] ^= 4;
        fs::write(&path, flipped).unwrap();
        refuse(format!("{name} flipped at {place} of {}", bytes.len()), &[TAMPERED, WRONG_KEY]);
    }
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        refuse(format!("{name} cut to {cut}"), &[TAMPERED]);
    }
    fs::write(&path, [&bytes[..], b"\0"].concat()).unwrap();
    refuse(format!("{name} with a byte more"), &[TAMPERED]);
    fs::remove_file(&path).unwrap();
    let before = host.disk();
    assert!(host.serve_in_vain().code > 0 && host.verify().run().code > 0, "{name} removed");
    host.assert_disk_unchanged(&before, &format!("{name} removed"));
}

#[test]
fn a_damaged_keyring_is_refused() {
    document_is_guarded("keyring", |host| host.path("data").join(KEYRING));
}

#[test]
fn a_damaged_nodeset_is_refused() {
    document_is_guarded("nodeset", |host| host.path("keys/nodeset"));
}

#[test]
fn documents_of_another_cluster_are_refused() {
    let host = Host::with_sample(10, 2);
    let other = Host::with_sample(10, 2);
    let good = host.disk();
    fs::copy(other.path("data").join(KEYRING), host.path("data").join(KEYRING)).unwrap();
    refused(&host, "another cluster's keyring", &[WRONG_KEY, TAMPERED]);
    host.put_back(&good);
    Contents::of(&other.path("data")).put_back(&host.path("data"));
    refused(&host, "another cluster's folder", &[WRONG_KEY, TAMPERED]);
    host.put_back(&good);
    let nodeset = fs::read(host.path("keys/nodeset")).unwrap();
    fs::copy(other.path("keys/nodeset"), host.path("keys/nodeset")).unwrap();
    refused(&host, "another operator's nodeset", &[WRONG_KEY, TAMPERED]);
    fs::write(host.path("keys/nodeset"), nodeset).unwrap();
    host.verify().run().ok();
}

#[test]
fn a_damaged_blob_is_named_and_never_served() {
    let host = Host::with_sample(5, 1);
    let daemon = host.serve();
    let key = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 32]>());
    daemon.post("/users", &serde_json::json!({ "sign_pub": key, "handle": "someone" })).unwrap().has(201);
    let send = |daemon: &unibus_tests::Daemon, method: &str, path: &str, body: &[u8]| {
        let headers = vec![
            ("unibus-key-id".to_owned(), key.clone()),
            ("content-type".to_owned(), "application/octet-stream".to_owned()),
        ];
        unibus_tests::http::send(daemon.port, &unibus_tests::http::Request { method, path, headers, body })
            .unwrap()
    };
    let stored: Vec<String> = (0..2u8)
        .map(|number| {
            let answer = send(&daemon, "POST", "/blobs", &vec![number; 70_000]).has(201);
            answer.json()["hash"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(daemon.stop(), Some(0));
    let good = host.disk();
    let blobs: Vec<PathBuf> = blobs(&host.path("data/blobs"));
    assert_eq!(blobs.len(), 2);
    assert_eq!(host.verify().args(["--json"]).run().ok().json()["blobs_checked"], 2);

    let swap = || {
        let (one, two) = (fs::read(&blobs[0]).unwrap(), fs::read(&blobs[1]).unwrap());
        fs::write(&blobs[0], two).unwrap();
        fs::write(&blobs[1], one).unwrap();
    };
    let flip = || {
        for blob in &blobs {
            let mut bytes = fs::read(blob).unwrap();
            bytes[66_000] ^= 1;
            fs::write(blob, bytes).unwrap();
        }
    };
    let cut = || blobs.iter().for_each(|blob| fs::write(blob, &fs::read(blob).unwrap()[..65_552]).unwrap());
    let remove = || blobs.iter().for_each(|blob| fs::remove_file(blob).unwrap());
    let changes: [(&str, &dyn Fn()); 4] =
        [("swapped", &swap), ("flipped", &flip), ("cut", &cut), ("removed", &remove)];
    for (name, change) in changes {
        change();
        host.verify().run().exits(4);
        // The daemon may refuse to start or refuse the blob; it never gives out anything else than what was stored.
        if let Some(daemon) = host.serve_unless_refused() {
            for hash in &stored {
                let answer = send(&daemon, "GET", &format!("/blobs/{hash}"), b"");
                assert!(answer.status >= 400, "a blob was served though it was {name}");
            }
        }
        host.put_back(&good);
    }
}

fn blobs(folder: &Path) -> Vec<PathBuf> {
    let files = Contents::of(folder).0.into_iter();
    files
        .filter_map(|(path, entry)| {
            matches!(entry, Entry::File(_, bytes) if bytes.len() > 60_000).then(|| folder.join(path))
        })
        .collect()
}
