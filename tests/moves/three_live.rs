//! Snapshots of a log of three nodes that is written to on all of them, and that goes over into its successor.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use unibus_keyfile::id::UnixTime;
use unibus_keyfile::node_key::NodeKeyFile;
use unibus_store::sqlcipher::{Keys, OpenOptions, SqlcipherStore};
use unibus_store::store::{Store, Strength};
use unibus_tests::Run;

use crate::world::{api, put};
use unibus_tests::World;

/// Keys whose first byte says whether they come early or late in the order in which records are read.
fn key(early: bool) -> String {
    let mut bytes = rand::random::<[u8; 32]>();
    bytes[0] = if early { bytes[0] % 16 } else { 240 + bytes[0] % 16 };
    data_encoding::HEXLOWER.encode(&bytes)
}

/// Writes pairs without a pause: the second on another node, when the first is acknowledged. Gives how many, and what
/// failed.
fn write_pairs(world: &World, index: usize, over: &AtomicBool, numbers: &AtomicU64) -> (u64, Vec<String>) {
    let (mut done, mut failed) = (0, Vec::new());
    while !over.load(Ordering::SeqCst) {
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        let one = world.add_as(index, &format!("first-{number}"), &key(number.is_multiple_of(2)));
        let two = world.add_as((index + 1) % 3, &format!("second-{number}"), &key(!number.is_multiple_of(2)));
        failed.extend([one, two].into_iter().filter_map(Result::err));
        done += 1;
    }
    (done, failed)
}

fn snapshot(world: &World, index: usize, file: &Path) -> Run {
    let store = format!("kv:{}", world.servers(index));
    world.migrate(index, ["snapshot", "--json", "--from", &store, "--out"]).args([file]).run()
}

/// The handles in a snapshot, as a daemon would list them after a restore.
fn handles(world: &World, file: &Path) -> BTreeSet<String> {
    let folder = file.with_extension("restored");
    let to = format!("sqlcipher:{}", folder.join("control.db").display());
    let restore = world.migrate(0, ["restore", "--to", &to, "--yes"]).option("--in", file);
    let restore = restore.option("--operator", world.hosts.shared("keys/operator.key"));
    restore.env("UNIBUS_STATE_DIR", folder.join("state")).run().ok();
    let own = NodeKeyFile::load(&world.hosts.shared("keys/host1.key")).unwrap();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = UnixTime::from_seconds(since.as_secs());
    let options = OpenOptions::new(&folder.join("control.db"), Keys::Node(Arc::new(own)), now)
        .nodeset(&world.hosts.shared("keys/nodeset"))
        .state_dir(&folder.join("state"));
    let store = SqlcipherStore::open(&options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let users = runtime.block_on(store.users(Strength::Local)).unwrap();
    users.into_iter().map(|user| user.handle.as_str().to_owned()).collect()
}

/// Asserts that no second is there without its first; gives how many of both there are.
fn pairs(handles: &BTreeSet<String>) -> (usize, usize) {
    let of = |word: &str| -> BTreeSet<&str> {
        handles.iter().filter_map(|handle| handle.strip_prefix(word)).collect()
    };
    let (first, second) = (of("first-"), of("second-"));
    let torn: Vec<_> = second.difference(&first).collect();
    assert!(torn.is_empty(), "later writes without the earlier ones: {torn:?}");
    (first.len(), second.len())
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What stands under names of the log, on one server.
fn entries(world: &World, stream: &str) -> Vec<(String, Vec<u8>)> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = client(world).await;
        let info = api(&client, &format!("STREAM.INFO.{stream}"), &serde_json::json!({})).await;
        let range = |name: &str| info["state"][name].as_u64().unwrap();
        let mut found = Vec::new();
        for sequence in range("first_seq")..=range("last_seq") {
            let request = serde_json::json!({ "seq": sequence });
            let got = api(&client, &format!("STREAM.MSG.GET.{stream}"), &request).await;
            let message = &got["message"];
            if let (Some(subject), Some(data)) = (message["subject"].as_str(), message["data"].as_str()) {
                found.push((subject.to_owned(), data_encoding::BASE64.decode(data.as_bytes()).unwrap()));
            }
        }
        found
    })
}

