//! Killed, broken and full at every step: what is there afterwards opens, holds what was acknowledged, and is gone on
//! with to the end. Printed as a table.
//!
//! The children are this test binary itself, running one ignored test.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use unibus_keyfile::id::Epoch;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_store::failpoint;
use unibus_store::sqlcipher::rotation::RotateOptions;
use unibus_store::sqlcipher::{Keys, OpenOptions, SqlcipherStore};
use unibus_store::store::{Actor, Store, Strength};

use super::super::fixture::{Site, now, overwrite, sign_pub, user};
use super::{is_clean, is_nowhere, opens, rotate, stolen_key, unwatched};

const DATA: &str = "UNIBUS_TEST_DATA";
const STATE: &str = "UNIBUS_TEST_STATE";

/// Every place, and how often it is passed before it fails: each keyring and each sync by itself.
const PLACES: [(&str, u32); 22] = [
    ("rotation::stage", 0),
    ("rotation::keyring", 0),
    ("rotation::staged", 0),
    ("rotation::acknowledged", 0),
    ("rotation::keyring", 1),
    ("rotation::activated", 0),
    ("rotation::copy", 0),
    ("rotation::within", 0),
    ("rotation::copying", 0),
    ("rotation::sync", 0),
    ("rotation::copied", 0),
    ("rotation::sync", 1),
    ("rotation::swap", 0),
    ("rotation::taken", 0),
    ("rotation::renamed", 0),
    ("rotation::swapped", 0),
    ("rotation::prove", 0),
    ("rotation::proven", 0),
    ("rotation::keyring", 2),
    ("rotation::destroyed", 0),
    ("rotation::receipt", 0),
    ("rotation::written", 0),
];

fn variable(name: &str) -> String {
    std::env::var(name).expect("only run as a child")
}

#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_that_rotates_and_writes() {
    failpoint::from_environment();
    let data = variable(DATA);
    let key = Path::new(&data).parent().unwrap().join("alpha.key");
    let own = Arc::new(NodeKeyFile::load(&key).unwrap());
    let options = OpenOptions::new(&Path::new(&data).join("control.db"), Keys::Node(Arc::clone(&own)), now())
        .state_dir(Path::new(&variable(STATE)));
    let store = SqlcipherStore::open(&options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let add = |number| runtime.block_on(store.add_user(Actor::Operator, user(number)));
    add(1000).unwrap();
    println!("ack 1000");
    match store.rotate_epoch(&RotateOptions::new(own), &unwatched()) {
        Ok(done) => println!("rotated {}", done.to),
        Err(error) => println!("error {} {error}", error.code()),
    }
    // A rotation that failed disturbs nobody; or nothing is written any more.
    match add(1001) {
        Ok(()) => println!("ack 1001"),
        Err(error) => println!("refused {}", error.code()),
    }
}

fn child(site: &Site, place: &str, passed: u32, fault: &str) -> (Vec<String>, bool) {
    use std::os::unix::fs::PermissionsExt;
    let key = site.folder.path().join("alpha.key");
    overwrite(&key, site.own.to_text().as_bytes());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let before = if passed > 0 { format!("{passed}*off->") } else { String::new() };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sqlcipher::rotation::crash::child_that_rotates_and_writes"])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env(DATA, &site.data)
        .env(STATE, &site.state)
        .env("FAILPOINTS", format!("{place}={before}return({fault})"))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    std::fs::remove_file(key).unwrap();
    let lines = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    (lines, output.status.success())
}

#[tokio::test]
async fn whatever_stops_a_rotation_it_is_gone_on_with() {
    println!("| place | fault | ended | found | then |\n|---|---|---|---|---|");
    for (place, passed) in PLACES {
        for fault in ["kill", "io", "full"] {
            let site = Site::with_store(300);
            let stolen = stolen_key(&site, Epoch::FIRST);
            let old = std::fs::read(&site.db).unwrap();
            let (lines, succeeded) = child(&site, place, passed, fault);
            let said = |start: &str| lines.iter().find(|line| line.starts_with(start)).cloned();
            assert!(said("rotated").is_none(), "{place} {passed}: it was not reached: {lines:?}");
            assert_eq!(succeeded, fault != "kill", "{place} {fault}: {lines:?}");
            let ended =
                said("error").map_or("killed".to_owned(), |line| line.chars().skip(6).take(7).collect());

            let store = site.open().unwrap_or_else(|error| panic!("{place} {passed} {fault}: {error:?}"));
            let found =
                store.rotation().map_or("no rotation".to_owned(), |found| found.stage.name().to_owned());
            for number in [1000, 1001] {
                let is_acknowledged = said(&format!("ack {number}")).is_some();
                let is_there = store.user(sign_pub(number), Strength::Local).await.unwrap().is_some();
                assert!(is_there || !is_acknowledged, "{place} {fault}: user {number} is lost");
            }
            let before = store.position().unwrap();
            let done = rotate(&site, &store).unwrap();
            assert!(done.receipt.verify(Some(site.own.cluster())).unwrap().physical, "{place} {fault}");
            assert_eq!(store.position().unwrap(), before, "{place} {fault}");
            store.add_user(Actor::Operator, user(1002)).await.unwrap();
            store.verify().unwrap();
            drop(store);
            is_clean(&site, done.to.get());
            assert!(!opens(&site, &stolen), "{place} {fault}");
            is_nowhere(&site, &old);
            site.open().unwrap().verify().unwrap();
            let place = place.trim_start_matches("rotation::");
            println!("| {place} {passed} | {fault} | {ended} | {found} | epoch {} |", done.to);
        }
    }
}