/// Somebody with the operator's own rights on the servers.
async fn client(world: &World) -> async_nats::Client {
    let seed = std::fs::read_to_string(world.hosts.path(0, "internal.nk")).unwrap();
    let seed = seed
        .lines()
        .find(|line| line.starts_with("SU"))
        .unwrap_or_else(|| panic!("no seed"))
        .trim()
        .to_owned();
    async_nats::ConnectOptions::with_nkey(seed).connect(world.servers(0)).await.unwrap()
}

#[test]
fn a_snapshot_of_three_nodes_that_write_is_of_one_moment_also_while_the_epoch_is_rotated() {
    let world = World::start();
    let (over, numbers) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut files: Vec<(&str, PathBuf)> = Vec::new();
    let old = std::thread::scope(|scope| {
        let end = End(&over);
        let writers: Vec<_> = (0..3)
            .map(|index| {
                let (world, over, numbers) = (&world, &over, &numbers);
                scope.spawn(move || write_pairs(world, index, over, numbers))
            })
            .collect();
        for number in 0..3 {
            let file = world.hosts.shared(&format!("calm{number}.snapshot"));
            let taken = snapshot(&world, number, &file).ok();
            assert_eq!(taken.json()["quarantined"]["count"], 0);
            files.push(("beside writers", file));
        }
        let old = entries(&world, "KV_UNIBUS_control");
        let rotation = scope.spawn(|| {
            let store = format!("kv:{}", world.servers(0));
            world.migrate(0, ["rotate", "epoch", &store, "--json", "--yes", "--no-drill"]).run()
        });
        let mut number = 0;
        while !rotation.is_finished() {
            let file = world.hosts.shared(&format!("moving{number}.snapshot"));
            let taken = snapshot(&world, number % 3, &file).ok();
            assert_eq!(taken.json()["quarantined"]["count"], 0, "{}", taken.said());
            files.push(("during a rotation", file));
            number += 1;
            std::thread::park_timeout(std::time::Duration::from_millis(200));
        }
        rotation.join().unwrap().ok();
        let file = world.hosts.shared("after.snapshot");
        snapshot(&world, 1, &file).ok();
        files.push(("after it", file));
        drop(end);
        let mut done = 0;
        for writer in writers {
            let (pairs, failed) = writer.join().unwrap();
            assert!(failed.is_empty(), "{failed:?}");
            done += pairs;
        }
        println!("{done} pairs were written, none failed");
        old
    });
    println!("| snapshot | sequence | epoch | first | second |\n|---|---|---|---|---|");
    let mut last = 0;
    // All of the first and the last, and some of those between.
    let step = files.len().div_ceil(12);
    let picked = |number: usize| number < 3 || number + 3 > files.len() || number.is_multiple_of(step);
    for (when, file) in files.iter().enumerate().filter(|(number, _)| picked(*number)).map(|(_, file)| file) {
        // Anybody can check it.
        let url = format!("snapshot:{}", file.display());
        let verified = unibus_tests::Program::ours("unibus-migrate").args(["verify", "--json", &url]).run();
        assert!([0, 9].contains(&verified.code), "{}", verified.said());
        let verified = verified.json();
        let (first, second) = pairs(&handles(&world, file));
        let sequence = verified["sequence"].as_u64().unwrap();
        assert!(sequence > last, "an older moment than the one before");
        last = sequence;
        let epoch = verified["epochs"].as_array().unwrap().len();
        println!("| {when} | {sequence} | {epoch} | {first} | {second} |");
    }
    assert!(files.len() > 5, "only {} snapshots", files.len());
    what_a_thief_learns(&world);
    quarantine(&world, &old);
}

/// What `--leakage` says of each node is what lies there.
fn what_a_thief_learns(world: &World) {
    world.wait_same_digest();
    for index in 0..3 {
        let kv = format!("kv:{}", world.servers(index));
        let audit = world.migrate(index, ["audit", "--json", "--leakage", &kv]);
        let audit = audit.option("--data-dir", world.hosts.path(index, "nats")).run().ok().json();
        let streams = audit["leakage"]["streams"].as_array().unwrap();
        assert!(streams.iter().all(|one| one["name"] != "KV_UNIBUS_control"), "{audit}");
        let log = streams.iter().find(|one| one["name"] == "KV_UNIBUS_control_2").unwrap();
        let number = |name: &str| log[name].as_u64().unwrap_or_else(|| panic!("{name}: {log}"));
        let now = entries(world, "KV_UNIBUS_control_2");
        // Heartbeats go on: each is another entry, under a name that is there already, and may be missed here.
        let names: BTreeSet<_> = now.iter().map(|(subject, _)| subject).collect();
        let missed = number("names").checked_sub(names.len() as u64).unwrap_or_else(|| panic!("{log}"));
        assert!(missed <= 3, "{missed} names too many: {log}");
        assert!(number("entries") >= number("names"), "{log}");
        let sizes: u64 =
            log["sizes"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum();
        assert_eq!(sizes, number("entries"), "{log}");
        assert_eq!(log["nodes"], serde_json::json!(["host1", "host2", "host3"]), "{log}");
        let epochs: Vec<_> = log["epochs"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(epochs, ["1", "2"], "{log}");
        let documents: BTreeSet<_> = names
            .iter()
            .filter_map(|name| name.split_once(".doc."))
            .map(|(_, name)| name.to_owned())
            .collect();
        let said: BTreeSet<_> =
            log["documents"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect();
        assert_eq!(said, documents, "{log}");
        assert!(number("last_sequence") > 1 << 40, "{log}");
        let envelopes = audit["report"]["envelopes"].as_object().unwrap();
        assert_eq!(envelopes.keys().collect::<Vec<_>>(), ["2"], "{audit}");
        println!(
            "host{}: {} entries, {} names, envelopes {envelopes:?}",
            index + 1,
            number("entries"),
            names.len()
        );
    }
}

/// Entries of the epoch whose key is destroyed are put back, by somebody who may write to the servers.
fn quarantine(world: &World, old: &[(String, Vec<u8>)]) {
    let records = world
        .migrate(0, ["status", "--json", &format!("kv:{}", world.servers(0))])
        .run()
        .ok()
        .json()["records"]
        .clone();
    let sealed: Vec<_> = old.iter().filter(|(subject, _)| !subject.contains(".doc.")).collect();
    let planted: Vec<u64> = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = client(world).await;
        let mut planted = Vec::new();
        for (subject, payload) in sealed.iter().rev().take(2) {
            let subject = subject
                .replace("KV_UNIBUS_control", "KV_UNIBUS_control_2")
                .replace("$KV.UNIBUS_control.", "$KV.UNIBUS_control_2.");
            planted.push(put(&client, subject, payload).await);
        }
        planted
    });
    let kv = format!("kv:{}", world.servers(1));
    let named = |list: &serde_json::Value| -> BTreeSet<u64> {
        list.as_array()
            .unwrap_or_else(|| panic!("{list}"))
            .iter()
            .filter_map(|one| one["sequence"].as_u64())
            .collect()
    };
    let planted: BTreeSet<u64> = planted.into_iter().collect();
    let verified = world.migrate(1, ["verify", "--json", &kv]).run().exits(4).json();
    assert!(named(&verified["unsound"]).is_superset(&planted), "{planted:?}: {verified}");
    assert_eq!(verified["records"], records, "{verified}");
    let saved = snapshot(world, 2, &world.hosts.shared("saved.snapshot")).exits(8).json();
    assert!(named(&saved["quarantined"]["entries"]).is_superset(&planted), "{saved}");
    assert_eq!(saved["records"], records, "{saved}");
    let to = format!("sqlcipher:{}", world.hosts.shared("copied/control.db").display());
    let copied = world.migrate(1, ["copy", "--json", "--yes", "--from", &kv, "--to", &to]);
    let copied = copied.option("--from-state-dir", world.hosts.path(1, "state"));
    let copied = copied.env("UNIBUS_STATE_DIR", world.hosts.shared("copied/state")).run().exits(8).json();
    assert!(named(&copied["quarantined"]["entries"]).is_superset(&planted), "{copied}");
    // What is sound is looked for on the disk all the same; and that something was not is said.
    let audit = world.migrate(1, ["audit", "--json", &kv]).option("--data-dir", world.hosts.path(1, "nats"));
    let audit = audit.run().exits(8).json();
    assert_eq!(
        (&audit["residue"], &audit["quarantined"]["count"]),
        (&"none".into(), &saved["quarantined"]["count"]),
        "{audit}"
    );
    println!("planted at {planted:?}: {}", saved["quarantined"]["entries"]);
}
